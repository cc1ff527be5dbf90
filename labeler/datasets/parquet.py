"""A program of its own: rows of JSON on its standard input become a Parquet file on its standard output, a
row group at a time. The web process, which would keep the library's memory for ever, only feeds it.

It is run by its path, so that it loads neither Django nor the rest of the package."""

import json
import os
import sys
from typing import Any

A_GROUP = 8 * 1024 * 1024  # bytes of JSON


def main(columns: dict[str, str]) -> None:
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    sys.meta_path.insert(0, WithoutPandas())
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    one = {"text": pa.string(), "whole": pa.int64(), "real": pa.float64(), "flag": pa.bool_()}
    types = one | {f"{name}s": pa.list_(kind) for name, kind in one.items()} | {"messages": pa.list_(message)}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(pa.PythonFile(sys.stdout.buffer, mode="w"), schema, compression="zstd") as writer:
        for rows in groups():
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


class WithoutPandas:
    """Where pandas is installed, pyarrow loads it to ask whether a row is one of its tables. None is, and
    that takes three quarters of the whole time."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def groups() -> Any:
    """The rows, as many at a time as make a row group; one empty group where there are none."""
    rows, size, some = [], 0, False
    for raw in sys.stdin.buffer:
        rows.append(json.loads(raw))
        size += len(raw)
        if size >= A_GROUP:
            yield rows
            rows, size, some = [], 0, True
    if rows or not some:
        yield rows


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
