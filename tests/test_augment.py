"""Augmentation: labels lie where their dots are seen, whatever is drawn; what is drawn has the paper's frequencies."""

import itertools
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from pipnet_fast.crop import CropRule, Image, PixelBase, transform, warp
from pipnet_fast.data.augment import Augmentation, Change
from pipnet_fast.data.loader import CropLoader
from tests.pictures import THREE, centers, data, face

OFF = Augmentation(**{field.name: 0.0 for field in fields(Augmentation) if field.name.endswith("_p")})
GEOMETRY = ("translation_p", "flip_p", "rotation_p", "scale_p")
SIZE = 160


def only(**arguments: Any) -> Augmentation:
    return replace(OFF, **arguments)


def draws(augmentation: Augmentation, count: int, size: int = 256) -> list[Change]:
    return [augmentation.draw(np.random.default_rng(seed), size) for seed in range(count)]


@pytest.mark.parametrize("base", ["continuous", "center"])
@pytest.mark.parametrize("border", ["image", "black"])
@pytest.mark.parametrize(
    "on",
    [chosen for count in range(5) for chosen in itertools.combinations(GEOMETRY, count)],
    ids=lambda on: "+".join(name.removesuffix("_p") for name in on) or "nothing",
)
def test_labels_lie_on_their_dots(on: tuple[str, ...], border: str, base: PixelBase) -> None:
    # Blur and loss of resolution spread a dot, and must not move it.
    augmentation = only(**dict.fromkeys(on, 1.0), border=border, blur_p=0.5, resolution_p=0.5, translation_frac=0.08)
    rule = CropRule(1.7, pixel_base=base)
    faces = data([face(str(i)) for i in range(4)])
    loader = CropLoader(faces, rule, SIZE, 4, augmentation=augmentation, shuffle=False, seed=3)
    (batch,) = loader
    affines = loader.affines(batch.index)
    half_pixel = 0.5 if base == "center" else 0.0
    for crop, points_frac, affine in zip(batch.crops.numpy(), batch.points_frac.numpy(), affines, strict=True):
        flipped = np.linalg.det(affine[:, :2]) < 0
        assert flipped == ("flip_p" in on)
        seen = centers(crop)[THREE.flip if flipped else slice(None)]
        np.testing.assert_allclose(points_frac * SIZE + half_pixel, seen, atol=0.12)


def test_affines_map_labels_back() -> None:
    faces = data([face(str(i)) for i in range(8)])
    loader = CropLoader(faces, faces.crop, SIZE, 8, augmentation=only(**dict.fromkeys(GEOMETRY, 0.5)), shuffle=True)
    loader.set_epoch(2)
    (batch,) = loader
    affines = loader.affines(batch.index)
    back = faces.crop.to_image(batch.points_frac.numpy(), affines, SIZE)
    mirrored = np.linalg.det(affines[:, :, :2]) < 0
    assert 0 < mirrored.sum() < 8
    back[mirrored] = back[mirrored][:, THREE.flip]
    np.testing.assert_allclose(back, np.stack([sample.landmarks for sample in faces.samples])[batch.index], atol=1e-4)


def test_missing_labels_stay_missing_under_their_new_names() -> None:
    faces = data([face("a", ((60, 70), (np.nan, np.nan), (100, 120))), face("b", None)])
    (batch,) = CropLoader(faces, faces.crop, SIZE, 2, augmentation=only(flip_p=1, rotation_p=1), shuffle=False)
    assert batch.points_frac.isnan().tolist() == [[[True] * 2, [False] * 2, [False] * 2], [[True] * 2] * 3]


def test_nothing_drawn_is_the_plain_crop() -> None:
    faces = data([face("a")])
    (plain,) = CropLoader(faces, faces.crop, SIZE, 1, augmentation=None, shuffle=False)
    (changed,) = CropLoader(faces, faces.crop, SIZE, 1, augmentation=OFF, shuffle=False)
    np.testing.assert_array_equal(changed.crops, plain.crops)
    np.testing.assert_array_equal(changed.points_frac, plain.points_frac)


