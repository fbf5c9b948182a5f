"""Both passes of the head's training loss for float32 on the CPU: C++ around torch's three products with the score map.

C++ computes everything that hangs on labels: the score term and its gradient, the votes at the labelled cells, their
terms, their gradients, and from those the gradients of their weights and of the cells' features. In torch this is some
eighty small operations, which take longer than the arithmetic unless the batch is large.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipnet_fast.ops._backends import choose
from pipnet_fast.ops._head_loss_torch import Kept, as_maps, as_rows
from pipnet_fast.ops._modes import are_watched
from pipnet_fast.ops.types import HeadMaps


def takes(*tensors: Tensor) -> bool:
    """Whether all is float32 in the CPU's memory, and nothing watches or replaces torch's operations."""
    return (
        not are_watched()
        and all(type(t) in (Tensor, torch.nn.Parameter) and t.dtype == torch.float32 for t in tensors)
        and choose("head_loss", "auto", tensors[0]) == "cpp"
    )


def forward(
    features: Tensor,
    points: Tensor,
    neighbors: Tensor,
    sample_weights: Tensor | None,
    weights: HeadMaps,
    biases: HeadMaps,
) -> tuple[tuple[Tensor, Tensor, Tensor], Kept]:
    """As of ``_head_loss_torch``."""
    from pipnet_fast import _C

    batch, channels, height, width = features.shape
    landmarks, num_neighbors = neighbors.shape
    rows = _rows(features)
    score = torch.addmm(biases.score, rows, weights.score.t())
    kept = Kept(
        neighbors.new_empty(landmarks, batch, dtype=torch.int64),
        score.view(batch, height * width, landmarks),
        score.new_empty(landmarks, 2, 1 + num_neighbors, batch),
    )
    terms = score.new_empty(()), score.new_empty(()), score.new_empty(())
    points = points.to(torch.float32).contiguous()
    if sample_weights is not None:
        sample_weights = sample_weights.to(torch.float32).contiguous()
    vote_weights, vote_biases = _contiguous(weights[1:]), _contiguous(biases[1:])
    neighbors = neighbors.to(torch.int64).contiguous()
    _C.head_loss_forward(
        (batch, channels, landmarks, num_neighbors, height, width),
        rows.data_ptr(),
        _addresses(vote_weights),
        _addresses(vote_biases),
        (points.data_ptr(), neighbors.data_ptr(), 0 if sample_weights is None else sample_weights.data_ptr()),
        score.data_ptr(),
        kept.labelled.data_ptr(),
        kept.vote_grad.data_ptr(),
        _addresses(terms),
        torch.get_num_threads(),
    )
    return terms, kept


def backward(
    features: Tensor, weights: HeadMaps, kept: Kept, of_terms: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """As of ``_head_loss_torch``."""
    from pipnet_fast import _C

    batch, channels, height, width = features.shape
    landmarks, _, votes, _ = kept.vote_grad.shape
    rows = _rows(features)
    of_score, of_offset, of_neighbor = (float(g) for g in of_terms)
    score_grad = kept.score_grad.flatten(0, 1)

    # With beta = 0, the first argument gives no more than the place of a result.
    def product(a: Tensor, b: Tensor) -> Tensor:
        return torch.addmm(of_terms[0], a, b, beta=0, alpha=2 * of_score)

    grads: list[Tensor | None] = [None] * 11
    head_grads: list[Tensor] = []
    if any(needed[1:]):
        head_grads = [torch.empty_like(w, memory_format=torch.contiguous_format) for w in weights[1:]]
        head_grads += [rows.new_empty(len(w)) for w in weights]
        grads[1:] = product(score_grad.t(), rows) if needed[1] else None, *head_grads
    row_grads = product(score_grad, weights.score) if needed[0] else None
    # Held until C++ is done: what was not contiguous is a copy that nobody else holds.
    vote_weights, between = _contiguous(weights[1:]), _contiguous(kept)
    _C.head_loss_backward(
        (batch, channels, landmarks, votes - 1, height, width),
        rows.data_ptr(),
        _addresses(vote_weights),
        _addresses(between),
        (of_score, of_offset, of_neighbor),
        _addresses(head_grads[:4]) or (0,) * 4,
        _addresses(head_grads[4:]) or (0,) * 5,
        0 if row_grads is None else row_grads.data_ptr(),
        torch.get_num_threads(),
    )
    grads[0] = None if row_grads is None else _maps(row_grads, features)
    return grads


def _rows(features: Tensor) -> Tensor:
    """``as_rows``, contiguous."""
    if not _channels_first(features):
        # Not as_rows alone: of one image it may be a view whose rows are not contiguous.
        return as_rows(features, features.dtype).contiguous()
    batch, channels, height, width = features.shape
    rows = features.new_empty(batch * height * width, channels)
    _transpose(features, (batch, channels, height * width), rows)
    return rows


def _maps(rows: Tensor, features: Tensor) -> Tensor:
    """``as_maps``."""
    if not _channels_first(features):
        return as_maps(rows, features)
    batch, channels, height, width = features.shape
    maps = rows.new_empty(features.shape)
    _transpose(rows, (batch, height * width, channels), maps)
    return maps


def _channels_first(features: Tensor) -> bool:
    return features.is_contiguous() and not features.is_contiguous(memory_format=torch.channels_last)


def _transpose(matrices: Tensor, shape: tuple[int, int, int], out: Tensor) -> None:
    from pipnet_fast import _C

    _C.transpose(matrices.data_ptr(), shape, out.data_ptr(), torch.get_num_threads())


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in tensors]


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    return [t.data_ptr() for t in tensors]
