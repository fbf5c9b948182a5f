"""Boxes, crops and back: every number here follows from the contract, not from the code."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipnet_fast.crop import CropRule, PixelBase, tight_boxes, warp

BASES = [pytest.param("continuous", id="continuous"), pytest.param("center", id="center")]
WHOLE = CropRule(scale=1.0)

Box = tuple[float, float, float, float]


def cut(image: npt.NDArray[np.uint8], box: Box, size: int, base: PixelBase = "continuous") -> npt.NDArray[np.uint8]:
    """The crop of exactly this box."""
    affine = CropRule(scale=1.0, pixel_base=base).affine(np.array([box]), size)[0]
    return warp(image, affine, size)


def sampled_at(box: Box, size: int, base: PixelBase) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Image x and y that the crop's columns and rows show."""
    x0, y0, x1, y1 = box
    frac = (np.arange(size) + (0.5 if base == "continuous" else 0.0)) / size
    return x0 + frac * (x1 - x0), y0 + frac * (y1 - y0)


@pytest.mark.parametrize(
    ("rule", "box", "expected"),
    [
        pytest.param(CropRule(1.0), (10, 20, 30, 60), (10, 20, 30, 60), id="scale-1-keeps-the-box"),
        pytest.param(CropRule(1.2), (10, 20, 30, 60), (8, 16, 32, 64), id="a-tenth-on-every-side"),
        pytest.param(CropRule(0.5), (10, 20, 30, 60), (15, 30, 25, 50), id="smaller-than-the-box"),
        pytest.param(CropRule(1.2, 0.1), (10, 20, 30, 60), (8, 20, 32, 64), id="top-moved-down"),
        pytest.param(CropRule(1.0, -0.25), (10, 20, 30, 60), (10, 10, 30, 60), id="top-moved-up"),
        pytest.param(CropRule(2.0), (-4, -6, 2, 0), (-7, -9, 5, 3), id="beyond-the-image-is-not-clipped"),
        pytest.param(CropRule(1.2, pixel_base="center"), (10, 20, 30, 60), (8, 16, 32, 64), id="base-is-no-matter"),
        pytest.param(CropRule(1.2), (10, 20, 30, 60, 0.5), (8, 16, 32, 64), id="score-is-left-out"),
    ],
)
def test_rule_apply(rule: CropRule, box: tuple[float, ...], expected: Box) -> None:
    np.testing.assert_allclose(rule.apply(np.array([box], dtype=np.float32)), [expected], atol=1e-5)


def test_rule_apply_keeps_the_order_of_boxes_and_takes_none() -> None:
    boxes = np.array([[0, 0, 10, 10], [100, 0, 120, 10]], dtype=np.float32)
    np.testing.assert_allclose(CropRule(1.2).apply(boxes), [[-1, -1, 11, 11], [98, -1, 122, 11]], atol=1e-5)
    assert CropRule().apply(np.zeros((0, 5))).shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"scale": 0}, r"scale: expected 0 < scale <= 10, got 0", id="scale-zero"),
        pytest.param({"scale": -1.5}, r"scale: .* got -1\.5", id="scale-negative"),
        pytest.param({"scale": 10.5}, r"scale: .* got 10\.5", id="scale-too-large"),
        pytest.param({"scale": float("nan")}, r"scale: .* got nan", id="scale-nan"),
        pytest.param({"top_shift": 1.2}, r"top_shift: expected -1 <= top_shift < scale, got 1\.2", id="nothing-left"),
        pytest.param({"top_shift": -1.1}, r"top_shift: .* got -1\.1", id="top-shift-too-low"),
        pytest.param({"top_shift": float("nan")}, r"top_shift: .* got nan", id="top-shift-nan"),
        pytest.param(
            {"pixel_base": "corner"}, r"pixel_base: .*'continuous', 'center'.* got 'corner'", id="pixel-base-unknown"
        ),
    ],
)
def test_rule_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"CropRule: {message}"):
        CropRule(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        pytest.param("continuous", [[4, 0, -40], [0, 2, -40]], id="continuous"),
        pytest.param("center", [[4, 0, -39.5], [0, 2, -39.5]], id="center"),
    ],
)
def test_affine_numbers(base: PixelBase, expected: list[list[float]]) -> None:
    affine = CropRule(pixel_base=base).affine(np.array([[10.0, 20.0, 30.0, 60.0]]), 80)
    assert affine.shape == (1, 2, 3)
    np.testing.assert_allclose(affine[0], expected)


