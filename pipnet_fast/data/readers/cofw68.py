"""COFW-68: 68 points for the test images of COFW, and COFW's training images without labels."""

import os
from pathlib import Path

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._checks import ONE_BASED, corners_of, make_sample, numbers
from pipnet_fast.data.readers._files import find_file, find_folder
from pipnet_fast.data.readers._mat5 import read_mat5
from pipnet_fast.data.readers.cofw import open_cofw
from pipnet_fast.data.samples import FaceData, Points, Sample
from pipnet_fast.layouts import load_layout

SPLITS = ("train", "test")


def read(root: Path, split: str, bad: BadSamples, *, cofw: str | os.PathLike[str] | None = None) -> FaceData:
    """The repository golnazghiasi/cofw68-benchmark, with the files of COFW beside its own.

    "test": 507 faces with the benchmark's boxes. "train": the 1345 of COFW's training set without labels and with
    COFW's boxes, which are of another style, for self-training. Both boxes are grown by 1.3.

    Args:
        root: the repository, or a folder with ``cofw68_test_annotations`` as the official code wants it.
        split: one of ``SPLITS``.
        bad: what to do with faces that are damaged.
        cofw: the folder of COFW, see ``cofw.read``; None for ``root``.

    Raises:
        DataError: a file that is missing, damaged, or has other variables.
        ImportError: h5py is missing.
    """
    images, _, boxes = open_cofw(root if cofw is None else Path(cofw), split)
    annotations = None
    if split == "test":
        folders = ("COFW68_Data/test_annotations", "cofw68_test_annotations", "test_annotations")
        annotations = find_folder(root, *folders)
        boxes = _read_boxes(root, len(images))
    samples: list[Sample] = []
    for number, (image, box) in enumerate(zip(images, corners_of(boxes), strict=True), start=1):
        with bad.guard(str(image)):
            file = None if annotations is None else annotations / f"{number}_points.mat"
            landmarks = None if file is None else _read_points(file)
            samples.append(make_sample(image, landmarks, box, ONE_BASED, str(file or image)))
    return FaceData(f"cofw68/{split}", load_layout("300w68"), samples, CropRule(scale=1.3), bad=bad.found)


def _read_boxes(root: Path, count: int) -> Points:
    path = find_file(root, "COFW68_Data/cofw68_test_bboxes.mat", "cofw68_test_bboxes.mat")
    (boxes,) = read_mat5(path, "bboxes")
    values = numbers(boxes, (None, 4), f"{path}: bboxes")
    if len(values) != count:
        raise DataError(f"{path}: bboxes: expected one for each of the {count} images, got {len(values)}")
    return values


def _read_points(path: Path) -> Points:
    (points,) = read_mat5(path, "Points")
    return numbers(points, (68, 2), f"{path}: Points")
