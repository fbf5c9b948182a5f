"""Face detectors: Haar on a real face and on none; YuNet by a stand-in, for its file is not in the repository."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipnet_fast.cli.demo import astronaut
from pipnet_fast.pipeline.detectors import BoxStyle, HaarDetector, YuNetDetector, create_detector
from pipnet_fast.pipeline.images import read_rgb

Pixels = npt.NDArray[np.uint8]

# Of the astronaut, by hand: brows to chin, ear to ear.
FACE = (179.0, 88.0, 271.0, 177.0)


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return read_rgb(astronaut())


@pytest.fixture(scope="module")
def haar() -> HaarDetector:
    return HaarDetector()


def overlap(box: npt.NDArray[np.float32], other: tuple[float, ...]) -> float:
    """Intersection over union."""
    x0, y0 = np.maximum(box[:2], other[:2])
    x1, y1 = np.minimum(box[2:4], other[2:4])
    common = max(0.0, x1 - x0) * max(0.0, y1 - y0)
    areas = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return float(common / (areas - common))


def test_box_style_numbers() -> None:
    style = BoxStyle(scale_x=0.5, scale_y=2.0, shift_x=0.25, shift_y=-0.1)
    # Centers (30, 70) and (0, 5) move by (10, -10) and (2.5, -1); sides become 20 by 200 and 5 by 20.
    boxes = np.array([[10.0, 20.0, 40.0, 100.0], [-5.0, 0.0, 10.0, 10.0]])
    np.testing.assert_allclose(style.to_tight(boxes), [[30, -40, 50, 160], [0, -6, 5, 14]])
    assert style.to_tight(np.zeros((0, 4))).shape == (0, 4)


def test_haar_finds_the_one_face(haar: HaarDetector, photo: Pixels) -> None:
    boxes = haar(photo)
    assert boxes.dtype == np.float32
    assert boxes.shape == (1, 5)
    assert boxes[0, 4] == 1
    assert overlap(boxes[0], FACE) > 0.75
    # The cascade's square, (176, 70) to (274, 168), in the style that was measured; to a pixel of the search.
    np.testing.assert_allclose(boxes[0, :4], [181.5, 89.2, 268.5, 172.6], atol=1)


def test_haar_follows_the_face(haar: HaarDetector, photo: Pixels) -> None:
    mirrored = haar(np.ascontiguousarray(photo[:, ::-1]))
    assert mirrored.shape == (1, 5)
    assert overlap(mirrored[0], (512 - FACE[2], FACE[1], 512 - FACE[0], FACE[3])) > 0.75

    canvas = np.zeros((700, 900, 3), dtype=np.uint8)
    canvas[150:662, 300:812] = photo
    moved = haar(canvas)
    assert moved.shape == (1, 5)
    assert overlap(moved[0], (FACE[0] + 300, FACE[1] + 150, FACE[2] + 300, FACE[3] + 150)) > 0.75


def test_haar_puts_the_largest_face_first(haar: HaarDetector, photo: Pixels) -> None:
    canvas = np.zeros((512, 1024, 3), dtype=np.uint8)
    canvas[:256, :256] = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
    canvas[:, 512:] = photo
    boxes = haar(canvas)
    assert boxes.shape == (2, 5)
    assert overlap(boxes[0], (FACE[0] + 512, FACE[1], FACE[2] + 512, FACE[3])) > 0.75
    assert overlap(boxes[1], tuple(v / 2 for v in FACE)) > 0.7


@pytest.mark.parametrize("factor", [4, 8])
def test_haar_searches_large_images(haar: HaarDetector, photo: Pixels, factor: int) -> None:
    # Enlarged by whole pixels: the search shrinks it back, to 1024 px.
    large = np.repeat(np.repeat(photo, factor, axis=0), factor, axis=1)
    boxes = haar(large)
    assert len(boxes) == 1
    assert overlap(boxes[0] / factor, FACE) > 0.75
    np.testing.assert_allclose(boxes[0, :4] / factor, haar(photo)[0, :4], atol=4)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "horse", "clock_motion", "brick", "coins", "moon"])
def test_haar_finds_no_face_where_there_is_none(haar: HaarDetector, name: str) -> None:
    boxes = haar(read_rgb(astronaut().with_name(f"{name}.png")))
    assert boxes.shape == (0, 5)
    assert boxes.dtype == np.float32


@pytest.mark.parametrize(
    ("height", "width"),
    [
        pytest.param(1, 1, id="one-pixel"),
        pytest.param(8, 8, id="8x8"),
        pytest.param(2000, 3, id="tall-strip"),
        pytest.param(3, 2000, id="wide-strip"),
        # So long that shrinking to the search's length leaves less than half a pixel of the other side.
        pytest.param(1, 5000, id="line-of-5000"),
        pytest.param(5000, 1, id="column-of-5000"),
        pytest.param(400, 300, id="black-photo"),
    ],
)
@pytest.mark.parametrize("value", [0, 255])
def test_haar_finds_nothing_in_tiny_and_blank_images(haar: HaarDetector, height: int, width: int, value: int) -> None:
    assert haar(np.full((height, width, 3), value, dtype=np.uint8)).shape == (0, 5)


def test_haar_in_eight_threads_at_once(haar: HaarDetector, photo: Pixels) -> None:
    # Unlike images, so that scratch memory in common would show.
    images = [np.ascontiguousarray(photo[shift : 300 + shift, 50:400]) for shift in range(0, 64, 8)]
    alone = [haar(image) for image in images]
    assert [len(boxes) for boxes in alone] == [1] * 8
    start = threading.Barrier(8)

    def detect(image: Pixels) -> Any:
        start.wait(timeout=30)
        return haar(image)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(detect, images))
    for expected, boxes in zip(alone, together, strict=True):
        np.testing.assert_array_equal(boxes, expected)


def test_haar_leaves_the_image_as_it_was(haar: HaarDetector, photo: Pixels) -> None:
    image = photo.copy()
    haar(image)
    np.testing.assert_array_equal(image, photo)


def test_opencv_without_cascades(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cv2.data, "haarcascades", f"{tmp_path}/")
    for create in (HaarDetector, lambda: create_detector("auto")):
        with pytest.raises(RuntimeError, match=r"no Haar cascades; install 'opencv-python-headless<5'.*yunet:PATH"):
            create()


@pytest.mark.parametrize("name", ["auto", "haar"])
def test_create_by_name(name: str) -> None:
    assert isinstance(create_detector(name), HaarDetector)


def test_create_passes_callables_and_none() -> None:
    def own(image: Pixels) -> list[list[float]]:
        return []

    assert create_detector(own) is own
    assert create_detector(None) is None


@pytest.mark.parametrize(
    ("detector", "error", "message"),
    [
        pytest.param("nosuch", ValueError, r'expected "auto", "haar", "yunet:PATH".* got \'nosuch\'', id="unknown"),
        pytest.param("", ValueError, "got ''", id="no-name"),
        pytest.param("HAAR", ValueError, "got 'HAAR'", id="capitals"),
        pytest.param(5, ValueError, "a callable or None, got 5", id="number"),
        pytest.param("yunet:missing.onnx", FileNotFoundError, r"no such YuNet file: missing\.onnx", id="missing"),
        pytest.param("yunet:", FileNotFoundError, "no such YuNet file", id="no-path"),
    ],
)
def test_create_refuses(detector: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_detector(detector)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("notes.txt", b"no network\n", id="text"),
        pytest.param("model.onnx", b"no network\n", id="text-named-onnx"),
        pytest.param("empty.onnx", b"", id="empty"),
    ],
)
def test_yunet_of_another_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a YuNet file that OpenCV can read") as caught:
        create_detector(f"yunet:{path}")
    assert str(caught.value).startswith(str(path))


def test_yunet_folder_and_threshold(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such YuNet file"):
        YuNetDetector(tmp_path)
    path = tmp_path / "model.onnx"
    path.touch()
    with pytest.raises(ValueError, match=r"score_threshold: expected 0 to 1, got 1\.5"):
        YuNetDetector(path, score_threshold=1.5)


class StandInNetwork:
    """In place of cv2.FaceDetectorYN: answers with rows x, y, w, h, ten of points, score, and keeps what it saw."""

    def __init__(self, found: npt.NDArray[np.float32] | None) -> None:
        self.found = found

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, image: Pixels) -> tuple[int, Any]:
        self.image = image
        return 1, self.found


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Any) -> tuple[YuNetDetector, StandInNetwork]:
    network = StandInNetwork(found)
    create = lambda *arguments, **options: network  # noqa: E731
    monkeypatch.setattr(cv2, "FaceDetectorYN", SimpleNamespace(create=create))
    path = tmp_path / "model.onnx"
    path.touch()
    return YuNetDetector(path), network


def test_yunet_maps_and_sorts_boxes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = np.zeros((2, 15), dtype=np.float32)
    rows[0, :4], rows[0, 14] = (5, 6, 10, 20), 0.75
    rows[1, :4], rows[1, 14] = (30, 40, 20, 40), 0.875
    detector, network = stand_in(monkeypatch, tmp_path, rows)
    image = np.random.randint(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = detector(image)
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes[:, :4], [[29.61, 50, 50.87, 80.96], [4.805, 11, 15.435, 26.48]], atol=1e-4)
    np.testing.assert_array_equal(boxes[:, 4], [0.875, 0.75])
    # OpenCV takes width before height, and blue first.
    assert network.size == (120, 90)
    np.testing.assert_array_equal(network.image, image[..., ::-1])


def test_yunet_searches_large_images_smaller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = np.zeros((1, 15), dtype=np.float32)
    rows[0, :4] = (10, 20, 30, 40)
    detector, network = stand_in(monkeypatch, tmp_path, rows)
    side = YuNetDetector.MAX_SIDE
    boxes = detector(np.zeros((side * 2, side * 4, 3), dtype=np.uint8))
    assert network.size == (side, side // 2)
    assert network.image.shape == (side // 2, side, 3)
    np.testing.assert_allclose(boxes[:, :4], [[37.66, 120, 165.22, 243.84]], atol=1e-3)


@pytest.mark.parametrize(
    "shape", [pytest.param((1, 9000, 3), id="line-of-9000"), pytest.param((40, 50, 3), id="small")]
)
def test_yunet_finds_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: tuple[int, int, int]) -> None:
    detector, _ = stand_in(monkeypatch, tmp_path, None)
    boxes = detector(np.zeros(shape, dtype=np.uint8))
    assert boxes.shape == (0, 5)
    assert boxes.dtype == np.float32


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda detector: pickle.loads(pickle.dumps(detector))])
def test_copies_of_detectors_find_the_same(duplicate: Any, haar: HaarDetector, photo: Pixels) -> None:
    np.testing.assert_array_equal(duplicate(haar)(photo), haar(photo))


def test_a_file_of_a_detector_may_be_a_path(tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, ValueError), match="none.json"):
        create_detector(tmp_path / "none.json")
