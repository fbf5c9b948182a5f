"""How far boxes overlap."""

from typing import Any

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.floating[Any]]
Shares = npt.NDArray[np.float64]


def union_shares(boxes: Boxes, others: Boxes) -> Shares:
    """(n, m) intersections over unions of boxes (n, 4 or more) with boxes (m, 4 or more)."""
    shared = _intersections(boxes, others)
    return np.divide(shared, _areas(boxes)[:, None] + _areas(others) - shared)


def smaller_shares(boxes: Boxes, others: Boxes) -> Shares:
    """(n, m) intersections over the smaller of the two: 1 where one lies in the other."""
    return np.divide(_intersections(boxes, others), np.minimum(_areas(boxes)[:, None], _areas(others)))


def _intersections(boxes: Boxes, others: Boxes) -> Shares:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:4], others[None, :, 2:4])
    shared: Shares = (high - low).clip(0).prod(axis=2)
    return shared


def _areas(boxes: Boxes) -> Shares:
    areas: Shares = (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1)
    return areas
