"""CelebA, unlabelled: 202,599 photos for self-training, each with one face box.

The photos are the ones in the wild, not the aligned ones, which have no boxes: ``img_celeba/``, also inside ``Img/``.
Boxes, all counted from 0:

- "author": ``celeba_bboxes.txt`` of PIPNet's author (issue 42 of the official repository): lines of name, x0, y0, x1,
  y1, the last pixel included; only faces that a detector found.
- "given": ``Anno/list_bbox_celeba.txt`` of CelebA itself: a line with the count, a header, then lines of name, x, y,
  width, height. Drawn by hand and in another style, so crops differ from those of the paper.

A box without area, which CelebA has one of, is left out and listed in ``FaceData.bad``.
"""

from pathlib import Path
from typing import Literal, get_args

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._files import as_floats, check_box, find_folder, list_files, read_lines
from pipnet_fast.data.samples import BadSample, FaceData, Sample
from pipnet_fast.data.sources import ImageFile
from pipnet_fast.layouts import load_layout

Boxes = Literal["author", "given"]

SPLITS = ("all",)


def read(
    root: Path, split: str, bad: BadSamples, *, boxes: Boxes = "author", scale: float = 1.2, top_shift: float = 0.25
) -> FaceData:
    """Read the names and boxes.

    Args:
        root: folder with the unpacked photos and the list of boxes.
        split: "all".
        bad: takes what is wrong with single faces.
        boxes: "author" or "given", see above.
        scale: how much of a box's sides the crop has.
        top_shift: by how much of the box's height the crop's top is then moved down. The official crop has 1.2 of
            the width, ends a tenth of the height below the box, and begins 0.15 of it below the box's top.

    Raises:
        ValueError: an option out of its range.
        DataError: the list or the photos are missing; or, unless bad faces are skipped, what concerns one is damaged.
    """
    if boxes not in get_args(Boxes):
        raise ValueError(f"celeba: boxes: expected one of {get_args(Boxes)}, got {boxes!r}")
    crop = CropRule(scale, top_shift)
    path = root / ("celeba_bboxes.txt" if boxes == "author" else "Anno/list_bbox_celeba.txt")
    if not path.is_file():
        other = get_args(Boxes)[boxes == "author"]
        raise DataError(f"{path}: expected the list of boxes, found no such file; the other choice is boxes={other!r}")
    folder = find_folder(root, "img_celeba", "Img/img_celeba", "Img/img_celeba.7z/img_celeba")
    present = set(list_files(folder))
    lines = read_lines(path)
    header = 0 if boxes == "author" else 2
    if header:
        _check_count(path, lines)
    samples = []
    for number, line in enumerate(lines[header:], start=header + 1):
        tokens = line.split()
        if not tokens:
            continue
        where = f"{path}, line {number}"
        with bad.guard(where):
            if len(tokens) != 5:
                raise DataError(f"{where}: expected a name and 4 numbers, got {len(tokens)} words")
            x0, y0, x1, y1 = as_floats(tokens[1:], where)
            x1, y1 = (x1 + 1, y1 + 1) if boxes == "author" else (x0 + x1, y0 + y1)
            if tokens[0] not in present:
                raise DataError(f"{where}: expected an image {folder / tokens[0]}, found no such file")
            if x1 == x0 or y1 == y0:
                bad.found.append(BadSample(where, f"{tokens[0]}: the box has no area"))
            else:
                samples.append(Sample(ImageFile(folder / tokens[0]), None, check_box((x0, y0, x1, y1), where)))
    return FaceData(f"celeba/{split}", load_layout("300w68"), samples, crop, bad=bad.found)


def _check_count(path: Path, lines: list[str]) -> None:
    rows = sum(bool(line.strip()) for line in lines[2:])
    if lines[0].strip() != str(rows):
        raise DataError(f"{path}, line 1: expected the number of rows that follow, {rows}, got {lines[0][:40]!r}")
