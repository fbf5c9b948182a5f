"""The rival of the sparse loss: dense maps, dense target maps, and L1 at the positive cells, as people train today."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from pipnet_fast.ops import HeadMaps

Style = Literal["gather", "mask"]


def dense_targets(points_frac: Tensor, neighbors: Tensor, grid: tuple[int, int]) -> HeadMaps:
    """Target maps like the network's of points (B, N, 2) and neighbors (N, K), zero but at one cell each."""
    height, width = grid
    size = points_frac.new_tensor([width, height])
    position = points_frac * size
    corner = position.floor().clamp(min=0).minimum(size - 1)
    cell = (corner[..., 1] * width + corner[..., 0]).long()

    def filled(values: Tensor) -> Tensor:
        per_landmark = values.unflatten(1, (cell.shape[1], -1)).unsqueeze(3)  # type: ignore[no-untyped-call]
        maps = values.new_zeros(*per_landmark.shape[:3], height * width)
        at = cell[:, :, None, None].expand_as(per_landmark)
        return maps.scatter_(3, at, per_landmark).view(len(values), -1, height, width)

    own = position - corner
    near = (position[:, neighbors] - corner.unsqueeze(2)).flatten(1, 2)
    return HeadMaps(*map(filled, (torch.ones_like(own[..., 0]), *own.unbind(2), *near.unbind(2))))


def dense_loss(maps: HeadMaps, targets: HeadMaps, balance: float, style: Style) -> Tensor:
    """Equation 5 on dense maps, everything labelled, K > 0.

    ``gather`` reads maps and targets at the positive cells, as the official code does; ``mask`` multiplies whole
    maps of errors by the score's target.
    """
    if style == "gather":
        cell = targets.score.flatten(2).argmax(dim=2, keepdim=True)

        def term(got: Tensor, target: Tensor) -> Tensor:
            at = cell.repeat_interleave(got.shape[1] // cell.shape[1], dim=1)
            return l1_loss(got.flatten(2).gather(2, at), target.flatten(2).gather(2, at))

    else:

        def term(got: Tensor, target: Tensor) -> Tensor:
            mask = targets.score.repeat_interleave(got.shape[1] // targets.score.shape[1], dim=1)
            return ((got - target).abs() * mask).sum() / (got.shape[0] * got.shape[1])

    l1 = sum(term(m, t) for m, t in zip(maps[1:], targets[1:], strict=True))
    return mse_loss(maps.score, targets.score) + balance / 2 * l1
