"""Appends a timestamp each second to a stream that is exported to Kinesis in batches of ten.

It needs a Stream Manager on 127.0.0.1:8088 (or the port in STREAM_MANAGER_SERVER_PORT), and there an export to Kinesis:
AWS with credentials that allow kinesis:PutRecords, or whatever leat's stream_manager.exports.destinations name.

    pip install -r requirements.txt
    python kinesis_sample.py
    python kinesis_sample.py --count 100 --pause 0.01    # a hundred quick ones
"""

import argparse
import time
from datetime import datetime, timezone

from stream_manager import (
    ExportDefinition,
    KinesisConfig,
    MessageStreamDefinition,
    ResourceNotFoundException,
    StrategyOnFull,
    StreamManagerClient,
)


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--stream", default="MyStream", help="name of the stream on this machine")
    p.add_argument("--kinesis-stream", default="stream-sample", help="name of the stream in Kinesis")
    p.add_argument("--batch-size", type=int, default=10, help="records of one PutRecords")
    p.add_argument("--count", type=int, default=0, help="end after so many messages (0: never)")
    p.add_argument("--pause", type=float, default=1.0, help="seconds between messages")
    return p.parse_args()


def recreate(client, stream, kinesis_stream, batch_size):
    """Makes the stream anew; what an earlier run left in it is gone."""
    try:
        client.delete_message_stream(stream)
    except ResourceNotFoundException:
        pass  # the first run
    export = KinesisConfig(identifier="KinesisExport" + stream, kinesis_stream_name=kinesis_stream, batch_size=batch_size)
    client.create_message_stream(
        MessageStreamDefinition(
            name=stream,
            strategy_on_full=StrategyOnFull.OverwriteOldestData,
            export_definition=ExportDefinition(kinesis=[export]),
        )
    )


def main():
    a = parse()
    with StreamManagerClient() as client:
        recreate(client, a.stream, a.kinesis_stream, a.batch_size)
        sent = 0
        while a.count == 0 or sent < a.count:
            now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
            sequence_number = client.append_message(a.stream, f"timestamp: {now}".encode())
            print(sequence_number, now, flush=True)
            sent += 1
            time.sleep(a.pause)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
