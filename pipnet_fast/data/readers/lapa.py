"""LaPa: 106 points; 18176 faces to train on, 2000 to validate with, 2000 to test on.

As the archive unpacks: ``{train,val,test}/images/*.jpg`` and ``{train,val,test}/landmarks/*.txt`` of the same stem,
also inside a folder ``LaPa``: a line ``106``, then a line ``x y`` for every landmark, counted from 0. The paper does
not use it; the crop is the one that the official code's author names.
"""

from pathlib import Path

import numpy as np

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._files import as_floats, box_of, find_folder, paired_files, read_lines
from pipnet_fast.data.samples import FaceData, Points, Sample
from pipnet_fast.layouts import load_layout

SPLITS = ("train", "val", "test")

_MAX_BYTES = 1 << 20


def read(root: Path, split: str, bad: BadSamples, *, scale: float = 1.2) -> FaceData:
    """Read a split.

    Args:
        root: folder with the unpacked archive.
        split: "train", "val" or "test".
        bad: takes what is wrong with single faces.
        scale: how much of the landmarks' tight box's sides the crop has.

    Raises:
        ValueError: ``scale`` out of its range.
        DataError: a folder is missing; or, unless bad faces are skipped, a file of a face is missing or damaged.
    """
    layout, crop = load_layout("lapa106"), CropRule(scale)
    folder = find_folder(root, split, f"LaPa/{split}")
    samples = []
    for image, labels in paired_files(folder / "images", folder / "landmarks", ".txt", bad):
        with bad.guard(str(labels)):
            landmarks = _read_landmarks(labels, layout.num_landmarks)
            samples.append(Sample(image, landmarks, box_of(landmarks, str(labels))))
    return FaceData(f"lapa/{split}", layout, samples, crop, tight=True, bad=bad.found)


def _read_landmarks(path: Path, count: int) -> Points:
    lines = read_lines(path, _MAX_BYTES)
    if lines[0].strip() != str(count):
        raise DataError(f"{path}, line 1: expected the number of landmarks {count}, got {lines[0][:40]!r}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        tokens = line.split()
        if len(tokens) not in (0, 2):
            raise DataError(f"{path}, line {number}: expected x and y, got {line[:40]!r}")
        if tokens:
            rows.append(as_floats(tokens, f"{path}, line {number}"))
    if len(rows) != count:
        raise DataError(f"{path}: expected {count} lines of x and y, found {len(rows)}")
    return np.array(rows) + 0.5
