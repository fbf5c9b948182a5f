"""What the rivals' losses share: which landmarks are labelled, and means over those."""

from typing import NamedTuple

import torch
from torch import Tensor


class Labels(NamedTuple):
    """Points without NaN, and what each landmark of each sample counts in a mean over the labelled ones."""

    points_frac: Tensor
    """(B, N, 2), 0 where not labelled."""
    share: Tensor
    """(B, N), one over the number of labelled landmarks, or over a given count, 0 where not labelled."""


def read_labels(model: str, x: Tensor, points_frac: Tensor, num_landmarks: int, counts: Tensor | None = None) -> Labels:
    """Check a batch's points (B, N, 2) and split them; a landmark with a NaN coordinate is not labelled.

    ``counts``, (1,), stands for the number of labelled landmarks: that of a larger batch which this is a part of.

    Raises:
        TypeError, ValueError: no tensor, or not floating-point (B, N, 2) on the device of ``x``; other counts.
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
    if counts is None:
        counts = labelled.sum()
    elif not isinstance(counts, Tensor) or counts.shape != (1,) or counts.device != x.device:
        raise ValueError(f"{model}: counts: expected one number as label_counts gives on {x.device}, got {counts!r}")
    share = labelled / counts.to(points.dtype).clamp(min=torch.finfo(points.dtype).tiny)
    return Labels(points.nan_to_num(0.0) * labelled.unsqueeze(2), share)
