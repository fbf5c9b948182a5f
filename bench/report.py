"""Tables of committed records: ``python -m bench.report bench/results/amd-epyc.json --into README.md bench/README.md``.

A page holds a table between ``<!-- table: NAME -->`` and ``<!-- end of table -->``.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import tables
from bench.record import Record, read

Table = Callable[[list[Record]], Iterator[str]]

# Every table by name, which begins with its case.
TABLES: dict[str, Table] = {
    "head": tables.head,
    "head-layouts": tables.head_layouts,
    "head-sweep": tables.head_sweep,
    "e2e-short": tables.e2e_short,
    "e2e": tables.e2e,
    "throughput": tables.throughput,
    "layers": tables.layers,
    "layers-each": tables.layers_each,
    "memory": tables.memory,
    "agreement": tables.agreement,
    "fps": tables.fps,
    "params": tables.params,
    "train": tables.train,
    "feeding": tables.feeding,
}
PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def render(name: str, records: Sequence[Record]) -> str:
    """A table in Markdown with its conditions above it; empty where its case was not measured."""
    measured = any(r.case == name.split("-")[0] for r in records)
    return "\n".join(TABLES[name](list(records))) if measured else ""


def fill(page: str, records: Sequence[Record]) -> str:
    """A page with every table that the records give put in its place."""

    def table(place: re.Match[str]) -> str:
        rendered = render(place[2], records)
        return f"{place[1]}{rendered}\n{place[3]}" if rendered else place[0]

    return PLACE.sub(table, page)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--table", choices=TABLES, nargs="+", default=list(TABLES), help="print these")
    parser.add_argument("--into", nargs="+", type=Path, help="instead of printing, put the tables into these pages")
    arguments = parser.parse_args()
    records = [record for file in arguments.files for record in read(file)]
    for page in arguments.into or ():
        page.write_text(fill(page.read_text(encoding="utf-8"), records), encoding="utf-8")
    if not arguments.into:
        print("\n\n".join(filter(None, (render(name, records) for name in arguments.table))))


if __name__ == "__main__":
    main()
