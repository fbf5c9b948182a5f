"""PIPNet's training loss (equations 1 to 6) from backbone features, without a dense map but the score's.

    score    = mean over n and all cells of (score[n] - [1 at cell(n), else 0])^2              equation 2
    offset   = mean over n, x and y of |vote(n, 0) - target(n, n)|                             equation 3
    neighbor = mean over n, k, x and y of |vote(n, 1 + k) - target(n, neighbor k of n)|        equation 6
    total    = score + alpha * offset + beta * neighbor                                        equation 5

cell(n) is where the labelled point n lies, or the nearest cell if it lies outside the grid. target(n, m) is
point m in cells from the corner of cell(n), not clamped. Scores and votes are those of ``head_decode``, but the
votes are read at the labelled cells. So points are all the labels there are: neither target maps nor maps of
votes are built, and both passes compute N * (H * W + 2 + 2K) rows instead of N * H * W * (3 + 2K).

Matrix products with the score map are torch's. The rest, all that hangs on labels, is C++ for float32 on the CPU, and
plain torch elsewhere and under ``torch.compile``, which fuses it.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipnet_fast.neighbors import NeighborTable
from pipnet_fast.ops import _head_loss_cpp, _head_loss_torch
from pipnet_fast.ops._head_loss_torch import Kept
from pipnet_fast.ops._merge import check_grid
from pipnet_fast.ops._modes import no_autocast
from pipnet_fast.ops.types import HeadMaps

# Twice the values in section 4.1.2. There a term is the mean over x and y; the official code adds the mean over x and
# the mean over y.
_BALANCE = {16: 0.04, 32: 0.2, 64: 0.25, 128: 0.5}


class HeadLoss(NamedTuple):
    """The loss and its terms, scalars in float32 (float64 if features or weights are); each can be differentiated."""

    total: Tensor
    """score + alpha * offset + beta * neighbor, equation 5."""
    score: Tensor
    """Mean squared error of the score map, equation 2."""
    offset: Tensor
    """Mean absolute error of the landmarks' own offsets, in cells, equation 3."""
    neighbor: Tensor
    """Mean absolute error of the neighbors' offsets, in cells, equation 6; 0 if K = 0."""


def default_balance(stride: int) -> float:
    """The value of both alpha and beta for a network of this stride: 16, 32, 64 or 128 input pixels per cell.

    Twice the paper's, which is what the official code has: at stride 32 its loss is ten times ``total``.
    """
    if stride not in _BALANCE:
        raise ValueError(f"default_balance: stride: expected one of {tuple(_BALANCE)}, got {stride!r}")
    return _BALANCE[stride]


