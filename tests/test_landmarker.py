"""Photos in, faces out: the model in the box on a real face, and tiny models whose answer is known."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.pipeline import landmarker as landmarker_module
from pipnet_fast.pipeline.images import ImageError, read_rgb

Pixels = npt.NDArray[np.uint8]

# Tight about the astronaut's face, by hand.
FACE = [180.0, 88.0, 270.0, 177.0]
# By hand from the photo enlarged: which of the 68 landmarks, and where their center is.
PARTS = {
    "her-right-eye": (range(36, 42), (204, 102)),
    "her-left-eye": (range(42, 48), (246, 103)),
    "nose-tip": ([30], (225, 128)),
    "right-mouth-corner": ([48], (203, 140)),
    "left-mouth-corner": ([54], (244, 142)),
    "chin": ([8], (224, 177)),
}


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return read_rgb(astronaut())


@pytest.fixture(scope="module")
def landmarker() -> pf.FaceLandmarker:
    return pf.FaceLandmarker(color="rgb", device="cpu")


@pytest.fixture(scope="module")
def found(landmarker: pf.FaceLandmarker, photo: Pixels) -> pf.Faces:
    return landmarker(photo)


def tiny_model(num_landmarks: int = 5, seed: int = 0, **options: Any) -> pf.PIPNet:
    torch.manual_seed(seed)
    mean_shape = np.random.RandomState(seed).rand(num_landmarks, 2)
    options = {"num_neighbors": 2, "width": 0.125, "input_size": 64, "mean_shape": mean_shape, **options}
    return pf.PIPNet(num_landmarks=num_landmarks, **options).eval()


def known_model(score: float = 0.5, **options: Any) -> pf.PIPNet:
    """A model that puts both landmarks at (0.25, 0.375) of any crop: the head's weights are 0, its biases are not."""
    model = tiny_model(2, num_neighbors=0, **options)
    biases = {"cls_layer": [score, score], "x_layer": [0.5, 0.5], "y_layer": [0.75, 0.75]}
    with torch.no_grad():
        for name, values in biases.items():
            model.get_parameter(f"{name}.weight").zero_()
            model.get_parameter(f"{name}.bias").copy_(torch.tensor(values))
    return model


