"""Appends with the official SDK for some seconds and prints the appends per second: one measurement of test/bench."""
import sys
import time

from stream_manager import (
    MessageStreamDefinition,
    Persistence,
    ResourceNotFoundException,
    StrategyOnFull,
    StreamManagerClient,
)

port, name, flush, size, seconds = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "true", int(sys.argv[4]), float(sys.argv[5])
client = StreamManagerClient(port=port)
try:
    client.delete_message_stream(name)
except ResourceNotFoundException:
    pass
client.create_message_stream(
    MessageStreamDefinition(
        name=name,
        strategy_on_full=StrategyOnFull.OverwriteOldestData,
        persistence=Persistence.File,
        flush_on_write=flush,
    )
)
payload, count, began = bytes(size), 0, time.monotonic()
while time.monotonic() - began < seconds:
    client.append_message(name, payload)
    count += 1
print(count / (time.monotonic() - began))
client.close()
