"""WFLW, 98 points: a line of text a face, several faces an image, six subsets of the test set."""

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._checks import ZERO_BASED, make_sample
from pipnet_fast.data.readers._files import as_floats, find_file, find_folder, image_file, read_lines
from pipnet_fast.data.samples import FaceData, Points, Sample
from pipnet_fast.layouts import load_layout

SPLITS = ("train", "test", "subtrain", "val")

# In the order of a line's flags; the last part of the names of the published lists.
SUBSETS = {
    "pose": "largepose",
    "expression": "expression",
    "illumination": "illumination",
    "makeup": "makeup",
    "occlusion": "occlusion",
    "blur": "blur",
}


class Face(NamedTuple):
    """One line, with numbers as it has them: ``landmarks`` (98, 2), ``box`` (4,), path of the ``image``."""

    landmarks: Points
    box: Points
    subsets: tuple[str, ...]
    image: str


def read(root: Path, split: str, bad: BadSamples) -> FaceData:
    """WFLW as unpacked: ``WFLW_images`` and ``WFLW_annotations``. The detected boxes of the lists, grown by 1.2.

    "train" has 7500 faces; "val" is the fifth of them that the paper's ablations hold out, chosen by the names of
    the images, so that no image is on both sides, and "subtrain" the rest. "test" has 2500, with the subsets pose,
    expression, illumination, makeup, occlusion and blur. Landmarks that lie outside of their box or image stay there.

    Args:
        root: the folder of both.
        split: one of ``SPLITS``.
        bad: what to do with lines that are damaged or without an image.

    Raises:
        DataError: a file that is missing, a damaged line, or a subset's list that contradicts the flags of a face.
    """
    # Some mirrors have the lists without the folder around them.
    lists = "list_98pt_rect_attr_train_test"
    name = f"list_98pt_rect_attr_{'test' if split == 'test' else 'train'}.txt"
    path = find_file(root, f"WFLW_annotations/{lists}/{name}", f"{lists}/{name}")
    images = find_folder(root, "WFLW_images")
    lines = [(number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    if split in ("subtrain", "val"):
        held_out = _validation_images([_image(line) for _, line in lines])
        lines = [(number, line) for number, line in lines if (_image(line) in held_out) == (split == "val")]
    samples: list[Sample] = []
    listed: dict[str, tuple[str, ...] | None] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        listed[_key(line)] = None
        with bad.guard(where):
            face = parse_line(line, where)
            image = image_file(images / face.image)
            samples.append(make_sample(image, face.landmarks, face.box, ZERO_BASED, where, face.subsets))
            listed[_key(line)] = face.subsets
    if split == "test":
        _check_subsets(path.parent.parent / "list_98pt_test", listed, bad)
    return FaceData(f"wflw/{split}", load_layout("wflw98"), samples, CropRule(scale=1.2), bad=bad.found)


def parse_line(line: str, where: str) -> Face:
    """One of the 207 words: 98 x and y, the box's x0 y0 x1 y1, six flags, the path of the image.

    Args:
        line: the text.
        where: file and line number, for messages.

    Raises:
        DataError: another count of words, or one that is no number or flag.
    """
    *words, image = line.split() or [""]
    if len(words) != 206:
        raise DataError(f"{where}: expected 207 words, got {len(words) + 1}")
    flags = words[200:]
    if not set(flags) <= {"0", "1"}:
        raise DataError(f"{where}: expected six flags of 0 or 1, got {' '.join(flags)}")
    values = np.array(as_floats(words[:200], where))
    subsets = tuple(name for name, flag in zip(SUBSETS, flags, strict=True) if flag == "1")
    return Face(values[:196].reshape(98, 2), values[196:], subsets, image)


def _key(line: str) -> str:
    """What the official code knows a face by: several are in one image, but not at one x."""
    return f"{line.split(maxsplit=1)[0]} {_image(line)}"


def _image(line: str) -> str:
    return line.rsplit(maxsplit=1)[-1]


def _check_subsets(folder: Path, listed: dict[str, tuple[str, ...] | None], bad: BadSamples) -> None:
    """See that the lists of subsets, where they are present, have the faces with the flag and no others.

    ``listed`` has the subsets of each face of the test set by its key, None for those that could not be read.
    """
    for name, suffix in SUBSETS.items():
        path = folder / f"list_98pt_test_{suffix}.txt"
        if not path.exists():
            continue
        with bad.guard(str(path)):
            members = set()
            for number, line in enumerate(read_lines(path), start=1):
                # Without box and flags, as published; with them is as good.
                if not line.strip():
                    continue
                if len(line.split()) not in (197, 207):
                    raise DataError(f"{path}, line {number}: expected 197 words, got {len(line.split())}")
                if _key(line) not in listed:
                    raise DataError(f"{path}, line {number}: no such face in the list of the test set")
                members.add(_key(line))
            for key, subsets in listed.items():
                if subsets is not None and (name in subsets) != (key in members):
                    flag = int(name in subsets)
                    raise DataError(f"{path}: the face {key!r} has the flag {flag} for {name}, against this list")


def _validation_images(images: list[str]) -> set[str]:
    """Of the images of all faces, those with a fifth of the faces; the same ones on every machine, for ever."""
    room, faces = len(images) // 5, Counter(images)
    chosen = set()
    for image in sorted(faces, key=lambda name: sha256(name.encode()).digest()):
        if faces[image] <= room:
            chosen.add(image)
            room -= faces[image]
    return chosen
