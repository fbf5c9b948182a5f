"""Some of a layout's landmarks."""

from typing import Any

import numpy as np
import pytest

from pipnet_fast.layouts import load_layout, load_mean_shape


def test_eyes_and_mouth() -> None:
    kept = [*range(36, 48), *range(48, 68)]
    layout = load_layout("300w68").subset(kept, "eyes and mouth")
    assert (layout.name, layout.num_landmarks, layout.outer_eyes) == ("eyes and mouth", 32, (0, 9))
    points = load_mean_shape("300w68")
    # A mirrored face has the same landmarks, whether they are picked before or after.
    mirrored = points[load_layout("300w68").flip] * (-1, 1)
    assert np.array_equal(mirrored[kept], points[kept][layout.flip] * (-1, 1))


def test_order_is_as_given_and_eyes_may_be_missing() -> None:
    layout = load_layout("300w68").subset(np.array([54, 30, 48]))
    assert (layout.name, layout.flip.tolist(), layout.outer_eyes) == ("300w68 subset", [2, 1, 0], None)
    everything = load_layout("wflw98").subset(range(98))
    assert np.array_equal(everything.flip, load_layout("wflw98").flip)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        pytest.param([36, 30], "every landmark with its mirror image, got 36 without 45", id="lonely"),
        pytest.param([30, 30], r"different landmarks of 0..67, got \[30, 30\]", id="twice"),
        pytest.param([68], r"different landmarks of 0..67, got \[68\]", id="beyond"),
        pytest.param([-1], r"different landmarks of 0..67, got \[-1\]", id="negative"),
        pytest.param([], "expected landmarks, got float64", id="none"),
        pytest.param([0.0, 16.0], "expected landmarks, got float64", id="floats"),
    ],
)
def test_subsets_that_are_none(landmarks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"Layout 300w68: subset: .*{message}"):
        load_layout("300w68").subset(landmarks)
