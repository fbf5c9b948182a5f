"""PIPNet's training loss (equations 1 to 6) from backbone features, without a dense map but the score's.

    score    = mean over n and all cells of (score[n] - [1 at cell(n), else 0])^2              equation 2
    offset   = mean over n, x and y of |vote(n, 0) - target(n, n)|                             equation 3
    neighbor = mean over n, k, x and y of |vote(n, 1 + k) - target(n, neighbor k of n)|        equation 6
    total    = score + alpha * offset + beta * neighbor                                        equation 5

cell(n) is where the labelled point n lies, or the nearest cell if it lies outside the grid. target(n, m) is
point m in cells from the corner of cell(n), not clamped. Scores and votes are those of ``head_decode``, but the
votes are read at the labelled cells. So points are all the labels there are: neither target maps nor maps of
votes are built, and both passes compute N * (H * W + 2 + 2K) rows instead of N * H * W * (3 + 2K).

Plain torch on every device: the bulk of the time is matrix products, and ``torch.compile`` fuses the rest. Slower than
dense maps, by up to some milliseconds on a CPU, where those are next to nothing: K <= 1 on grids of 2x2, or of 4x4 (19
landmarks: 8x8) in batches of a few.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipnet_fast.neighbors import NeighborTable
from pipnet_fast.ops._merge import check_grid, result_dtype
from pipnet_fast.ops.types import HeadMaps

# Twice the values in section 4.1.2. There a term is the mean over x and y; the official code adds the mean over x and
# the mean over y.
_BALANCE = {16: 0.04, 32: 0.2, 64: 0.25, 128: 0.5}


# From this batch on, a copy of the four layers' weights side by side costs less than reading the columns four times.
_JOIN = 32


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


class _Labels(NamedTuple):
    """What a batch of points asks of the maps; a weight of zero leaves its entry out."""

    cell: Tensor
    """(N, B) int64, flat index of the landmark's cell in the grid."""
    votes: Tensor
    """(N, 2, 1 + K, B), where the votes should be, in cells from the corner of the voter's cell."""
    score_weight: Tensor
    """(N, B), share of one cell of this landmark's map in the score term."""
    vote_weight: Tensor
    """(N, 1, 1 + K, B), share of one coordinate of this vote in its term."""


def _labels(points: Tensor, neighbors: Tensor, grid: tuple[int, int], sample_weights: Tensor | None) -> _Labels:
    height, width = grid
    points = points.permute(1, 2, 0)
    # Not a tensor of two Python numbers: that is a copy from the host, which a CUDA graph cannot capture.
    size = torch.linspace(width, height, 2, dtype=points.dtype, device=points.device).unsqueeze(1)
    position = points.nan_to_num(0.0) * size
    corner = position.floor().clamp_(min=0).minimum(size - 1)
    cell = torch.add(corner[:, 0], corner[:, 1], alpha=width).long()

    landmark = torch.arange(len(neighbors), device=points.device)
    target = torch.cat((landmark.unsqueeze(1), neighbors), dim=1)
    votes = position[target].transpose(1, 2) - corner.unsqueeze(2)

    present = (points == points).all(dim=1).to(points.dtype)
    both = present.unsqueeze(1) * present[target]
    score, offset, neighbor = present, both[:, :1], both[:, 1:]
    if sample_weights is not None:
        of_score, of_offset, of_neighbor = sample_weights.to(points.dtype).unbind(1)
        score, offset, neighbor = score * of_score, offset * of_offset, neighbor * of_neighbor
    vote_weight = torch.cat((_shares(offset, 2), _shares(neighbor, 2)), dim=1).unsqueeze(1)
    return _Labels(cell, votes, _shares(score, height * width), vote_weight)


def _shares(weights: Tensor, entries: int) -> Tensor:
    """Weights over their sum, each counted for so many entries; all zero if nothing has a weight."""
    return weights / (weights.sum() * entries).clamp_(min=torch.finfo(weights.dtype).tiny)


