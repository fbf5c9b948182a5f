"""Backbone features to landmarks: the head's five 1x1 convolutions and their decoding as one operation.

    score[n]   = score_weight[n] . features + score_bias[n]            for every cell
    cell(n)    = argmax of score[n]                                    first index of equal scores
    vote(n, v) = corner of cell(n) + vote_weight[n, 2v : 2v + 2] . features at cell(n) + vote_bias
    point(n)   = sum of weight * vote over row n of the table, divided by (W, H)

The same numbers as five dense convolutions and ``decode``, but the votes are computed at one cell only:
N * (H * W + 2 + 2K) rows instead of N * H * W * (3 + 2K), and no map is written.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipnet_fast.neighbors import NeighborTable
from pipnet_fast.ops._backends import Backend, choose
from pipnet_fast.ops._library import register
from pipnet_fast.ops._merge import (
    MAX_CELLS,
    MergeTensors,
    check_grid,
    checked_table,
    merge_votes,
    reject_nan,
    result_dtype,
    winning_cells,
)
from pipnet_fast.ops._modes import are_watched, has_values, no_autocast
from pipnet_fast.ops.types import CPU_PANEL, STORAGES, HeadWeights, Landmarks

if TYPE_CHECKING:
    from pipnet_fast import _C

Result = tuple[Tensor, Tensor]


def score_map(features: Tensor, head: HeadWeights) -> Tensor:
    """The dense score map (B, N, H, W), in the features' dtype, under autocast too."""
    landmarks, dtype = head.num_landmarks, features.dtype
    rows = head.score_weight.to(dtype).transpose(1, 2).flatten(0, 1)
    if head.score_scale is not None:
        rows = rows * head.score_scale.to(dtype).unsqueeze(1)
    with no_autocast(features.device.type):
        scores = torch.einsum("nc,bchw->bnhw", rows[:landmarks], features)
    return scores + head.score_bias[:landmarks].to(dtype).view(-1, 1, 1)


def reference(
    features: Tensor,
    score_weight: Tensor,
    score_bias: Tensor,
    vote_weight: Tensor,
    vote_bias: Tensor,
    score_scale: Tensor | None,
    vote_scale: Tensor | None,
    starts: Tensor,
    sources: Tensor,
    weights: Tensor,
) -> Result:
    """The operation in plain torch: what the other backends are held against."""
    features, head, table = _checked(
        (features, score_weight, score_bias, vote_weight, vote_bias, score_scale, vote_scale, starts, sources, weights)
    )
    dtype = result_dtype(features.dtype)
    features = features.to(dtype)
    batch, channels, height, width = features.shape

    best, cell = winning_cells(score_map(features, head))
    columns = features.flatten(2).gather(2, cell.unsqueeze(1).expand(-1, channels, -1))
    rows = head.vote_weight.to(dtype)
    if head.vote_scale is not None:
        rows = rows * head.vote_scale.to(dtype).unsqueeze(2)
    with no_autocast(features.device.type):
        votes = torch.einsum("nrc,bcn->bnr", rows, columns) + head.vote_bias.to(dtype)
    votes = votes.view(batch, head.num_landmarks, 1 + head.num_neighbors, 2)
    return merge_votes(votes, cell, (height, width), table), best


def _fake(*tensors: Any) -> Result:
    features, head, _ = _checked(tensors)
    return _empty_result(features, head.num_landmarks)


def _cpu(*tensors: Any) -> Result:
    return (_cpp if choose("head_decode", "auto", tensors[0]) == "cpp" else reference)(*tensors)


def _cuda(*tensors: Any) -> Result:
    return (_triton if choose("head_decode", "auto", tensors[0]) == "triton" else reference)(*tensors)


def _cpp(*tensors: Any) -> Result:
    features, head, table = _checked(tensors)
    return _run_cpp(_cpp_head(head, table), features, head.num_landmarks)


def _cpp_head(head: HeadWeights, table: MergeTensors) -> "_C.Head":
    """The head as C++ takes it: valid as long as these tensors, which have been checked, are."""
    from pipnet_fast import _C

    if head.score_weight.shape[2] != CPU_PANEL:
        raise ValueError(
            f"head_decode: head: expected score rows in panels of {CPU_PANEL} on the CPU, got "
            f"{head.score_weight.shape[2]}; pack the head on the CPU"
        )
    landmarks, _, channels = head.vote_weight.shape
    storage = str(head.vote_weight.dtype).removeprefix("torch.")
    addresses = [0 if t is None else t.data_ptr() for t in (*head, *table)]
    return _C.Head((channels, landmarks, head.num_neighbors), storage, addresses)


