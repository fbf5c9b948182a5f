"""Menpo 2D: semi-frontal faces of 68 points and profiles of 39, two sets of their own.

Two releases, told apart by what is there:

- the challenge's, one folder of ``.jpg`` and ``.pts``, also inside ``menpo_train_release/``: 5658 semi-frontal and 1906
  profile faces to train on, counted from 1, without boxes; the test labels were withheld.
- MenpoBenchmark's, ``Train/Menpo2D_{semifrontal,profile}_train.txt`` and the same for ``Test``, also inside
  ``Menpo2D/``: 6653, 2290, 5335 and 1946 faces. A line has the image's path, a detector's box, ten numbers of five
  points, and the landmarks. Taken to count from 0.

Errors are divided by the diagonal of the labels' tight box. Profiles to the left and to the right have the same
numbering, so mirroring an image leaves the 39 points' order as it is.
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._files import (
    as_floats,
    box_of,
    check_box,
    find_folder,
    image_file,
    paired_files,
    read_lines,
)
from pipnet_fast.data.readers._menpo_order import right_order
from pipnet_fast.data.readers._pts import read_pts
from pipnet_fast.data.samples import FaceData, Points, Sample
from pipnet_fast.data.sources import ImageFile
from pipnet_fast.layouts import Layout, load_layout

Track = Literal["semifrontal", "profile"]
Boxes = Literal["tight", "given"]

SPLITS = ("train", "test")

# Image, landmarks, and the box where it is not the tight one.
_Face = tuple[ImageFile, Points, Points | None]


def read(
    root: Path,
    split: str,
    bad: BadSamples,
    *,
    track: Track = "semifrontal",
    boxes: Boxes | None = None,
    scale: float = 1.1,
    fix_order: bool = False,
) -> FaceData:
    """Read a split of a track.

    Args:
        root: folder with either release.
        split: "train" or "test".
        bad: takes what is wrong with single faces.
        track: "semifrontal", 68 points, or "profile", 39.
        boxes: "tight", of the landmarks; or "given", which MenpoBenchmark's release has, and there is the default.
        scale: how much of a box's sides the crop has.
        fix_order: put right the training labels that are known to be in a wrong order, see ``_menpo_order``.

    Raises:
        ValueError: an option out of its range.
        DataError: a file or folder is missing; or, unless bad faces are skipped, what concerns one face is damaged.
    """
    if track not in get_args(Track):
        raise ValueError(f"menpo2d: track: expected one of {get_args(Track)}, got {track!r}")
    if boxes not in (None, *get_args(Boxes)):
        raise ValueError(f"menpo2d: boxes: expected one of {get_args(Boxes)}, got {boxes!r}")
    layout = load_layout("300w68") if track == "semifrontal" else Layout("menpo39", np.arange(39))
    crop = CropRule(scale)
    name = f"{split.capitalize()}/Menpo2D_{track}_{split}.txt"
    listed = next((path for path in (root / name, root / "Menpo2D" / name) if path.is_file()), None)
    if listed is not None:
        boxes = boxes or "given"
        faces = _read_list(listed, layout.num_landmarks, boxes, bad)
    elif boxes == "given" or split == "test":
        raise DataError(f"{root}: expected {name}, found none; the other release has no boxes and no test labels")
    else:
        faces = _read_folder(find_folder(root, "menpo_train_release", "."), layout.num_landmarks, bad)
        boxes = "tight"
    samples = []
    for image, landmarks, given in faces:
        if fix_order:
            landmarks = right_order(landmarks, Path(image.path).stem)
        with bad.guard(str(image)):
            box = (
                check_box(given, str(image))
                if given is not None and boxes == "given"
                else box_of(landmarks, str(image))
            )
            samples.append(Sample(image, landmarks, box))
    return FaceData(f"menpo2d/{track}/{split}", layout, samples, crop, "diagonal", boxes == "tight", bad.found)


def _read_list(path: Path, count: int, boxes: Boxes, bad: BadSamples) -> list[_Face]:
    """Faces of MenpoBenchmark's release."""
    faces: list[_Face] = []
    for number, line in enumerate(read_lines(path), start=1):
        tokens = line.split()
        if not tokens:
            continue
        where = f"{path}, line {number}"
        with bad.guard(where):
            if len(tokens) != 15 + 2 * count:
                raise DataError(f"{where}: expected a path and {14 + 2 * count} numbers, got {len(tokens)} words")
            values = np.array(as_floats(tokens[1:], where)) + 0.5
            image, box = image_file(path.parent / tokens[0]), values[:4] if boxes == "given" else None
            faces.append((image, values[14:].reshape(-1, 2), box))
    return faces


def _read_folder(folder: Path, count: int, bad: BadSamples) -> list[_Face]:
    """Faces of the challenge's release; files of the other track are passed over."""
    faces: list[_Face] = []
    for image, labels in paired_files(folder, folder, ".pts", bad):
        with bad.guard(str(labels)):
            landmarks = read_pts(labels, (68, 39))
            if len(landmarks) == count:
                faces.append((image, landmarks, None))
    return faces
