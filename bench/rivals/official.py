"""Eager torch as the official code runs it: NCHW, five dense maps, one image decoded at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

import pipnet_fast as pf
from bench.dense import DenseHead, padded_votes
from bench.networks import Crops
from bench.rivals.dense import dense_network
from bench.task import Built, Points, Task
from pipnet_fast.models.pipnet import HEAD_LAYERS
from pipnet_fast.ops import HeadMaps
from pipnet_fast.pipeline.images import IMAGENET_MEAN, IMAGENET_STD

Network = Callable[[Tensor], Sequence[Tensor]]


def build(task: Task) -> Built:
    """The whole path in eager mode; of a batch, the network runs on all crops and the decoding on one by one."""
    return Built(eager(task, dense_network(task).to(dtype=getattr(torch, task.dtype))), note=one_by_one(task))


def build_batched(task: Task) -> Built:
    """The same network with decoding rewritten for batches, which the official code does not have."""
    dtype = getattr(torch, task.dtype)
    model = task.model().requires_grad_(False).to(dtype)
    layers = [model.get_submodule(name) for name in HEAD_LAYERS]
    weights = HeadMaps(*(layer.get_parameter("weight").flatten(1) for layer in layers))
    biases = HeadMaps(*(layer.get_parameter("bias") for layer in layers))
    head, normalize = DenseHead(weights, biases, model.table.neighbors), EagerNormalize(task)

    @torch.no_grad()
    def run(crops: Crops) -> Points:
        points = head(model.forward_features(normalize(crops))).points_frac * task.size
        return points.float().cpu().numpy()

    return Built(run)


def eager(task: Task, network: Network) -> Callable[[Crops], Points]:
    """Normalization and official decoding around a network that gives the five maps."""
    normalize, decode = EagerNormalize(task), EagerDecode(task.model())

    @torch.no_grad()
    def run(crops: Crops) -> Points:
        maps = network(normalize(crops))
        points = [decode([m[i : i + 1] for m in maps]) for i in range(len(crops))]
        stacked: Points = np.stack([(p * task.size).float().cpu().numpy() for p in points])
        return stacked

    return run


def one_by_one(task: Task) -> str | None:
    """What is to be said of the official decoding of a batch."""
    return "the network runs on the batch, decoding on one image at a time" if task.batch > 1 else None


class EagerNormalize:
    """Crops (B, S, S, 3) of uint8 RGB to (B, 3, S, S), contiguous: scale to 0..1, less the mean, by the deviation."""

    def __init__(self, task: Task) -> None:
        """Put the constants where the task runs."""
        self._device, self._dtype = task.device, getattr(torch, task.dtype)
        self._mean = torch.tensor(IMAGENET_MEAN, device=task.device).view(3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD, device=task.device).view(3, 1, 1)

    def __call__(self, crops: Crops) -> Tensor:
        """Normalize a batch."""
        x = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2).contiguous()
        return x.float().div(255).sub_(self._mean).div_(self._std).to(self._dtype)


class EagerDecode:
    """Maps of one image to its landmarks, one eager operation after the other, x and y apart."""

    def __init__(self, model: pf.PIPNet) -> None:
        """Lay out the padded table of received votes on the model's device."""
        table = model.table
        self._neighbors = table.num_neighbors
        self._received = torch.from_numpy(padded_votes(table.neighbors.cpu().numpy())).to(table.device)

    def __call__(self, maps: Sequence[Tensor]) -> Tensor:
        """Landmarks (N, 2) in fractions of the crop from five maps (1, N or N * K, H, W)."""
        score, offset_x, offset_y, neighbor_x, neighbor_y = maps
        batch, landmarks, height, width = score.shape
        assert batch == 1
        flat = score.view(landmarks, -1)
        cell = flat.argmax(dim=1).view(-1, 1)
        near = cell.repeat(1, self._neighbors).view(-1, 1)
        own_x = offset_x.view(landmarks, -1).gather(1, cell)
        own_y = offset_y.view(landmarks, -1).gather(1, cell)
        votes_x = neighbor_x.view(landmarks * self._neighbors, -1).gather(1, near)
        votes_y = neighbor_y.view(landmarks * self._neighbors, -1).gather(1, near)
        own_x = (own_x + cell % width) / width
        own_y = (own_y + torch.div(cell, width, rounding_mode="floor")) / height
        votes_x = (votes_x + near % width) / width
        votes_y = (votes_y + torch.div(near, width, rounding_mode="floor")) / height
        x = torch.cat((own_x, votes_x.view(-1)[self._received]), dim=1).mean(dim=1)
        y = torch.cat((own_y, votes_y.view(-1)[self._received]), dim=1).mean(dim=1)
        return torch.stack((x, y), dim=1)