def test_the_paper_s_frequencies_and_ranges() -> None:
    changes = draws(Augmentation(), 4000)
    linear = np.array([change.affine[:, :2] for change in changes])
    flipped = np.linalg.det(linear) < 0
    assert [change.flipped for change in changes] == flipped.tolist()
    angles = np.degrees(np.arctan2(-linear[:, 1, 0] * np.where(flipped, -1, 1), linear[:, 1, 1]))
    center = np.array(
        [transform(np.linalg.inv(np.vstack((c.affine, [0, 0, 1])))[:2], np.array([[128.0, 128.0]])) for c in changes]
    )
    shifts = 128 - center[:, 0]
    shifted, turned = np.abs(shifts).max(axis=1) > 1e-9, np.abs(angles) > 1e-9
    blurs = np.array([change.blur_px for change in changes])
    occluded = [patch for change in changes for patch in change.patches]
    shares = {
        "translation": shifted.mean(),
        "occlusion": len(occluded) / len(changes),
        "flip": flipped.mean(),
        "rotation": turned.mean(),
        "blur": (blurs > 0).mean(),
        "gray": np.mean([change.gray for change in changes]),
    }
    expected = {"translation": 0.5, "occlusion": 0.5, "flip": 0.5, "rotation": 0.5, "blur": 0.3, "gray": 0.2}
    assert shares == pytest.approx(expected, abs=0.03)
    assert np.abs(angles).max() == pytest.approx(30, abs=0.2)
    assert np.abs(shifts).max(axis=0) == pytest.approx([30, 30], abs=0.2)
    assert blurs.max() == pytest.approx(5, abs=0.1)
    sides = np.array([[np.hypot(*(p[1] - p[0])), np.hypot(*(p[3] - p[0]))] for p, _ in occluded])
    assert sides.max() == pytest.approx(0.4 * 256 - 1, abs=0.5)
    # The changes do not hang together.
    together = np.corrcoef([shifted, flipped, turned, blurs > 0, [c.gray for c in changes]])
    assert np.abs(together - np.eye(5)).max() < 0.06
    assert not any(c.shown is not None or c.color or c.resolution_px or c.jpeg_quality for c in changes)


def test_lengths_follow_the_crop_s_side() -> None:
    small, large = draws(Augmentation(), 50, 64), draws(Augmentation(), 50, 256)
    for a, b in zip(small, large, strict=True):
        np.testing.assert_allclose(a.affine[:, :2], b.affine[:, :2])
        np.testing.assert_allclose(a.affine[:, 2] * 4, b.affine[:, 2], atol=1e-9)
        assert a.blur_px * 4 == pytest.approx(b.blur_px)


@pytest.mark.parametrize(
    "augmentation",
    [
        pytest.param(Augmentation(), id="paper"),
        pytest.param(Augmentation(scale_p=1, scale_max=1.5, rotation_deg=180), id="any-angle-and-scale"),
        pytest.param(only(translation_p=1, translation_frac=0.3), id="shifts"),
        pytest.param(OFF, id="nothing"),
    ],
)
def test_reach_and_zoom_hold_all_that_is_drawn(augmentation: Augmentation) -> None:
    frame = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    worst, largest = 0.0, 0.0
    for change in draws(augmentation, 3000, 1):
        shown = transform(np.linalg.inv(np.vstack((change.affine, [0, 0, 1])))[:2], frame)
        worst = max(worst, -shown.min(), shown.max() - 1)
        largest = max(largest, float(np.hypot(*change.affine[:, 0])))
    assert worst <= augmentation.reach + 1e-9
    assert worst >= 0.8 * augmentation.reach - 0.01
    assert largest == pytest.approx(augmentation.zoom, rel=0.01)


def finished(change: Change, crop: Image) -> Image:
    return change.finish(crop.copy())


def noise(size: int = 64) -> Image:
    return np.random.randint(0, 256, (size, size, 3), dtype=np.uint8)


STILL = np.eye(2, 3)


def test_black_border_is_what_a_finished_crop_would_have() -> None:
    white = np.full((64, 64, 3), 255, np.uint8)
    augmentation = replace(OFF, border="black", translation_p=0.5, flip_p=0.5, rotation_p=0.5, scale_p=0.5)
    cut = 0
    for change in draws(augmentation, 60, 64):
        linear, center = change.affine[:, :2], np.full(2, 32.0)
        # The paper's way in two steps: shift what was cut, then mirror and turn what is left of it.
        shift_px = np.linalg.solve(linear, change.affine[:, 2] - center) + center
        shifted = warp(white, np.column_stack((np.eye(2), shift_px)), 64)
        twice = warp(shifted, np.column_stack((linear, center - linear @ center)), 64)
        got = finished(change, white)
        # Whatever becomes of the pixels that the border cuts, and of some beside them where it is drawn in steps.
        assert (got[twice == 0] != 0).sum() < 0.005 * got.size
        assert (got[twice == 255] != 255).sum() < 0.005 * got.size
        cut += bool((got == 0).any())
    assert cut > 30


def test_a_patch_covers_its_rectangle() -> None:
    change = only(occlusion_p=1, occlusion_frac=1.0).draw(np.random.default_rng(1), 64)
    (patch,) = change.patches
    got = finished(change, np.zeros((64, 64, 3), np.uint8))
    ys, xs = np.nonzero(got.any(axis=2))
    np.testing.assert_allclose(
        [xs.min(), xs.max(), ys.min(), ys.max()], (patch.corners[[0, 1, 0, 2], [0, 0, 1, 1]] - 0.5).round(), atol=1
    )
    assert len(xs) == (np.ptp(xs) + 1) * (np.ptp(ys) + 1) > 100
    assert np.unique(got[ys, xs], axis=0).tolist() == [list(patch.color)]


def test_occlusion_is_mirrored_and_turned_with_the_face() -> None:
    plain, turned = (only(occlusion_p=1, flip_p=1, rotation_p=p).draw(np.random.default_rng(8), 64) for p in (0, 1))
    straight = [max(np.abs(c.patches[0].corners[1] - c.patches[0].corners[0])) for c in (plain, turned)]
    assert straight[1] < straight[0]
    x, _ = plain.patches[0].corners.T
    # Its first corner is the left one before mirroring.
    assert x[0] > x[1]


