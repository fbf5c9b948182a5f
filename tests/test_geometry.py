"""Five points, aligned crops: on made-up points whose answer is known."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipnet_fast.crop import transform
from pipnet_fast.geometry import norm_crop, to_5pts
from pipnet_fast.geometry.five_points import FIVE_POINTS
from pipnet_fast.layouts import layout_names, load_layout, load_mean_shape
from tests.pictures import centers, dots

Floats = npt.NDArray[np.floating[Any]]

# Published for 112 px, counted from the center of the first pixel.
ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
# On a line, and so that moving them along it changes nothing in the mean: no turning of them fits better than another.
UNLIKE = np.outer(np.linalg.svd(np.column_stack((np.ones(5), ARCFACE)).T)[2][-1], (50, 0))
IMAGE = np.zeros((40, 30, 3), np.uint8)


def turned(points: Floats, degrees: float, scale: float, shift: tuple[float, float]) -> Floats:
    angle = np.radians(degrees)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(points @ rotation.T + shift)


def test_every_layout_has_five_points() -> None:
    assert sorted(FIVE_POINTS) == layout_names()


@pytest.mark.parametrize("layout", FIVE_POINTS)
def test_five_points_of_mean_faces(layout: str) -> None:
    left, right, nose, left_corner, right_corner = to_5pts(load_mean_shape(layout), layout)
    assert left[0] < left_corner[0] + 0.1 < nose[0] < right_corner[0] - 0.05 < right[0]
    assert abs(left[1] - right[1]) < 0.03
    assert max(left[1], right[1]) < nose[1] - 0.1 < min(left_corner[1], right_corner[1]) - 0.1


@pytest.mark.parametrize(
    ("layout", "sources"),
    [
        ("300w68", [38.5, 44.5, 30, 48, 54]),
        ("wflw98", [63.5, 71.5, 54, 76, 82]),
        ("lapa106", [69.5, 78.5, 54, 84, 90]),
        ("cofw29", [10.75, 12.25, 20, 22, 23]),
        ("aflw19", [7, 10, 13, 15, 17]),
    ],
)
def test_sources_of_the_five(layout: str, sources: list[float]) -> None:
    count = load_layout(layout).num_landmarks
    numbered = np.stack((np.arange(count), -np.arange(count)), axis=1)
    five = to_5pts(numbered, layout)
    assert five[:, 0] == pytest.approx(sources)
    assert five[:, 1] == pytest.approx(-np.array(sources))


@pytest.mark.parametrize("layout", FIVE_POINTS)
def test_mirrored_faces_have_mirrored_points(layout: str) -> None:
    points = np.random.default_rng(1).random((2, load_layout(layout).num_landmarks, 2))
    mirrored = points[:, load_layout(layout).flip] * (-1, 1)
    assert to_5pts(mirrored, layout) == pytest.approx(to_5pts(points, layout)[:, [1, 0, 2, 4, 3]] * (-1, 1))


def test_batches_types_and_missing_points_of_the_five() -> None:
    points = np.random.default_rng(0).random((3, 2, 68, 2)).astype(np.float32)
    points[0, 0, 54] = np.nan
    five = to_5pts(points, "300w68")
    assert (five.shape, five.dtype) == ((3, 2, 5, 2), np.float32)
    assert np.isnan(five).sum() == 2
    assert np.isnan(five[0, 0, 4]).all()
    assert to_5pts(np.zeros((0, 68, 2), np.float32), "300w68").shape == (0, 5, 2)
    assert to_5pts(np.zeros((68, 2), np.int64), "300w68").dtype == np.float64


@pytest.mark.parametrize(
    ("points", "layout", "message"),
    [
        pytest.param(np.zeros((98, 2)), "300w68", r"landmarks: expected numbers of shape \(\.\.\., 68, 2\)", id="N"),
        pytest.param(np.zeros(136), "300w68", r"landmarks: .* got float64 \(136,\)", id="flat"),
        pytest.param(np.full((68, 2), "a"), "300w68", r"landmarks: .* got <U1 \(68, 2\)", id="text"),
        pytest.param(np.zeros((7, 2)), "mine", "layout: expected one of 300w68, .*, got 'mine'", id="layout"),
        pytest.param(np.zeros((68, 2)), None, "layout: expected one of .*, got None", id="no layout"),
    ],
)
def test_five_points_of_other_landmarks(points: Any, layout: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"to_5pts: {message}"):
        to_5pts(points, layout)


def test_a_turned_template_comes_back_upright() -> None:
    faces = np.stack([turned(ARCFACE + 0.5, 0, 1, (0, 0)), turned(ARCFACE + 0.5, 33, 2.5, (-40, 70))])
    crops, affines = norm_crop(IMAGE, faces)
    assert (crops.shape, crops.dtype, affines.shape) == ((2, 112, 112, 3), np.uint8, (2, 2, 3))
    assert transform(affines, faces) == pytest.approx(np.stack([ARCFACE + 0.5] * 2), abs=1e-9)
    assert affines[0] == pytest.approx(np.eye(2, 3), abs=1e-9)


def test_points_of_a_picture_land_on_the_template() -> None:
    points = turned(ARCFACE, -20, 1.4, (30, 60)) + np.array([[2, 1], [-1, 2], [0, -3], [1, 1], [-2, -1]])
    kept = [0, 1, 4]
    crop, affine = norm_crop(dots(points[kept], 260, 240), points)
    assert (crop.shape, affine.shape) == ((112, 112, 3), (2, 3))
    assert centers(crop) == pytest.approx(transform(affine, points)[kept], abs=0.1)
    assert abs(centers(crop) - ARCFACE[kept] - 0.5).max() < 4


def test_least_squares() -> None:
    points = np.random.default_rng(3).random((4, 5, 2)) * 80
    affines = norm_crop(IMAGE, points).affines
    for face, affine in zip(points, affines, strict=True):
        # x' = a x - b y + c, y' = b x + a y + d, solved as any linear system.
        rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in face]
        (a, b, c, d), *_ = np.linalg.lstsq(np.reshape(rows, (10, 4)), (ARCFACE + 0.5).ravel(), rcond=None)
        assert affine == pytest.approx(np.array([[a, -b, c], [b, a, d]]), abs=1e-8)


def test_the_affine_for_opencv() -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 140, 3), np.uint8)
    crop, affine = norm_crop(image, turned(ARCFACE, 12, 1.1, (9, 5)))
    affine[:, 2] += (affine[:, :2].sum(axis=1) - 1) / 2
    expected = cv2.warpAffine(image, affine, (112, 112))
    # Its matrix is rounded to 1/32 of a pixel; the part that is cut out first has another origin.
    assert np.abs(crop.astype(int) - expected).max() <= 12


def test_larger_crops_show_the_same_part() -> None:
    points = turned(ARCFACE, 5, 0.5, (3, 3))
    assert norm_crop(IMAGE, points, 256).affines == pytest.approx(norm_crop(IMAGE, points).affines * 256 / 112)


def test_all_landmarks_with_their_layout() -> None:
    points = load_mean_shape("wflw98") * 30
    by_layout = norm_crop(IMAGE, points, layout="wflw98").affines
    assert by_layout == pytest.approx(norm_crop(IMAGE, to_5pts(points, "wflw98")).affines)


def test_kinds_of_images_and_of_batches() -> None:
    points = turned(ARCFACE, 0, 0.3, (0, 0))
    assert norm_crop(IMAGE[..., 0], points).crops.shape == (112, 112)
    assert norm_crop(IMAGE[..., :1], points[None]).crops.shape == (1, 112, 112, 1)
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    assert np.array_equal(norm_crop(image[..., ::-1], points).crops, norm_crop(image, points).crops[..., ::-1])
    empty = norm_crop(IMAGE, np.zeros((0, 68, 2)), layout="300w68")
    assert (empty.crops.shape, empty.affines.shape) == ((0, 112, 112, 3), (0, 2, 3))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        pytest.param({"image": IMAGE / 255}, TypeError, "image: expected an array of uint8, got float64", id="floats"),
        pytest.param({"image": "a.jpg"}, TypeError, "image: expected an array of uint8, got str", id="path"),
        pytest.param({"image": IMAGE[:0]}, ValueError, r"image: expected .* got \(0, 30, 3\)", id="empty image"),
        pytest.param({"size": 0}, ValueError, "size: expected 1 to 4096 px, got 0", id="size"),
        pytest.param({"size": 112.0}, ValueError, "size: expected 1 to 4096 px, got 112.0", id="float size"),
        pytest.param({"mode": "none"}, ValueError, "mode: expected one of arcface, got 'none'", id="mode"),
        pytest.param({"landmarks": np.zeros((68, 2))}, ValueError, "five points, or layout=.* 68 points", id="N"),
        pytest.param({"landmarks": np.zeros((1, 2, 5, 2))}, ValueError, r"\(N, 2\) or \(n, N, 2\)", id="4 dims"),
        pytest.param({"landmarks": np.ones((5, 2))}, ValueError, "five points as of a face.*face 0", id="one point"),
        pytest.param(
            {"landmarks": np.stack((ARCFACE, np.where(np.arange(5)[:, None] == 3, np.nan, ARCFACE)))},
            ValueError,
            r"finite numbers, got \[nan, nan\] at landmark 3 of face 1",
            id="NaN",
        ),
        pytest.param({"landmarks": UNLIKE}, ValueError, "as of a face", id="no face"),
    ],
)
def test_bad_calls_of_norm_crop(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"image": IMAGE, "landmarks": ARCFACE, **changes}
    with pytest.raises(error, match=f"norm_crop: .*{message}"):
        norm_crop(arguments.pop("image"), arguments.pop("landmarks"), **arguments)
