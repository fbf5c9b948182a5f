"""The merge of neighbors' votes, the last step of both operations; specification: pipnet_fast/ops/_merge.py."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _merge_kernel(
    votes_ptr,  # (B, N * (1 + K), 2) float32, cells
    starts_ptr,  # (N + 1,) int32
    sources_ptr,  # (N * (1 + K),) int32
    weights_ptr,  # (N * (1 + K),) float32
    points_ptr,  # (B, N, 2) float32, out
    num_landmarks,
    num_votes,
    width,
    height,
    ROW: tl.constexpr,  # no row of the table is longer: a landmark votes for another at most once
):
    """points[b, n] = sum of weights * votes over row n, divided by (width, height). Grid (B * N,)."""
    program = tl.program_id(0)
    landmark = program % num_landmarks
    image = (program // num_landmarks).to(tl.int64)
    start = tl.load(starts_ptr + landmark)
    end = tl.load(starts_ptr + landmark + 1)
    entry = start + tl.arange(0, ROW)
    live = (entry < end) & (entry >= 0) & (entry < num_votes)
    source = tl.load(sources_ptr + entry, mask=live, other=0)
    live = live & (source >= 0) & (source < num_votes)
    weight = tl.load(weights_ptr + entry, mask=live, other=0.0)
    vote_ptr = votes_ptr + (image * num_votes + source) * 2
    # Dead lanes are dropped after the product: a weight of 0 would not silence an infinite vote.
    x = tl.where(live, weight * tl.load(vote_ptr, mask=live, other=0.0), 0.0)
    y = tl.where(live, weight * tl.load(vote_ptr + 1, mask=live, other=0.0), 0.0)
    point_ptr = points_ptr + (image * num_landmarks + landmark) * 2
    tl.store(point_ptr, tl.sum(x, axis=0) / width)
    tl.store(point_ptr + 1, tl.sum(y, axis=0) / height)


def merge(
    votes: Tensor, starts: Tensor, sources: Tensor, weights: Tensor, points: Tensor, height: int, width: int
) -> None:
    """Launch the merge of ``votes`` (B, N, 1 + K, 2) into ``points`` (B, N, 2)."""
    batch, landmarks = points.shape[:2]
    _merge_kernel[(batch * landmarks,)](
        votes,
        starts,
        sources,
        weights,
        points,
        landmarks,
        sources.numel(),
        width,
        height,
        ROW=triton.next_power_of_2(landmarks),
        num_warps=1,
    )
