"""Properties of boxes, crops and images: landmarks move with the box, and whatever is no face is refused."""

import functools
import json
import warnings
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pipnet_fast as pf
from pipnet_fast.crop import tight_boxes, warp
from pipnet_fast.pipeline.images import MAX_PIXELS, ImageError, as_rgb, decode_rgb
from pipnet_fast.pipeline.landmarker import as_boxes
from tests.inputs import randomized
from tests.strategies import NOT_FINITE, boxes, outcome, seeds

bounded = settings(max_examples=20, deadline=None)
# What the model below says of any crop.
POINT = (0.25, 0.375)


@functools.cache
def landmarker(base: str = "continuous") -> pf.FaceLandmarker:
    """Its head's weights are 0, its biases are not: both landmarks are at one place of any crop."""
    rule = pf.CropRule(1.5, 0.25, base)  # type: ignore[arg-type]
    model = randomized(num_landmarks=2, num_neighbors=0, width=0.0625, input_size=32, crop=rule)
    with torch.no_grad():
        for name, value in {"cls_layer": 0.5, "x_layer": POINT[0], "y_layer": POINT[1]}.items():
            model.get_parameter(f"{name}.weight").zero_()
            model.get_parameter(f"{name}.bias").fill_(value)
    return pf.FaceLandmarker(model, detector=None, device="cpu", color="rgb")


@st.composite
def images(draw: st.DrawFn) -> Any:
    """Arrays that are images in any memory layout, and others."""
    dtype = draw(st.sampled_from((np.uint8,) * 6 + (np.float32, np.int16, np.bool_)))
    sides = [draw(st.integers(0, 40)) for _ in range(2)]
    shape = draw(
        st.sampled_from(([*sides, 3],) * 4 + (sides, [*sides, 1], [*sides, 4], [*sides, 2], [1, *sides, 3], [9]))
    )
    image = np.random.default_rng(draw(seeds)).integers(0, 255, shape).astype(dtype)
    for axis in range(image.ndim):
        image = np.flip(image, axis) if draw(st.booleans()) else image
    if draw(st.booleans()):
        image.flags.writeable = False
    return image


@bounded
@given(image=images(), given_boxes=boxes(), base=st.sampled_from(("continuous", "center")))
def test_landmarks_are_where_the_box_says(image: Any, given_boxes: list[list[float]], base: str) -> None:
    """Wherever it is, however small or large; or box or image are refused in words."""
    faces = outcome(lambda: landmarker(base)(image, given_boxes), ValueError, TypeError)
    if isinstance(faces, Exception):
        assert str(faces).startswith(("FaceLandmarker: image: expected", "FaceLandmarker: boxes: expected"))
        return
    assert image.dtype == np.uint8
    kept = np.array(given_boxes, dtype=np.float32)
    np.testing.assert_array_equal(faces.boxes, kept)
    x0, y0, x1, y1 = kept[:, :4].astype(np.float64).T
    width, height = x1 - x0, y1 - y0
    # The crop: half of the box larger, and a quarter of its height cut off its top. For a model of the other base it is
    # cut half a pixel beside, and so fractions of it mean the same places.
    x = x0 - width / 4 + POINT[0] * width * 1.5
    y = y0 + POINT[1] * height * 1.25
    size = np.maximum(np.abs(kept[:, :4]).max(axis=1), 1e-30)
    for landmark in faces.landmarks.transpose(1, 0, 2):
        assert (np.abs(landmark - np.stack((x, y), axis=1)).max(axis=1) <= 1e-5 * size).all()
    assert json.dumps(faces.to_dict())
    assert faces.scores.tolist() == [[0.5, 0.5]] * len(kept)


@bounded
@given(
    st.one_of(
        hnp.arrays(
            st.sampled_from((np.float64, np.float32, np.int32, np.bool_, np.complex64)),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
        ),
        st.recursive(st.one_of(st.floats(), st.text(max_size=2), st.none()), lambda v: st.lists(v, max_size=5)),
    )
)
def test_boxes_are_checked_and_copied(value: Any) -> None:
    # Numbers beyond float32 become infinite, and are refused for it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = outcome(lambda: as_boxes(value), ValueError, TypeError)
    if isinstance(found, Exception):
        assert str(found).startswith("FaceLandmarker: boxes: expected ")
        return
    assert found.shape == (len(value), 5)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert (found[:, 2:4] > found[:, :2]).all()
    assert not np.shares_memory(found, value)


@bounded
@given(image=images(), color=st.sampled_from(("rgb", "bgr")))
def test_images_become_rgb_or_are_refused(image: Any, color: Any) -> None:
    rgb = outcome(lambda: as_rgb(image, color), ValueError, TypeError)
    if isinstance(rgb, Exception):
        assert str(rgb).startswith("FaceLandmarker: image: expected ")
        assert image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0 or image.shape[2:] == (2,)
        return
    assert rgb.shape == (*image.shape[:2], 3)
    assert rgb.flags.c_contiguous
    colors = image.reshape(*image.shape[:2], -1)[..., :3]
    expected = colors if color == "rgb" or colors.shape[2] == 1 else colors[..., ::-1]
    np.testing.assert_array_equal(rgb, np.broadcast_to(expected, rgb.shape))


