"""Text files, folders and coordinates of data sets, with errors that name the file and the line."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.samples import Points, tight_box
from pipnet_fast.data.sources import ImageFile

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

# The longest list there is, CelebA's, has 10 MB. A file above this is something else, a video perhaps.
MAX_TEXT_BYTES = 1 << 28

# No photo has so many pixels on a side, and float32 is still exact to a sixteenth of a pixel.
MAX_COORDINATE = 1e6


def read_lines(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> list[str]:
    """The lines of a UTF-8 text file, whatever ends its lines, with or without a byte order mark.

    Raises:
        DataError: missing, not text, or longer than ``max_bytes``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > max_bytes:
        raise DataError(f"{path}: expected at most {max_bytes} bytes of text, found more")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def as_floats(tokens: Iterable[str], where: str) -> list[float]:
    """The numbers that ``tokens`` are.

    Raises:
        DataError: one is not a number, not finite, or beyond ``MAX_COORDINATE``.
    """
    values = []
    for token in tokens:
        try:
            value = float(token)
        except ValueError:
            raise DataError(f"{where}: expected a number, got {shortened(token)}") from None
        if not abs(value) <= MAX_COORDINATE:
            raise DataError(f"{where}: expected a number within +-{MAX_COORDINATE:.0f}, got {shortened(token)}")
        values.append(value)
    return values


def check_box(values: Sequence[float] | npt.NDArray[np.floating[Any]], where: str) -> Points:
    """(4,) box x0, y0, x1, y1.

    Raises:
        DataError: it has no area, or is not finite.
    """
    box = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
        raise DataError(f"{where}: expected a box x0 < x1, y0 < y1, got {box.tolist()}")
    return box


def box_of(landmarks: Points, where: str) -> Points:
    """(4,) tight box of the labelled ones of landmarks (N, 2).

    Raises:
        DataError: there is none, or the box has no area.
    """
    try:
        return tight_box(landmarks, where)
    except ValueError as error:
        raise DataError(str(error)) from None


def image_file(path: Path) -> ImageFile:
    """An image that is read later.

    Raises:
        DataError: no such file.
    """
    if not os.path.isfile(path):  # pathlib's own raises for names that are too long
        raise DataError(f"{path}: expected an image, found no such file")
    return ImageFile(path)


def find_folder(root: Path, *candidates: str) -> Path:
    """The first of several folders that is there.

    Raises:
        DataError: none is.
    """
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    raise DataError(f"{root}: expected a folder {' or '.join(map(repr, candidates))}, found none")


def find_file(root: Path, *candidates: str) -> Path:
    """The first of several files that is there.

    Raises:
        DataError: none is.
    """
    for candidate in candidates:
        if (root / candidate).is_file():
            return root / candidate
    raise DataError(f"{root}: expected a file {' or '.join(map(repr, candidates))}, found none")


def list_files(folder: Path) -> list[str]:
    """Names in a folder, sorted, without those that begin with a dot: a Mac packs a ``._name`` with every file.

    Raises:
        DataError: no such folder.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from None


def paired_files(images: Path, labels: Path, suffix: str, bad: BadSamples) -> list[tuple[ImageFile, Path]]:
    """Images of one folder and the label files of the same stem of another or the same, by name of the image.

    Spaces in names do not count: one name of ibug has one, which many remove.

    Args:
        images: folder of the images.
        labels: folder of the labels.
        suffix: of label files, as ".pts".
        bad: takes what has no partner, or two.

    Raises:
        DataError: a folder is missing; or, unless bad faces are skipped, a file has no partner.
    """
    images_by_stem = _by_stem(images, IMAGE_SUFFIXES)
    labels_by_stem = _by_stem(labels, (suffix,))
    pairs = []
    for stem in {**images_by_stem, **labels_by_stem}:
        with bad.guard(str(images / stem)):
            image = _only_one(images_by_stem.get(stem, []), images / stem, "image")
            pairs.append((ImageFile(image), _only_one(labels_by_stem.get(stem, []), labels / stem, suffix)))
    return sorted(pairs, key=lambda pair: Path(pair[0].path).name.replace(" ", ""))


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name in list_files(folder):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in suffixes:
            found.setdefault(stem.replace(" ", ""), []).append(folder / name)
    return found


def _only_one(paths: list[Path], stem: Path, what: str) -> Path:
    if len(paths) != 1:
        found = " and ".join(path.name for path in paths) or "none"
        raise DataError(f"{stem}: expected one {what} of this name, found {found}")
    return paths[0]
