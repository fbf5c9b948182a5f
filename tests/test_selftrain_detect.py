"""Boxes for pictures without any: every face of every picture, counted, kept and told from others'."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pyarrow import parquet

import pipnet_fast as pf
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.crop import CropRule, Image
from pipnet_fast.data import DataError, FaceData, Sample, open_data
from pipnet_fast.pipeline.detectors import HaarDetector
from pipnet_fast.pipeline.images import read_rgb
from pipnet_fast.selftrain import box_statistics, read_boxes, read_labels, write_boxes, write_labels
from tests.inputs import randomized
from tests.pictures import THREE, Picture

# Faces in each of the pictures.
COUNTS = (1, 0, 2, 1, 3, 0, 1)


class Finder:
    """Finds as many faces in a picture as its first pixel says, and remembers the pictures it has seen."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, image: Image) -> Any:
        number, count = image[0, 0, :2].tolist()
        self.seen.append(number)
        return boxes_of(number, count)


def boxes_of(number: int, count: int) -> Any:
    """(n, 5), in float32, as detectors have them."""
    low = np.arange(count)[:, None] * 10 + number + np.array([5.125, 6.1])
    return np.concatenate((low, low + 40.3, np.full((count, 1), 0.9)), axis=1).astype(np.float32)


def pictures(broken: Sequence[int] = ()) -> FaceData:
    samples = []
    for number, count in enumerate(COUNTS):
        image = np.full((90, 100, 3), 60, np.uint8)
        image[0, 0] = number, count, 0
        samples.append(
            Sample(Picture(f"/in/{number}.png", None if number in broken else image), None, np.full(4, np.nan))
        )
    return FaceData("pictures/all", THREE, samples, CropRule(1.3))


