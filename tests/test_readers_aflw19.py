"""AFLW-19 from a file as CCL published it, in small."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io

from pipnet_fast.data import DataError, open_data
from pipnet_fast.data.readers import aflw19

COUNT = 6
# Of each face the number it has in the list, from 1.
ORDER = [4, 2, 6, 1, 3, 5]
# Listed extension and the one on the disk.
EXTENSIONS = [("jpg", "jpg"), ("png", "jpg"), ("jpg", "png"), ("jpg", "jpg"), ("jpg", "jpg"), ("jpg", "jpg")]


def landmarks(row: int) -> Any:
    return np.stack((np.arange(19.0) + 10 * row, 2 * np.arange(19.0) - row), axis=1)


def write_aflw(root: Path, images: str = "flickr", **changed: Any) -> None:
    """Face ``row`` has its box at left row + 1, top 5, and is 20 x 40; 0, 2 and 4 have all points visible."""
    names = np.empty((COUNT, 1), dtype=object)
    for row, (listed, on_disk) in enumerate(EXTENSIONS):
        names[row, 0] = f"{row % 3}/image{row:05d}.{listed}"
        path = root / images / f"{row % 3}/image{row:05d}.{on_disk}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 9 + row, 3), 40 * row, dtype=np.uint8))
    mask = np.ones((COUNT, 19))
    mask[1::2, 7] = 0
    values = {
        "bbox": np.stack([(row + 1.0, row + 21.0, 5.0, 45.0) for row in range(COUNT)]),
        "data": np.stack([landmarks(row).T.ravel() for row in range(COUNT)]),
        "mask_new": mask,
        "nameList": names,
        "ra": np.array([ORDER], dtype=np.float64),
    }
    present = {name: value for name, value in (values | changed).items() if value is not None}
    scipy.io.savemat(root / "AFLWinfo_release.mat", present, do_compression=True)


@pytest.fixture(autouse=True)
def four_to_train_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert aflw19.NUM_TRAIN == 20000
    monkeypatch.setattr(aflw19, "NUM_TRAIN", 4)


@pytest.mark.parametrize("images", ["flickr", "data/flickr", "aflw/data/flickr"])
@pytest.mark.parametrize(
    ("split", "rows", "subsets"),
    [
        ("train", [3, 1, 5, 0], [(), (), (), ()]),
        ("test", [2, 4], [("frontal",), ("frontal",)]),
        ("frontal", [2, 4], [("frontal",), ("frontal",)]),
    ],
)
def test_splits(split: str, rows: list[int], subsets: Any, images: str, tmp_path: Path) -> None:
    write_aflw(tmp_path, images)
    data = open_data("aflw19", tmp_path, split)
    assert (data.name, data.layout.name, data.norm) == (f"aflw19/{split}", "aflw19", "box")
    assert [sample.subsets for sample in data.samples] == subsets
    for sample, row in zip(data.samples, rows, strict=True):
        assert sample.landmarks is not None
        assert np.array_equal(sample.landmarks, landmarks(row) - 0.5)
        # Left, right, top, bottom in the file.
        assert sample.box.tolist() == [row + 0.5, 4.5, row + 20.5, 44.5]
        assert sample.image.read().shape == (8, 9 + row, 3)
    assert np.array_equal(data.crop_boxes(), [sample.box for sample in data.samples])


def test_frontal_are_those_with_all_points_visible(tmp_path: Path) -> None:
    write_aflw(tmp_path, ra=np.array([[1, 3, 5, 2, 4, 6]]))
    assert [s.subsets for s in open_data("aflw19", tmp_path, "test").samples] == [(), ()]
    with pytest.raises(DataError, match="expected faces of aflw19/frontal, found none"):
        open_data("aflw19", tmp_path, "frontal")
    assert [s.subsets for s in open_data("aflw19", tmp_path, "train").samples] == [()] * 4


def test_missing_images(tmp_path: Path) -> None:
    write_aflw(tmp_path)
    (tmp_path / "flickr/1/image00001.jpg").unlink()
    with pytest.raises(DataError, match=r"flickr/1/image00001\.png: expected an image, found no such file"):
        open_data("aflw19", tmp_path, "train")
    data = open_data("aflw19", tmp_path, "train", skip_bad=True)
    assert len(data) == 3
    assert [bad.where for bad in data.bad] == [f"{tmp_path / 'AFLWinfo_release.mat'}: row 2"]


def cells(**changed: Any) -> Any:
    array = np.empty((COUNT, 1), dtype=object)
    for row in range(COUNT):
        array[row, 0] = changed.get(f"at{row}", f"{row % 3}/image{row:05d}.jpg")
    return array


def with_nan(shape: tuple[int, int]) -> Any:
    values = np.arange(float(np.prod(shape))).reshape(shape)
    values[3, 2] = np.nan
    return values


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"ra": None}, "expected the variable 'ra', found", id="no permutation"),
        pytest.param({"ra": np.arange(6.0)[None]}, r"ra: expected a permutation of 1\.\.6", id="counted from 0"),
        pytest.param({"ra": np.array([[1.0, 1, 2, 3, 4, 5]])}, "ra: expected a permutation", id="one twice"),
        pytest.param({"ra": np.array([[1.5, 1, 2, 3, 4, 5]])}, "ra: expected a permutation", id="one and a half"),
        pytest.param({"ra": np.arange(1.0, 6)[None]}, r"ra: expected shape \(1, 6\), got \(1, 5\)", id="five"),
        pytest.param({"data": np.ones((6, 40))}, r"data: expected shape \(6, 38\), got \(6, 40\)", id="20 points"),
        pytest.param({"mask_new": np.ones((5, 19))}, r"mask_new: expected shape \(6, 19\)", id="five masks"),
        pytest.param({"nameList": np.ones((6, 1))}, r"nameList: expected 6 cells, got \(6, 1\)", id="no names"),
        pytest.param({"nameList": cells()[:5]}, r"nameList: expected 6 cells, got \(5, 1\)", id="five names"),
        pytest.param({"nameList": "text"}, "nameList: expected 6 cells, got <class 'str'>", id="text"),
        pytest.param({"nameList": cells(at3=7.0)}, "row 4: nameList: expected the name .* got ndarray", id="a number"),
        pytest.param({"nameList": cells(at3="a" * 300)}, "aaa: expected an image", id="a long name"),
        pytest.param({"nameList": cells(at3="")}, "flickr: expected an image", id="an empty name"),
        pytest.param(
            {"data": with_nan((6, 38))}, r"row 4: expected numbers within \+-1000000, got .* at landmark 2", id="nan"
        ),
        pytest.param({"bbox": with_nan((6, 4))}, r"row 4: expected a box", id="a box of nan"),
    ],
)
def test_other_contents(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_aflw(tmp_path, **changed)
    with pytest.raises(DataError, match=message):
        open_data("aflw19", tmp_path, "train")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a file 'AFLWinfo_release\.mat', found none"):
        open_data("aflw19", tmp_path, "train")
    with pytest.raises(ValueError, match=r"expected one of \('train', 'test', 'frontal'\) for aflw19, got 'val'"):
        open_data("aflw19", tmp_path, "val")
