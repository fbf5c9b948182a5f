"""Dense head maps to landmarks on the GPU; specification and checks: pipnet_fast/ops/decode.py."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .merge import merge
from .winner import fold_winner


@triton.jit
def _decode_votes_kernel(
    score_ptr,  # (B, N, H, W)
    offset_x_ptr,  # (B, N, H, W)
    offset_y_ptr,  # (B, N, H, W)
    neighbor_x_ptr,  # (B, N * K, H, W)
    neighbor_y_ptr,  # (B, N * K, H, W)
    votes_ptr,  # (B, N, 1 + K, 2) float32, out, cells
    scores_ptr,  # (B, N) float32, out
    num_landmarks,
    cells,
    width,
    score_sb, score_sn, score_sh, score_sw,
    offset_x_sb, offset_x_sn, offset_x_sh, offset_x_sw,
    offset_y_sb, offset_y_sn, offset_y_sh, offset_y_sw,
    neighbor_x_sb, neighbor_x_sn, neighbor_x_sh, neighbor_x_sw,
    neighbor_y_sb, neighbor_y_sn, neighbor_y_sh, neighbor_y_sw,
    K: tl.constexpr,
    BLOCK_S: tl.constexpr,  # cells
    BLOCK_K: tl.constexpr,  # neighbors, at least K
):  # fmt: skip
    """Winner and votes of one landmark of one image. Grid (B * N,)."""
    program = tl.program_id(0)
    landmark = program % num_landmarks
    image = (program // num_landmarks).to(tl.int64)
    best_score = float("-inf")
    best_cell = 0
    plane_ptr = score_ptr + image * score_sb + landmark.to(tl.int64) * score_sn
    for first in range(0, cells, BLOCK_S):
        cell = first + tl.arange(0, BLOCK_S)
        live = cell < cells
        at = (cell // width).to(tl.int64) * score_sh + (cell % width).to(tl.int64) * score_sw
        score = tl.load(plane_ptr + at, mask=live, other=float("-inf")).to(tl.float32)
        best_score, best_cell = fold_winner(score, first, best_score, best_cell, AXIS=0)
    tl.store(scores_ptr + image * num_landmarks + landmark, best_score)

    y = (best_cell // width).to(tl.int64)
    x = (best_cell % width).to(tl.int64)
    own_n = landmark.to(tl.int64)
    own_x = tl.load(offset_x_ptr + image * offset_x_sb + own_n * offset_x_sn + y * offset_x_sh + x * offset_x_sw)
    own_y = tl.load(offset_y_ptr + image * offset_y_sb + own_n * offset_y_sn + y * offset_y_sh + x * offset_y_sw)
    vote_ptr = votes_ptr + (image * num_landmarks + landmark) * (1 + K) * 2
    tl.store(vote_ptr, x + own_x.to(tl.float32))
    tl.store(vote_ptr + 1, y + own_y.to(tl.float32))
    if K > 0:
        k = tl.arange(0, BLOCK_K)
        channel = own_n * K + k
        near_x = tl.load(
            neighbor_x_ptr + image * neighbor_x_sb + channel * neighbor_x_sn + y * neighbor_x_sh + x * neighbor_x_sw,
            mask=k < K,
        )
        near_y = tl.load(
            neighbor_y_ptr + image * neighbor_y_sb + channel * neighbor_y_sn + y * neighbor_y_sh + x * neighbor_y_sw,
            mask=k < K,
        )
        tl.store(vote_ptr + 2 + 2 * k, x + near_x.to(tl.float32), mask=k < K)
        tl.store(vote_ptr + 3 + 2 * k, y + near_y.to(tl.float32), mask=k < K)


def decode(
    maps: Sequence[Tensor], starts: Tensor, sources: Tensor, weights: Tensor, points: Tensor, scores: Tensor
) -> None:
    """Launch: five maps in the official order into ``points`` (B, N, 2) and ``scores`` (B, N), both float32."""
    batch, landmarks, height, width = maps[0].shape
    neighbors = maps[3].shape[1] // landmarks
    if batch == 0:
        return
    # Triton launches on the current device.
    with torch.cuda.device_of(points):
        votes = torch.empty(batch, landmarks, 1 + neighbors, 2, dtype=torch.float32, device=points.device)
        _decode_votes_kernel[(batch * landmarks,)](
            *maps,
            votes,
            scores,
            landmarks,
            height * width,
            width,
            *(stride for m in maps for stride in m.stride()),
            K=neighbors,
            BLOCK_S=min(1024, triton.next_power_of_2(height * width)),
            BLOCK_K=triton.next_power_of_2(max(1, neighbors)),
            num_warps=1,
            enable_fp_fusion=True,
        )
        merge(votes, starts, sources, weights, points, height, width)
