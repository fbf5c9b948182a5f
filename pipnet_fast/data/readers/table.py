"""People's own data: a folder with a CSV, JSON or text file for every split, named as the split is.

``train.csv``, with a header; further columns are passed over::

    file,x0,y0,x1,y1,...[,box_x0,box_y0,box_x1,box_y1][,subset]
    a.jpg,51.5,60,88,61,...

An empty cell or ``nan`` is a landmark that is not labelled; ``subset`` is one name, or more between blanks. Commas,
semicolons or tabs stand between the cells.

``train.json``, a list; ``box`` and ``subsets`` may be absent, and ``null`` is a landmark that is not labelled::

    [{"file": "a.jpg", "landmarks": [[51.5, 60], null, ...], "box": [40, 50, 99, 120], "subsets": ["blur"]}, ...]

``unlabelled.txt``: names of image files, one a line; a CSV or JSON without landmarks may have boxes too. Where such a
face has no box, ``Sample.box`` is NaN: it takes a detector to find it.

Image files are looked for in the folder ``images/`` beside the lists, if there is one, and else beside the lists.

Numbers are px. Tools disagree about where 0 is. By default it is the center of the first pixel, as OpenCV, dlib,
matplotlib, scikit-image, COCO and whatever indexes an array have it. Tools for labelling by hand (CVAT, labelme, Label
Studio) count from the image's edge: ``pixel_base="continuous"``. The two are half a pixel apart. Labels that
all lie off by the same step, a tool's own or a resize's, are put right by ``offset_px``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from pipnet_fast.crop import CropRule, PixelBase
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._checks import ZERO_BASED
from pipnet_fast.data.readers._files import MAX_COORDINATE, box_of, image_file
from pipnet_fast.data.readers._mirror import mirror_permutation
from pipnet_fast.data.readers._rows import Row, read_rows
from pipnet_fast.data.samples import FaceData, Points, Sample
from pipnet_fast.layouts import Layout, load_layout

Boxes = Literal["tight", "given"]

SPLITS: tuple[str, ...] = ()  # whatever files there are

_SUFFIXES = (".csv", ".json", ".txt")
_BASES = get_args(PixelBase)


def read(
    root: Path,
    split: str,
    bad: BadSamples,
    *,
    layout: str | None = None,
    flip: Sequence[int] | None = None,
    eyes: tuple[int, int] | None = None,
    pixel_base: PixelBase = "center",
    offset_px: Sequence[float] = (0.0, 0.0),
    boxes: Boxes | None = None,
    scale: float = 1.2,
) -> FaceData:
    """Read the file of a split.

    Args:
        root: the folder.
        split: name of the file without its suffix.
        bad: takes what is wrong with single faces.
        layout: name of a known layout, which ``flip`` and ``eyes`` are then taken from; by default 300W's where nothing
            is labelled.
        flip: the landmark that each becomes in the mirrored image; by default derived from the mean face of the
            faces labelled in full, of the split "train" if there is one, so that all splits have the same.
        eyes: landmarks at the outer corners of the eyes, whose distance errors are divided by; by default there are
            none, and errors are divided by the diagonal of the labels' tight box.
        pixel_base: "center", where 0 is the center of the first pixel, or "continuous", where it is the image's edge.
        offset_px: px in x and in y, added to every coordinate, those of given boxes too; either sign, by default none.
        boxes: "tight", of the landmarks, or "given"; by default given if the file has any.
        scale: how much of a box's sides the crop has.

    Raises:
        ValueError: an option out of its range, or a mean face that is not symmetric.
        DataError: the file is missing or damaged; or, unless bad faces are skipped, what concerns one face is.
        ImportError: SciPy, which derives the permutation, is missing.
    """
    for option, value, choices in (("boxes", boxes, (None, *get_args(Boxes))), ("pixel_base", pixel_base, _BASES)):
        if value not in choices:
            raise ValueError(f"table: {option}: expected one of {choices}, got {value!r}")
    if layout is not None and (flip is not None or eyes is not None):
        raise ValueError(f"table: layout: expected no flip or eyes beside it, got layout={layout!r}")
    shift = _offset(offset_px) + (ZERO_BASED if pixel_base == "center" else 0.0)
    crop = CropRule(scale)
    path = _find(root, split)
    rows = read_rows(path, bad)
    count = _num_landmarks(rows)
    if layout is None and flip is None and count is None and not _has_train(root, split):
        layout = "300w68"
    meaning = load_layout(layout) if layout is not None else _own_layout(root, split, rows, flip, eyes)
    if count not in (None, meaning.num_landmarks):
        raise DataError(f"{path}: expected {meaning.num_landmarks} landmarks, as {meaning.name} has, got {count}")
    boxes = boxes or ("given" if any(row.box is not None for row in rows) else "tight")
    images = root / "images" if (root / "images").is_dir() else root
    samples = []
    for row in rows:
        with bad.guard(row.where):
            landmarks = None
            if row.landmarks is not None and not np.isnan(row.landmarks).all():
                landmarks = row.landmarks + shift
            box = _box(row, landmarks, boxes, shift, known=count is not None)
            samples.append(Sample(image_file(images / row.file), landmarks, box, row.subsets))
    return FaceData(
        f"{root.resolve().name}/{split}",
        meaning,
        samples,
        crop,
        "diagonal" if meaning.outer_eyes is None else "inter_ocular",
        tight=boxes == "tight" and count is not None,
        bad=bad.found,
    )


def _offset(offset_px: Any) -> Points:
    """(2,): x and y of the option, of which flags and TOML files may make anything."""
    pair = offset_px if isinstance(offset_px, (list, tuple)) else ()
    real = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in pair]
    if len(real) != 2 or not all(real) or not all(abs(value) <= MAX_COORDINATE for value in pair):
        wanted = f"two finite numbers, x and y, within +-{MAX_COORDINATE:.0f}"
        raise ValueError(f"table: offset_px: expected {wanted}, got {offset_px!r}")
    return np.array(pair, dtype=np.float64)


def _find(root: Path, split: str) -> Path:
    paths = [path for path in (root / f"{split}{suffix}" for suffix in _SUFFIXES) if path.is_file()]
    if len(paths) != 1:
        found = " and ".join(path.name for path in paths) or "none"
        raise DataError(f"{root / split}: expected one file with suffix {', '.join(_SUFFIXES)}, found {found}")
    return paths[0]


def _num_landmarks(rows: list[Row]) -> int | None:
    return next((len(row.landmarks) for row in rows if row.landmarks is not None), None)


def _has_train(root: Path, split: str) -> bool:
    """Whether there is a split "train" beside this one, whose layout it shares."""
    return split != "train" and any((root / f"train{suffix}").is_file() for suffix in _SUFFIXES)


def _own_layout(
    root: Path, split: str, rows: list[Row], flip: Sequence[int] | None, eyes: tuple[int, int] | None
) -> Layout:
    """The layout of landmarks that no data set of the paper has."""
    name = root.resolve().name
    if flip is not None:
        permutation = np.asarray(flip)
    else:
        if _has_train(root, split):
            rows = read_rows(_find(root, "train"), BadSamples(skip=True))
        permutation = mirror_permutation(_mean_shape(rows, name), name)
    layout = Layout(name, permutation, eyes)
    if eyes is not None and layout.flip[eyes[0]] != eyes[1]:
        raise ValueError(f"{name}: eyes: expected landmarks that mirror into each other, got {eyes!r}")
    return layout


def _mean_shape(rows: list[Row], name: str) -> Points:
    """(N, 2), mean in units of the tight box, of the faces without a missing landmark."""
    full = [row.landmarks for row in rows if row.landmarks is not None and np.isfinite(row.landmarks).all()]
    if not full:
        raise ValueError(
            f"{name}: flip: expected a face with all landmarks to derive it from, found none; give layout= or flip="
        )
    faces = np.array(full)
    low, high = faces.min(axis=1, keepdims=True), faces.max(axis=1, keepdims=True)
    return np.asarray(((faces - low) / np.maximum(high - low, 1e-9)).mean(axis=0))


def _box(row: Row, landmarks: Points | None, boxes: Boxes, shift: Points, known: bool) -> Points:
    """(4,) box; ``known``: whether the file has landmarks at all."""
    if boxes == "given":
        if row.box is None:
            raise DataError(f"{row.where}: expected a box as other faces have, found none")
        return row.box + np.tile(shift, 2)
    if landmarks is None and not known:
        return np.full(4, np.nan)
    return box_of(np.empty((0, 2)) if landmarks is None else landmarks, row.where)
