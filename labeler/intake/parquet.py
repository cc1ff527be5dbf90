"""A program of its own: a Parquet file becomes lines of JSON, a row each, and is given no
more memory than an import may take. A page or a worker reads along; a file that unpacks to more than that,
or that breaks the library, ends this process and no other.

It is run by its path, so that it loads neither Django nor the rest of the package."""

import json
import math
import os
import resource
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

MEMORY = 1024 * 1024 * 1024  # bytes, beyond what the library itself takes
A_BATCH = 256  # rows
REFUSED = 3


class Odd(ValueError):
    """A value that no line can hold, in words."""


def main(path: str, longest: int, most: int) -> None:
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    import pyarrow as pa
    import pyarrow.parquet as pq

    limit_memory()
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        names = file.schema_arrow.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            refuse(f"Its column “{twice[0]}” is there more than once.")
        if file.metadata.num_rows > most:
            refuse(f"It has more than {most:,} rows. Split it.")
        say({"columns": names, "rows": file.metadata.num_rows})
        for batch in file.iter_batches(A_BATCH, use_threads=False):
            for row in batch.to_pylist():
                say(line(row, longest))
    except (MemoryError, pa.ArrowMemoryError):
        refuse(f"It unpacks to more than the {MEMORY // 1024**2:,} MB of memory that an import may take.")
    except (pa.ArrowException, OSError, ValueError) as error:
        refuse(
            f"It cannot be read as Parquet: {str(error).splitlines()[0][:300] if str(error) else 'no reason'}"
        )


def line(row: dict[str, Any], longest: int) -> dict[str, Any] | str:
    """The row without its empty cells, or why it cannot be one."""
    try:
        kept = {name: plain(value) for name, value in row.items()}
    except Odd as odd:
        return str(odd)
    kept = {name: value for name, value in kept.items() if value is not None}
    if len(json.dumps(kept, ensure_ascii=False).encode(errors="replace")) > longest:
        return f"it is longer than {longest:,} bytes."
    return kept


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else finite(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, timedelta)):
        return str(value)
    raise Odd(f"it holds a value of a kind that cannot be kept ({type(value).__name__}).")


def finite(value: float) -> float:
    if math.isinf(value):
        raise Odd("it holds a number that is infinite.")
    return value


def limit_memory() -> None:
    """From what is taken now. A system that does not know how much that is sets no limit."""
    status = Path("/proc/self/statm")
    if status.exists():
        taken = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def refuse(words: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(words)
    sys.exit(REFUSED)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read along has seen enough
        os._exit(0)