# Sides from a pixel to many images; corners before, in and behind a photo.
corners = st.floats(-3000, 3000)
sides = st.floats(1, 8000)
fractions = st.floats(-1, 2)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    base=st.sampled_from(["continuous", "center"]),
    boxes=st.lists(st.tuples(corners, corners, sides, sides), min_size=1, max_size=3),
    point=st.tuples(fractions, fractions),
    size=st.sampled_from([32, 64, 256, 500]),
)
def test_affine_and_to_image_are_inverse(
    base: PixelBase, boxes: list[Box], point: tuple[float, float], size: int
) -> None:
    crop_boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes])
    rule = CropRule(pixel_base=base)
    affine = rule.affine(crop_boxes, size)
    points_frac = np.tile(np.array([point, (0.0, 1.0)]), (len(boxes), 1, 1))
    points = rule.to_image(points_frac, affine, size)

    # In either base a fraction of the crop is that fraction of its box.
    expected = crop_boxes[:, None, :2] + points_frac * (crop_boxes[:, None, 2:] - crop_boxes[:, None, :2])
    np.testing.assert_allclose(points, expected, atol=1e-6)
    crop_px = np.einsum("nij,nkj->nki", affine[:, :, :2], points) + affine[:, None, :, 2]
    half_pixel = 0.5 if base == "center" else 0.0
    np.testing.assert_allclose(crop_px, points_frac * size + half_pixel, atol=1e-5)


@pytest.mark.parametrize(
    ("base", "columns", "rows"),
    [
        # Columns show x = 4.25, 4.75, ...; the bright pixel's center is (5.5, 7.5), and bilinear falls off in 1 px.
        pytest.param("continuous", {1: 0.25, 2: 0.75, 3: 0.75, 4: 0.25}, {3: 0.25, 4: 0.75, 5: 0.75, 6: 0.25}, id="x2"),
        # Columns show x = 4, 4.5, 5, ...
        pytest.param("center", {2: 0.5, 3: 1.0, 4: 0.5}, {4: 0.5, 5: 1.0, 6: 0.5}, id="x2-center"),
    ],
)
def test_one_bright_pixel_lands_where_it_should(
    base: PixelBase, columns: dict[int, float], rows: dict[int, float]
) -> None:
    image = np.zeros((12, 20, 3), dtype=np.uint8)
    image[7, 5] = (240, 120, 0)
    weights_x, weights_y = np.zeros(8), np.zeros(8)
    weights_x[list(columns)], weights_y[list(rows)] = list(columns.values()), list(rows.values())
    expected = weights_y[:, None, None] * weights_x[None, :, None] * np.array([240, 120, 0])
    np.testing.assert_allclose(cut(image, (4, 5, 8, 9), 8, base), expected, atol=1.0)


@pytest.mark.parametrize(
    ("base", "box"),
    [
        pytest.param("continuous", (0, 0, 64, 64), id="continuous"),
        # Its columns show the centers, 0.5, 1.5, ..., only when the box starts there.
        pytest.param("center", (0.5, 0.5, 64.5, 64.5), id="center"),
    ],
)
def test_whole_image_at_its_own_size_comes_back(base: PixelBase, box: Box) -> None:
    image = np.random.randint(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut(image, box, 64, base), image)


@pytest.mark.parametrize(
    ("dx", "dy"),
    [
        pytest.param(-20, 0, id="left"),
        pytest.param(40, 7, id="right"),
        pytest.param(3, -25, id="above"),
        pytest.param(-5, 33, id="below-left"),
    ],
)
def test_outside_of_the_image_is_black(dx: int, dy: int) -> None:
    image = np.random.randint(1, 256, (40, 50, 3), dtype=np.uint8)
    canvas = np.zeros((240, 250, 3), dtype=np.uint8)
    canvas[100:140, 100:150] = image
    expected = canvas[100 + dy : 132 + dy, 100 + dx : 132 + dx]
    assert expected.min() == 0
    assert expected.max() > 0
    np.testing.assert_array_equal(cut(image, (dx, dy, dx + 32, dy + 32), 32), expected)


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((-60, 0, -20, 40), id="left"),
        pytest.param((0, 300, 40, 340), id="below"),
        pytest.param((1e7, 1e7, 1e7 + 9, 1e7 + 9), id="far-away"),
        pytest.param((-9e6, -9e6, -1e6, -1e6), id="huge-and-far-away"),
    ],
)
def test_box_entirely_outside_is_black(box: Box) -> None:
    crop = cut(np.full((40, 50, 3), 255, dtype=np.uint8), box, 32)
    assert crop.shape == (32, 32, 3)
    assert crop.dtype == np.uint8
    assert crop.max() == 0


