"""Five points of a face, which aligned crops are made from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipnet_fast.geometry._points import Floats, as_landmarks, select
from pipnet_fast.layouts import load_layout

_68: tuple[Sequence[int], ...] = (range(36, 42), range(42, 48), (30,), (48,), (54,))

# Of each layout the landmarks whose means the five are: the eye on the image's left, the one on its right, the tip of
# the nose, the corners of the mouth. An eye is its contour where a layout has one.
FIVE_POINTS: dict[str, tuple[Sequence[int], ...]] = {
    "300w68": _68,
    "300w68_gssl": _68,
    "wflw98": (range(60, 68), range(68, 76), (54,), (76,), (82,)),
    "lapa106": (range(66, 74), range(75, 83), (54,), (84,), (90,)),
    "cofw29": ((8, 10, 12, 13), (9, 11, 14, 15), (20,), (22,), (23,)),
    "aflw19": ((7,), (10,), (13,), (15,), (17,)),
}


def to_5pts(landmarks: Any, layout: str) -> Floats:
    """The centers of the eyes, the tip of the nose and the corners of the mouth, by the image's left and right.

    The order is that of MTCNN and ArcFace: eye on the image's left, eye on its right, nose, left corner, right corner.
    Eyes are means of their contours and do not follow the gaze, as pupils do.

    Args:
        landmarks: (..., N, 2), in any unit; labels or predictions, of no face (0, N, 2), too.
        layout: which landmarks they are: "300w68", "wflw98", "lapa106", "cofw29" or "aflw19".

    Returns:
        (..., 5, 2) of the same type, float64 for integers; NaN where a source is.

    Raises:
        ValueError: another layout, or landmarks of another shape.
    """
    groups = select("to_5pts", FIVE_POINTS, layout)
    points = as_landmarks("to_5pts", landmarks, load_layout(layout).num_landmarks)
    five: Floats = np.stack([points[..., list(group), :].mean(axis=-2) for group in groups], axis=-2)
    return five
