"""Boxes, crops and back: every number here follows from the contract, not from the code."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipnet_fast.crop import CropRule, PixelBase, about_center, compose, cut_part, tight_boxes, transform, warp

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
    np.testing.assert_allclose(rule.to_crop(points, affine, size), points_frac, atol=1e-6)


def test_to_crop_keeps_missing_points_missing() -> None:
    affine = WHOLE.affine(np.array([[10.0, 20.0, 30.0, 60.0]]), 80)
    points_frac = WHOLE.to_crop(np.array([[[15.0, 30.0], [np.nan, np.nan]]]), affine, 80)
    np.testing.assert_allclose(points_frac, [[[0.25, 0.25], [np.nan, np.nan]]])


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


def changed(
    size: int, shift_px: tuple[float, float] = (0, 0), flip: bool = False, rotation_deg: float = 0.0, scale: float = 1.0
) -> npt.NDArray[np.float64]:
    return about_center(size, shift_px=shift_px, flip=flip, rotation_deg=rotation_deg, scale=scale)


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        pytest.param(changed(8), [3, 2], id="nothing"),
        pytest.param(changed(8, shift_px=(2, -1)), [5, 1], id="right-and-up"),
        pytest.param(changed(8, flip=True), [5, 2], id="mirrored"),
        pytest.param(changed(8, rotation_deg=90), [2, 5], id="turned-counterclockwise"),
        pytest.param(changed(8, scale=2), [2, 0], id="enlarged"),
        pytest.param(changed(8, (1, 0), True, 90, 3), [-2, 4], id="shifted-then-mirrored-then-turned"),
    ],
)
def test_about_center_numbers(affine: npt.NDArray[np.float64], expected: list[float]) -> None:
    np.testing.assert_allclose(transform(affine, np.array([[3.0, 2.0]])), [expected], atol=1e-12)


def test_compose_maps_by_the_inner_one_first() -> None:
    inner, outer = changed(10, (1, 2), True, 20, 1.5), changed(30, (-3, 5), False, -70, 0.7)
    points = np.random.rand(5, 2) * 30
    once = transform(compose(outer, inner), points)
    np.testing.assert_allclose(once, transform(outer, transform(inner, points)), atol=1e-9)


@pytest.mark.parametrize(("flip", "turns"), [(flip, turns) for flip in (False, True) for turns in range(4)], ids=str)
def test_mirrors_and_quarter_turns_keep_every_pixel(flip: bool, turns: int) -> None:
    image = np.random.randint(0, 256, (33, 33, 3), dtype=np.uint8)
    expected = np.rot90(image[:, ::-1] if flip else image, turns)
    np.testing.assert_array_equal(warp(image, changed(33, flip=flip, rotation_deg=90 * turns), 33), expected)


@pytest.mark.parametrize("flip", [False, True], ids=["straight", "mirrored"])
@pytest.mark.parametrize("rotation_deg", [-150, -30, 7, 45])
@pytest.mark.parametrize("side", [24, 60, 200], ids=lambda side: f"{side}px-to-60")
def test_turned_gradient_is_sampled_at_the_mapped_points(side: float, rotation_deg: float, flip: bool) -> None:
    size = 60
    x, y = np.meshgrid(np.arange(256), np.arange(256))
    image = np.stack((x, y), axis=2).astype(np.uint8)
    box = np.array([[30.0, 40.0, 30 + side, 40 + 0.8 * side]])
    affine = compose(changed(size, (2.5, -1.25), flip, rotation_deg, 1.1), WHOLE.affine(box, size)[0])
    crop = warp(image, affine, size).astype(float)

    back = np.linalg.inv(np.vstack((affine, [0, 0, 1])))[:2]
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1)
    at = transform(back, grid)
    reach = side / size + 2
    inside = ((at > reach) & (at < 256 - reach)).all(axis=-1)
    assert inside.sum() > size * size / 3
    # Rounded once when averaged and once when sampled, at 1/32 of an averaged pixel.
    np.testing.assert_allclose(crop[inside], at[inside] - 0.5, atol=1.2)


@pytest.mark.parametrize("rotation_deg", [-30, 11, 45, 90])
def test_fine_checkerboard_does_not_alias_when_turned(rotation_deg: float) -> None:
    tile = np.array([[0, 255], [255, 0]], dtype=np.uint8)[..., None].repeat(3, axis=2)
    box = np.array([[500.3, 450.7, 1500.1, 1550.2]])
    affine = compose(changed(128, rotation_deg=rotation_deg), WHOLE.affine(box, 128)[0])
    np.testing.assert_allclose(warp(np.tile(tile, (1000, 1000, 1)), affine, 128), 127.5, atol=3)


@pytest.mark.parametrize("rotation_deg", [0, 30, 45])
def test_turned_crop_outside_of_the_image_is_black(rotation_deg: float) -> None:
    image = np.full((40, 50, 3), 255, dtype=np.uint8)
    crop = warp(image, changed(64, shift_px=(100, 0), rotation_deg=rotation_deg), 64)
    assert crop.max() == 0
    # The image, 40 x 50 at the crop's top left, is wholly seen when it is turned about the corner that is left.
    whole = warp(image, changed(64, shift_px=(7, 12), rotation_deg=rotation_deg), 64)
    assert whole.sum() / 255 / 3 == pytest.approx(40 * 50, rel=0.03)


@pytest.mark.parametrize(
    ("box", "averaged"),
    [
        pytest.param((60.5, 50.25, 120.0, 110.0), False, id="enlarged"),
        pytest.param((100, 90, 800.0, 760.0), True, id="shrunk-to-a-seventh"),
        pytest.param((-50, -80, 300.0, 400.0), True, id="beyond-the-image"),
    ],
)
def test_a_part_serves_all_crops_near_by(box: Box, averaged: bool) -> None:
    size, reach, zoom = 100, 0.5, 1.25
    image = cv2.GaussianBlur(np.random.randint(0, 256, (900, 1000, 3), dtype=np.uint8), (0, 0), 12) * 5
    affine = WHOLE.affine(np.array([box]), size)[0]
    part, from_part = cut_part(image, affine, size, reach=reach, zoom=zoom)
    assert part.size < image.size
    assert max(part.shape) <= 2 * zoom * (1 + 2 * reach) * size + 8
    for change in (changed(size), changed(size, (20, -15), True, 15), changed(size, (-5, 9), False, -20, 1.25)):
        direct, through = warp(image, compose(change, affine), size), warp(part, compose(change, from_part), size)
        difference = np.abs(direct.astype(int) - through)
        # Averaging starts at other pixels.
        assert difference.max() <= (30 if averaged else 0)
        assert difference.mean() < 1.0


def test_a_part_outside_of_the_image_is_empty() -> None:
    image = np.ones((40, 50, 3), dtype=np.uint8)
    part, from_part = cut_part(image, WHOLE.affine(np.array([[200.0, 0, 260, 60]]), 32)[0], 32, reach=0.5)
    assert part.size == 0
    assert warp(part, from_part, 32).max() == 0


def test_tight_boxes() -> None:
    landmarks = np.array([[[3, 9], [1, 8], [2, 7.5]], [[-5, 0], [4, 4], [0, -1]]], dtype=np.float32)
    np.testing.assert_array_equal(tight_boxes(landmarks), [[1, 7.5, 3, 9], [-5, -1, 4, 4]])
    assert tight_boxes(np.zeros((0, 68, 2))).shape == (0, 4)
