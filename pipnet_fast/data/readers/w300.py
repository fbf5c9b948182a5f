"""300W: 68 points, 3148 faces to train on, 554 common and 135 challenging ones to test on, 300 + 300 private ones.

As the archives of ibug unpack, side by side: ``afw/``, ``helen/{trainset,testset}/``, ``lfpw/{trainset,testset}/``,
``ibug/``, each with images and a ``.pts`` of the same stem; optionally ``Bounding Boxes/*.mat`` and the private test
set ``01_Indoor/`` and ``02_Outdoor/``, also inside a folder ``300W``. One image of ibug has a space in its name, which
may be there or not.
"""

from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal, get_args

import numpy as np

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._checks import ONE_BASED, numbers
from pipnet_fast.data.readers._files import box_of, check_box, find_folder, paired_files
from pipnet_fast.data.readers._mat5 import read_mat5
from pipnet_fast.data.readers._official import official_face
from pipnet_fast.data.readers._pts import read_pts
from pipnet_fast.data.samples import FaceData, Points, Sample
from pipnet_fast.layouts import load_layout

Boxes = Literal["tight", "ground_truth", "detector"]

# The folders of a part in the order of the official lists, and the parts of a split.
_FOLDERS = {
    "train": ("afw", "helen/trainset", "lfpw/trainset"),
    "common": ("helen/testset", "lfpw/testset"),
    "challenge": ("ibug",),
    "indoor": ("01_Indoor",),
    "outdoor": ("02_Outdoor",),
}
_PARTS = {
    "train": ("train",),
    "test": ("common", "challenge"),
    "common": ("common",),
    "challenge": ("challenge",),
    "private": ("indoor", "outdoor"),
    "indoor": ("indoor",),
    "outdoor": ("outdoor",),
}
SPLITS = tuple(_PARTS)


def read(
    root: Path, split: str, bad: BadSamples, *, boxes: Boxes = "tight", scale: float = 1.1, official: bool = False
) -> FaceData:
    """Read a split.

    Args:
        root: folder with the unpacked archives.
        split: "train", "test" (of the subsets "common" and "challenge"), one of these, "private", "indoor", "outdoor".
        bad: takes what is wrong with single faces.
        boxes: "tight", of the landmarks, as the official code takes them; "ground_truth" or "detector", those of
            ``Bounding Boxes``, as the paper says.
        scale: how much of a box's sides the crop has; 1.3 for the experiments across data sets.
        official: labels and crops in whole px as the official code cuts them, see ``_official``. Reads every image
            for its size, and needs ``boxes="tight"``.

    Raises:
        ValueError: an option out of its range.
        DataError: a folder is missing; or, unless bad faces are skipped, a file of a face is missing or damaged.
    """
    if boxes not in get_args(Boxes):
        raise ValueError(f"300w: boxes: expected one of {get_args(Boxes)}, got {boxes!r}")
    if official and boxes != "tight":
        raise ValueError(f'300w: official: expected boxes="tight", got {boxes!r}')
    crop = CropRule(scale)
    samples = []
    for part, name in _folders(split):
        folder = find_folder(root, name, f"300W/{name}", f"300w/{name}")
        given = None if boxes == "tight" else _given_boxes(root, name, boxes)
        for image, labels in paired_files(folder, folder, ".pts", bad):
            with bad.guard(str(labels)):
                landmarks = read_pts(labels)
                box = box_of(landmarks, str(labels)) if given is None else _look_up(given, Path(image.path))
                if official:
                    landmarks, box = official_face(landmarks, image, scale)
                samples.append(Sample(image, landmarks, box, () if part == "train" else (part,)))
    return FaceData(
        f"300w/{split}",
        load_layout("300w68"),
        samples,
        CropRule(1.0) if official else crop,
        tight=boxes == "tight" and not official,
        bad=bad.found,
    )


def _folders(split: str) -> list[tuple[str, str]]:
    """Parts and folders of a split."""
    return [(part, name) for part in _PARTS[split] for name in _FOLDERS[part]]


def _given_boxes(root: Path, name: str, kind: str) -> dict[str, Any]:
    """Boxes of a folder by image name; there are more of them than images, in another order."""
    path = find_folder(root, "Bounding Boxes", "Bounding_Boxes") / f"bounding_boxes_{name.replace('/', '_')}.mat"
    (cells,) = read_mat5(path, "bounding_boxes")
    boxes = {}
    for number, cell in enumerate(np.ravel(cells), start=1):
        try:
            entry = cell.item()
            boxes[entry["imgName"].replace(" ", "")] = entry[f"bb_{kind}"]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DataError(
                f"{path}: bounding_boxes{{{number}}}: expected a struct of imgName and bb_{kind}, got {shortened(cell)}"
            ) from None
    return boxes


def _look_up(boxes: dict[str, Any], image: Path) -> Points:
    """The (4,) box of an image in continuous px; the file counts from 1, as the landmarks do."""
    name = image.name.replace(" ", "")
    if name not in boxes:
        raise DataError(f"{image}: expected a box under this name in Bounding Boxes, found none")
    return check_box(numbers(boxes[name], (1, 4), f"{image}: box")[0], str(image)) + ONE_BASED
