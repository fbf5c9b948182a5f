"""The one form of labelled faces: subsets, tight boxes, mean shape."""

from typing import Any

import numpy as np
import pytest

from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, FaceData, ImageFile, Sample, open_data
from pipnet_fast.data.errors import BadSamples
from pipnet_fast.layouts import Layout

TWO = Layout("two", np.array([1, 0]))
NAN = float("nan")


def face(points: Any, *subsets: str, box: tuple[float, ...] = (0, 0, 10, 20)) -> Sample:
    landmarks = None if points is None else np.array(points, dtype=np.float64)
    return Sample(ImageFile("a.jpg"), landmarks, np.array(box, dtype=np.float64), subsets)


def data(*samples: Sample) -> FaceData:
    return FaceData("mine/train", TWO, samples, CropRule(scale=1.0))


def test_subsets() -> None:
    faces = data(face(None, "blur"), face(None), face(None, "pose", "blur"))
    assert faces.subset_names() == ("blur", "pose")
    assert [len(faces.subset(name)) for name in faces.subset_names()] == [2, 1]
    assert faces.subset("pose").name == "mine/train/pose"
    with pytest.raises(ValueError, match=r"mine/train: subset: expected one of \['blur', 'pose'\], got 'light'"):
        faces.subset("light")


def test_mean_shape_counts_what_is_labelled() -> None:
    faces = data(face([[0, 0], [10, 20]]), face([[5, NAN], [5, 10]]), face(None))
    assert faces.mean_shape().tolist() == [[0.0, 0.0], [0.75, 0.75]]
    grown = FaceData("mine", TWO, faces.samples, CropRule(scale=2.0))
    assert grown.mean_shape().tolist() == [[0.25, 0.25], [0.625, 0.625]]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        pytest.param([face(None)], "expected labelled faces, got none", id="no labels"),
        pytest.param([face([[1, 1], [NAN, NAN]])], r"landmarks \[1\] are labelled in no face", id="one never labelled"),
    ],
)
def test_no_mean_shape(samples: list[Sample], message: str) -> None:
    with pytest.raises(ValueError, match=f"mine/train: mean shape: {message}"):
        data(*samples).mean_shape()


def test_tight_boxes() -> None:
    tight = data(face([[2, 3], [6, 13]])).with_tight_boxes(CropRule(scale=1.5))
    assert tight.tight
    assert tight.samples[0].box.tolist() == [2, 3, 6, 13]
    assert tight.crop_boxes().tolist() == [[1, 0.5, 7, 15.5]]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        pytest.param(None, "expected at least one labelled landmark", id="unlabelled"),
        pytest.param([[NAN, NAN]] * 2, "expected at least one labelled landmark", id="all missing"),
        pytest.param([[3, 4], [3, 9]], "expected landmarks that span an area", id="a line"),
    ],
)
def test_no_tight_box(points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.jpg: box: {message}"):
        data(face(points)).with_tight_boxes(CropRule())


def test_bad_samples_are_noted_or_end_the_reading() -> None:
    skipping = BadSamples(skip=True)
    with skipping.guard("face 7"):
        raise DataError("a.pts, line 3: expected two numbers")
    assert [(bad.where, bad.reason) for bad in skipping.found] == [("face 7", "a.pts, line 3: expected two numbers")]
    with pytest.raises(DataError, match="line 3"), BadSamples(skip=False).guard("face 7"):
        raise DataError("a.pts, line 3: expected two numbers")


def test_unknown_data_set(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="open_data: name: expected one of 300w, .*, got 'imagenet'"):
        open_data("imagenet", tmp_path, "train")
