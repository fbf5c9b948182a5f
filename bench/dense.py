"""The rival of the fused head: five dense convolutions, then decoding in eager torch, as people run it today."""

import torch
from torch import Tensor

from pipnet_fast.ops import HeadMaps, Landmarks


class DenseHead:
    """Five 1x1 convolutions and a batched eager decode: argmax, gathers, and a padded table of received votes."""

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
        """Landmarks of (B, C, H, W) features, merged as the official code does."""
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