def assert_same(faces: pf.Faces, expected: pf.Faces, atol: float = 1e-3) -> None:
    np.testing.assert_allclose(faces.landmarks, expected.landmarks, atol=atol, rtol=0)
    np.testing.assert_allclose(faces.scores, expected.scores, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(faces.boxes, expected.boxes)
    np.testing.assert_array_equal(faces.ids, expected.ids)


def assert_empty(faces: pf.Faces, num_landmarks: int = 68) -> None:
    assert len(faces) == 0
    shapes = [faces.landmarks.shape, faces.scores.shape, faces.boxes.shape, faces.ids.shape]
    assert shapes == [(0, num_landmarks, 2), (0, num_landmarks), (0, 5), (0,)]
    dtypes = [faces.landmarks.dtype, faces.scores.dtype, faces.boxes.dtype, faces.ids.dtype]
    assert dtypes == [np.float32, np.float32, np.float32, np.int64]


def test_arrays_of_the_one_face(found: pf.Faces) -> None:
    assert len(found) == 1
    assert (found.landmarks.shape, found.landmarks.dtype) == ((1, 68, 2), np.float32)
    assert (found.scores.shape, found.scores.dtype) == ((1, 68), np.float32)
    assert (found.boxes.shape, found.boxes.dtype) == ((1, 5), np.float32)
    assert (found.ids.tolist(), found.ids.dtype) == ([-1], np.int64)
    assert 0 <= found.scores.min() <= found.scores.max() <= 1
    assert found.scores.mean() > 0.4


@pytest.mark.parametrize("part", PARTS)
def test_landmarks_sit_on_the_face(found: pf.Faces, part: str) -> None:
    indices, position = PARTS[part]
    np.testing.assert_allclose(found.landmarks[0, list(indices)].mean(axis=0), position, atol=6)


def test_a_path_is_read_as_its_array(found: pf.Faces, landmarker: pf.FaceLandmarker) -> None:
    assert_same(landmarker(astronaut()), found, atol=0)
    assert_same(landmarker(str(astronaut())), found, atol=0)


def test_bgr_is_the_default(found: pf.Faces, photo: Pixels) -> None:
    assert_same(pf.FaceLandmarker(device="cpu")(photo[..., ::-1]), found, atol=0)


def test_colors_matter(found: pf.Faces, photo: Pixels, landmarker: pf.FaceLandmarker) -> None:
    swapped = landmarker(photo[..., ::-1], found.boxes)
    assert np.abs(swapped.landmarks - found.landmarks).max() > 0.1


def test_alpha_and_gray_are_taken(found: pf.Faces, photo: Pixels, landmarker: pf.FaceLandmarker) -> None:
    alpha = np.full((512, 512, 1), 3, dtype=np.uint8)
    assert_same(landmarker(np.concatenate((photo, alpha), axis=2)), found, atol=0)
    gray = landmarker(photo.mean(axis=2).astype(np.uint8), found.boxes)
    assert np.abs(gray.landmarks - found.landmarks).mean() < 2


@pytest.mark.parametrize("base", ["continuous", "center"])
@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # Grown by a half, 60 by 60: landmarks at 15 and 22.5 px of the crop's corner.
        pytest.param((100, 50, 140, 90), (90 + 15, 40 + 22.5), id="square"),
        pytest.param((100, 50, 120, 90), (95 + 7.5, 40 + 22.5), id="upright"),
        pytest.param((-20, -30, 20, 10), (-30 + 15, -40 + 22.5), id="over-the-corner"),
        pytest.param((4000, 5000, 4040, 5040), (3990 + 15, 4990 + 22.5), id="far-outside"),
    ],
)
def test_known_landmarks_come_back_to_the_image(base: Any, box: tuple[float, ...], expected: tuple[float, ...]) -> None:
    model = known_model(crop=pf.CropRule(scale=1.5, pixel_base=base))
    faces = pf.FaceLandmarker(model, detector=None, device="cpu")(np.zeros((200, 300, 3), np.uint8), [box])
    np.testing.assert_allclose(faces.landmarks[0], [expected, expected], atol=1e-3)


@pytest.mark.parametrize(("score", "expected"), [(0.25, 0.25), (3.0, 1.0), (-3.0, 0.0)])
def test_scores_are_cut_to_0_and_1(score: float, expected: float) -> None:
    landmarker = pf.FaceLandmarker(known_model(score), detector=None, device="cpu")
    faces = landmarker(np.zeros((64, 64, 3), np.uint8), [[0, 0, 64, 64]])
    np.testing.assert_allclose(faces.scores, [[expected, expected]], atol=1e-6)