class _Terms(torch.autograd.Function):
    """The three terms. Between the passes it keeps a score map and N * (2 + 2K) numbers per sample, no more.

    The columns of features at the labelled cells are gathered in each pass anew.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, points: Tensor, neighbors: Tensor, sample_weights: Tensor | None, *head: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights, biases = HeadMaps(*head[:5]), HeadMaps(*head[5:])
        dtype = result_dtype(torch.promote_types(features.dtype, weights.score.dtype))
        batch, _, height, width = features.shape
        labels = _labels(points.to(dtype), neighbors, (height, width), sample_weights)
        rows = _rows(features, dtype)

        score = torch.addmm(biases.score.to(dtype), rows, weights.score.to(dtype).t())
        residual = score.view(batch, height * width, len(neighbors))
        # One at the labelled cells, taken off in place: no target map.
        positive = labels.cell.t().unsqueeze(1)
        residual.scatter_add_(1, positive, residual.new_full((1, 1, 1), -1.0).expand_as(positive))
        score_grad = residual * labels.score_weight.t().unsqueeze(1)
        score_term = torch.dot(residual.flatten(), score_grad.flatten())

        index = labels.cell + torch.arange(0, len(rows), height * width, device=rows.device)
        columns = _columns(rows, index)
        layers = zip(_by_landmark(biases, batch, dtype), _by_landmark(weights, batch, dtype), strict=True)
        votes = torch.cat([torch.baddbmm(b.unsqueeze(2), w, columns.mT) for b, w in layers], dim=1)
        error = votes.view_as(labels.votes) - labels.votes
        vote_grad = error.sign() * labels.vote_weight
        vote_terms = (error * vote_grad).sum(dim=(0, 1, 3))

        ctx.save_for_backward(features, index, score_grad, vote_grad, *weights)
        return score_term, vote_terms[0], vote_terms[1:].sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_score: Tensor, of_offset: Tensor, of_neighbor: Tensor) -> Any:
        features, index, score_grad, vote_grad, *head = ctx.saved_tensors
        weights = HeadMaps(*head)
        dtype = score_grad.dtype
        # Autocast, if backward is called inside it, would compute this in half precision.
        with torch.autocast(features.device.type, enabled=False):
            rows = _rows(features, dtype)
            score_grad = score_grad.flatten(0, 1) * (2 * of_score)
            of_votes = torch.cat((of_offset.view(1), of_neighbor.expand(vote_grad.shape[2] - 1)))
            vote_grad = (vote_grad * of_votes.unsqueeze(1)).flatten(1, 2)

            columns = _columns(rows, index)
            layers = _by_landmark(weights, len(features), dtype)
            layer_grads = vote_grad.split([w.shape[1] for w in layers], dim=1)
            weight_grads = score_grad.t() @ rows, *_by_map([torch.bmm(g, columns) for g in layer_grads])
            bias_grads = score_grad.sum(dim=0), *_by_map([vote_grad.sum(dim=2)])
            head_grads = [g.to(weights.score.dtype) for g in (*weight_grads, *bias_grads)]
            if not ctx.needs_input_grad[0]:
                return None, None, None, None, *head_grads

            row_grads = score_grad @ weights.score.to(dtype)
            column_grads = torch.bmm(layer_grads[0].mT, layers[0])
            for grad, weight in zip(layer_grads[1:], layers[1:], strict=True):
                column_grads.baddbmm_(grad.mT, weight)
            row_grads.index_add_(0, index.flatten(), column_grads.flatten(0, 1))
            return _like(features, row_grads), None, None, None, *head_grads


def _rows(features: Tensor, dtype: torch.dtype) -> Tensor:
    """The features of every cell, (B * H * W, C); channels-last ones of that dtype are not copied."""
    rows = features.permute(0, 2, 3, 1).to(dtype, memory_format=torch.contiguous_format)
    return rows.reshape(-1, features.shape[1])


def _like(features: Tensor, rows: Tensor) -> Tensor:
    """The inverse of ``_rows``, in the dtype and memory layout of the features."""
    batch, channels, height, width = features.shape
    channels_last = features.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2).to(features.dtype, memory_format=layout)


def _columns(rows: Tensor, index: Tensor) -> Tensor:
    """The rows at an index (N, B), as (N, B, C)."""
    return rows.index_select(0, index.flatten()).view(*index.shape, rows.shape[1])


def _by_landmark(maps: HeadMaps, batch: int, dtype: torch.dtype) -> list[Tensor]:
    """Weights or biases of the votes as (N, votes, ...): own x, neighbors' x, own y, neighbors' y; joined or not."""
    landmarks, *row = maps.score.shape
    layers = (maps.offset_x, maps.neighbor_x, maps.offset_y, maps.neighbor_y)
    votes = [m.reshape(landmarks, m.shape[0] // landmarks, *row).to(dtype) for m in layers]
    apart = batch < _JOIN and maps.neighbor_x.numel() > 0
    return votes if apart else [torch.cat(votes, dim=1)]


def _by_map(votes: list[Tensor]) -> tuple[Tensor, ...]:
    """The inverse of ``_by_landmark``: the rows of offset_x, offset_y, neighbor_x and neighbor_y."""
    if len(votes) == 1:
        votes = list(votes[0].split_with_sizes((1, votes[0].shape[1] // 2 - 1) * 2, dim=1))
    own_x, near_x, own_y, near_y = (v.flatten(0, 1) for v in votes)
    return own_x, own_y, near_x, near_y


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

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit.
    """
    _check(features, weights, biases, points_frac, table, sample_weights)
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"head_loss: {name}: expected a number >= 0, got {value!r}")
    neighbors = table.to(features.device).neighbors
    with torch.autocast(features.device.type, enabled=False):
        inputs = features, points_frac, neighbors, sample_weights, *weights, *biases
        score, offset, neighbor = _Terms.apply(*inputs)  # type: ignore[no-untyped-call]
        total = score.add(offset, alpha=alpha).add(neighbor, alpha=beta)
    return HeadLoss(total, score, offset, neighbor)


def _check(
    features: Tensor,
    weights: HeadMaps,
    biases: HeadMaps,
    points: Tensor,
    table: NeighborTable,
    sample_weights: Tensor | None,
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
    check_grid("head_loss", "features", height, width)
    landmarks = table.num_landmarks
    counts = (landmarks,) * 3 + (landmarks * table.num_neighbors,) * 2
    tensors: list[tuple[str, Tensor, tuple[int, ...]]] = [("points_frac", points, (batch, landmarks, 2))]
    for name, weight, bias, count in zip(HeadMaps._fields, weights, biases, counts, strict=True):
        tensors += [(f"weights: {name}", weight, (count, channels)), (f"biases: {name}", bias, (count,))]
    if sample_weights is not None:
        tensors.append(("sample_weights", sample_weights, (batch, 3)))
    for name, tensor, shape in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"head_loss: {name}: expected a tensor, got {type(tensor).__name__}")
        if tensor.shape != shape or not tensor.is_floating_point():
            raise ValueError(
                f"head_loss: {name}: expected floating-point {shape} for B={batch}, C={channels}, N={landmarks}, "
                f"K={table.num_neighbors}, got {tuple(tensor.shape)} {tensor.dtype}"
            )
        if tensor.device != features.device:
            raise ValueError(f"head_loss: {name}: expected {features.device} as the features, got {tensor.device}")
