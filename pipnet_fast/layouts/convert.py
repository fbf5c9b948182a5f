"""From one layout to another."""

from typing import Any

import numpy as np
import numpy.typing as npt

# For each of the 68 the point of the 98 that it is, or that is mixed with another one.
_PICKED = np.array(
    [
        *range(0, 33, 2),
        *range(33, 38),
        *range(42, 47),
        *range(51, 60),
        *(60, 61, 63, 64, 65, 67),
        *(68, 69, 71, 72, 73, 75),
        *range(76, 96),
    ]
)
# Of the 68: brows but for their ends, and the points of the 98 on their lower edges.
_BROWS, _LOWER_EDGE = np.arange(18, 26), np.array([41, 40, 39, 38, 50, 49, 48, 47])
# Of the 68: eyelids, and the points of the 98 in the middle of them.
_EYELIDS, _MIDDLE = np.array([37, 38, 40, 41, 43, 44, 46, 47]), np.array([62, 62, 66, 66, 70, 70, 74, 74])


def wflw98_to_300w68(points: Any, *, official: bool = False) -> npt.NDArray[np.floating[Any]]:
    """The 68 landmarks of 300W from the 98 of WFLW, as the official code does: most are picked, 16 lie between two.

    Brows: x of the upper edge, y in the middle of both edges. Eyelids: two parts of their own point, one of the
    middle one, which 300W has none of. The pupils are dropped. Nobody claims that the two sets' definitions of the
    points agree exactly.

    Args:
        points: (..., 98, 2), in any unit; labels or predictions.
        official: weights 0.666 and 0.333 for the eyelids, as the official code literally has them. Their sum of
            0.999 pulls eight points towards the origin, which there is the corner of the crop: pass fractions.

    Returns:
        (..., 68, 2) of the same type, float64 for integers; NaN where a source is.

    Raises:
        ValueError: another shape, or no numbers.
    """
    values = np.asarray(points)
    if values.ndim < 2 or values.shape[-2:] != (98, 2) or values.dtype.kind not in "iuf":
        raise ValueError(
            f"wflw98_to_300w68: points: expected numbers of shape (..., 98, 2), got {values.dtype} {values.shape}"
        )
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    own, other = (0.666, 0.333) if official else (2 / 3, 1 / 3)
    converted: npt.NDArray[np.floating[Any]] = values[..., _PICKED, :]
    converted[..., _BROWS, 1] = (converted[..., _BROWS, 1] + values[..., _LOWER_EDGE, 1]) / 2
    converted[..., _EYELIDS, :] = own * converted[..., _EYELIDS, :] + other * values[..., _MIDDLE, :]
    return converted
