"""What the rivals' losses share: which landmarks are labelled, and means over those."""

from typing import NamedTuple

import torch
from torch import Tensor


class Labels(NamedTuple):
    """Points without NaN, and what each landmark of each sample counts in a mean over the labelled ones."""

    points_frac: Tensor
    """(B, N, 2), 0 where not labelled."""
    share: Tensor
    """(B, N), one over the number of labelled landmarks, 0 where not labelled; all 0 if none is."""


def read_labels(model: str, x: Tensor, points_frac: Tensor, num_landmarks: int) -> Labels:
    """Check a batch's points (B, N, 2) and split them; a landmark with a NaN coordinate is not labelled.

    Raises:
        TypeError, ValueError: no tensor, or not floating-point (B, N, 2) on the device of ``x``.
    """
    expected = (len(x), num_landmarks, 2)
    if not isinstance(points_frac, Tensor):
        raise TypeError(f"{model}: points_frac: expected a tensor, got {type(points_frac).__name__}")
    if points_frac.shape != expected or not points_frac.is_floating_point():
        raise ValueError(
            f"{model}: points_frac: expected floating-point {expected}, got {tuple(points_frac.shape)} "
            f"{points_frac.dtype}"
        )
    if points_frac.device != x.device:
        raise ValueError(f"{model}: points_frac: expected {x.device} as x, got {points_frac.device}")
    points = points_frac.to(torch.promote_types(x.dtype, torch.float32))
    labelled = (points == points).all(dim=2).to(points.dtype)
    return Labels(points.nan_to_num(0.0) * labelled.unsqueeze(2), labelled / labelled.sum().clamp(min=1))
