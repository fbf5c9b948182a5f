"""Parquet files that appear whole or not at all, each with the identity of the table that it is a part of."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipnet_fast._errors import first_line
from pipnet_fast._files import write_whole
from pipnet_fast.data._optional import import_optional
from pipnet_fast.data.errors import DataError

# Where Parquet's own metadata have the identity of a table.
_KEY = b"pipnet_fast"


def arrow(module: str = "pyarrow") -> Any:
    """The module pyarrow, or one of its own.

    Raises:
        ImportError: it is missing; says how to get it.
    """
    return import_optional(module, "a table in Parquet files", "selftrain")


def write_part(
    path: str | os.PathLike[str],
    table: Any,
    identity: Mapping[str, Any],
    *,
    one_writer: bool,
    dictionaries: Sequence[str] = (),
) -> None:
    """Write a table by ``write_whole``; the disk has it when this returns.

    Args:
        path: the file.
        table: pyarrow's.
        identity: in plain values.
        one_writer: nobody else writes this file meanwhile.
        dictionaries: columns that have few different values.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    table = table.replace_schema_metadata({_KEY: json.dumps(dict(identity))})
    # Numbers hardly repeat, so compression gains nothing. Without checksums damaged ones might read as others.
    options = {"compression": "none", "use_dictionary": list(dictionaries) or False, "write_page_checksum": True}
    parquet = arrow("pyarrow.parquet")
    write_whole(path, lambda file: parquet.write_table(table, file, **options), one_writer=one_writer, durable=True)


def read_part(path: Path) -> Any:
    """A table.

    Raises:
        DataError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return file.read()


def part_identity(path: Path) -> dict[str, Any]:
    """The identity in a file, of which only the end is read; empty where there is none.

    Raises:
        DataError: the file is missing, or has no end.
    """
    with _opened(path) as file:
        return schema_identity(file.schema_arrow)


def schema_identity(schema: Any) -> dict[str, Any]:
    """The identity with a table's columns; empty where there is none."""
    try:
        identity = json.loads((schema.metadata or {}).get(_KEY, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return identity if isinstance(identity, dict) else {}


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The values that are not as expected, by name."""
    names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    return "; ".join(f"{name}: {found.get(name)!r:.100}, not {expected.get(name)!r:.100}" for name in names)


def text(value: str) -> str:
    """As UTF-8 can have it; names of files may hold any byte."""
    return value.encode(errors="backslashreplace").decode()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A Parquet file; what goes wrong with it is a DataError, unless it may not be read."""
    parquet = arrow("pyarrow.parquet")
    try:
        with open(path, "rb") as file:
            yield parquet.ParquetFile(file, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except PermissionError:
        raise
    except Exception as error:  # damaged files raise half a dozen types
        raise DataError(f"{path}: not a readable Parquet file: {first_line(error)}") from None
