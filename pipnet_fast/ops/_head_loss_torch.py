"""Both passes of the head's training loss in plain torch, on every device: what C++ is held against.

Small operations on N * B or N * (2 + 2K) * B numbers around matrix products; ``torch.compile`` fuses them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipnet_fast.ops._merge import result_dtype
from pipnet_fast.ops.types import HeadMaps

# From this batch on, a copy of the four layers' weights side by side costs less than reading the columns four times.
_JOIN = 32


class Kept(NamedTuple):
    """What the forward pass leaves to the backward one, besides its inputs."""

    labelled: Tensor
    """(N, B) int64, the labelled cells among the B * H * W of all features."""
    score_grad: Tensor
    """(B, H * W, N), half the gradient of the score term."""
    vote_grad: Tensor
    """(N, 2, 1 + K, B), gradients of the offset term for vote 0, of the neighbor term for the others."""


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


def forward(
    features: Tensor,
    points: Tensor,
    neighbors: Tensor,
    sample_weights: Tensor | None,
    weights: HeadMaps,
    biases: HeadMaps,
) -> tuple[tuple[Tensor, Tensor, Tensor], Kept]:
    """The terms score, offset and neighbor; arguments as for ``head_loss``."""
    dtype = result_dtype(torch.promote_types(features.dtype, weights.score.dtype))
    batch, _, height, width = features.shape
    labels = _labels(points.to(dtype), neighbors, (height, width), sample_weights)
    rows = as_rows(features, dtype)

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
    return (score_term, vote_terms[0], vote_terms[1:].sum()), Kept(index, score_grad, vote_grad)


def backward(
    features: Tensor, weights: HeadMaps, kept: Kept, of_terms: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of features, weights and biases, given those of the three terms; None where not needed."""
    of_score, of_offset, of_neighbor = of_terms
    dtype = kept.score_grad.dtype
    rows = as_rows(features, dtype)
    score_grad = kept.score_grad.flatten(0, 1) * (2 * of_score)
    of_votes = torch.cat((of_offset.view(1), of_neighbor.expand(kept.vote_grad.shape[2] - 1)))
    vote_grad = (kept.vote_grad * of_votes.unsqueeze(1)).flatten(1, 2)

    layers = _by_landmark(weights, len(features), dtype)
    layer_grads = vote_grad.split_with_sizes([w.shape[1] for w in layers], dim=1)
    grads: list[Tensor | None] = [None] * 11
    if any(needed[1:]):
        columns = _columns(rows, kept.labelled)
        weight_grads = score_grad.t() @ rows, *_by_map([torch.bmm(g, columns) for g in layer_grads])
        bias_grads = score_grad.sum(dim=0), *_by_map([vote_grad.sum(dim=2)])
        grads[1:] = [g.to(weights.score.dtype) for g in (*weight_grads, *bias_grads)]
    if needed[0]:
        row_grads = score_grad @ weights.score.to(dtype)
        column_grads = torch.bmm(layer_grads[0].mT, layers[0])
        for grad, weight in zip(layer_grads[1:], layers[1:], strict=True):
            column_grads.baddbmm_(grad.mT, weight)
        row_grads.index_add_(0, kept.labelled.flatten(), column_grads.flatten(0, 1))
        grads[0] = as_maps(row_grads, features)
    return grads


def as_rows(features: Tensor, dtype: torch.dtype) -> Tensor:
    """The features of every cell, (B * H * W, C), of any strides; channels-last ones of that dtype are not copied."""
    rows = features.permute(0, 2, 3, 1).to(dtype, memory_format=torch.contiguous_format)
    return rows.reshape(-1, features.shape[1])


def as_maps(rows: Tensor, features: Tensor) -> Tensor:
    """The inverse of ``as_rows``, in the dtype and memory layout of the features."""
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
