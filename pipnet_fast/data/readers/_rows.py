"""Rows of people's own data: CSV, JSON and plain lists of files, as ``table`` documents them."""

import csv
import json
import re
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NamedTuple

import numpy as np

from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._files import as_floats, check_box, read_lines
from pipnet_fast.data.samples import Points

_BOX = ("box_x0", "box_y0", "box_x1", "box_y1")
_MISSING = ("", "nan", "na", "null", "none")
_NAN = float("nan")


class Row(NamedTuple):
    """One face as the file has it."""

    where: str
    """File and line, for messages."""
    file: str
    landmarks: Points | None
    """(N, 2), NaN where missing; None in a file without landmarks."""
    box: Points | None
    """(4,), or None."""
    subsets: tuple[str, ...]


def read_rows(path: Path, bad: BadSamples) -> list[Row]:
    """The rows of a file, by its suffix.

    Raises:
        DataError: the file is missing or not in its format; or, unless bad rows are skipped, a row is not.
    """
    return {".csv": _read_csv, ".json": _read_json, ".txt": _read_names}[path.suffix](path, bad)


def _read_names(path: Path, bad: BadSamples) -> list[Row]:
    lines = enumerate(read_lines(path), start=1)
    return [Row(f"{path}, line {number}", line.strip(), None, None, ()) for number, line in lines if line.strip()]


def _read_csv(path: Path, bad: BadSamples) -> list[Row]:
    lines = read_lines(path)
    # Spreadsheets write semicolons where the comma is in the numbers.
    delimiter = max(",;\t", key=lines[0].count)
    table = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(table)]
        columns = {name: index for index, name in enumerate(header) if name}
        points = _point_columns(path, header)
        boxed = _all_or_none(path, _BOX, columns)
        for cells in table:
            where = f"{path}, line {table.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            with bad.guard(where):
                if len(cells) != len(header):
                    raise DataError(f"{where}: expected {len(header)} cells as in the header, got {len(cells)}")
                file = cells[columns["file"]].strip()
                landmarks = _labels(_cells(cells, points, where), where) if points else None
                box = _box(_cells(cells, [columns[name] for name in _BOX], where), where) if boxed else None
                subsets = tuple(cells[columns["subset"]].split()) if "subset" in columns else ()
                rows.append(_named(Row(where, file, landmarks, box, subsets)))
    except csv.Error as error:
        raise DataError(f"{path}, line {table.line_num}: {error}") from None
    return rows


def _point_columns(path: Path, header: list[str]) -> list[int]:
    """Where x0, y0, x1, y1, ... stand."""
    names = [name for name in header if name]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}, line 1: expected every column once, got {shortened(twice)} twice")
    if "file" not in names:
        raise DataError(f"{path}, line 1: expected a column 'file', got {shortened(header)}")
    found = {name for name in names if re.fullmatch("[xy][0-9]+", name)}
    wanted = [f"{axis}{index}" for index in range(len(found) // 2) for axis in "xy"]
    if found != set(wanted):
        odd = sorted(found ^ set(wanted))[0]
        raise DataError(f"{path}, line 1: expected columns x0, y0, x1, y1, ... without a gap, see {shortened(odd)}")
    return [header.index(name) for name in wanted]


def _all_or_none(path: Path, names: tuple[str, ...], columns: dict[str, int]) -> bool:
    missing = [name for name in names if name not in columns]
    if missing and len(missing) < len(names):
        raise DataError(f"{path}, line 1: expected all of {', '.join(names)} or none, {missing[0]} is missing")
    return not missing


def _cells(cells: list[str], columns: list[int], where: str) -> list[float]:
    """Numbers of some columns, NaN where a cell is empty."""
    chosen = [cells[column].strip() for column in columns]
    try:
        return as_floats(chosen, where)
    except DataError:  # rarer: some are missing, or one is damaged
        return [_NAN if cell.lower() in _MISSING else as_floats([cell], where)[0] for cell in chosen]


def _read_json(path: Path, bad: BadSamples) -> list[Row]:
    try:
        faces = json.loads("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise DataError(f"{path}: {error}") from None
    if not isinstance(faces, list):
        raise DataError(f"{path}: expected a list of faces, got {type(faces).__name__}")
    rows: list[Row] = []
    count = None
    for number, face in enumerate(faces, start=1):
        where = f"{path}, face {number}"
        with bad.guard(where):
            row = _json_row(face, where)
            if row.landmarks is not None:
                count = count or len(row.landmarks)
                if len(row.landmarks) != count:
                    raise DataError(f"{where}: expected {count} landmarks as before, got {len(row.landmarks)}")
            rows.append(row)
    return rows


def _json_row(face: Any, where: str) -> Row:
    if not isinstance(face, dict) or not isinstance(face.get("file"), str):
        raise DataError(f'{where}: expected an object with "file", got {shortened(face)}')
    points, box, subsets = face.get("landmarks"), face.get("box"), face.get("subsets", [])
    if not isinstance(subsets, list) or not all(isinstance(name, str) for name in subsets):
        raise DataError(f'{where}: expected "subsets" to be a list of names, got {shortened(subsets)}')
    landmarks = None
    if points is not None:
        if not isinstance(points, list) or not points:
            raise DataError(f'{where}: expected "landmarks" to be a list of [x, y] or null, got {shortened(points)}')
        pairs = [(None, None) if point is None else point for point in points]
        landmarks = _labels([value for pair in pairs for value in _json_numbers(pair, 2, where)], where)
    return _named(
        Row(
            where,
            face["file"],
            landmarks,
            None if box is None else _box(_json_numbers(box, 4, where), where),
            tuple(subsets),
        )
    )


def _json_numbers(values: Any, count: int, where: str) -> list[float]:
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise DataError(f"{where}: expected {count} numbers, got {shortened(values)}")
    return [_json_number(value, where) for value in values]


def _json_number(value: Any, where: str) -> float:
    if value is None or value != value:
        return _NAN
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{where}: expected a number, got {shortened(value)}")
    return as_floats([str(value)], where)[0]


def _labels(values: list[float], where: str) -> Points:
    points = np.array(values).reshape(-1, 2)
    missing = np.isnan(points)
    half = np.flatnonzero(missing[:, 0] != missing[:, 1])
    if len(half):
        raise DataError(f"{where}: expected both x and y of landmark {half[0]}, or neither")
    return points


def _box(values: list[float], where: str) -> Points | None:
    return None if np.isnan(values).all() else check_box(values, where)


def _named(row: Row) -> Row:
    if not row.file:
        raise DataError(f"{row.where}: expected the name of an image file, got none")
    return row
