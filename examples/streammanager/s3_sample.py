"""Uploads a file to S3 through a stream of tasks and follows its progress on a status stream.

The file stays where it is; after success it is this program's to delete. leat uploads only from the directories that
its setting stream_manager.exports.s3_directories lists.

    pip install -r requirements.txt
    python s3_sample.py /data/report.parquet my-bucket 'reports/!{timestamp:yyyy/MM/dd}/report.parquet'

Exit status: 0 uploaded, 1 failed or canceled, 2 no answer in time.
"""

import argparse
import pathlib
import sys
import time

from stream_manager import (
    ExportDefinition,
    MessageStreamDefinition,
    NotEnoughMessagesException,
    ReadMessagesOptions,
    ResourceNotFoundException,
    S3ExportTaskDefinition,
    S3ExportTaskExecutorConfig,
    Status,
    StatusConfig,
    StatusLevel,
    StatusMessage,
    StrategyOnFull,
    StreamManagerClient,
)
from stream_manager.util import Util

TASKS, STATUSES = "S3Tasks", "S3Statuses"


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("file", help="file to upload")
    p.add_argument("bucket")
    p.add_argument("key", help="may hold !{timestamp:yyyy/MM/dd} and the like")
    p.add_argument("--metadata", action="append", default=[], metavar="NAME=VALUE", help="user metadata of the object")
    p.add_argument("--patience", type=float, default=300, help="seconds to wait for the end of the upload")
    return p.parse_args()


def recreate(client):
    """Makes both streams anew: first the one for statuses, which the other names."""
    for name in (STATUSES, TASKS):
        try:
            client.delete_message_stream(name)
        except ResourceNotFoundException:
            pass  # the first run
    client.create_message_stream(MessageStreamDefinition(name=STATUSES, strategy_on_full=StrategyOnFull.OverwriteOldestData))
    executor = S3ExportTaskExecutorConfig(
        identifier="S3Export" + TASKS,
        status_config=StatusConfig(status_level=StatusLevel.INFO, status_stream_name=STATUSES),
    )
    client.create_message_stream(
        MessageStreamDefinition(
            name=TASKS,
            strategy_on_full=StrategyOnFull.OverwriteOldestData,
            export_definition=ExportDefinition(s3_task_executor=[executor]),
        )
    )


def statuses(client, patience):
    """Yields status messages as they come, each once."""
    next_number = 0
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        options = ReadMessagesOptions(
            desired_start_sequence_number=next_number, min_message_count=1, max_message_count=100, read_timeout_millis=1000
        )
        try:
            messages = client.read_messages(STATUSES, options)
        except NotEnoughMessagesException:
            continue
        for m in messages:
            next_number = m.sequence_number + 1
            yield Util.deserialize_json_bytes_to_obj(m.payload, StatusMessage)


def upload(client, task, patience):
    """Appends the task and waits for its end. Returns the exit status."""
    number = client.append_message(TASKS, Util.validate_and_serialize_to_json_bytes(task))
    for s in statuses(client, patience):
        if s.status_context.sequence_number != number:
            continue
        print(s.status.name, s.message or "", flush=True)
        if s.status == Status.Success:
            return 0
        if s.status in (Status.Failure, Status.Canceled):
            return 1
    print("no answer in time", file=sys.stderr)
    return 2


def main():
    a = parse()
    task = S3ExportTaskDefinition(
        input_url=pathlib.Path(a.file).resolve().as_uri(),
        bucket=a.bucket,
        key=a.key,
        user_metadata=dict(m.split("=", 1) for m in a.metadata) or None,
    )
    with StreamManagerClient() as client:
        recreate(client)
        return upload(client, task, a.patience)


if __name__ == "__main__":
    sys.exit(main())