@bounded
@given(
    data=st.binary(max_size=60),
    start=st.sampled_from((b"", b"\xff\xd8\xff", b"BM", b"P6 2 2 255 ", b"GIF89a", b"II*\0")),
)
def test_bytes_are_an_image_or_refused(data: bytes, start: bytes) -> None:
    image = outcome(lambda: decode_rgb(start + data, "data", 1 << 20), ImageError)
    if isinstance(image, ImageError):
        assert str(image).startswith("data: ")
    else:
        assert 1 <= image.size <= 3 << 20 <= MAX_PIXELS


numbers = st.one_of(st.floats(-2, 12), st.sampled_from((0, 1, 10, -1, *NOT_FINITE, None, "1", 10**400)))
rules = st.builds(
    pf.CropRule,
    st.floats(0.1, 10),
    st.floats(-1, 0.09),
    st.sampled_from(("continuous", "center")),
)
sound = st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(0.01, 1e4), st.floats(0.01, 1e4)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@bounded
@given(scale=numbers, top_shift=numbers, base=st.sampled_from(("continuous", "center", "", None)))
def test_crop_rules_are_within_their_ranges(scale: Any, top_shift: Any, base: Any) -> None:
    rule = outcome(lambda: pf.CropRule(scale, top_shift, base), ValueError, TypeError)
    if isinstance(rule, Exception):
        assert str(rule).startswith("CropRule: ")
    else:
        assert 0 < rule.scale <= 10
        assert -1 <= rule.top_shift < rule.scale


@bounded
@given(
    rule=rules, box=sound, size=st.integers(1, 512), points=hnp.arrays(np.float64, (3, 2), elements=st.floats(-2, 3))
)
def test_points_come_back_from_the_crop(rule: pf.CropRule, box: list[float], size: int, points: Any) -> None:
    affine = rule.affine(rule.apply(np.array([box])), size)
    image_px = rule.to_image(points[None], affine, size)
    np.testing.assert_allclose(rule.to_crop(image_px, affine, size)[0], points, atol=1e-6)
    # Two crops show the same point of the image at the same place, wherever they are.
    shift = np.array([3.0, -5.0])
    affine = rule.affine(rule.apply(np.array([box]) + np.tile(shift, 2)), size)
    np.testing.assert_allclose(rule.to_image(points[None], affine, size), image_px + shift, atol=1e-6 * size)
    if np.ptp(points, axis=0).min() > 0.01:
        tight = tight_boxes(image_px)
        assert (tight[:, 2:] > tight[:, :2]).all()


@bounded
@given(data=st.data(), seed=seeds, zoom=st.sampled_from((1.0, 2.0, 4.0)))
def test_crops_do_not_hang_on_what_is_around_them(data: st.DataObject, seed: int, zoom: float) -> None:
    """An image in a black frame, and the mirrored one, give the same crop, and its mirror.

    Larger images are averaged down first, in blocks that begin where the part of them does.
    """
    height, width = (data.draw(st.integers(1, 40)) for _ in range(2))
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    size, (left, top) = 16, [data.draw(st.integers(-20, 40)) for _ in range(2)]
    affine = np.array([[zoom, 0, -left * zoom], [0, zoom, -top * zoom]])
    crop = warp(image, affine, size)
    assert crop.shape == (size, size, 3)

    frame = data.draw(st.integers(1, 9))
    framed = np.zeros((height + 2 * frame, width + 2 * frame, 3), np.uint8)
    framed[frame:-frame, frame:-frame] = image
    moved = affine.copy()
    moved[:, 2] -= frame * zoom
    mirrored = affine.copy()
    mirrored[0, 2] = size - zoom * width - affine[0, 2]
    np.testing.assert_array_equal(warp(framed, moved, size), crop)
    np.testing.assert_allclose(warp(image[:, ::-1], mirrored, size).astype(int), crop[:, ::-1].astype(int), atol=1)


@settings(max_examples=5, deadline=None)
@given(data=st.data(), seed=seeds)
def test_a_batch_is_its_images_one_by_one(data: st.DataObject, seed: int) -> None:
    random = np.random.default_rng(seed)
    count = data.draw(st.integers(0, 4))
    photos = [random.integers(0, 256, (*random.integers(1, 40, 2), 3), np.uint8) for _ in range(count)]
    corners = [random.integers(-9, 40, (data.draw(st.integers(0, 2)), 2)).tolist() for _ in photos]
    given_boxes = [[[x, y, x + 9, y + 27 + x] for x, y in found] for found in corners]
    together = landmarker().predict_batch(photos, given_boxes)
    assert len(together) == count
    for faces, photo, found in zip(together, photos, given_boxes, strict=True):
        alone = landmarker()(photo, found)
        np.testing.assert_array_equal(faces.landmarks, alone.landmarks)
        np.testing.assert_array_equal(faces.scores, alone.scores)
        assert faces.landmarks.shape == (len(found), 2, 2)


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=seeds)
def test_the_detector_takes_images_of_any_size(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    found = haar()(image)
    assert found.shape == (len(found), 5)
    assert found.dtype == np.float32
    as_boxes(found)


@functools.cache
def haar() -> pf.HaarDetector:
    return pf.HaarDetector()