class _Loss(torch.autograd.Function):
    """The fields of ``HeadLoss``. Between the passes it keeps a score map and N * (2 + 2K) numbers per sample, no more.

    The columns of features at the labelled cells are gathered in each pass anew.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        points: Tensor,
        neighbors: Tensor,
        sample_weights: Tensor | None,
        balance: tuple[float, float],
        *head: Tensor,
    ) -> tuple[Tensor, ...]:
        weights, biases = HeadMaps(*head[:5]), HeadMaps(*head[5:])
        passes = _head_loss_cpp if _head_loss_cpp.takes(features, *head) else _head_loss_torch
        terms, kept = passes.forward(features, points, neighbors, sample_weights, weights, biases)
        ctx.save_for_backward(features, *weights, *kept)
        ctx.balance = balance
        score, offset, neighbor = terms
        return score.add(offset, alpha=balance[0]).add(neighbor, alpha=balance[1]), *terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, of_score: Tensor, of_offset: Tensor, of_neighbor: Tensor) -> Any:
        features, *tensors = ctx.saved_tensors
        weights, kept = HeadMaps(*tensors[:5]), Kept(*tensors[5:])
        needed = ctx.needs_input_grad[0], *ctx.needs_input_grad[5:]
        alpha, beta = ctx.balance
        with no_autocast(features.device.type):
            of_terms = of_score + of_total, of_offset.add(of_total, alpha=alpha), of_neighbor.add(of_total, alpha=beta)
            passes = _head_loss_cpp if _head_loss_cpp.takes(features, *weights, *of_terms) else _head_loss_torch
            of_features, *of_head = passes.backward(features, weights, kept, of_terms, needed)
        return of_features, None, None, None, None, *of_head


def head_loss(
    features: Tensor,
    weights: HeadMaps,
    biases: HeadMaps,
    points_frac: Tensor,
    table: NeighborTable,
    *,
    alpha: float = _BALANCE[32],
    beta: float = _BALANCE[32],
    sample_weights: Tensor | None = None,
    counts: Tensor | None = None,
) -> HeadLoss:
    """The loss of the head's five 1x1 convolutions on features, equal to that of their dense maps.

    Means are over what is labelled: a landmark with a NaN coordinate counts in no term, neither as itself nor as
    a neighbor, and a term in which nothing counts is 0 with gradients of 0. Gradients flow to features, weights
    and biases, once: there is no second derivative. Sums are in float32 whatever comes in, under autocast too
    (in float64 where features or weights are). It never waits for a CUDA device; its gradients there are
    reproducible to the bit only under ``torch.use_deterministic_algorithms``.

    Args:
        features: (B, C, H, W), B >= 0; channels-last is the fast path.
        weights: of the five convolutions, in map order: three of (N, C), two of (N * K, C).
        biases: likewise, three of (N,), two of (N * K,).
        points_frac: (B, N, 2), x before y, in fractions of the crop; may leave 0..1; NaN where not labelled.
        table: the neighbor table for the same N and K.
        alpha: weight of the offset term, at least 0; the default is for stride 32, see ``default_balance``.
        beta: weight of the neighbor term, likewise.
        sample_weights: (B, 3), at least 0: how much each sample counts in the score, the offset and the neighbor
            term, whose means become weighted means. In self-training a sample may count in some of them only.
        counts: (3,), what the terms are means over in place of this batch's own ``label_counts``: those of a batch
            that this one is a part of. The terms of its parts, and their gradients, then add up to its own.

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit.
    """
    _check(features, weights, biases, points_frac, table, sample_weights, counts)
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"head_loss: {name}: expected a number >= 0, got {value!r}")
    neighbors = table.to(features.device).neighbors
    with no_autocast(features.device.type):
        inputs = features, points_frac, neighbors, sample_weights, (alpha, beta), *weights, *biases
        loss = HeadLoss(*_Loss.apply(*inputs))  # type: ignore[no-untyped-call]
        if counts is None:
            return loss
        share = label_counts(points_frac, table, sample_weights) / counts.clamp(min=torch.finfo(counts.dtype).tiny)
        score, offset, neighbor = torch.stack(loss[1:]).mul(share.to(loss.total.dtype)).unbind()
        return HeadLoss(score.add(offset, alpha=alpha).add(neighbor, alpha=beta), score, offset, neighbor)


def label_counts(points_frac: Tensor, table: NeighborTable, sample_weights: Tensor | None = None) -> Tensor:
    """How many labels of a batch the terms score, offset and neighbor are means over; (3,) float32.

    Landmarks, landmarks, and pairs of a landmark and a neighbor that are both labelled; arguments are those of
    ``head_loss``, and with ``sample_weights`` the numbers are sums of weights.

    Raises:
        TypeError, ValueError: shapes that do not fit.
    """
    if not isinstance(table, NeighborTable):
        raise TypeError(f"label_counts: table: expected a NeighborTable, got {type(table).__name__}")
    batch, landmarks = len(points_frac) if getattr(points_frac, "ndim", 0) else 0, table.num_landmarks
    sizes = f"B={batch}, N={landmarks}"
    _check_tensor("label_counts: points_frac", points_frac, (batch, landmarks, 2), sizes)
    if sample_weights is not None:
        _check_tensor("label_counts: sample_weights", sample_weights, (batch, 3), sizes)
    labelled = (points_frac == points_frac).all(dim=2).float()
    both = labelled.unsqueeze(2) * labelled[:, table.to(points_frac.device).neighbors]
    each = labelled.sum(dim=1)
    numbers = torch.stack((each, each, both.sum(dim=(1, 2))), dim=1)
    return (numbers if sample_weights is None else numbers * sample_weights.float()).sum(dim=0)


def _check(
    features: Tensor,
    weights: HeadMaps,
    biases: HeadMaps,
    points: Tensor,
    table: NeighborTable,
    sample_weights: Tensor | None,
    counts: Tensor | None,
) -> None:
    if not isinstance(table, NeighborTable):
        raise TypeError(f"head_loss: table: expected a NeighborTable, got {type(table).__name__}")
    for name, maps in (("weights", weights), ("biases", biases)):
        if not isinstance(maps, HeadMaps):
            raise TypeError(f"head_loss: {name}: expected HeadMaps of five tensors, got {type(maps).__name__}")
    if not isinstance(features, Tensor):
        raise TypeError(f"head_loss: features: expected a tensor, got {type(features).__name__}")
    if features.ndim != 4 or not features.is_floating_point() or features.shape[1] < 1:
        raise ValueError(
            f"head_loss: features: expected floating-point (B, C, H, W), got {tuple(features.shape)} {features.dtype}"
        )
    batch, channels, height, width = features.shape
    device = features.device
    check_grid("head_loss", "features", height, width)
    landmarks = table.num_landmarks
    rows = (landmarks,) * 3 + (landmarks * table.num_neighbors,) * 2
    tensors: list[tuple[str, Tensor, tuple[int, ...]]] = [("points_frac", points, (batch, landmarks, 2))]
    for name, weight, bias, count in zip(HeadMaps._fields, weights, biases, rows, strict=True):
        tensors += [(f"weights: {name}", weight, (count, channels)), (f"biases: {name}", bias, (count,))]
    if sample_weights is not None:
        tensors.append(("sample_weights", sample_weights, (batch, 3)))
    if counts is not None:
        tensors.append(("counts", counts, (3,)))
    sizes = f"B={batch}, C={channels}, N={landmarks}, K={table.num_neighbors}"
    for name, tensor, shape in tensors:
        _check_tensor(f"head_loss: {name}", tensor, shape, sizes)
        if tensor.device != device:
            raise ValueError(f"head_loss: {name}: expected {device} as the features, got {tensor.device}")


def _check_tensor(argument: str, tensor: Tensor, shape: tuple[int, ...], sizes: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{argument}: expected a tensor, got {type(tensor).__name__}")
    if tensor.shape != shape or not tensor.is_floating_point():
        raise ValueError(
            f"{argument}: expected floating-point {shape} for {sizes}, got {tuple(tensor.shape)} {tensor.dtype}"
        )
