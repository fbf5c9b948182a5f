"""Training labels of Menpo 2D whose order is wrong, as OpenFace's authors found; put right on request only.

Numbers are those of ``aflw__face_N``. It is not known whether the later release has them right already.
"""

import re

import numpy as np

from pipnet_fast.data.samples import Points

_JAW_AND_BROW = "65193 65158 65153 65119 64833 64744 63190 63080 65249 64771"

# Landmarks first..last, counted from 1, stand in reverse.
_REVERSED = {
    (1, 12): f"{_JAW_AND_BROW} 64849 64170 64167 63118 64866",
    (13, 16): f"{_JAW_AND_BROW} 64862 64292 64735 43770",
    (17, 22): "43536",
    (18, 22): "64806 63590 62990 62534 64238",
    (23, 27): "42138 41716",
    (28, 31): "42898",
    (28, 34): "41487",
    (61, 64): "47686 47687",
    (65, 68): "47686 47687",
}
# Landmarks first..middle stand where those after them belong, and the other way round.
_SWAPPED = {(18, 22, 27): "63001", (37, 42, 48): "41364"}
# Two of the jaw's points are spurious, so no jaw point is what its number says.
_NO_JAW = "45522"


def right_order(landmarks: Points, stem: str) -> Points:
    """Landmarks (N, 2) of the image ``stem`` in the order they should have; NaN where they are of no use."""
    match = re.fullmatch(r"aflw__face_(\d+)", stem)
    if match is None:
        return landmarks
    order = np.arange(len(landmarks))
    for (first, last), faces in _REVERSED.items():
        if match[1] in faces.split():
            order[first - 1 : last] = order[first - 1 : last][::-1]
    for (first, middle, last), faces in _SWAPPED.items():
        if match[1] in faces.split():
            order[first - 1 : last] = np.r_[middle:last, first - 1 : middle]
    fixed = landmarks[order]
    if match[1] in _NO_JAW.split():
        fixed[:17] = np.nan
    return fixed
