"""Tables of committed records: ``python -m bench.report bench/results/*.json --into README.md bench/README.md``.

A page holds a table between ``<!-- table: NAME of FILE -->`` and ``<!-- end of table -->``; FILE is that of a machine,
without its suffix, or left out where the records of all files are meant.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    "export": tables.export,
    "layers": tables.layers,
    "layers-each": tables.layers_each,
    "memory": tables.memory,
    "accuracy": tables.accuracy,
    "agreement": tables.agreement,
    "fps": tables.fps,
    "params": tables.params,
    "train": tables.train,
    "feeding": tables.feeding,
    "tracking": tables.tracking,
    "annotate": tables.annotate,
    "labelling": tables.labelling,
    "compat": tables.compat,
    "service": tables.service,
}
PLACE = re.compile(r"(<!-- table: ([\w-]+)(?: of ([\w-]+))? -->\n).*?(<!-- end of table -->)", re.DOTALL)


def render(name: str, records: Sequence[Record]) -> str:
    """A table in Markdown with its conditions above it; empty where its case was not measured."""
    measured = any(r.case == name.split("-")[0] for r in records)
    return "\n".join(TABLES[name](list(records))) if measured else ""


def fill(page: str, files: Mapping[str, Sequence[Record]]) -> str:
    """A page with every table that the records give put in its place; ``files`` are named as in the places."""

    def table(place: re.Match[str]) -> str:
        head, name, file, end = place.groups()
        chosen = files.get(file, ()) if file else [record for records in files.values() for record in records]
        rendered = render(name, chosen)
        return f"{head}{rendered}\n{end}" if rendered else place[0]

    return PLACE.sub(table, page)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--table", choices=TABLES, nargs="+", default=list(TABLES), help="print these")
    parser.add_argument("--into", nargs="+", type=Path, help="instead of printing, put the tables into these pages")
    arguments = parser.parse_args()
    files = {file.stem: read(file) for file in arguments.files}
    for page in arguments.into or ():
        page.write_text(fill(page.read_text(encoding="utf-8"), files), encoding="utf-8")
    if not arguments.into:
        records = [record for found in files.values() for record in found]
        print("\n\n".join(filter(None, (render(name, records) for name in arguments.table))))


if __name__ == "__main__":
    main()
