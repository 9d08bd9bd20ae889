"""Reads a lake directory with pyarrow and prints what it holds as JSON, in the form that readers_test.go compares."""

import json
import sys

import pyarrow.compute as pc
import pyarrow.dataset as ds


def millis(t):
    return None if t is None else int(round(t.timestamp() * 1000))


def utc(t):
    import datetime

    return None if t is None else t.replace(tzinfo=datetime.timezone.utc)


def samples(path):
    table = ds.dataset(path, format="parquet", partitioning="hive").to_table()
    types = {name: str(table.schema.field(name).type) for name in ("ts", "value", "signal", "text", "site")}
    partitions = {}
    for day in table.column("day").to_pylist():
        partitions[str(day)] = partitions.get(str(day), 0) + 1
    out = {}
    for row in table.select(["signal", "ts", "value"]).to_pylist():
        out.setdefault(row["signal"], []).append((millis(utc(row["ts"])), row["value"]))
    signals = {}
    for name, rows in out.items():
        rows.sort()
        values = [v for _, v in rows]
        signals[name] = {
            "n": len(rows), "min": min(values), "max": max(values), "sum": sum(values),
            "first": values[:20], "from": rows[0][0], "to": rows[-1][0],
        }
    return types, partitions, signals


def messages(path):
    # The files differ in their columns, as the table was widened: the union is read.
    files = ds.dataset(path, format="parquet").files
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pq.ParquetFile(f).read() for f in files]
    table = pa.concat_tables(tables, promote_options="default")
    table = table.take(pc.sort_indices(table, sort_keys=[("_seq", "ascending")]))
    rows = []
    for row in table.to_pylist():
        clean = {}
        for name, value in row.items():
            if value is None:
                continue
            if name in ("ts", "_received", "at"):
                value = millis(utc(value))
            elif isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            clean[name] = value
        rows.append(clean)
    return rows


def main():
    root = sys.argv[1]
    types, partitions, signals = samples(root + "/samples")
    json.dump(
        {"types": types, "partitions": partitions, "signals": signals, "messages": messages(root + "/messages")},
        sys.stdout,
    )


main()
