"""face_alignment's calls: lists, tuples and None as theirs."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.compat.face_alignment import FaceAlignment, LandmarksType, NetworkSize
from pipnet_fast.layouts import load_layout
from pipnet_fast.pipeline.images import ImageError, read_rgb
from tests.test_landmarker import FACE, PARTS, tiny_model

NOTHING = np.zeros((80, 90, 3), np.uint8)


def detector(image: Any) -> Any:
    """A face in every image that is not black."""
    return [[*FACE, 0.5]] if image.any() else np.zeros((0, 5))


@pytest.fixture(scope="module")
def photo() -> Any:
    return read_rgb(astronaut())


@pytest.fixture(scope="module")
def fa() -> FaceAlignment:
    return FaceAlignment(LandmarksType.TWO_D, device="cpu", flip_input=False, face_detector=detector)


@pytest.fixture(scope="module")
def faces(photo: Any) -> pf.Faces:
    return pf.FaceLandmarker(detector=detector, device="cpu", color="rgb")(photo)


def test_landmarks_are_a_list(fa: FaceAlignment, photo: Any, faces: pf.Faces) -> None:
    for image in (photo, torch.from_numpy(photo), photo.astype(np.float32), str(astronaut()), astronaut()):
        found = fa.get_landmarks(image)
        assert isinstance(found, list)
        assert [(points.shape, points.dtype) for points in found] == [((68, 2), np.float32)]
        assert np.array_equal(found[0], faces.landmarks[0])


def test_flags_make_it_a_tuple(fa: FaceAlignment, photo: Any, faces: pf.Faces) -> None:
    landmarks, scores, boxes = fa.get_landmarks_from_image(photo, return_bboxes=True, return_landmark_score=True)
    assert np.array_equal(landmarks[0], faces.landmarks[0])
    assert np.array_equal(scores[0], faces.scores[0])
    assert boxes[0].tolist() == [*FACE, 0.5]
    assert fa.get_landmarks(photo, return_bboxes=True)[1] is None
    assert fa.get_landmarks(photo, return_landmark_score=True)[2] is None


def test_no_face_is_none(fa: FaceAlignment) -> None:
    with pytest.warns(UserWarning, match="No faces were detected"):
        assert fa.get_landmarks(NOTHING) is None
    with pytest.warns(UserWarning, match="No faces were detected"):
        assert fa.get_landmarks(NOTHING, return_bboxes=True) == (None, None, None)
    with pytest.warns(UserWarning, match="No faces were detected"):
        assert fa.get_landmarks(NOTHING, detected_faces=[]) is None


def test_given_boxes(fa: FaceAlignment, photo: Any, faces: pf.Faces) -> None:
    moved = [FACE[0] + 3, *FACE[1:]]
    both = fa.get_landmarks(photo, detected_faces=[np.array(FACE), torch.tensor(moved)])
    np.testing.assert_allclose(both[0], faces.landmarks[0], atol=1e-3)
    assert 0 < np.abs(both[1] - both[0]).mean() < 5
    (boxes,) = fa.face_detector.detect_from_image(photo)
    assert boxes.tolist() == [*FACE, 0.5]


def test_mirrored_images_count_as_much(photo: Any, faces: pf.Faces) -> None:
    fa = FaceAlignment(LandmarksType.TWO_D, device="cpu", face_detector=detector)
    (points,), (scores,), _ = fa.get_landmarks(photo, return_landmark_score=True)
    assert 0 < np.abs(points - faces.landmarks[0]).max() < 6
    for indices, position in PARTS.values():
        np.testing.assert_allclose(points[list(indices)].mean(axis=0), position, atol=6)
    # The mirrored image's landmarks are the mirrored ones, so that its center does not matter.
    box = [512 - FACE[2], FACE[1], 512 - FACE[0], FACE[3]]
    (mirrored,) = fa.get_landmarks(photo[:, ::-1].copy(), detected_faces=[box])
    flip = load_layout("300w68").flip
    np.testing.assert_allclose(mirrored[flip] * (-1, 1) + (512, 0), points, atol=2e-3)
    assert scores.shape == (68,)


def test_a_batch(fa: FaceAlignment, photo: Any, faces: pf.Faces) -> None:
    images = np.stack((photo, np.zeros_like(photo)))
    for batch in (torch.from_numpy(images).permute(0, 3, 1, 2).float(), images.transpose(0, 3, 1, 2)):
        landmarks, scores, boxes = fa.get_landmarks_from_batch(batch, return_bboxes=True, return_landmark_score=True)
        assert landmarks[0].shape == (68, 2)
        assert np.array_equal(landmarks[0], faces.landmarks[0])
        assert landmarks[1] == []
        assert [len(boxes[0]), len(boxes[1])] == [1, 0]
        assert scores[0][0].shape == (68,)
        assert scores[1] is None
    (twice, none) = fa.get_landmarks_from_batch(batch, detected_faces=[[FACE, FACE], []])
    assert (twice.shape, none) == ((136, 2), [])
    with pytest.warns(UserWarning, match="No faces were detected"):
        assert fa.get_landmarks_from_batch(batch[:0]) is None
    assert [len(found) for found in fa.face_detector.detect_from_batch(batch)] == [1, 0]


def test_a_directory(fa: FaceAlignment, photo: Any, faces: pf.Faces, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for name in ("b.png", "a.png", "deeper/c.png", "d.bmp"):
        cv2.imwrite(str(tmp_path / name), photo[..., ::-1])
    found = fa.get_landmarks_from_directory(str(tmp_path), show_progress_bar=False)
    assert list(found) == [str(tmp_path / name) for name in ("a.png", "b.png", "deeper/c.png")]
    assert np.array_equal(found[str(tmp_path / "a.png")][0], faces.landmarks[0])
    flat = fa.get_landmarks_from_directory(
        tmp_path, [".bmp"], recursive=False, show_progress_bar=False, return_bboxes=True
    )
    assert [len(parts) for parts in flat.values()] == [3]
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="bad.png"):
        fa.get_landmarks_from_directory(tmp_path, show_progress_bar=False)
    with pytest.raises(ValueError, match="path: expected a folder"):
        fa.get_landmarks_from_directory(tmp_path / "none")


@pytest.mark.parametrize("kind", [LandmarksType.TWO_HALF_D, LandmarksType.THREE_D, LandmarksType._3D, 7])
def test_other_types_of_landmarks(kind: Any) -> None:
    with pytest.raises(NotImplementedError, match="landmarks_type: expected LandmarksType.TWO_D, which alone is here"):
        FaceAlignment(kind)


def test_old_and_new_names() -> None:
    assert LandmarksType._2D is LandmarksType.TWO_D
    assert LandmarksType._2halfD is LandmarksType.TWO_HALF_D
    assert NetworkSize.LARGE == 4
    fa = FaceAlignment(LandmarksType._2D, NetworkSize.LARGE, "cpu", torch.bfloat16, compile=False, verbose=True)
    assert (fa.landmarks_type, fa.device, fa.landmarker.engine) == (LandmarksType.TWO_D, "cpu", "torch")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"face_detector": "blazeface"}, ValueError, "expected one of sfd, auto, haar", id="detector"),
        pytest.param({"face_detector": "yunet"}, ValueError, "expected path_to_detector", id="yunet without a file"),
        pytest.param({"face_detector": None}, ValueError, "face_detector: .* got None", id="no detector"),
        pytest.param(
            {"face_detector_kwargs": {"filter_threshold": 0.8}},
            ValueError,
            "face_detector_kwargs: expected none for 'sfd', got 'filter_threshold'",
            id="options",
        ),
        pytest.param(
            {"face_detector": "yunet", "face_detector_kwargs": {"path_to_detector": "none.onnx"}},
            FileNotFoundError,
            "no such YuNet file: none.onnx",
            id="yunet's file",
        ),
        pytest.param({"model": tiny_model(5)}, ValueError, "model: expected one of 68 landmarks, got one of 5", id="N"),
        pytest.param({"dtype": torch.int8}, ValueError, "dtype: expected float32", id="dtype"),
        pytest.param({"device": "nowhere"}, ValueError, "device", id="device"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FaceAlignment(LandmarksType.TWO_D, **options)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        pytest.param(NOTHING + 1.5, None, "", id="floats"),
        pytest.param(np.full((8, 8, 3), 0.5), ValueError, "expected 0 to 255, .*; multiply them by 255", id="0 to 1"),
        pytest.param(np.full((8, 8, 3), -1.0), ValueError, "expected 0 to 255, got floats of -1 to -1", id="negative"),
        pytest.param(np.full((8, 8, 3), np.nan), ValueError, "expected 0 to 255, got floats of nan", id="NaN"),
        pytest.param(np.zeros((8, 8, 3), np.int64), TypeError, "expected uint8", id="int64"),
        pytest.param(None, TypeError, "expected a NumPy array", id="None"),
    ],
)
def test_values_of_images(fa: FaceAlignment, image: Any, error: Any, message: str) -> None:
    if error is None:
        assert len(fa.get_landmarks(image)) == 1
        return
    with pytest.raises(error, match=message):
        fa.get_landmarks(image)


def test_batches_that_are_none(fa: FaceAlignment) -> None:
    with pytest.raises(ValueError, match=r"image_batch: expected a tensor or array \(B, 3, h, w\), got \(8, 8, 3\)"):
        fa.get_landmarks_from_batch(np.zeros((8, 8, 3)))