@pytest.mark.parametrize("shard_size", [1, 3, 100])
def test_a_sample_for_every_face(shard_size: int, tmp_path: Path) -> None:
    data, find = pictures(), Finder()
    write_boxes(data, find, tmp_path, shard_size=shard_size)
    assert find.seen == list(range(7))
    assert len(os.listdir(tmp_path)) == -(-7 // shard_size)
    faces = read_boxes(data, tmp_path)
    assert [str(sample.image) for sample in faces.samples] == [f"/in/{i}.png" for i in (0, 2, 2, 3, 4, 4, 4, 6)]
    wanted = np.concatenate([boxes_of(*numbered) for numbered in enumerate(COUNTS)])
    np.testing.assert_array_equal([sample.box for sample in faces.samples], wanted[:, :4])
    assert {sample.box.dtype for sample in faces.samples} == {np.dtype(np.float64)}
    assert all(sample.landmarks is None for sample in faces.samples)
    assert (faces.tight, faces.name, faces.crop, faces.layout) == (True, data.name, data.crop, data.layout)
    assert box_statistics(tmp_path) == (7, 0, 2, 8)


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    broken, find = pictures(broken=[2, 5]), Finder()
    with pytest.raises(DataError, match=r"/in/2\.png: the disk is gone"):
        write_boxes(broken, find, tmp_path, shard_size=2)
    assert os.listdir(tmp_path) == ["part-00000.parquet"]
    write_boxes(broken, find, tmp_path, shard_size=2, skip_bad=True)
    # The first file was there.
    assert find.seen == [0, 1, 3, 4, 6]
    faces = read_boxes(broken, tmp_path)
    assert len(faces) == 6
    assert [(bad.where, bad.reason) for bad in faces.bad] == [
        (f"/in/{i}.png", f"/in/{i}.png: the disk is gone") for i in (2, 5)
    ]
    assert box_statistics(tmp_path) == (7, 2, 1, 6)
    # What could not be read is tried again only where every picture is to count.
    write_boxes(pictures(), find, tmp_path, shard_size=2, skip_bad=True)
    assert box_statistics(tmp_path).unreadable == 2
    write_boxes(pictures(), find, tmp_path, shard_size=2)
    assert box_statistics(tmp_path) == (7, 0, 2, 8)


def test_no_face_anywhere(tmp_path: Path) -> None:
    data = pictures()
    for name, nothing in {"4": np.zeros((0, 4)), "5": np.zeros((0, 5), np.float32), "list": []}.items():
        write_boxes(data, lambda image, nothing=nothing: nothing, tmp_path / name)  # type: ignore[misc]
        assert len(read_boxes(data, tmp_path / name)) == 0
        assert box_statistics(tmp_path / name) == (7, 0, 7, 0)


def test_a_detector_by_name(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photo = read_rgb(astronaut())
    for name, image in {"face.png": photo, "none.png": photo[300:]}.items():
        assert cv2.imwrite(str(tmp_path / "photos" / name), image[:, :, ::-1])
    (tmp_path / "photos" / "all.txt").write_text("face.png\nnone.png\n")
    data = open_data("table", tmp_path / "photos", "all", layout="300w68")
    write_boxes(data, "haar", tmp_path / "boxes")
    faces = read_boxes(data, tmp_path / "boxes")
    assert [Path(str(sample.image)).name for sample in faces.samples] == ["face.png"]
    np.testing.assert_array_equal(faces.samples[0].box, HaarDetector()(photo)[0, :4])
    # The same boxes by another name are not known to be the same.
    with pytest.raises(ValueError, match="detector: 'haar', not 'HaarDetector'"):
        write_boxes(data, HaarDetector(), tmp_path / "boxes")


def test_found_faces_are_labelled(tmp_path: Path) -> None:
    shape = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.7]])
    model = randomized(num_landmarks=3, num_neighbors=2, mean_shape=shape, input_size=64, width=0.0625)
    write_boxes(pictures(), Finder(), tmp_path / "boxes")
    faces = read_boxes(pictures(), tmp_path / "boxes")
    write_labels(model, faces, tmp_path / "labels")
    # Read again, the boxes are the same to the last bit.
    again = read_labels(read_boxes(pictures(), tmp_path / "boxes"), tmp_path / "labels")
    found = pf.FaceLandmarker(model, detector=Finder(), color="rgb", engine="torch").predict_batch(
        [sample.image.read() for sample in pictures().samples]
    )
    wanted = np.concatenate([one.landmarks for one in found])
    np.testing.assert_allclose([sample.landmarks for sample in again.samples], wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(
            lambda out: write_boxes(pictures(), None, out),  # type: ignore[arg-type]
            TypeError, 'write_boxes: detector: expected "auto", .* got None', id="no detector",
        ),
        pytest.param(lambda out: write_boxes(pictures(), "hog", out), ValueError, "got 'hog'", id="unknown"),
        pytest.param(lambda out: write_boxes(pictures(), Finder, out), TypeError, "got the class Finder", id="class"),  # type: ignore[arg-type]
        pytest.param(
            lambda out: write_boxes(pictures(), Finder(), out, shard_size=0),
            ValueError, "write_boxes: shard_size: expected an integer >= 1, got 0", id="shard size",
        ),
        pytest.param(
            lambda out: write_boxes(FaceData("none", THREE, [], CropRule()), Finder(), out),
            ValueError, "write_boxes: none: expected pictures, got none", id="no pictures",
        ),
        pytest.param(
            lambda out: write_boxes(pictures(), lambda image: None, out),
            TypeError, r"write_boxes: detector: /in/0\.png: .*boxes: expected numbers", id="returns nothing",
        ),
        pytest.param(
            lambda out: write_boxes(pictures(), lambda image: np.ones((2, 3)), out),
            ValueError, r"write_boxes: detector: /in/0\.png: .*got \(2, 3\)", id="returns another shape",
        ),
        pytest.param(
            lambda out: write_boxes(pictures(), lambda image: np.ones((1, 4)), out),
            ValueError, r"write_boxes: detector: /in/0\.png: .*expected finite x0 < x1", id="returns void boxes",
        ),
        pytest.param(
            lambda out: read_boxes(pictures(), out), DataError, r"part-00000\.parquet: no such file", id="no boxes",
        ),
        pytest.param(lambda out: box_statistics(out), DataError, r"part-00000\.parquet: no such file", id="statistics"),
    ],
)  # fmt: skip
def test_wrong_arguments(call: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        call(tmp_path)
    assert not os.listdir(tmp_path)


def test_boxes_of_others_are_not_mixed_in(tmp_path: Path) -> None:
    data = pictures()
    write_boxes(data, Finder(), tmp_path)
    fewer = FaceData("pictures/all", THREE, data.samples[1:], data.crop)
    with pytest.raises(ValueError, match="is of another table: detector: 'Finder', not 'haar'"):
        write_boxes(data, "haar", tmp_path)
    with pytest.raises(ValueError, match="is of another table: inputs: 7, not 6; faces: "):
        write_boxes(fewer, Finder(), tmp_path)
    with pytest.raises(ValueError, match="read_boxes: .*: expected the table of pictures/all; inputs: 7, not 6"):
        read_boxes(fewer, tmp_path)
    # A table of labels has other columns, and is of another format.
    with pytest.raises(
        DataError, match=r"expected a table in format 'pipnet_fast\.labels/1', got 'pipnet_fast\.boxes/1'"
    ):
        read_labels(data, tmp_path)
    damaged = tmp_path / "part-00000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_boxes(data, tmp_path)
    write_boxes(data, Finder(), tmp_path)
    assert parquet.read_table(damaged)["boxes"].to_pylist()[0] == boxes_of(0, 1).ravel().tolist()
