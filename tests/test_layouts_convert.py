"""The 98 landmarks of WFLW as the 68 of 300W."""

from typing import Any

import numpy as np
import pytest

from pipnet_fast.layouts import load_layout, load_mean_shape, wflw98_to_300w68

# Point of the 68: points of the 98 and their weights, for x and for y.
MIXED = {
    18: [(34, 1, 0.5), (41, 0, 0.5)],
    21: [(37, 1, 0.5), (38, 0, 0.5)],
    22: [(42, 1, 0.5), (50, 0, 0.5)],
    25: [(45, 1, 0.5), (47, 0, 0.5)],
    37: [(61, 2 / 3, 2 / 3), (62, 1 / 3, 1 / 3)],
    40: [(65, 2 / 3, 2 / 3), (66, 1 / 3, 1 / 3)],
    44: [(71, 2 / 3, 2 / 3), (70, 1 / 3, 1 / 3)],
    47: [(75, 2 / 3, 2 / 3), (74, 1 / 3, 1 / 3)],
}
PICKED = {0: 0, 8: 16, 16: 32, 17: 33, 26: 46, 27: 51, 35: 59, 36: 60, 39: 64, 42: 68, 45: 72, 48: 76, 67: 95}


@pytest.fixture
def faces() -> Any:
    return np.random.default_rng(0).random((3, 98, 2))


def test_picked_points_are_the_same(faces: Any) -> None:
    converted = wflw98_to_300w68(faces)
    assert converted.shape == (3, 68, 2)
    for target, source in PICKED.items():
        assert np.array_equal(converted[:, target], faces[:, source])


def test_mixed_points(faces: Any) -> None:
    converted = wflw98_to_300w68(faces)
    for target, sources in MIXED.items():
        expected = sum(faces[:, source] * (weight_x, weight_y) for source, weight_x, weight_y in sources)
        assert converted[:, target] == pytest.approx(expected, abs=1e-12)


def test_the_pupils_do_not_count(faces: Any) -> None:
    without = faces.copy()
    without[:, 96:] = np.nan
    assert np.array_equal(wflw98_to_300w68(without), wflw98_to_300w68(faces))


def mirrored(points: Any, layout: str) -> Any:
    flipped = points[..., load_layout(layout).flip, :].copy()
    flipped[..., 0] = 1 - flipped[..., 0]
    return flipped


def test_mirroring_and_converting_commute(faces: Any) -> None:
    difference = wflw98_to_300w68(mirrored(faces, "wflw98")) - mirrored(wflw98_to_300w68(faces), "300w68")
    assert abs(difference).max() < 1e-12


def test_official_weights_are_off_by_a_thousandth(faces: Any) -> None:
    converted = wflw98_to_300w68(faces, official=True)
    difference = wflw98_to_300w68(mirrored(faces, "wflw98"), official=True) - mirrored(converted, "300w68")
    eyelids = [37, 38, 40, 41, 43, 44, 46, 47]
    others = np.setdiff1d(np.arange(68), eyelids)
    assert difference[:, eyelids, 0] == pytest.approx(-0.001, abs=1e-12)
    assert abs(difference[:, eyelids, 1]).max() < 1e-12
    assert abs(difference[:, others]).max() < 1e-12
    assert converted[:, 38] == pytest.approx(0.666 * faces[:, 63] + 0.333 * faces[:, 62])
    assert np.array_equal(converted[:, others], wflw98_to_300w68(faces)[:, others])


def test_converting_and_cropping_commute(faces: Any) -> None:
    assert wflw98_to_300w68(faces * 256 - 7) == pytest.approx(wflw98_to_300w68(faces) * 256 - 7, abs=1e-9)


def test_the_mean_face_becomes_that_of_300w() -> None:
    converted, official = (
        (points - points.mean(axis=0)) / points.std(axis=0)
        for points in (wflw98_to_300w68(load_mean_shape("wflw98")), load_mean_shape("300w68"))
    )
    nearest = np.linalg.norm(converted[:, None] - official, axis=2).argmin(axis=1)
    # But for the inner lips: mouths in WFLW are wider open.
    assert nearest[:60].tolist() == list(range(60))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_of_numbers(dtype: Any, faces: Any) -> None:
    assert wflw98_to_300w68(faces.astype(dtype)).dtype == dtype
    assert wflw98_to_300w68(np.ones((98, 2), dtype=np.int64)) == pytest.approx(np.ones((68, 2)))
    assert wflw98_to_300w68(np.zeros((0, 98, 2), dtype)).shape == (0, 68, 2)


def test_what_comes_in_is_left_alone(faces: Any) -> None:
    before = faces.copy()
    wflw98_to_300w68(faces)[:] = 0
    assert np.array_equal(faces, before)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        pytest.param(np.zeros((68, 2)), r"expected numbers of shape \(\.\.\., 98, 2\), got float64 \(68, 2\)", id="68"),
        pytest.param(np.zeros(196), r"got float64 \(196,\)", id="flat"),
        pytest.param(np.zeros((98, 3)), r"got float64 \(98, 3\)", id="three coordinates"),
        pytest.param(np.full((98, 2), "a"), r"got <U1 \(98, 2\)", id="text"),
    ],
)
def test_other_points(points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"wflw98_to_300w68: points: .*{message}"):
        wflw98_to_300w68(points)
