"""COFW, 29 points: MATLAB v7.3 files that hold labels, boxes and the images themselves."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._checks import ONE_BASED, corners_of, make_sample
from pipnet_fast.data.readers._files import find_file
from pipnet_fast.data.readers._mat73 import open_mat73
from pipnet_fast.data.samples import FaceData, Sample
from pipnet_fast.data.sources import HDF5Image
from pipnet_fast.layouts import load_layout

SPLITS = ("train", "test")

# What names of variables end with.
_SUFFIX = {"train": "Tr", "test": "T"}


class Cofw(NamedTuple):
    """One file: ``images`` and, as the file has them, ``labels`` (n, 87) and ``boxes`` (n, 4)."""

    images: list[HDF5Image]
    labels: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float64]


def read(root: Path, split: str, bad: BadSamples) -> FaceData:
    """COFW as unpacked: ``COFW_train_color.mat`` and ``COFW_test_color.mat``, or the older gray archive.

    The set's own boxes, not grown. 1345 faces to train with, of which the first 845 are LFPW's, and 507 to test.

    Raises:
        DataError: the file is missing, damaged, or has other variables; a face with a label or box that is none.
        ImportError: h5py is missing.
    """
    cofw = open_cofw(root, split)
    boxes = corners_of(cofw.boxes)
    samples: list[Sample] = []
    for image, row, box in zip(cofw.images, cofw.labels, boxes, strict=True):
        with bad.guard(str(image)):
            # All x, then all y; the occlusion that follows has no use here.
            landmarks = row[:58].reshape(2, 29).T
            samples.append(make_sample(image, landmarks, box, ONE_BASED, str(image)))
    return FaceData(f"cofw/{split}", load_layout("cofw29"), samples, CropRule(scale=1.0), bad=bad.found)


def open_cofw(root: Path, split: str) -> Cofw:
    """Labels and boxes of the file of a split, and where its images are.

    Raises:
        DataError: see ``read``.
        ImportError: h5py is missing.
    """
    gray = f"COFW_{split}.mat"
    path = find_file(root, f"COFW_{split}_color.mat", gray, f"common/xpburgos/behavior/code/pose/{gray}")
    suffix = _SUFFIX[split]
    cells = f"Is{suffix}"
    with open_mat73(path) as file:
        labels = file.numbers(f"phis{suffix}", 87)
        boxes = file.numbers(f"bboxes{suffix}", 4)
        count = file.count_cells(cells)
    if not len(labels) == len(boxes) == count:
        counts = f"{len(labels)} labels, {len(boxes)} boxes and {count} images"
        raise DataError(f"{path}: expected as many labels as boxes and images, got {counts}")
    return Cofw([HDF5Image(path, cells, index) for index in range(count)], labels, boxes)
