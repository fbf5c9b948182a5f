"""Scene cuts on made-up scenes."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipnet_fast.tracking.cuts import SIDE, CutDetector, similarity

Pixels = npt.NDArray[np.uint8]


def scene(seed: int, height: int = 180, width: int = 480) -> Pixels:
    """Soft shapes of all sizes, wider than a frame is."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cells in (3, 6, 12, 40):
        noise = random.uniform(-1, 1, (cells, cells * 2, 3))
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (128 + 50 * image).clip(0, 255).astype(np.uint8)


def window(image: Pixels, x: int, width: int = 240) -> Pixels:
    return np.ascontiguousarray(image[:, x : x + width])


def cuts(frames: list[Pixels]) -> list[bool]:
    is_cut = CutDetector()
    return [is_cut(frame) for frame in frames]


def noisy(frame: Pixels, seed: int) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, 12, frame.shape)
    return (frame + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_another_scene_is_a_cut(seed: int) -> None:
    first, second = window(scene(2 * seed), 100), window(scene(2 * seed + 1), 100)
    frames = [noisy(first, 0), noisy(first, 1), noisy(second, 2), noisy(second, 3), noisy(first, 4)]
    assert cuts(frames) == [False, False, True, False, True]


@pytest.mark.parametrize(("share", "is_cut"), [(0.5, False), (0.4, True)])
def test_how_much_of_a_scene_may_change(share: float, is_cut: bool) -> None:
    """A picture that has so much of the one before in it, the rest of another's: alike by 0.72 and by 0.57."""
    first, second = (window(scene(seed), 100).astype(np.float64) for seed in (0, 1))
    mixed = (share * first + (1 - share) * second).round().astype(np.uint8)
    thumbnails = [cv2.resize(f.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for f in (first, mixed)]
    assert similarity(*thumbnails) == pytest.approx(0.57 if is_cut else 0.72, abs=0.01)
    assert cuts([first.astype(np.uint8), mixed]) == [False, is_cut]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", [8, 20, 30])
def test_a_pan_is_none_however_fast(seed: int, step: int) -> None:
    image = scene(seed)
    assert not any(cuts([window(image, x) for x in range(0, 200, step)]))


def test_a_blurred_pan_is_none() -> None:
    image = scene(1)
    frames = [window(cv2.blur(image, (41, 1)) if 30 < x < 170 else image, x) for x in range(0, 200, 25)]
    assert not any(cuts(frames))


@pytest.mark.parametrize("gain", [0.4, 1.6, 2.5, np.inf], ids=["dim", "bright", "brighter", "white"])
def test_a_flash_is_none(gain: float) -> None:
    image = window(scene(2), 50)
    flash = ((image + 1.0) * gain).clip(0, 255).astype(np.uint8)
    assert not any(cuts([image, flash, image, flash, flash, image]))


def test_a_cut_through_black_is_one() -> None:
    first, second = window(scene(3), 0), window(scene(4), 0)
    assert cuts([first, first * 0, first * 0, second]) == [False, False, False, True]
    assert not any(cuts([first, first * 0, first]))


def test_a_slow_fade_is_none_at_any_single_frame() -> None:
    first, second = window(scene(5), 0).astype(float), window(scene(6), 0).astype(float)
    assert not any(cuts([(first * (1 - a) + second * a).astype(np.uint8) for a in np.linspace(0, 1, 15)]))


def test_frames_of_any_size() -> None:
    is_cut = CutDetector()
    for shape in [(1, 1, 3), (1, 500, 3), (8, 8, 3), (40, 30, 3)]:
        assert not is_cut(np.zeros(shape, np.uint8))
    assert not is_cut(window(scene(7), 0))
    assert not is_cut(cv2.resize(window(scene(7), 0), (60, 45)))
