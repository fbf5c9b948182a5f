"""Tables of committed records: ``python -m bench.report bench/results/amd-epyc.json``."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import tables
from bench.record import Record, read

Table = Callable[[list[Record]], Iterator[str]]

# Every table of a case, in the order of the report.
TABLES: dict[str, Table] = {
    "head": tables.head,
    "head-sweep": tables.head_sweep,
    "e2e": tables.e2e,
    "throughput": tables.throughput,
    "fps": tables.fps,
    "params": tables.params,
    "train": tables.train,
}


def render(name: str, records: Sequence[Record]) -> str:
    """A table in Markdown with its conditions above it; empty where its case was not measured."""
    measured = any(r.case == name.split("-")[0] for r in records)
    return "\n".join(TABLES[name](list(records))) if measured else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("file", type=Path)
    parser.add_argument("--table", choices=TABLES, nargs="+", default=list(TABLES))
    arguments = parser.parse_args()
    records = read(arguments.file)
    print("\n\n".join(filter(None, (render(name, records) for name in arguments.table))))


if __name__ == "__main__":
    main()
