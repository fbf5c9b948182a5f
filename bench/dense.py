"""The rivals of the fused head: dense convolutions, then decoding."""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.ops import HeadMaps, Landmarks


class DenseHead:
    """Five 1x1 convolutions and a batched eager decode: argmax, gathers, and a padded table of received votes.

    What a PyTorch user runs today; it merges as the official code does, whose own decode takes one image at a time.
    """

    def __init__(self, weights: HeadMaps, biases: HeadMaps, neighbors: Tensor) -> None:
        """``weights`` (rows, C) and ``biases`` (rows,) in map order; ``neighbors`` (N, K)."""
        self.weights = [w[:, :, None, None].contiguous() for w in weights]
        self.biases = list(biases)
        self.received = torch.from_numpy(padded_votes(neighbors.cpu().numpy())).to(neighbors.device)

    def __call__(self, features: Tensor) -> Landmarks:
        """Landmarks of (B, C, H, W) features."""
        maps = [torch.conv2d(features, w, b) for w, b in zip(self.weights, self.biases, strict=True)]
        batch, landmarks, height, width = maps[0].shape
        scores, cell = maps[0].flatten(2).max(dim=2)
        corner = torch.stack((cell % width, cell // width), dim=2).float()
        own = torch.stack([m.flatten(2).gather(2, cell[:, :, None]).squeeze(2) for m in maps[1:3]], dim=2)
        neighbors = maps[3].shape[1] // landmarks
        at = cell.repeat_interleave(neighbors, dim=1)[:, :, None]
        near = torch.stack([m.flatten(2).gather(2, at).squeeze(2) for m in maps[3:]], dim=2)
        near = (near.view(batch, landmarks, neighbors, 2) + corner[:, :, None]).flatten(1, 2)
        votes = torch.cat(((own + corner)[:, :, None], near[:, self.received]), dim=2)
        return Landmarks(votes.mean(dim=2) / votes.new_tensor([width, height]), scores)


class DenseProduct:
    """One matrix product for all maps, decoded by our own compiled decode: the dense head at its best.

    The maps are what the product gives, channels first for NCHW features and last for channels-last ones.
    """

    def __init__(self, weights: HeadMaps, biases: HeadMaps, table: pf.NeighborTable, backend: pf.ops.Backend) -> None:
        """``weights`` (rows, C) and ``biases`` (rows,) in map order."""
        self.weight, self.bias = torch.cat(tuple(weights)), torch.cat(tuple(biases))
        self.rows = [len(w) for w in weights]
        self.decode = partial(pf.ops.decode, table=table, backend=backend)

    def __call__(self, features: Tensor) -> Landmarks:
        """Landmarks of (B, C, H, W) features."""
        batch, channels, height, width = features.shape
        if features.is_contiguous(memory_format=torch.channels_last):
            columns = features.permute(0, 2, 3, 1).reshape(-1, channels)
            product = torch.addmm(self.bias, columns, self.weight.t())
            maps = product.view(batch, height, width, -1).permute(0, 3, 1, 2)
        else:
            product = torch.matmul(self.weight, features.flatten(2)) + self.bias[:, None]
            maps = product.view(batch, -1, height, width)
        return self.decode(HeadMaps(*torch.split(maps, self.rows, dim=1)))


def padded_votes(neighbors: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N, longest): of (N, K) neighbors, which votes each landmark receives, ``voter * K + k``.

    Every list is repeated up to the longest one, as the official code does, so that the table is a rectangle.
    """
    received = [np.flatnonzero(neighbors.ravel() == landmark) for landmark in range(len(neighbors))]
    longest = max(map(len, received))
    return np.stack([np.resize(votes, longest) for votes in received])


def random_maps(table: pf.NeighborTable, channels: int) -> tuple[HeadMaps, HeadMaps]:
    """Weights (rows, C) and biases (rows,) in map order of a random head for ``table``, on the CPU."""
    landmarks, near = table.num_landmarks, table.num_landmarks * table.num_neighbors
    rows = (landmarks, landmarks, landmarks, near, near)
    weights = HeadMaps(*(torch.randn(r, channels) / channels**0.5 for r in rows))
    return weights, HeadMaps(*(torch.randn(r) for r in rows))