def test_batch_is_the_single_calls_in_one_forward(
    photo: Pixels, landmarker: pf.FaceLandmarker, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [photo, np.zeros((90, 120, 3), np.uint8), astronaut(), photo[40:300, 90:400]]
    boxes = [None, None, [FACE, [150, 60, 290, 200]], [[91, 47, 178, 132, 0.5]]]
    alone = [landmarker(image, box) for image, box in zip(images, boxes, strict=True)]
    assert [len(faces) for faces in alone] == [1, 0, 2, 1]

    sizes: list[int] = []
    runtime = landmarker.runtime
    monkeypatch.setattr(landmarker, "runtime", lambda crops: sizes.append(len(crops)) or runtime(crops))
    together = landmarker.predict_batch(images, boxes)
    assert sizes == [4]
    assert len(together) == 4
    for faces, expected in zip(together, alone, strict=True):
        assert_same(faces, expected)
    assert_empty(together[1])
    assert together[3].boxes[0, 4] == 0.5


def test_more_crops_than_a_forward_takes(photo: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    landmarker = pf.FaceLandmarker(tiny_model(), detector=None, device="cpu")
    boxes = [[x, x / 2, x + 100, x / 2 + 90] for x in range(0, 350, 50)]
    expected = landmarker(photo, boxes)
    monkeypatch.setattr(landmarker_module, "MAX_FORWARD", 3)
    assert_same(landmarker(photo, boxes), expected)


def test_no_face_gives_empty_arrays(landmarker: pf.FaceLandmarker, photo: Pixels) -> None:
    black = np.zeros((80, 100, 3), np.uint8)
    assert_empty(landmarker(black))
    assert_empty(landmarker(photo, []))
    assert [len(faces) for faces in landmarker.predict_batch([black, black])] == [0, 0]
    assert landmarker.predict_batch([]) == []
    assert_empty(pf.FaceLandmarker(tiny_model(7), device="cpu")(black), num_landmarks=7)


@pytest.mark.parametrize(
    ("height", "width"), [pytest.param(1, 1, id="one-pixel"), pytest.param(1, 5000, id="line-of-5000")]
)
def test_odd_images_have_no_face(landmarker: pf.FaceLandmarker, height: int, width: int) -> None:
    assert_empty(landmarker(np.zeros((height, width, 3), np.uint8)))


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        pytest.param([FACE], [1.0], id="list"),
        pytest.param((tuple(FACE), tuple(FACE)), [1.0, 1.0], id="tuples"),
        pytest.param([[*FACE, 0.25]], [0.25], id="list-with-score"),
        pytest.param(np.array([FACE]), [1.0], id="n-by-4"),
        pytest.param(np.array([[*FACE, 0.5], [*FACE, 0.75]]), [0.5, 0.75], id="n-by-5"),
        pytest.param(np.array([FACE], dtype=np.int64), [1.0], id="integers"),
        pytest.param(torch.tensor([FACE]), [1.0], id="tensor"),
        pytest.param([], [], id="empty-list"),
        pytest.param(np.zeros((0, 4)), [], id="0-by-4"),
        pytest.param(np.zeros((0, 5), dtype=np.float32), [], id="0-by-5"),
    ],
)
def test_given_boxes(landmarker: pf.FaceLandmarker, photo: Pixels, boxes: Any, scores: list[float]) -> None:
    faces = landmarker(photo, boxes)
    expected = np.array([[*FACE, score] for score in scores], dtype=np.float32).reshape(-1, 5)
    np.testing.assert_array_equal(faces.boxes, expected)
    assert faces.boxes.dtype == np.float32
    assert faces.landmarks.shape == (len(scores), 68, 2)
    assert faces.ids.tolist() == [-1] * len(scores)


def test_faces_keep_their_boxes_when_the_callers_change(photo: Pixels) -> None:
    landmarker = pf.FaceLandmarker(tiny_model(), detector=None, device="cpu")
    boxes = np.array([[*FACE, 1.0]], dtype=np.float32)
    faces = landmarker(photo, boxes)
    boxes[:] = 0
    np.testing.assert_array_equal(faces.boxes, np.array([[*FACE, 1.0]], dtype=np.float32))


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((-40, -40, 60, 60), id="over-the-corner"),
        pytest.param((470, 200, 560, 290), id="over-the-right-edge"),
        pytest.param((-500, -400, 900, 1000), id="larger-than-the-image"),
        pytest.param((1000, 1000, 1100, 1100), id="outside"),
        pytest.param((-1e7, -1e7, 1e7, 1e7), id="gigantic"),
        pytest.param((30, 30, 30.5, 30.5), id="half-a-pixel"),
    ],
)
def test_boxes_at_and_beyond_the_border(
    landmarker: pf.FaceLandmarker, photo: Pixels, box: tuple[float, float, float, float]
) -> None:
    faces = landmarker(photo, [box])
    assert np.isfinite(faces.landmarks).all()
    # A model may err, though hardly by more than its crop.
    center, side = np.array([box[0] + box[2], box[1] + box[3]]) / 2, box[2] - box[0]
    assert np.abs(faces.landmarks - center).max() < 1.3 * side
    assert 0 <= faces.scores.min() <= faces.scores.max() <= 1