def test_erasing_draws_up_to_so_many_patches() -> None:
    counts = {len(change.patches) for change in draws(only(erasing_p=1, erasing_patches=4), 100)}
    assert counts == {1, 2, 3, 4}


def test_blur_has_the_standard_deviation_it_says() -> None:
    line = np.zeros((65, 65, 3), np.uint8)
    line[:, 32] = 255
    row = finished(Change(STILL, blur_px=3.0), line)[32, :, 0].astype(float)
    offset = np.arange(65) - 32
    assert np.sqrt((row * offset**2).sum() / row.sum()) == pytest.approx(3.0, rel=0.05)


def test_gray() -> None:
    crop = noise()
    got = finished(Change(STILL, gray=True), crop)
    np.testing.assert_allclose(got, (crop @ [0.299, 0.587, 0.114])[..., None].repeat(3, axis=2), atol=0.6)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        pytest.param((1.0, 1.0, 1.0), lambda x, gray, mean: x, id="nothing"),
        pytest.param((0.5, 1.0, 1.0), lambda x, gray, mean: 0.5 * x, id="brightness"),
        pytest.param((1.0, 0.5, 1.0), lambda x, gray, mean: mean + 0.5 * (x - mean), id="contrast"),
        pytest.param((1.0, 1.0, 0.5), lambda x, gray, mean: gray + 0.5 * (x - gray), id="saturation"),
        pytest.param((1.9, 1.0, 1.0), lambda x, gray, mean: np.minimum(1.9 * x, 255), id="too-bright"),
        pytest.param((0.8, 0.7, 1.2), lambda x, g, m: 0.8 * (m + 0.7 * (g + 1.2 * (x - g) - m)), id="all"),
    ],
)
def test_color(factors: tuple[float, float, float], expected: Any) -> None:
    crop = noise()
    gray = (crop @ [0.299, 0.587, 0.114])[..., None]
    got = finished(Change(STILL, color=factors), crop)
    np.testing.assert_allclose(got, np.clip(expected(crop.astype(float), gray, gray.mean()), 0, 255), atol=1)


def test_resolution_and_jpeg_lose_detail_and_keep_the_rest() -> None:
    ramp = np.stack([np.tile(np.arange(64) * 3, (64, 1))] * 3, axis=2).astype(np.uint8)
    # Red and blue in their places.
    ramp[..., 2] //= 2
    for change in (Change(STILL, resolution_px=16), Change(STILL, jpeg_quality=30)):
        np.testing.assert_allclose(finished(change, ramp)[:, 4:-4].mean(axis=0), ramp[0, 4:-4], atol=6)
        crop = noise()
        assert finished(change, crop).std() < 0.8 * crop.std()
    drawn = draws(only(resolution_p=1, resolution_min=0.5, jpeg_p=1, jpeg_quality_min=60), 300)
    sides = {change.resolution_px for change in drawn}
    qualities = {change.jpeg_quality for change in drawn}
    assert (min(sides), max(sides)) == pytest.approx((128, 256), abs=2)  # type: ignore[type-var]
    assert qualities == set(range(60, 96))


def test_everything_at_once_gives_a_crop() -> None:
    everything = Augmentation(**{field.name: 1.0 for field in fields(Augmentation) if field.name.endswith("_p")})
    for change in draws(everything, 20, 33):
        got = finished(change, noise(33))
        assert (got.shape, got.dtype) == ((33, 33, 3), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"flip_p": 1.5}, ValueError, "flip_p: expected 0 to 1, got 1.5", id="probability"),
        pytest.param({"blur_p": float("nan")}, ValueError, "blur_p: expected 0 to 1, got nan", id="nan"),
        pytest.param({"flip_p": "often"}, TypeError, "flip_p: expected a number, got 'often'", id="text"),
        pytest.param({"flip_p": True}, TypeError, "flip_p: expected a number, got True", id="bool"),
        pytest.param({"rotation_deg": -3}, ValueError, "rotation_deg: expected 0 to 180, got -3", id="angle"),
        pytest.param({"scale_max": 0.5}, ValueError, "scale_max: expected 1 to 4, got 0.5", id="scale"),
        pytest.param({"resolution_min": 0}, ValueError, "resolution_min: expected 0.01 to 1, got 0", id="resolution"),
        pytest.param(
            {"erasing_patches": 1.5}, TypeError, "erasing_patches: expected an integer, got 1.5", id="patches"
        ),
        pytest.param({"jpeg_quality_min": 99}, ValueError, "jpeg_quality_min: expected 1 to 95, got 99", id="jpeg"),
        pytest.param(
            {"border": "gray"}, ValueError, r"border: expected one of \('image', 'black'\), got 'gray'", id="border"
        ),
    ],
)
def test_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"Augmentation: {message}"):
        Augmentation(**arguments)
