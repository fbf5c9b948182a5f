"""Votes of many images, as two matrix products, on the tensor cores for float16 and bfloat16.

Scores: a tile of landmarks times the cells of one or several images, so an image is read once for all of the tile.
Votes: a tile of images' winning columns times the rows of one landmark, so these are read once for all of the tile.
The features lie channels-last in memory; a column is then one piece.

A float32 product is asked for as "ieee": TF32, the default, flips winners.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tuning import BatchBlocks, block_size
from .winner import fold_winner


@triton.jit(do_not_specialize=["batch"])
def _head_decode_scores_kernel(
    features_ptr,  # (B, H * W, C)
    score_weight_ptr,  # (ceil(N / PANEL), C, PANEL)
    score_bias_ptr,  # (ceil(N / PANEL) * PANEL,)
    scores_ptr,  # (B, N) float32, out
    winners_ptr,  # (B, N) int32, out: flat indices of cells
    batch,
    num_landmarks,
    channels,
    cells,
    PANEL: tl.constexpr,
    BLOCK_N: tl.constexpr,  # landmarks
    BLOCK_B: tl.constexpr,  # images
    BLOCK_S: tl.constexpr,  # cells
    BLOCK_C: tl.constexpr,  # channels
):
    """Winners of a tile of landmarks in a tile of images. Grid (tiles of B * tiles of N), those of N innermost."""
    tiles = tl.cdiv(num_landmarks, BLOCK_N)
    landmark = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = landmark < num_landmarks
    row_ptr = score_weight_ptr + (landmark // PANEL) * channels * PANEL + landmark % PANEL
    bias = tl.load(score_bias_ptr + landmark, mask=wanted, other=0.0).to(tl.float32)

    # The columns of the product: BLOCK_S cells of each image.
    column = tl.arange(0, BLOCK_B * BLOCK_S)
    first_image = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_B
    column_image = first_image + column // BLOCK_S
    best_score = tl.full((BLOCK_N, BLOCK_B), float("-inf"), dtype=tl.float32)
    best_cell = tl.zeros((BLOCK_N, BLOCK_B), dtype=tl.int32)
    for first in range(0, cells, BLOCK_S):
        cell = first + column % BLOCK_S
        live = (cell < cells) & (column_image < batch)
        column_ptr = features_ptr + (column_image * cells + cell) * channels
        score = tl.zeros((BLOCK_N, BLOCK_B * BLOCK_S), dtype=tl.float32)
        for first_channel in range(0, channels, BLOCK_C):
            channel = first_channel + tl.arange(0, BLOCK_C)
            known = channel < channels
            rows = tl.load(
                row_ptr[:, None] + channel[None, :] * PANEL, mask=wanted[:, None] & known[None, :], other=0.0
            )
            columns = tl.load(column_ptr[None, :] + channel[:, None], mask=known[:, None] & live[None, :], other=0.0)
            score = tl.dot(rows, columns, score, input_precision="ieee")
        score = tl.reshape(tl.where(live[None, :], score + bias[:, None], float("-inf")), (BLOCK_N, BLOCK_B, BLOCK_S))
        best_score, best_cell = fold_winner(score, first, best_score, best_cell, AXIS=2)
    image = first_image + tl.arange(0, BLOCK_B)
    out = image[None, :] * num_landmarks + landmark[:, None]
    tl.store(scores_ptr + out, best_score, mask=wanted[:, None] & (image < batch)[None, :])
    tl.store(winners_ptr + out, best_cell, mask=wanted[:, None] & (image < batch)[None, :])


@triton.jit(do_not_specialize=["batch"])
def _head_decode_votes_kernel(
    features_ptr,  # (B, H * W, C)
    winners_ptr,  # (B, N) int32
    vote_weight_ptr,  # (N, R, C)
    vote_bias_ptr,  # (N, R)
    votes_ptr,  # (B, N, R) float32, out, cells; x and y in turn
    batch,
    num_landmarks,
    num_rows,
    channels,
    cells,
    width,
    BLOCK_B: tl.constexpr,  # images
    BLOCK_R: tl.constexpr,  # rows
    BLOCK_C: tl.constexpr,  # channels
):
    """Votes of one landmark in a tile of images. Grid (tiles of B * N * tiles of R): a tile's images stay in L2."""
    tiles = tl.cdiv(num_rows, BLOCK_R)
    landmark = (tl.program_id(0) // tiles % num_landmarks).to(tl.int64)
    r = (tl.program_id(0) % tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    first_image = (tl.program_id(0) // (tiles * num_landmarks)).to(tl.int64) * BLOCK_B
    image = first_image + tl.arange(0, BLOCK_B)
    wanted = image < batch
    needed = r < num_rows
    cell = tl.load(winners_ptr + image * num_landmarks + landmark, mask=wanted, other=0)
    column_ptr = features_ptr + (image * cells + cell) * channels
    row_ptr = vote_weight_ptr + (landmark * num_rows + r) * channels

    vote = tl.zeros((BLOCK_B, BLOCK_R), dtype=tl.float32)
    for first_channel in range(0, channels, BLOCK_C):
        channel = first_channel + tl.arange(0, BLOCK_C)
        known = channel < channels
        columns = tl.load(column_ptr[:, None] + channel[None, :], mask=wanted[:, None] & known[None, :], other=0.0)
        rows = tl.load(row_ptr[None, :] + channel[:, None], mask=known[:, None] & needed[None, :], other=0.0)
        vote = tl.dot(columns, rows, vote, input_precision="ieee")
    vote += tl.load(vote_bias_ptr + landmark * num_rows + r, mask=needed, other=0.0).to(tl.float32)[None, :]
    vote += tl.where((r % 2 == 0)[None, :], (cell % width)[:, None], (cell // width)[:, None])
    out = (image[:, None] * num_landmarks + landmark) * num_rows + r[None, :]
    tl.store(votes_ptr + out, vote, mask=wanted[:, None] & needed[None, :])


def votes_in_tiles(
    features: Tensor,
    score_weight: Tensor,
    score_bias: Tensor,
    vote_weight: Tensor,
    vote_bias: Tensor,
    scores: Tensor,
    blocks: BatchBlocks,
) -> Tensor:
    """Launch: (B, C, H, W) features into ``scores`` (B, N); returns votes (B, N, R), in cells.

    Features that are not channels-last in memory are copied: gathering a column from C places would read 32 bytes
    for each number.
    """
    batch, channels, height, width = features.shape
    landmarks, rows, _ = vote_weight.shape
    features = features.permute(0, 2, 3, 1).contiguous()
    winners = torch.empty(batch, landmarks, dtype=torch.int32, device=features.device)
    block_n = block_size(landmarks, blocks.landmarks)
    block_s = min(blocks.columns, triton.next_power_of_2(height * width))
    block_b = blocks.columns // block_s
    # Of the grid's axes only the first may be longer than 65,535.
    _head_decode_scores_kernel[(triton.cdiv(batch, block_b) * triton.cdiv(landmarks, block_n),)](
        features,
        score_weight,
        score_bias,
        scores,
        winners,
        batch,
        landmarks,
        channels,
        height * width,
        PANEL=score_weight.shape[2],
        BLOCK_N=block_n,
        BLOCK_B=block_b,
        BLOCK_S=block_s,
        BLOCK_C=block_size(channels, blocks.score_channels),
        num_warps=blocks.score_warps,
        num_stages=blocks.score_stages,
        enable_fp_fusion=True,
    )
    votes = torch.empty(batch, landmarks, rows, dtype=torch.float32, device=features.device)
    block_r = block_size(rows, 64)
    block_b = block_size(batch, blocks.images)
    _head_decode_votes_kernel[(triton.cdiv(batch, block_b) * landmarks * triton.cdiv(rows, block_r),)](
        features,
        winners,
        vote_weight,
        vote_bias,
        votes,
        batch,
        landmarks,
        rows,
        channels,
        height * width,
        width,
        BLOCK_B=block_b,
        BLOCK_R=block_r,
        BLOCK_C=block_size(channels, blocks.vote_channels),
        num_warps=blocks.vote_warps,
        num_stages=blocks.vote_stages,
        enable_fp_fusion=True,
    )
    return votes
