"""Backbone features to landmarks on the GPU; specification and checks: pipnet_fast/ops/head_decode.py.

One program finds a landmark's winning cell in one image, then computes its votes there; a second kernel
merges them. Sums are in float32 whatever the inputs are, and no tensor core is used, so no TF32 either.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .merge import merge
from .winner import fold_winner


@triton.jit
def _head_decode_votes_kernel(
    features_ptr,  # (B, C, H, W)
    score_weight_ptr,  # (ceil(N / PANEL), C, PANEL)
    score_bias_ptr,  # (ceil(N / PANEL) * PANEL,)
    vote_weight_ptr,  # (N, R, C)
    vote_bias_ptr,  # (N, R)
    votes_ptr,  # (B, N, R) float32, out, cells; R = 2 * (1 + K), x and y in turn
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
    BLOCK_S: tl.constexpr,  # cells
    BLOCK_C: tl.constexpr,  # channels
    BLOCK_R: tl.constexpr,  # rows, at least R
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
        at = (cell // width) * stride_h + (cell % width) * stride_w
        score = tl.zeros((BLOCK_S,), dtype=tl.float32)
        for first_channel in range(0, channels, BLOCK_C):
            channel = first_channel + tl.arange(0, BLOCK_C)
            known = channel < channels
            row = tl.load(score_row_ptr + channel * PANEL, mask=known, other=0.0).to(tl.float32)
            block = tl.load(
                image_ptr + channel[:, None].to(tl.int64) * stride_c + at[None, :],
                mask=known[:, None] & live[None, :],
                other=0.0,
            ).to(tl.float32)
            score += tl.sum(row[:, None] * block, axis=0)
        best_score, best_cell = fold_winner(score + bias, cell, live, best_score, best_cell)
    tl.store(scores_ptr + image * num_landmarks + landmark, best_score)

    y = best_cell // width
    x = best_cell % width
    column_ptr = image_ptr + y * stride_h + x * stride_w
    r = tl.arange(0, BLOCK_R)
    row_ptr = vote_weight_ptr + (landmark.to(tl.int64) * R + r) * channels
    vote = tl.zeros((BLOCK_R,), dtype=tl.float32)
    for first_channel in range(0, channels, BLOCK_C):
        channel = first_channel + tl.arange(0, BLOCK_C)
        known = channel < channels
        column = tl.load(column_ptr + channel.to(tl.int64) * stride_c, mask=known, other=0.0).to(tl.float32)
        rows = tl.load(row_ptr[:, None] + channel[None, :], mask=(r < R)[:, None] & known[None, :], other=0.0).to(
            tl.float32
        )
        vote += tl.sum(rows * column[None, :], axis=1)
    vote += tl.load(vote_bias_ptr + landmark * R + r, mask=r < R, other=0.0).to(tl.float32)
    vote += tl.where(r % 2 == 0, x, y)
    tl.store(votes_ptr + (image * num_landmarks + landmark) * R + r, vote, mask=r < R)


def head_decode(
    features: Tensor,
    score_weight: Tensor,
    score_bias: Tensor,
    vote_weight: Tensor,
    vote_bias: Tensor,
    starts: Tensor,
    sources: Tensor,
    weights: Tensor,
    points: Tensor,
    scores: Tensor,
) -> None:
    """Launch: features and packed weights into ``points`` (B, N, 2) and ``scores`` (B, N), both float32."""
    batch, channels, height, width = features.shape
    landmarks, rows, _ = vote_weight.shape
    if batch == 0:
        return
    votes = torch.empty(batch, landmarks, rows, dtype=torch.float32, device=points.device)
    _head_decode_votes_kernel[(batch * landmarks,)](
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
        BLOCK_S=min(64, triton.next_power_of_2(height * width)),
        BLOCK_C=64,
        BLOCK_R=triton.next_power_of_2(rows),
        num_warps=4,
    )
    merge(votes, starts, sources, weights, points, height, width)
