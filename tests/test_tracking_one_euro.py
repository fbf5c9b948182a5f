"""The One-Euro filter against the paper's algorithm, written out for one number, and what it promises."""

import math

import numpy as np
import pytest

from pipnet_fast.tracking.one_euro import OneEuroFilter, one_euro


def literal(values: list[float], times: list[float], min_cutoff: float, beta: float) -> list[float]:
    """Algorithm 1 of the paper, on one axis."""

    def alpha(rate: float, cutoff: float) -> float:
        return 1 / (1 + rate / (2 * math.pi * cutoff))

    out, speed = [values[0]], 0.0
    for i in range(1, len(values)):
        rate = 1 / (times[i] - times[i - 1])
        a = alpha(rate, 1.0)
        speed = a * (values[i] - out[-1]) * rate + (1 - a) * speed
        a = alpha(rate, min_cutoff + beta * abs(speed))
        out.append(a * values[i] + (1 - a) * out[-1])
    return out


@pytest.fixture
def times() -> list[float]:
    """Of a variable frame rate."""
    return np.cumsum(np.random.default_rng(1).uniform(0.01, 0.09, 60)).tolist()


def test_it_is_the_papers(times: list[float]) -> None:
    values = np.cumsum(np.random.default_rng(2).normal(0, 1, 60)).tolist()
    smooth = OneEuroFilter(min_cutoff_hz=0.7, beta=0.3)
    # On the x axis alone the speed of the point is that of the axis.
    found = [smooth(np.array([[v, 5.0]]), t, 1.0)[0] for v, t in zip(values, times, strict=True)]
    np.testing.assert_allclose(found, np.stack((literal(values, times, 0.7, 0.3), [5.0] * 60), axis=1), atol=1e-12)


def test_points_are_filtered_each_by_its_own_speed(times: list[float]) -> None:
    paths = np.cumsum(np.random.default_rng(3).normal(0, [[[1], [9]]], (60, 2, 2)), axis=0)
    both, alone = OneEuroFilter(0.7, 0.3), OneEuroFilter(0.7, 0.3)
    for points, time in zip(paths, times, strict=True):
        np.testing.assert_allclose(both(points, time, 1.0)[:1], alone(points[:1], time, 1.0), atol=1e-12)


def test_one_setting_fits_all_sizes(times: list[float]) -> None:
    paths = np.cumsum(np.random.default_rng(4).normal(0, 1, (60, 5, 2)), axis=0)
    small, large = OneEuroFilter(0.7, 0.3), OneEuroFilter(0.7, 0.3)
    for points, time in zip(paths, times, strict=True):
        np.testing.assert_allclose(large(points * 20, time, 2000.0), small(points, time, 100.0) * 20, atol=1e-9)


def test_turned_paths_come_out_turned(times: list[float]) -> None:
    paths = np.cumsum(np.random.default_rng(5).normal(0, 1, (60, 5, 2)), axis=0)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    plain, turned = OneEuroFilter(0.7, 0.3), OneEuroFilter(0.7, 0.3)
    for points, time in zip(paths, times, strict=True):
        np.testing.assert_allclose(turned(points @ turn, time, 1.0), plain(points, time, 1.0) @ turn, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1.0])
def test_calmer_settings_jitter_less_and_lag_more(smoothing: float) -> None:
    noise = np.random.default_rng(6).normal(0, 1, (200, 20, 2))
    ramp = np.arange(200)[:, None, None] * np.ones((1, 20, 2))

    def run(setting: float, paths: np.ndarray) -> np.ndarray:
        smooth = one_euro(setting)
        assert smooth is not None
        return np.stack([smooth(points, i / 30, 200.0) for i, points in enumerate(paths)])

    def jitter(setting: float) -> float:
        return float(np.diff(run(setting, noise), axis=0)[50:].std())

    def lag(setting: float) -> float:
        return float((ramp - run(setting, ramp))[100:].mean())

    less = smoothing - 0.1
    assert jitter(smoothing) < (jitter(less) if less else np.diff(noise, axis=0).std())
    assert lag(smoothing) > (lag(less) if less else 0)


def test_half_smoothing_takes_four_fifths_of_the_jitter_and_lags_less_than_10_ms() -> None:
    """A face of 200 px at 30 frames/s: at rest, with noise of half a pixel; in swift motion."""

    def run(paths: np.ndarray) -> np.ndarray:
        smooth = one_euro(0.5)
        assert smooth is not None
        return np.stack([smooth(points, i / 30, 200.0) for i, points in enumerate(paths)])

    rest = np.random.default_rng(7).normal(0, 0.5, (300, 20, 2))
    share = np.diff(run(rest), axis=0)[50:].std() / np.diff(rest, axis=0)[50:].std()
    assert 0.15 < share < 0.25
    # One and a half of its sides a second.
    step_px = 200 * 1.5 / 30
    motion = np.arange(100)[:, None, None] * np.array([step_px, 0.0]) * np.ones((1, 20, 1))
    lag_frames = (motion - run(motion))[50:, :, 0].mean() / step_px
    assert 0 < lag_frames / 30 < 0.01


@pytest.mark.parametrize(("smoothing", "min_cutoff", "beta"), [(0.5, 1.0, 32.0), (1.0, 0.25, 8.0)])
def test_constants_of_settings(smoothing: float, min_cutoff: float, beta: float, times: list[float]) -> None:
    paths = np.cumsum(np.random.default_rng(8).normal(0, 1, (60, 5, 2)), axis=0)
    found, expected = one_euro(smoothing), OneEuroFilter(min_cutoff, beta)
    assert found is not None
    for points, time in zip(paths, times, strict=True):
        np.testing.assert_allclose(found(points, time, 50.0), expected(points, time, 50.0), atol=1e-9)


def test_no_smoothing_has_no_filter() -> None:
    assert one_euro(0) is None
