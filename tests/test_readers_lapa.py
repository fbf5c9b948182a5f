"""LaPa: folders of images and of landmark files."""

from pathlib import Path

import numpy as np
import pytest

from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, open_data
from tests.miniature import box_of, landmarks, write_image


def text(seed: int) -> str:
    """As the files have them, counted from 0."""
    return "\n".join(["106", *(f"{x!r} {y!r}" for x, y in (landmarks(106, seed) - 0.5).tolist()), ""])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, stems in {"train": ["2_0", "10_0"], "test": ["7_1"]}.items():
        for seed, stem in enumerate(stems):
            write_image(tmp_path / split / "images" / f"{stem}.jpg")
            (tmp_path / split / "landmarks").mkdir(exist_ok=True)
            (tmp_path / split / "landmarks" / f"{stem}.txt").write_text(text(seed))
    return tmp_path


def test_faces(root: Path) -> None:
    data = open_data("lapa", root, "train")
    assert [Path(str(sample.image)).name for sample in data.samples] == ["10_0.jpg", "2_0.jpg"]
    for seed, sample in zip((1, 0), data.samples, strict=True):
        assert sample.landmarks is not None
        assert np.array_equal(sample.landmarks, landmarks(106, seed))
        assert sample.box.tolist() == box_of(landmarks(106, seed))
    assert (data.name, data.layout.name, data.layout.outer_eyes) == ("lapa/train", "lapa106", (66, 79))
    assert (data.crop, data.tight, data.norm) == (CropRule(1.2), True, "inter_ocular")
    assert len(open_data("lapa", root, "test")) == 1


def test_the_folder_of_the_archive_may_be_there(root: Path) -> None:
    (root / "LaPa").mkdir()
    (root / "train").rename(root / "LaPa" / "train")
    assert len(open_data("lapa", root, "train")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "line 1: expected the number of landmarks 106, got ''", id="empty"),
        pytest.param(text(0).replace("106\n", "68\n", 1), "line 1: expected .* 106, got '68'", id="another count"),
        pytest.param("\n".join(text(0).split("\n")[:-2]), "expected 106 lines of x and y, found 105", id="truncated"),
        pytest.param(text(0)[:-6], "line 107: expected x and y, got '", id="truncated within a line"),
        pytest.param(text(0) + "1 2\n", "expected 106 lines of x and y, found 107", id="one too many"),
        pytest.param("106\n1 two\n", "line 2: expected a number, got 'two'", id="a word"),
        pytest.param("106\n1 inf\n", "line 2: expected a number within .*, got 'inf'", id="infinity"),
    ],
)
def test_damaged(root: Path, content: str, message: str) -> None:
    (root / "train" / "landmarks" / "10_0.txt").write_text(content)
    with pytest.raises(DataError, match=f"10_0.txt(, |: ){message}"):
        open_data("lapa", root, "train")
    data = open_data("lapa", root, "train", skip_bad=True)
    assert (len(data), len(data.bad)) == (1, 1)


def test_missing(root: Path) -> None:
    with pytest.raises(DataError, match="expected a folder 'val' or 'LaPa/val', found none"):
        open_data("lapa", root, "val")
    with pytest.raises(ValueError, match=r"split: expected one of \('train', 'val', 'test'\) for lapa, got 'all'"):
        open_data("lapa", root, "all")
    (root / "train" / "landmarks" / "10_0.txt").unlink()
    with pytest.raises(DataError, match="landmarks/10_0: expected one .txt of this name, found none"):
        open_data("lapa", root, "train")
    (root / "test" / "landmarks" / "7_1.txt").unlink()
    (root / "test" / "landmarks").rmdir()
    with pytest.raises(DataError, match="landmarks: No such file"):
        open_data("lapa", root, "test", skip_bad=True)