def test_face_cut_by_the_border_is_found_where_it_was(landmarker: pf.FaceLandmarker, photo: Pixels) -> None:
    # All of the face, and none of what the crop shows right of it.
    whole, cut = landmarker(photo, [FACE]), landmarker(photo[:, :272], [FACE])
    assert np.abs(whole.landmarks - cut.landmarks).mean() < 3


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        pytest.param(
            [[0, 0, float("nan"), 9]], ValueError, r"finite .* got \[0\.0, 0\.0, nan, 9\.0, 1\.0\] in box 0", id="nan"
        ),
        pytest.param([[0, 0, 9, float("inf")]], ValueError, r"finite .* in box 0", id="infinite"),
        pytest.param([[0, 0, 9, 9, float("nan")]], ValueError, "finite", id="nan-score"),
        pytest.param(
            [FACE, [9, 0, 5, 9]], ValueError, r"x0 < x1 .* \[9\.0, 0\.0, 5\.0, 9\.0, 1\.0\] in box 1", id="inverted-x"
        ),
        pytest.param([[0, 9, 5, 2]], ValueError, r"y0 < y1 .* in box 0", id="inverted-y"),
        pytest.param([[5, 5, 5, 9]], ValueError, r"x0 < x1 .* in box 0", id="no-width"),
        pytest.param([[0, 0, 2**24, 9]], ValueError, r"below 2\^24 px", id="too-far"),
        pytest.param([0, 0, 9, 9], ValueError, r"expected shape \(n, 4\) or \(n, 5\), got \(4,\)", id="one-flat-box"),
        pytest.param([[0, 0, 9]], ValueError, r"got \(1, 3\)", id="three-numbers"),
        pytest.param([[0, 0, 9, 9, 1, 1]], ValueError, r"got \(1, 6\)", id="six-numbers"),
        pytest.param([[[0, 0, 9, 9]]], ValueError, r"got \(1, 1, 4\)", id="three-dimensions"),
        pytest.param(5, ValueError, r"got \(\)", id="number"),
        pytest.param("faces", TypeError, r"expected numbers of shape \(n, 4\)", id="string"),
        pytest.param([["a", "b", "c", "d"]], TypeError, r"expected numbers of shape \(n, 4\)", id="strings"),
        pytest.param([["0", "0", "1", "1"]], TypeError, "got values of type <U1", id="numbers-as-text"),
        pytest.param(np.zeros((3, 0)), ValueError, r"got \(3, 0\)", id="no-columns"),
        pytest.param([FACE, [*FACE, 1]], TypeError, r"expected numbers of shape \(n, 4\)", id="ragged"),
        pytest.param({"box": FACE}, TypeError, r"expected numbers of shape \(n, 4\)", id="dictionary"),
    ],
)
def test_bad_boxes(
    landmarker: pf.FaceLandmarker, photo: Pixels, boxes: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=rf"FaceLandmarker: boxes: .*{message}"):
        landmarker(photo, boxes)


def test_images_are_checked(landmarker: pf.FaceLandmarker, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="FaceLandmarker: image: expected uint8 values"):
        landmarker(np.zeros((9, 9, 3), np.float32))
    with pytest.raises(ImageError, match=r"missing\.jpg: No such file"):
        landmarker(tmp_path / "missing.jpg")


@pytest.mark.parametrize(
    ("images", "boxes", "error", "message"),
    [
        pytest.param("photo.jpg", None, TypeError, "images: expected a list of images, got str", id="string"),
        pytest.param(Path("photo.jpg"), None, TypeError, "images: expected a list of images, got .*Path", id="path"),
        pytest.param(np.zeros((2, 9, 9, 3), np.uint8), None, TypeError, "got ndarray", id="array"),
        pytest.param(iter([]), None, TypeError, "got list_iterator", id="iterator"),
        pytest.param([np.zeros((9, 9, 3), np.uint8)] * 2, [[]], ValueError, "expected 2 entries.* got 1", id="fewer"),
        pytest.param([np.zeros((9, 9, 3), np.uint8)], [[], []], ValueError, "expected 1 entries.* got 2", id="more"),
        pytest.param([], [[]], ValueError, "boxes: expected 0 entries.* got 1", id="boxes-of-no-image"),
    ],
)
def test_bad_batches(
    landmarker: pf.FaceLandmarker, images: Any, boxes: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"FaceLandmarker: .*{message}"):
        landmarker.predict_batch(images, boxes)


