"""README tables from committed records: ``python -m bench.report bench/results/*.json``."""

import argparse
from pathlib import Path

from bench.record import Record, read


def head_table(records: list[Record], shape: str) -> str:
    """A Markdown table of the head case at one shape, its conditions in the line above."""
    chosen = [r for r in records if r.case == "head" and r.shape.startswith(shape)]
    if not chosen:
        raise ValueError(f"no head records of shape {shape!r}")
    first = chosen[0]
    known = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    lines = [
        f"{first.device}; {first.dtype}, {first.shape}; medians (20th to 80th percentile) of {first.runs} interleaved "
        f"rounds; {known}; commit {first.commit}",
        "",
        "| head and decoding | threads | ms | against the faster rival |",
        "| --- | ---: | ---: | ---: |",
    ]
    for record in chosen:
        if record.metric != "latency":
            continue
        ratio = next(r for r in chosen if r.subject == record.subject and r.threads == record.threads and r.unit == "x")
        spread = f"{record.median} ({record.p20} to {record.p80})"
        lines.append(f"| {record.subject} | {record.threads} | {spread} | {ratio.median}x |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--shape", default="B=1 C=512 8x8 N=98 K=10")
    arguments = parser.parse_args()
    for file in arguments.files:
        print(head_table(read(file), arguments.shape), end="\n\n")


if __name__ == "__main__":
    main()