def _run_cpp(head: "_C.Head", features: Tensor, landmarks: int) -> Result:
    shape = features.shape
    points, scores = features.new_empty(shape[0], landmarks, 2), features.new_empty(shape[0], landmarks)
    head.decode(
        features.data_ptr(),
        shape,
        features.stride(),
        points.data_ptr(),
        scores.data_ptr(),
        torch.get_num_threads(),
    )
    return points, scores


def _triton(*tensors: Any) -> Result:
    from pipnet_fast.kernels.head_decode import head_decode as launch

    features, head, table = _checked(tensors)
    if head.vote_weight.dtype != features.dtype:
        raise TypeError(
            f"head_decode: head: backend 'triton' expects weights in {features.dtype} as the features, got "
            f"{head.vote_weight.dtype}"
        )
    points, scores = _empty_result(features, head.num_landmarks)
    launch(features, *head[:4], *table, points, scores)
    return points, scores


def _empty_result(features: Tensor, num_landmarks: int) -> Result:
    batch, dtype = features.shape[0], result_dtype(features.dtype)
    points = features.new_empty(batch, num_landmarks, 2, dtype=dtype)
    return points, features.new_empty(batch, num_landmarks, dtype=dtype)


def _checked(tensors: Sequence[Any]) -> tuple[Tensor, HeadWeights, MergeTensors]:
    """The operation's arguments, which fit together, all but the features contiguous."""
    features: Tensor = tensors[0]
    head, table = HeadWeights(*tensors[1:7]), MergeTensors(*tensors[7:])
    if head.vote_weight.ndim != 3 or head.vote_weight.shape[1] < 2 or head.vote_weight.shape[1] % 2:
        raise ValueError(
            f"head_decode: head: expected vote_weight of shape (N, 2 + 2K, C), got {tuple(head.vote_weight.shape)}"
        )
    landmarks, rows, channels = head.vote_weight.shape
    if features.ndim != 4 or features.shape[1] != channels or not features.is_floating_point():
        raise ValueError(
            f"head_decode: features: expected floating-point (B, {channels}, H, W) for this head, got "
            f"{tuple(features.shape)} {features.dtype}"
        )
    if landmarks < 1 or channels < 1:
        raise ValueError(f"head_decode: head: expected N >= 1 and C >= 1, got N={landmarks}, C={channels}")
    check_grid("head_decode", "features", features.shape[2], features.shape[3])
    panel = head.score_weight.shape[2] if head.score_weight.ndim == 3 else 0
    panels = -(-landmarks // panel) if panel else 0
    stored = _stored_dtype(features, head)
    for name, got, shape, dtype in (
        ("score_weight", head.score_weight, (panels, channels, panel), stored),
        ("score_bias", head.score_bias, (panels * panel,), features.dtype),
        ("vote_bias", head.vote_bias, (landmarks, rows), features.dtype),
        ("vote_weight", head.vote_weight, (landmarks, rows, channels), stored),
        ("score_scale", head.score_scale, (panels * panel,), features.dtype),
        ("vote_scale", head.vote_scale, (landmarks, rows), features.dtype),
    ):
        if got is None:
            if (name == "score_scale" or name == "vote_scale") and stored != torch.int8:
                continue
            raise ValueError(f"head_decode: head: expected {name} beside weights in {stored}, got None")
        if got.shape != shape or not panels:
            raise ValueError(
                f"head_decode: head: expected {name} of shape {shape} for N={landmarks}, C={channels}, "
                f"got {tuple(got.shape)}"
            )
        if got.dtype != dtype or got.device != features.device:
            raise ValueError(
                f"head_decode: head: expected {name} in {dtype} on {features.device} beside features in "
                f"{features.dtype}, got {got.dtype} on {got.device}"
            )
    table = checked_table("head_decode", table, landmarks, rows // 2 - 1, features)
    return features, HeadWeights(*_contiguous(head)), table


def _contiguous(head: HeadWeights) -> list[Any]:
    return [None if t is None else t.contiguous() for t in head]


def _check_types(head: HeadWeights, table: NeighborTable) -> None:
    if not isinstance(head, HeadWeights):
        raise TypeError(f"head_decode: head: expected HeadWeights (model.head), got {type(head).__name__}")
    if not isinstance(table, NeighborTable):
        raise TypeError(f"head_decode: table: expected a NeighborTable, got {type(table).__name__}")


def _stored_dtype(features: Tensor, head: HeadWeights) -> torch.dtype:
    """What the weights must be: of the features' dtype, or smaller beside float32 features on the CPU."""
    stored = head.vote_weight.dtype
    smaller = features.dtype == torch.float32 and features.device.type == "cpu" and stored in STORAGES.values()
    return stored if smaller else features.dtype


_op = register("head_decode", reference, fake=_fake, cpu=_cpu, cuda=_cuda)


def head_decode(features: Tensor, head: HeadWeights, table: NeighborTable, backend: Backend = "auto") -> Landmarks:
    """Landmarks straight from backbone features, without writing the head's maps. For inference only.

    Args:
        features: (B, C, H, W), B >= 0, any strides; channels-last is the fast path.
        head: packed weights, ``model.head``, of the same dtype and device; beside float32 features on the CPU
            also stored smaller (``model.head.stored_as("float16")``).
        table: the neighbor table for the same N and K.
        backend: ``"auto"``, or one of ``backends()``, which then runs or raises. ``"cpp"`` takes float32 on
            the CPU, ``"triton"`` float32, float16 and bfloat16 on CUDA (sums in float32 always),
            ``"reference"`` any of these and float64.

    Returns:
        Landmarks: points (B, N, 2) in fractions of the crop, not clamped, and the winning scores (B, N);
        float32 whatever the features are (float64 for float64 features).

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; NaN scores, where the reference runs.
            The compiled backends count a NaN score as minus infinity instead of looking for it.
        RuntimeError: a backend asked for by name is not present.

    Not promised: the same winner on two backends when two scores differ by rounding only.
    """
    if not isinstance(features, Tensor):
        raise TypeError(f"head_decode: features: expected a tensor, got {type(features).__name__}")
    _check_types(head, table)
    table = table.to(features.device)
    head = HeadWeights._make(_detached(t) for t in head)
    args = (features.detach(), *head, table.starts, table.sources, table.weights)
    if torch.compiler.is_compiling() and backend == "auto":
        return Landmarks(*_op(*args))
    chosen = choose("head_decode", backend, features)
    if chosen == "reference":
        result = reference(*args)
        if has_values(features):
            reject_nan("head_decode", score_map(features.detach().to(result_dtype(features.dtype)), head))
        return Landmarks(*result)
    if chosen == "triton" and features.device.type == "cpu":
        return Landmarks(*_triton(*args))
    return Landmarks(*_op(*args))


def _detached(tensor: Tensor | None) -> Tensor | None:
    return tensor.detach() if tensor is not None and tensor.requires_grad else tensor


class BoundHead:
    """``head_decode`` bound to a head and a table, which are checked once: for the lowest latency.

    It keeps the tensors of the head that it was given; writing into them afterwards changes its results. It copies the
    table.

    Args:
        head: as for ``head_decode``.
        table: as for ``head_decode``.

    Raises:
        TypeError, ValueError: a head and a table that do not fit each other.
    """

    def __init__(self, head: HeadWeights, table: NeighborTable) -> None:
        """See the class."""
        _check_types(head, table)
        self.head, self.table = head, table.to(head.vote_weight.device)
        self._cpp: tuple[_C.Head, HeadWeights, MergeTensors] | None = None
        if choose("head_decode", "auto", head.vote_bias) == "cpp":
            like = head.vote_bias.new_empty(0, head.vote_weight.shape[-1], 1, 1)
            merge = (self.table.starts, self.table.sources, self.table.weights)
            _, head, tensors = _checked((like, *head, *merge))
            # C++ checks indices here only.
            tensors = MergeTensors(*(t.clone() for t in tensors))
            self._cpp = _cpp_head(head, tensors), head, tensors
            self._landmarks, _, self._channels = head.vote_weight.shape

    def __call__(self, features: Tensor) -> Landmarks:
        """Landmarks of features (B, C, H, W), as ``head_decode`` gives them and with its errors."""
        if self._cpp is None or are_watched() or not self._fits(features):
            return head_decode(features, self.head, self.table)
        return Landmarks(*_run_cpp(self._cpp[0], features, self._landmarks))

    def _fits(self, features: Tensor) -> bool:
        """Whether nothing is left to check; ``head_decode`` finds the words for what is wrong."""
        return (
            type(features) is Tensor
            and features.dtype == torch.float32
            and features.is_cpu
            and not features.is_neg()
            and len(shape := features.shape) == 4
            and shape[1] == self._channels
            and 0 < shape[2] * shape[3] <= MAX_CELLS
        )
