"""The merge of neighbors' votes, the last step of both operations; specification: pipnet_fast/ops/_merge.py."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["batch"])
def _merge_kernel(
    votes_ptr,  # (B, N * (1 + K), 2) float32, cells
    starts_ptr,  # (N + 1,) int32
    sources_ptr,  # (N * (1 + K),) int32
    weights_ptr,  # (N * (1 + K),) float32
    points_ptr,  # (B, N, 2) float32, out
    batch,
    num_landmarks,
    num_votes,
    width,
    height,
    BLOCK_B: tl.constexpr,  # images
    BLOCK_E: tl.constexpr,  # entries of a row of the table
):
    """points[b, n] = sum of weights * votes over row n, divided by (width, height). Grid (tiles of B * N,)."""
    program = tl.program_id(0)
    landmark = program % num_landmarks
    image = (program // num_landmarks) * BLOCK_B + tl.arange(0, BLOCK_B).to(tl.int64)
    wanted = image < batch
    start = tl.maximum(tl.load(starts_ptr + landmark), 0)
    end = tl.minimum(tl.load(starts_ptr + landmark + 1), num_votes)
    x = tl.zeros((BLOCK_B,), dtype=tl.float32)
    y = tl.zeros((BLOCK_B,), dtype=tl.float32)
    for first in range(start, end, BLOCK_E):
        entry = first + tl.arange(0, BLOCK_E)
        source = tl.load(sources_ptr + entry, mask=entry < end, other=-1)
        known = (source >= 0) & (source < num_votes)
        weight = tl.load(weights_ptr + entry, mask=known, other=0.0)
        live = wanted[:, None] & known[None, :]
        vote_ptr = votes_ptr + (image[:, None] * num_votes + source[None, :]) * 2
        # Dead lanes are dropped after the product: a weight of 0 would not silence an infinite vote.
        x += tl.sum(tl.where(live, weight[None, :] * tl.load(vote_ptr, mask=live, other=0.0), 0.0), axis=1)
        y += tl.sum(tl.where(live, weight[None, :] * tl.load(vote_ptr + 1, mask=live, other=0.0), 0.0), axis=1)
    point_ptr = points_ptr + (image * num_landmarks + landmark) * 2
    tl.store(point_ptr, x / width, mask=wanted)
    tl.store(point_ptr + 1, y / height, mask=wanted)


def merge(
    votes: Tensor, starts: Tensor, sources: Tensor, weights: Tensor, points: Tensor, height: int, width: int
) -> None:
    """Launch the merge of ``votes`` (B, N, 1 + K, 2) into ``points`` (B, N, 2)."""
    batch, landmarks = points.shape[:2]
    # A row of the table is read once for all images of a tile; beyond 16 the chip would not be full.
    images = min(16, triton.next_power_of_2(batch))
    _merge_kernel[(triton.cdiv(batch, images) * landmarks,)](
        votes,
        starts,
        sources,
        weights,
        points,
        batch,
        landmarks,
        sources.numel(),
        width,
        height,
        BLOCK_B=images,
        # A landmark receives 1 + K votes on average: one warp's lanes hold most rows.
        BLOCK_E=32,
        num_warps=max(1, images // 4),
        enable_fp_fusion=True,
    )
