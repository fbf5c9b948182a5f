"""Dense head maps to landmarks (section 3.1, inference, and section 3.2).

cell(n)      = argmax of score[n]                                  first index of equal scores
vote(n, 0)   = corner of cell(n) + offset[n] at cell(n)            landmark n for itself
vote(n, 1+k) = corner of cell(n) + neighbor[n * K + k] at cell(n)  landmark n for its neighbor k
point(n)     = sum of weight * vote over row n of the table, divided by (W, H)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipnet_fast.neighbors import NeighborTable
from pipnet_fast.ops._backends import Backend, choose
from pipnet_fast.ops._library import register
from pipnet_fast.ops._merge import (
    MergeTensors,
    check_grid,
    checked_table,
    merge_votes,
    reject_nan,
    result_dtype,
    votes_at,
    winning_cells,
)
from pipnet_fast.ops._modes import has_values
from pipnet_fast.ops.types import HeadMaps, Landmarks

Result = tuple[Tensor, Tensor]


def reference(
    score: Tensor,
    offset_x: Tensor,
    offset_y: Tensor,
    neighbor_x: Tensor,
    neighbor_y: Tensor,
    starts: Tensor,
    sources: Tensor,
    weights: Tensor,
) -> Result:
    """The operation in plain torch: what the other backends are held against."""
    maps, table = _checked((score, offset_x, offset_y, neighbor_x, neighbor_y, starts, sources, weights))
    height, width = score.shape[2:]
    maps = HeadMaps(*(m.to(result_dtype(score.dtype)) for m in maps))

    best, cell = winning_cells(maps.score)
    return merge_votes(votes_at(maps, cell), cell, (height, width), table), best


def _fake(*tensors: Tensor) -> Result:
    maps, _ = _checked(tensors)
    return _empty_result(maps.score)


def _cpu(*tensors: Tensor) -> Result:
    return (_cpp if choose("decode", "auto", tensors[0]) == "cpp" else reference)(*tensors)


def _cuda(*tensors: Tensor) -> Result:
    return (_triton if choose("decode", "auto", tensors[0]) == "triton" else reference)(*tensors)


def _cpp(*tensors: Tensor) -> Result:
    from pipnet_fast import _C

    maps, table = _checked(tensors)
    points, scores = _empty_result(maps.score)
    batch, landmarks, height, width = maps.score.shape
    _C.decode(
        [m.data_ptr() for m in maps],
        [m.stride() for m in maps],
        (batch, landmarks, maps.neighbor_x.shape[1] // landmarks, height, width),
        [t.data_ptr() for t in table],
        points.data_ptr(),
        scores.data_ptr(),
        torch.get_num_threads(),
    )
    return points, scores


def _triton(*tensors: Tensor) -> Result:
    from pipnet_fast.kernels.decode import decode as launch

    maps, table = _checked(tensors)
    points, scores = _empty_result(maps.score)
    launch(maps, *table, points, scores)
    return points, scores


def _empty_result(score: Tensor) -> Result:
    batch, landmarks = score.shape[:2]
    dtype = result_dtype(score.dtype)
    return score.new_empty(batch, landmarks, 2, dtype=dtype), score.new_empty(batch, landmarks, dtype=dtype)


def _checked(tensors: Sequence[Tensor]) -> tuple[HeadMaps, MergeTensors]:
    """The operation's arguments, which fit together, the table's contiguous."""
    maps, table = HeadMaps(*tensors[:5]), MergeTensors(*tensors[5:])
    if maps.score.ndim != 4 or not maps.score.is_floating_point():
        raise ValueError(
            f"decode: score: expected a floating-point map (B, N, H, W), got {tuple(maps.score.shape)} "
            f"{maps.score.dtype}"
        )
    batch, landmarks, height, width = maps.score.shape
    if landmarks < 1:
        raise ValueError(f"decode: score: expected N >= 1 channels, got {landmarks}")
    check_grid("decode", "score", height, width)
    neighbors = maps.neighbor_x.shape[1] // landmarks if maps.neighbor_x.ndim == 4 else 0
    for name, got, channels in (
        ("offset_x", maps.offset_x, landmarks),
        ("offset_y", maps.offset_y, landmarks),
        ("neighbor_x", maps.neighbor_x, landmarks * neighbors),
        ("neighbor_y", maps.neighbor_y, landmarks * neighbors),
    ):
        if got.shape != (batch, channels, height, width):
            raise ValueError(
                f"decode: {name}: expected shape {(batch, channels, height, width)} beside a score of "
                f"{tuple(maps.score.shape)}, got {tuple(got.shape)}"
            )
        if got.dtype != maps.score.dtype or got.device != maps.score.device:
            raise ValueError(
                f"decode: {name}: expected {maps.score.dtype} on {maps.score.device} as the score, "
                f"got {got.dtype} on {got.device}"
            )
    return maps, checked_table("decode", table, landmarks, neighbors, maps.score)


_op = register("decode", reference, fake=_fake, cpu=_cpu, cuda=_cuda)


def decode(maps: HeadMaps, table: NeighborTable, backend: Backend = "auto") -> Landmarks:
    """Find every landmark's winning cell, refine it by its offsets, and merge the neighbors' votes.

    Args:
        maps: five maps in the official order, a ``HeadMaps`` or a plain tuple of them; any strides.
        table: the neighbor table for the same N and K.
        backend: ``"auto"``, or one of ``backends()``, which then runs or raises. ``"cpp"`` takes float32 on
            the CPU, ``"triton"`` float32, float16 and bfloat16 on CUDA, ``"reference"`` any of these and float64.

    Returns:
        Landmarks: points (B, N, 2) in fractions of the crop, not clamped, and the winning scores (B, N);
        float32 whatever the maps are (float64 for float64 maps).

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; NaN scores, where the reference runs.
            The compiled backends count a NaN score as minus infinity instead of looking for it.
        RuntimeError: a backend asked for by name is not present.

    Not promised: the same winner on two backends when two scores differ by rounding only.
    """
    maps = _as_maps(maps)
    if not isinstance(table, NeighborTable):
        raise TypeError(f"decode: table: expected a NeighborTable, got {type(table).__name__}")
    table = table.to(maps.score.device)
    args = (*maps, table.starts, table.sources, table.weights)
    if torch.compiler.is_compiling() and backend == "auto":
        return Landmarks(*_op(*args))
    chosen = choose("decode", backend, maps.score)
    if chosen == "reference":
        result = reference(*args)
        if has_values(maps.score):
            reject_nan("decode", maps.score)
        return Landmarks(*result)
    if chosen == "triton" and maps.score.device.type == "cpu":
        return Landmarks(*_triton(*args))
    return Landmarks(*_op(*args))


def _as_maps(maps: HeadMaps) -> HeadMaps:
    if not isinstance(maps, tuple) or len(maps) != 5 or not all(isinstance(m, Tensor) for m in maps):
        raise TypeError(f"decode: maps: expected a tuple of 5 tensors in the official order, got {_describe(maps)}")
    return HeadMaps(*(m.detach() for m in maps))


def _describe(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
