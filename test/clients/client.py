"""Drives an unmodified Python SDK for a test: one JSON command per line in, one JSON answer per line out.

Usage: client.py MODULE, with MODULE stream_manager or greengrasssdk.stream_manager.

Definitions and options have the protocol's own names, which the SDK's from_dict understands; payloads are base64. An
answer is {"ok": {...}}, or {"error": <name of the exception>, "message": ...}.
"""

import asyncio
import base64
import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor

sdk = importlib.import_module(sys.argv[1])
data = importlib.import_module(sys.argv[1] + ".data")


class Driver:
    """One client at a time, and the commands."""

    def __init__(self):
        self.client = None
        self.reading = None

    def connect(self, requestTimeout=20):
        if self.client is not None:
            try:
                self.client.close()
            except OSError:
                pass  # its connection is gone already: that is why a new one is wanted
            self.client = None
        self.client = sdk.StreamManagerClient(request_timeout=requestTimeout)

    def close(self):
        self.client.close()

    def create(self, definition):
        self.client.create_message_stream(data.MessageStreamDefinition.from_dict(definition))

    def update(self, definition):
        self.client.update_message_stream(data.MessageStreamDefinition.from_dict(definition))

    def delete(self, name):
        self.client.delete_message_stream(name)

    def list(self):
        return {"streams": self.client.list_streams()}

    def describe(self, name):
        return {"info": self.client.describe_message_stream(name).as_dict()}

    def append(self, name, payload):
        return {"sequenceNumber": self.client.append_message(name, base64.b64decode(payload))}

    def read(self, name, options=None):
        return self.messages(self.client.read_messages(name, self.options(options)))

    def begin(self, name, options=None):
        """Starts a read that finish ends. What read_messages runs is put on the client's loop without waiting for it."""
        loop = getattr(self.client, "_StreamManagerClient__loop")
        self.reading = asyncio.run_coroutine_threadsafe(self.client._read_messages(name, self.options(options)), loop)

    def finish(self):
        return self.messages(self.reading.result())

    @staticmethod
    def options(options):
        return None if options is None else data.ReadMessagesOptions.from_dict(options)

    @staticmethod
    def messages(messages):
        return {
            "messages": [
                {
                    "streamName": m.stream_name,
                    "sequenceNumber": m.sequence_number,
                    "ingestTime": m.ingest_time,
                    "payload": base64.b64encode(m.payload).decode(),
                }
                for m in messages
            ]
        }

    def parallel(self, name, workers, each):
        """Appends "<worker> <number>" from several threads of one client."""

        def work(worker):
            return [self.client.append_message(name, b"%d %d" % (worker, i)) for i in range(each)]

        with ThreadPoolExecutor(workers) as pool:
            return {"sequenceNumbers": [list(s) for s in pool.map(work, range(workers))]}

    def unknown(self):
        """Sends an operation that is no request: a server knows it as little as one of a later protocol."""
        request = data.ListStreamsRequest()
        send = getattr(self.client, "_StreamManagerClient__send_and_receive")
        loop = getattr(self.client, "_StreamManagerClient__loop")
        answer = asyncio.run_coroutine_threadsafe(send(data.Operation.ListStreamsResponse, data=request), loop).result()
        importlib.import_module(sys.argv[1] + ".utilinternal").UtilInternal.raise_on_error_response(answer)


def main():
    driver = Driver()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": getattr(driver, command.pop("do"))(**command) or {}}
        except Exception as e:  # every failure is an answer: the test decides whether it is the right one
            answer = {"error": type(e).__name__, "message": str(e.args[0]) if e.args else ""}
        print(json.dumps(answer), flush=True)


main()
