"""Backbone features to landmarks on the GPU; specification and checks: pipnet_fast/ops/head_decode.py.

Few images take the latency path (two kernels), many the batch path (three, on tensor cores for half precision);
``tuning.py`` chooses. Sums are in float32 whatever the inputs are. No kernel waits for another program: each
step that needs all of the one before is a launch of its own, ordered by the stream, so the calls can be captured
into a CUDA graph.
"""

import torch
from torch import Tensor

from .head_decode_batch import votes_in_tiles
from .head_decode_latency import votes_at_low_latency
from .merge import merge
from .tuning import Blocks, LatencyBlocks, tuned_blocks


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
    blocks: Blocks | None = None,
) -> None:
    """Launch: features and packed weights into ``points`` (B, N, 2) and ``scores`` (B, N), both float32.

    ``blocks`` overrules the tuned choice of path and block sizes, for tests and measurements.
    """
    batch, _, height, width = features.shape
    if batch == 0:
        return
    blocks = blocks or tuned_blocks(batch, height * width, features.dtype)
    head = (score_weight, score_bias, vote_weight, vote_bias)
    # Triton launches on the current device.
    with torch.cuda.device_of(features):
        if isinstance(blocks, LatencyBlocks):
            votes = votes_at_low_latency(features, *head, scores, blocks)
        else:
            votes = votes_in_tiles(features, *head, scores, blocks)
        merge(votes, starts, sources, weights, points, height, width)
