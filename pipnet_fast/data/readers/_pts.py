"""The ``.pts`` files of ibug (300W, 300VW, Menpo, MERL-RAV): text, counted from 1, one landmark a line.

``version: 1``, ``n_points: 68``, ``{``, the points, ``}``. Seen in real files: ``1`` and ``1.0``, one blank or two
after the colon, CRLF, blanks after the numbers, no newline or an empty line at the end. So only ``n_points`` and what
stands between the braces counts.
"""

import re
from collections.abc import Collection
from pathlib import Path
from reprlib import repr as shortened

import numpy as np

from pipnet_fast.data.errors import DataError
from pipnet_fast.data.readers._files import MAX_COORDINATE, as_floats, read_lines
from pipnet_fast.data.samples import Points

# 68 points with 17 digits a number are 3 kB.
MAX_PTS_BYTES = 1 << 20

_COUNT = re.compile(r"n_points\s*:\s*(\S+)")


def read_pts(path: Path, counts: Collection[int] = (68,)) -> Points:
    """(N, 2) landmarks of a file in continuous px: half a pixel less than the file's numbers, which count from 1.

    Args:
        path: the file.
        counts: which N are expected.

    Raises:
        DataError: missing, truncated, not in the format, or another N.
    """
    lines = read_lines(path, MAX_PTS_BYTES)
    opening = next((index for index, line in enumerate(lines) if line.lstrip().startswith("{")), None)
    if opening is None:
        raise DataError(f"{path}: expected a .pts file with points between {{ and }}, found no line with {{")
    closing = next((index for index in range(len(lines) - 1, opening, -1) if "}" in lines[index]), None)
    if closing is None:
        raise DataError(f"{path}, line {len(lines)}: expected }} after the points, the file ends before it")

    stated = _stated_count(path, lines[:opening], counts)
    rows = [lines[opening].lstrip()[1:], *lines[opening + 1 : closing], lines[closing].rpartition("}")[0]]
    try:
        points = np.array(" ".join(rows).split(), dtype=np.float64)
    except ValueError:
        points = np.empty(0)
    if len(points) != 2 * stated or not (np.abs(points) <= MAX_COORDINATE).all():
        raise _what_is_wrong(path, rows, opening + 1, stated)
    return points.reshape(-1, 2) - 0.5


def _what_is_wrong(path: Path, rows: list[str], first: int, stated: int) -> DataError:
    """Looks at points line by line, for which a sound file need not wait; ``first`` is the number of the first."""
    found = 0
    for number, row in enumerate(rows, start=first):
        tokens = row.split()
        if len(tokens) not in (0, 2):
            return DataError(f"{path}, line {number}: expected x and y, got {shortened(row.strip())}")
        try:
            found += len(as_floats(tokens, f"{path}, line {number}")) // 2
        except DataError as error:
            return error
    return DataError(f"{path}, line {first + len(rows) - 1}: expected {stated} points before }}, got {found}")


def _stated_count(path: Path, header: list[str], counts: Collection[int]) -> int:
    for number, line in enumerate(header, start=1):
        if match := _COUNT.search(line):
            expected = [count for count in counts if str(count) == match[1]]
            if not expected:
                wanted = " or ".join(map(str, counts))
                raise DataError(f"{path}, line {number}: expected n_points {wanted}, got {shortened(match[1])}")
            return expected[0]
    raise DataError(f"{path}: expected n_points before {{, found none")
