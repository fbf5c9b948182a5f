"""Tables on the terminal and in files."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def aligned(rows: Sequence[Sequence[str]], names: int) -> list[str]:
    """Lines of rows of cells in columns: the first ``names`` of them to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = [f"{'<' if place < names else '>'}{width}" for place, width in enumerate(widths)]
    return ["  ".join(map(format, row, columns)).rstrip() for row in rows]


def write_rows(rows: Sequence[Mapping[str, Any]], folder: Path, name: str) -> None:
    """Write rows of plain values, at least one, as NAME.csv and NAME.json into a folder."""
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    # File names need not be UTF-8, but tables must be.
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