def test_without_a_detector_boxes_are_needed(photo: Pixels) -> None:
    landmarker = pf.FaceLandmarker(tiny_model(), detector=None, device="cpu")
    with pytest.raises(ValueError, match="boxes: expected boxes with every image, for there is no detector"):
        landmarker(photo)
    with pytest.raises(ValueError, match="no detector"):
        landmarker.predict_batch([photo, photo], [[FACE], None])
    assert len(landmarker(photo, [FACE])) == 1


def test_own_detector_gets_rgb_and_is_asked_only_without_boxes(photo: Pixels) -> None:
    seen: list[Pixels] = []

    def detector(image: Pixels) -> list[list[float]]:
        seen.append(image)
        return [[*FACE, 0.125]]

    landmarker = pf.FaceLandmarker(tiny_model(), detector=detector, device="cpu", color="bgr")
    faces = landmarker(photo[..., ::-1])
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], photo)
    np.testing.assert_array_equal(faces.boxes, np.array([[*FACE, 0.125]], dtype=np.float32))
    assert_same(faces, landmarker(photo[..., ::-1], [[*FACE, 0.125]]), atol=0)
    assert len(seen) == 1


def test_answers_of_an_own_detector_are_checked(photo: Pixels) -> None:
    landmarker = pf.FaceLandmarker(tiny_model(), detector=lambda image: [[1, 2, 3]], device="cpu")
    with pytest.raises(ValueError, match=r"expected shape \(n, 4\) or \(n, 5\), got \(1, 3\)"):
        landmarker(photo)


def test_eight_threads_share_one_landmarker(photo: Pixels) -> None:
    # A fresh one, so that the threads meet at what is made on the first call.
    landmarker = pf.FaceLandmarker(color="rgb", device="cpu")
    images = [np.ascontiguousarray(photo[i * 5 : 300 + i * 5, 60 + i * 4 : 400]) for i in range(8)]
    start = threading.Barrier(8)

    def call(image: Pixels) -> pf.Faces:
        start.wait(timeout=30)
        return landmarker(image)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(call, images))
    for image, faces in zip(images, together, strict=True):
        alone = landmarker(image)
        assert len(alone) == 1
        np.testing.assert_array_equal(faces.landmarks, alone.landmarks)
        np.testing.assert_array_equal(faces.scores, alone.scores)
        np.testing.assert_array_equal(faces.boxes, alone.boxes)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (37, 91), (130, 5)])
def test_a_shifted_image_gives_shifted_landmarks(
    landmarker: pf.FaceLandmarker, photo: Pixels, dx: int, dy: int
) -> None:
    expected = landmarker(photo, [FACE]).landmarks + np.array([dx, dy], dtype=np.float32)
    canvas = np.zeros((640, 660, 3), dtype=np.uint8)
    canvas[dy : dy + 512, dx : dx + 512] = photo
    faces = landmarker(canvas, [[FACE[0] + dx, FACE[1] + dy, FACE[2] + dx, FACE[3] + dy]])
    np.testing.assert_allclose(faces.landmarks, expected, atol=1e-3)


@pytest.mark.parametrize("factor", [2, 3])
def test_an_enlarged_image_gives_enlarged_landmarks(landmarker: pf.FaceLandmarker, photo: Pixels, factor: int) -> None:
    large = np.repeat(np.repeat(photo, factor, axis=0), factor, axis=1)
    difference = landmarker(large, np.array([FACE]) * factor).landmarks / factor - landmarker(photo, [FACE]).landmarks
    assert np.abs(difference).max() < 1.5
    np.testing.assert_allclose(difference.mean(axis=(0, 1)), 0, atol=0.2)


def test_the_callers_image_is_left_as_it_was(landmarker: pf.FaceLandmarker, photo: Pixels) -> None:
    image = photo.copy()
    landmarker(image)
    np.testing.assert_array_equal(image, photo)
    image.flags.writeable = False
    assert len(landmarker(image)) == 1


def test_the_model_in_the_box_is_the_default(found: pf.Faces, photo: Pixels) -> None:
    path = pf.weights.default_model()
    for model in (str(path), pf.load(path)):
        landmarker = pf.FaceLandmarker(model, detector=None, device="cpu", color="rgb")
        assert_same(landmarker(photo, found.boxes), found, atol=0)


