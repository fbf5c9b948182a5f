"""Block sizes of ``head_decode``: which of its two paths an input takes, and in what tiles.

Reasoned for an H200, not yet measured: by the bytes each program draws from L2 (about 64 per clock and
multiprocessor, 5.5 TB/s for all 132) and by the number of programs. ``python -m bench.tune`` measures
candidates on the machine at hand and prints tables to paste here.
"""

from typing import NamedTuple

import torch
import triton


class LatencyBlocks(NamedTuple):
    """Few images: one program per landmark and image."""

    cells: int
    channels: int
    warps: int
    stages: int
    """Tiles of features on their way at a time."""


class BatchBlocks(NamedTuple):
    """Many images: two matrix products. Every block is a power of two, at least 16."""

    landmarks: int
    columns: int
    """Cells of one or more images, beside each other."""
    score_channels: int
    score_warps: int
    score_stages: int
    images: int
    """Images whose winning columns meet a landmark's rows in one program."""
    vote_channels: int
    vote_warps: int
    vote_stages: int


Blocks = LatencyBlocks | BatchBlocks

# Least B * H * W of each row. A batch's score pass reads N * C weights per tile of columns and C features per
# column and tile of landmarks: large tiles where there are enough of them for all multiprocessors, small where not.
HALF: tuple[tuple[int, Blocks], ...] = (
    (0, LatencyBlocks(64, 256, 8, 3)),
    (257, BatchBlocks(32, 64, 64, 4, 4, 16, 128, 4, 3)),
    (32 * 64, BatchBlocks(64, 64, 64, 4, 4, 32, 64, 4, 4)),
    (128 * 64, BatchBlocks(128, 128, 64, 8, 3, 64, 64, 4, 4)),
)
# Without tensor cores arithmetic counts too, so landmarks beyond N do: tiles of them stay smaller.
SINGLE: tuple[tuple[int, Blocks], ...] = (
    (0, LatencyBlocks(64, 128, 8, 3)),
    (257, BatchBlocks(16, 64, 32, 4, 3, 16, 32, 4, 3)),
    (32 * 64, BatchBlocks(32, 64, 32, 4, 3, 32, 32, 4, 3)),
    (128 * 64, BatchBlocks(64, 64, 32, 8, 3, 32, 32, 4, 3)),
)


def tuned_blocks(batch: int, cells: int, dtype: torch.dtype) -> Blocks:
    """The blocks for ``batch`` images of ``cells`` cells. A single image always takes the latency path."""
    table = SINGLE if dtype == torch.float32 else HALF
    columns = batch * cells if batch > 1 else 0
    return next(blocks for least, blocks in reversed(table) if columns >= least)


def block_size(size: int, most: int) -> int:
    """The power of two that holds ``size``, from 16, the least side of a matrix product, to ``most``."""
    return int(max(16, min(most, triton.next_power_of_2(size))))
