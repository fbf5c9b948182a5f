"""Votes of few images: one program finds a landmark's winner in one image and computes its votes there.

Nothing is shared between images and no tensor core is used (a landmark's row times the grid is a matrix-vector
product); what counts is how many bytes are on their way, so tiles are large and several are loaded ahead.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tuning import LatencyBlocks, block_size
from .winner import fold_winner


@triton.jit
def _head_decode_latency_kernel(
    features_ptr,  # (B, C, H, W)
    score_weight_ptr,  # (ceil(N / PANEL), C, PANEL)
    score_bias_ptr,  # (ceil(N / PANEL) * PANEL,)
    vote_weight_ptr,  # (N, R, C)
    vote_bias_ptr,  # (N, R)
    votes_ptr,  # (B, N, R) float32, out, cells; x and y in turn
    scores_ptr,  # (B, N) float32, out
    num_landmarks,
    channels,
    cells,
    width,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    R: tl.constexpr,
    PANEL: tl.constexpr,
    FLAT: tl.constexpr,  # rows of the grid follow each other: stride_h = width * stride_w
    BLOCK_S: tl.constexpr,  # cells
    BLOCK_C: tl.constexpr,  # channels
    BLOCK_R: tl.constexpr,  # rows
    STAGES: tl.constexpr,
):
    """Winner and votes of one landmark of one image. Grid (B * N,)."""
    program = tl.program_id(0)
    landmark = program % num_landmarks
    image = (program // num_landmarks).to(tl.int64)
    image_ptr = features_ptr + image * stride_b

    best_score = float("-inf")
    best_cell = 0
    score_row_ptr = score_weight_ptr + (landmark // PANEL) * channels * PANEL + landmark % PANEL
    bias = tl.load(score_bias_ptr + landmark).to(tl.float32)
    for first in range(0, cells, BLOCK_S):
        cell = first + tl.arange(0, BLOCK_S)
        live = cell < cells
        if FLAT:
            # The compiler sees neighboring cells side by side, and loads them together.
            at = cell.to(tl.int64) * stride_w
        else:
            at = (cell // width).to(tl.int64) * stride_h + (cell % width).to(tl.int64) * stride_w
        product = tl.zeros((BLOCK_C, BLOCK_S), dtype=tl.float32)
        for first_channel in tl.range(0, channels, BLOCK_C, num_stages=STAGES):
            channel = first_channel + tl.arange(0, BLOCK_C)
            known = channel < channels
            row = tl.load(score_row_ptr + channel * PANEL, mask=known, other=0.0).to(tl.float32)
            block = tl.load(
                image_ptr + channel[:, None].to(tl.int64) * stride_c + at[None, :],
                mask=known[:, None] & live[None, :],
                other=0.0,
            )
            product += row[:, None] * block.to(tl.float32)
        score = tl.where(live, tl.sum(product, axis=0) + bias, float("-inf"))
        best_score, best_cell = fold_winner(score, first, best_score, best_cell, AXIS=0)
    tl.store(scores_ptr + image * num_landmarks + landmark, best_score)

    y = best_cell // width
    x = best_cell % width
    column_ptr = image_ptr + y.to(tl.int64) * stride_h + x.to(tl.int64) * stride_w
    for first_row in tl.static_range(0, R, BLOCK_R):
        r = first_row + tl.arange(0, BLOCK_R)
        row_ptr = vote_weight_ptr + (landmark.to(tl.int64) * R + r) * channels
        product = tl.zeros((BLOCK_R, BLOCK_C), dtype=tl.float32)
        for first_channel in tl.range(0, channels, BLOCK_C, num_stages=STAGES):
            channel = first_channel + tl.arange(0, BLOCK_C)
            known = channel < channels
            column = tl.load(column_ptr + channel.to(tl.int64) * stride_c, mask=known, other=0.0).to(tl.float32)
            rows = tl.load(row_ptr[:, None] + channel[None, :], mask=(r < R)[:, None] & known[None, :], other=0.0)
            product += rows.to(tl.float32) * column[None, :]
        vote = tl.sum(product, axis=1) + tl.load(vote_bias_ptr + landmark * R + r, mask=r < R, other=0.0).to(tl.float32)
        vote += tl.where(r % 2 == 0, x, y)
        tl.store(votes_ptr + (image * num_landmarks + landmark) * R + r, vote, mask=r < R)


def votes_at_low_latency(
    features: Tensor,
    score_weight: Tensor,
    score_bias: Tensor,
    vote_weight: Tensor,
    vote_bias: Tensor,
    scores: Tensor,
    blocks: LatencyBlocks,
) -> Tensor:
    """Launch: (B, C, H, W) features, any strides, into ``scores`` (B, N); returns votes (B, N, R), in cells."""
    batch, channels, height, width = features.shape
    landmarks, rows, _ = vote_weight.shape
    votes = torch.empty(batch, landmarks, rows, dtype=torch.float32, device=features.device)
    _head_decode_latency_kernel[(batch * landmarks,)](
        features,
        score_weight,
        score_bias,
        vote_weight,
        vote_bias,
        votes,
        scores,
        landmarks,
        channels,
        height * width,
        width,
        *features.stride(),
        R=rows,
        PANEL=score_weight.shape[2],
        FLAT=features.stride(2) == width * features.stride(3),
        BLOCK_S=block_size(height * width, blocks.cells),
        BLOCK_C=block_size(channels, blocks.channels),
        BLOCK_R=block_size(rows, 64),
        STAGES=blocks.stages,
        num_warps=blocks.warps,
        enable_fp_fusion=True,
    )
    return votes