def test_model_file_of_ones_own(tmp_path: Path, photo: Pixels) -> None:
    model = tiny_model(crop=pf.CropRule(1.4, 0.1))
    pf.save(model, tmp_path / "own.safetensors")
    expected = pf.FaceLandmarker(model, detector=None, device="cpu")(photo, [FACE])
    assert expected.landmarks.shape == (1, 5, 2)
    from_file = pf.FaceLandmarker(tmp_path / "own.safetensors", detector=None, device="cpu")
    assert_same(from_file(photo, [FACE]), expected, atol=1e-4)


def test_given_model_is_used_as_it_is(photo: Pixels) -> None:
    model = tiny_model().train()
    landmarker = pf.FaceLandmarker(model, detector=None, device="cpu")
    assert landmarker.model is model
    assert not model.training
    assert landmarker.device == torch.device("cpu")
    assert landmarker(photo, [FACE]).landmarks.shape == (1, 5, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"color": "hsv"}, ValueError, r"color: expected one of \('bgr', 'rgb'\), got 'hsv'", id="color"),
        pytest.param({"color": None}, ValueError, "color: .* got None", id="no-color"),
        pytest.param({"engine": "nosuch"}, ValueError, r"engine: .*'torch'.* got 'nosuch'", id="engine"),
        pytest.param({"detector": "nosuch"}, ValueError, "detector: .* got 'nosuch'", id="detector"),
        pytest.param({"detector": "yunet:missing.onnx"}, FileNotFoundError, "no such YuNet file", id="yunet-missing"),
        pytest.param({"device": "nosuch"}, ValueError, "device: .* got 'nosuch'", id="device"),
        pytest.param({"device": None}, ValueError, "device: .* got None", id="no-device"),
        pytest.param({"model": 5}, TypeError, "model: expected a path or a PIPNet, got int", id="model-number"),
        pytest.param(
            {"model": torch.nn.Linear(1, 1)}, TypeError, "model: .* PIPNet, got Linear", id="model-another-module"
        ),
        pytest.param(
            {"model": "nosuch.safetensors"}, FileNotFoundError, r"no such model file: nosuch", id="model-missing"
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pf.FaceLandmarker(**options)


@pytest.mark.parametrize("device", ["cuda", "xpu", "hpu"])
def test_devices_that_are_not_here(device: str) -> None:
    if getattr(getattr(torch, device, None), "is_available", bool)():
        pytest.skip(f"there is a device {device}")
    with pytest.raises(RuntimeError, match=device):
        pf.FaceLandmarker(detector=None, device=device)


def test_model_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_bytes(b"no model\n" * 20)
    with pytest.raises(ValueError, match=r"notes\.safetensors: not a readable safetensors file"):
        pf.FaceLandmarker(path)


def test_model_without_a_mean_shape_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="mean_shape: the neighbors' votes cannot be merged without it"):
        pf.FaceLandmarker(tiny_model(mean_shape=None), detector=None)


def test_faces_as_plain_values(found: pf.Faces) -> None:
    (face,) = found.to_dict()
    assert list(face) == ["box", "score", "landmarks", "landmark_scores"]
    np.testing.assert_allclose(face["box"], found.boxes[0, :4], atol=1e-3)
    assert face["score"] == 1.0
    np.testing.assert_allclose(face["landmarks"], found.landmarks[0], atol=1e-3)
    np.testing.assert_allclose(face["landmark_scores"], found.scores[0], atol=1e-4)
    assert {type(value) for point in face["landmarks"] for value in point} == {float}


def test_detectors_that_are_none() -> None:
    with pytest.raises(TypeError, match="detector: expected an instance, got the class HaarDetector"):
        pf.FaceLandmarker(detector=pf.HaarDetector)
    blind = pf.FaceLandmarker(detector=lambda image: None)
    with pytest.raises(TypeError, match=r"detector: expected it to return boxes \(n, 4 or 5\), got None"):
        blind(np.zeros((9, 9, 3), dtype=np.uint8))


def test_meta_device_computes_nothing() -> None:
    with pytest.raises(ValueError, match="device: expected one that computes, got 'meta'"):
        pf.FaceLandmarker(device="meta")
