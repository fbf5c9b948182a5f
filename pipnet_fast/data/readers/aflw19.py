"""AFLW with the 19 points of the CCL annotation, all of them labelled in every face."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._checks import ONE_BASED, make_sample, numbers
from pipnet_fast.data.readers._files import find_file, find_folder, image_file
from pipnet_fast.data.readers._mat5 import read_mat5
from pipnet_fast.data.samples import FaceData, Sample
from pipnet_fast.data.sources import ImageFile
from pipnet_fast.layouts import load_layout

SPLITS = ("train", "test", "frontal")

NUM_TRAIN = 20000


def read(root: Path, split: str, bad: BadSamples) -> FaceData:
    """AFLW's images with ``AFLWinfo_release.mat`` of the CCL page; boxes as they are, errors relative to them.

    20000 faces to train with and 4386 to test, in the order of the file's permutation ``ra``. "frontal" are those
    of the test set with all points visible, which also are its subset of that name.

    Args:
        root: has the .mat file and ``flickr``, ``data/flickr`` or ``aflw/data/flickr``.
        split: one of ``SPLITS``.
        bad: what to do with faces that are damaged or without an image.

    Raises:
        DataError: a file that is missing or damaged, or has other variables.
    """
    path = find_file(root, "AFLWinfo_release.mat")
    folder = find_folder(root, "flickr", "data/flickr", "aflw/data/flickr")
    bbox, data, mask, names, ra = read_mat5(path, "bbox", "data", "mask_new", "nameList", "ra")
    boxes = numbers(bbox, (None, 4), f"{path}: bbox")[:, [0, 2, 1, 3]]  # left, right, top, bottom
    count = len(boxes)
    points = numbers(data, (count, 38), f"{path}: data").reshape(count, 2, 19).swapaxes(1, 2)
    hidden = (numbers(mask, (count, 19), f"{path}: mask_new") == 0).sum(axis=1)
    if not isinstance(names, np.ndarray) or names.dtype != object or names.size != count:
        raise DataError(f"{path}: nameList: expected {count} cells, got {getattr(names, 'shape', type(names))}")
    order = _permutation(ra, count, f"{path}: ra")
    samples: list[Sample] = []
    for row in order[:NUM_TRAIN] if split == "train" else order[NUM_TRAIN:]:
        frontal = split != "train" and hidden[row] == 0
        if split == "frontal" and not frontal:
            continue
        where = f"{path}: row {row + 1}"
        with bad.guard(where):
            image = _find_image(folder / _name(names.flat[row], where))
            subsets = ("frontal",) if frontal else ()
            samples.append(make_sample(image, points[row], boxes[row], ONE_BASED, where, subsets))
    layout = load_layout("aflw19")
    return FaceData(f"aflw19/{split}", layout, samples, CropRule(scale=1.0), norm="box", bad=bad.found)


def _permutation(ra: Any, count: int, where: str) -> npt.NDArray[np.int64]:
    """``ra``, counted from 0."""
    order = numbers(ra, (1, count), where)[0] - 1
    if not np.array_equal(np.sort(order), np.arange(count)):
        raise DataError(f"{where}: expected a permutation of 1..{count}")
    return np.asarray(order, dtype=np.int64)


def _name(cell: Any, where: str) -> str:
    """The text in a cell, such as "0/image00002.jpg"."""
    if not isinstance(cell, str):
        raise DataError(f"{where}: nameList: expected the name of an image, got {type(cell).__name__}")
    return cell


def _find_image(path: Path) -> ImageFile:
    """The image, under another extension if it is not there: some are listed as .png and are .jpg."""
    stem, _ = os.path.splitext(path)
    for candidate in (f"{stem}.jpg", f"{stem}.png"):
        if not os.path.isfile(path) and os.path.isfile(candidate):
            return ImageFile(candidate)
    return image_file(path)
