"""CelebA, unlabelled, with either list of boxes."""

from pathlib import Path

import numpy as np
import pytest

from pipnet_fast.data import DataError, open_data
from tests.miniature import write_image

AUTHOR = "000002.jpg 95 71 320 383\n000001.jpg 10 20 49 59\n"
GIVEN = (
    "3\nimage_id x_1 y_1 width height\n000001.jpg    95  71 226 313\n000002.jpg 72   94 221 306\n101283.jpg 5 5 0  0\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("000001.jpg", "000002.jpg", "101283.jpg"):
        write_image(tmp_path / "img_celeba" / name)
    (tmp_path / "celeba_bboxes.txt").write_text(AUTHOR)
    (tmp_path / "Anno").mkdir()
    (tmp_path / "Anno" / "list_bbox_celeba.txt").write_text(GIVEN)
    return tmp_path


def test_boxes_of_the_author(root: Path) -> None:
    data = open_data("celeba", root, "all")
    assert [Path(str(sample.image)).name for sample in data.samples] == ["000002.jpg", "000001.jpg"]
    assert all(sample.landmarks is None for sample in data.samples)
    assert data.samples[0].box.tolist() == [95, 71, 321, 384], "the last pixel is part of the box"
    assert data.layout.num_landmarks == 68
    assert not data.tight


def test_crop_is_the_official_one(root: Path) -> None:
    """A tenth of the width on both sides, a tenth of the height below, 0.15 of it off above."""
    assert np.allclose(open_data("celeba", root, "all").crop_boxes()[1], [10 - 4, 20 + 6, 50 + 4, 60 + 4])
    plain = open_data("celeba", root, "all", scale=1.5, top_shift=0)
    assert np.allclose(plain.crop_boxes()[1], [0, 10, 60, 70])


def test_boxes_of_celeba_itself(root: Path) -> None:
    data = open_data("celeba", root, "all", boxes="given")
    assert [sample.box.tolist() for sample in data.samples] == [[95, 71, 321, 384], [72, 94, 293, 400]]
    assert [(bad.where[-6:], bad.reason) for bad in data.bad] == [("line 5", "101283.jpg: the box has no area")]


@pytest.mark.parametrize("folder", ["Img/img_celeba", "Img/img_celeba.7z/img_celeba"])
def test_photos_may_lie_deeper(root: Path, folder: str) -> None:
    (root / folder).parent.mkdir(parents=True)
    (root / "img_celeba").rename(root / folder)
    assert len(open_data("celeba", root, "all")) == 2


@pytest.mark.parametrize(
    ("boxes", "content", "message"),
    [
        ("author", AUTHOR + "000003.jpg 1 2 3 4\n", "line 3: expected an image .*000003.jpg, found no such file"),
        ("author", AUTHOR + "000001.jpg 1 2 3\n", "line 3: expected a name and 4 numbers, got 4 words"),
        ("author", AUTHOR + "000001.jpg 1 2 3 x\n", "line 3: expected a number, got 'x'"),
        ("author", AUTHOR + "000001.jpg 9 9 3 3\n", "line 3: expected a box x0 < x1"),
        ("author", AUTHOR + "000001.jpg 1 2 3 \udcff\n", "line 3: expected UTF-8 text, got the byte 0xff"),
        ("given", GIVEN.rpartition("101283")[0], "line 1: expected the number of rows that follow, 2, got '3'"),
        ("given", "", "line 1: expected the number of rows that follow, 0, got ''"),
    ],
)
def test_damaged(root: Path, boxes: str, content: str, message: str) -> None:
    path = root / ("celeba_bboxes.txt" if boxes == "author" else "Anno/list_bbox_celeba.txt")
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message):
        open_data("celeba", root, "all", boxes=boxes)


def test_damaged_lines_are_skipped(root: Path) -> None:
    (root / "celeba_bboxes.txt").write_text("000001.jpg 1 2\n\n" + AUTHOR + "000003.jpg 1 2 3 4")
    data = open_data("celeba", root, "all", skip_bad=True)
    assert (len(data), len(data.bad)) == (2, 2)


def test_missing(root: Path) -> None:
    with pytest.raises(ValueError, match=r"celeba: boxes: expected one of \('author', 'given'\), got 'tight'"):
        open_data("celeba", root, "all", boxes="tight")
    (root / "celeba_bboxes.txt").unlink()
    with pytest.raises(
        DataError, match="celeba_bboxes.txt: expected the list of boxes, .* the other choice is boxes='given'"
    ):
        open_data("celeba", root, "all")
    (root / "img_celeba").rename(root / "img_align_celeba")
    with pytest.raises(DataError, match="expected a folder 'img_celeba' or 'Img/img_celeba' or .*, found none"):
        open_data("celeba", root, "all", boxes="given")
