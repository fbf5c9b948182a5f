"""The rivals of the fused head: dense convolutions, then decoding."""

from functools import partial

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
        landmarks, count = neighbors.shape
        received: list[list[int]] = [[] for _ in range(landmarks)]
        for voter, targets in enumerate(neighbors.tolist()):
            for k, target in enumerate(targets):
                received[target].append(voter * count + k)
        longest = max(map(len, received))
        # Repeated to one length, so that the gathered votes are a rectangle.
        padded = [(votes * longest)[:longest] for votes in received]
        self.received = torch.tensor(padded, device=neighbors.device)

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