@pytest.mark.parametrize("box", [pytest.param((0, 0, 8, 8), id="inside"), pytest.param((90, 90, 98, 98), id="outside")])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_kept(channels: int, box: Box) -> None:
    assert cut(np.ones((8, 8, channels), dtype=np.uint8), box, 4).shape == (4, 4, channels)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    ("box", "size"),
    [
        pytest.param((20.3, 12.1, 40.7, 30.9), 96, id="enlarged-5x"),
        pytest.param((20.25, 10.5, 21.25, 11.5), 32, id="one-pixel-enlarged-32x"),
        pytest.param((8.4, 6.7, 56.1, 42.2), 48, id="about-its-size"),
        pytest.param((5.2, 4.9, 60.0, 44.3), 33, id="shrunk-1.7x"),
        pytest.param((4.0, 4.0, 60.0, 44.0), 20, id="shrunk-2.8-and-2x"),
        pytest.param((3.7, 6.1, 61.9, 43.8), 10, id="shrunk-5.8-and-3.8x"),
        pytest.param((-30.0, -20.0, 90.0, 70.0), 64, id="beyond-the-image"),
    ],
)
def test_gradient_is_sampled_at_the_mapped_points(base: PixelBase, box: Box, size: int) -> None:
    # Pixel i, center i + 0.5, holds 4 i or 5 i: half a pixel off would be 2 or 2.5 gray levels.
    columns, rows = np.arange(64) * 4, np.arange(50) * 5
    image = np.zeros((50, 64, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = columns[None, :], rows[:, None]
    crop = cut(image, box, size, base)

    x, y = sampled_at(box, size, base)
    # Where bilinear or averaging reaches over the border, the line ends.
    reach_x, reach_y = (box[2] - box[0]) / size + 2, (box[3] - box[1]) / size + 2
    inside = np.ix_((y > reach_y) & (y < 50 - reach_y), (x > reach_x) & (x < 64 - reach_x))
    expected = np.broadcast_to(((x - 0.5) * 4)[None, :], (size, size))
    assert expected[inside].size >= 4
    np.testing.assert_allclose(crop[..., 0][inside], expected[inside], atol=1.0)
    expected = np.broadcast_to(((y - 0.5) * 5)[:, None], (size, size))
    np.testing.assert_allclose(crop[..., 1][inside], expected[inside], atol=1.0)


@pytest.mark.parametrize(
    ("height", "width"),
    [
        pytest.param(64, 64, id="by-2"),
        pytest.param(96, 96, id="by-3"),
        pytest.param(64, 32, id="rows-only"),
        pytest.param(32, 128, id="columns-only"),
    ],
)
def test_whole_factors_average_blocks(height: int, width: int) -> None:
    image = np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)
    blocks = image.reshape(32, height // 32, 32, width // 32, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(cut(image, (0, 0, width, height), 32), blocks, atol=0.51)


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((0, 0, 4000, 3000), id="whole"),
        pytest.param((101.3, 50.7, 3907.1, 2911.9), id="at-fractions"),
        pytest.param((500, 0, 3500, 3000), id="square"),
    ],
)
def test_fine_checkerboard_does_not_alias(box: Box) -> None:
    tile = np.array([[0, 255], [255, 0]], dtype=np.uint8)[..., None].repeat(3, axis=2)
    crop = cut(np.tile(tile, (1500, 2000, 1)), box, 256)
    np.testing.assert_allclose(crop, 127.5, atol=3)


@pytest.mark.parametrize("base", BASES)
def test_huge_shrink_stays_in_place(base: PixelBase) -> None:
    image = np.zeros((3000, 4000, 3), dtype=np.uint8)
    image[1200:1800, 1000:2400] = 255
    crop = cut(image, (-1000, -500, 5000, 3500), 200, base)
    # Edges in the crop, by the area of what is bright; 30 and 20 image px are one crop px.
    shift = 0.5 if base == "center" else 0.0
    bright = crop[..., 0] / 255
    assert bright.sum() == pytest.approx(1400 * 600 / 30 / 20, rel=0.01)
    centers = np.arange(200) + 0.5
    assert (bright.sum(axis=0) * centers).sum() / bright.sum() == pytest.approx((1700 + 1000) / 30 + shift, abs=0.05)
    assert (bright.sum(axis=1) * centers).sum() / bright.sum() == pytest.approx((1500 + 500) / 20 + shift, abs=0.05)


def test_box_of_many_images_shows_the_image_as_a_speck() -> None:
    crop = cut(np.full((100, 100, 3), 255, dtype=np.uint8), (-1e6, -1e6, 1e6, 1e6), 64)
    assert crop.shape == (64, 64, 3)
    # The share of the crop that the image covers is far below a gray level.
    assert crop.mean() < 0.1


def test_a_view_is_cropped_as_its_copy() -> None:
    image = np.random.randint(0, 256, (60, 80, 3), dtype=np.uint8)
    view = image[::-1, ::2, ::-1]
    box = (3.3, 4.4, 30.5, 50.1)
    np.testing.assert_array_equal(cut(view, box, 24), cut(view.copy(), box, 24))


def test_warp_leaves_the_image_as_it_was() -> None:
    image = np.random.randint(0, 256, (64, 64, 3), dtype=np.uint8)
    before = image.copy()
    crop = cut(image, (0, 0, 64, 64), 64)
    crop[:] = 0
    np.testing.assert_array_equal(image, before)


def test_tight_boxes() -> None:
    landmarks = np.array([[[3, 9], [1, 8], [2, 7.5]], [[-5, 0], [4, 4], [0, -1]]], dtype=np.float32)
    np.testing.assert_array_equal(tight_boxes(landmarks), [[1, 7.5, 3, 9], [-5, -1, 4, 4]])
    assert tight_boxes(np.zeros((0, 68, 2))).shape == (0, 4)
