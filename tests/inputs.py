"""Builders of operations' inputs: random, on decision edges, in every memory layout."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.ops import HeadMaps, HeadWeights, pack_head


class Shape(NamedTuple):
    B: int
    N: int
    K: int
    H: int
    W: int
    C: int = 8

    def __str__(self) -> str:
        return f"B{self.B}-N{self.N}-K{self.K}-{self.H}x{self.W}-C{self.C}"


# Small enough for Triton's interpreter: odd N and C, one cell, non-square grids, an empty batch.
SMALL = [
    Shape(0, 5, 2, 4, 4),
    Shape(1, 1, 0, 1, 1, 1),
    Shape(1, 7, 3, 1, 9, 5),
    Shape(3, 5, 4, 5, 3, 33),
    Shape(2, 17, 0, 2, 2, 70),
    Shape(1, 3, 1, 64, 64, 5),
]
# For the compiled backends: what networks have, and sizes beside the tiles' edges.
LARGE = [
    Shape(1, 98, 10, 8, 8, 512),
    Shape(17, 29, 10, 8, 8, 65),
    Shape(3, 19, 18, 16, 16, 96),
    Shape(1, 68, 10, 2, 2, 1280),
    Shape(3, 106, 10, 13, 7, 31),
    Shape(1, 16, 3, 64, 64, 40),
]

LAYOUTS = ("contiguous", "channels_last", "sliced", "transposed")


def table(shape: Shape, merge: str = "mean") -> pf.NeighborTable:
    points = np.random.RandomState(shape.N).rand(shape.N, 2)
    return pf.neighbor_table(points, shape.K, merge)  # type: ignore[arg-type]


def head_maps(shape: Shape, dtype: torch.dtype = torch.float32) -> HeadMaps:
    def plane(channels: int) -> Tensor:
        return torch.randn(shape.B, channels, shape.H, shape.W).to(dtype)

    near = shape.N * shape.K
    return HeadMaps(plane(shape.N), plane(shape.N), plane(shape.N), plane(near), plane(near))


def head_weights(shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu") -> HeadWeights:
    rows = (shape.N, shape.N, shape.N, shape.N * shape.K, shape.N * shape.K)
    weights = HeadMaps(*(torch.randn(r, shape.C).to(dtype).to(device) / shape.C**0.5 for r in rows))
    biases = HeadMaps(*(torch.randn(r).to(dtype).to(device) for r in rows))
    return pack_head(weights, biases)


def features(shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape.B, shape.C, shape.H, shape.W).to(dtype)


def in_layout(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout."""
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        # Every dimension a part of a larger buffer, whose other cells must not be read.
        b, c, h, w = tensor.shape
        nothing = torch.nan if tensor.is_floating_point() else 0
        buffer = torch.full((b + 1, c + 2, h + 1, w + 3), nothing, dtype=tensor.dtype, device=tensor.device)
        view = buffer[1:, 1 : 1 + c, :h, 2 : 2 + w]
        view.copy_(tensor)
        return view
    if layout == "transposed":
        return tensor.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    return tensor.contiguous()


def second_best_gap(score: Tensor) -> float:
    """Least difference between the best and the second best score of any landmark (inf with one cell)."""
    flat = score.flatten(2).double()
    if flat.shape[2] < 2 or flat.numel() == 0:
        return float("inf")
    best = flat.topk(2, dim=2).values
    return float((best[..., 0] - best[..., 1]).min())


def randomized(**config: Any) -> pf.PIPNet:
    """A model in eval mode whose every layer matters; the usual initialization is close to zero in the head."""
    with torch.device("meta"):
        model = pf.PIPNet(**config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("num_batches_tracked"):
                value.fill_(5)
            elif key.endswith(("running_mean", ".bias")):
                value.normal_(0, 0.1)
            elif value.ndim == 1:
                value.uniform_(0.5, 1.5)
            else:
                value.normal_(0, (2 / value[0].numel()) ** 0.5)
    return model.eval()
