"""Landmarks that others predicted, in the formats they are published in."""

import os
from pathlib import Path

import numpy as np

from pipnet_fast.data.errors import DataError
from pipnet_fast.data.readers._checks import ONE_BASED
from pipnet_fast.data.readers._files import as_floats, read_lines
from pipnet_fast.data.samples import Points


def read_cofw68_predictions(path: str | os.PathLike[str]) -> Points:
    """Predictions for COFW-68, in the format of the files in ``Results`` of the repository cofw68-benchmark.

    Four lines a face, in any order of the faces: its number from 1, 68 x, 68 y, 68 times 0 or 1 for occlusion.

    Returns:
        (n, 68, 2) in continuous px, in the order of the faces' numbers, which is that of ``cofw68``'s test set.

    Raises:
        DataError: the file is missing, a line is damaged, or a face is missing or there twice.
    """
    path = Path(path)
    lines = read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or len(lines) % 4:
        raise DataError(f"{path}: expected four lines a face, got {len(lines)} lines")
    faces: dict[float, Points] = {}
    for start in range(0, len(lines), 4):
        number = _numbers(lines[start], 1, f"{path}, line {start + 1}")[0]
        if number in faces or number not in range(1, len(lines) // 4 + 1):
            wanted = f"a number of 1..{len(lines) // 4} that no face had before"
            raise DataError(f"{path}, line {start + 1}: expected {wanted}, got {number:g}")
        x, y = (_numbers(lines[start + row], 68, f"{path}, line {start + row + 1}") for row in (1, 2))
        faces[number] = np.stack((x, y), axis=1) + ONE_BASED
    return np.stack([faces[number] for number in sorted(faces)])


def _numbers(line: str, count: int, where: str) -> Points:
    words = line.split()
    if len(words) != count:
        raise DataError(f"{where}: expected {count} numbers, got {len(words)}")
    return np.array(as_floats(words, where))
