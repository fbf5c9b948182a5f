"""How often the right cell wins on the grid of a PIPNet and on coarser ones (section 3.3, Figure 7).

Self-training with curriculum begins on coarser grids because that is easier. It makes them as the official code does:
features max-pooled over 2x2 cells, once and twice, and scored by the same layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipnet_fast.data.samples import BadSample, FaceData
from pipnet_fast.evaluate.predict import Floats, plain_crops, with_boxes
from pipnet_fast.models import PIPNet
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.ops._merge import reject_nan, winning_cells
from pipnet_fast.pipeline.images import normalize

# How often features are pooled: to twice and to four times the stride.
POOLINGS = 2


class Grid(NamedTuple):
    """How often the right cell wins on one grid, in percent of the labelled landmarks."""

    stride: int
    """Input pixels per cell."""
    cells: int
    """On a side."""
    pooled: float
    """Where features are pooled to this grid and scored there."""
    merged: float
    """Where the winner on the network's own grid is only asked for the cell of this grid that it lies in."""


@dataclass(frozen=True, eq=False)
class GridAccuracy:
    """The grids of a model, its own first.

    Attributes:
        name: of the model.
        data: name of the data set.
        grids: the network's own, and those of its pooled features; fewer where a grid does not divide by 2.
        faces: how many were seen.
        landmarks: how many labelled ones.
        bad: faces that were left out, and why.
    """

    name: str
    data: str
    grids: tuple[Grid, ...]
    faces: int
    landmarks: int
    bad: Sequence[BadSample] = ()


def grid_accuracy(
    model: LandmarkModel,
    data: FaceData,
    *,
    batch_size: int = 32,
    workers: int = 0,
    boxes: Floats | None = None,
    skip_bad: bool = False,
    name: str = "PIPNet",
) -> GridAccuracy:
    """Count how often the cell that a landmark's label lies in has the landmark's highest score.

    The label's cell is that of training: for a label outside of the crop, the nearest one. Faces are cropped as
    ``evaluate`` crops them.

    Args:
        model: a PIPNet in eval mode.
        data: labelled faces.
        batch_size: crops in one forward pass.
        workers: processes that read ahead; 0 to read in this one.
        boxes: (n, 4) tight boxes to crop by in place of the data set's, as ``label_boxes``; NaN to leave a face out.
        skip_bad: leave out faces whose images cannot be read, and list them.
        name: of the model, for tables.

    Raises:
        TypeError: another model, which has no grid.
        ValueError: a model in training mode or of another number of landmarks; boxes of another shape; no labelled
            landmark; NaN scores.
        DataError: an image that cannot be read.
    """
    if not isinstance(model, PIPNet):
        raise TypeError(f"grid_accuracy: {name}: expected a PIPNet, got {type(model).__name__}")
    if model.training:
        raise ValueError(f"grid_accuracy: {name}: expected a model in eval mode; call eval() first")
    if model.config.num_landmarks != data.layout.num_landmarks:
        raise ValueError(
            f"grid_accuracy: {name}: expected a model of {data.layout.num_landmarks} landmarks for {data.name}, got "
            f"one of {model.config.num_landmarks}"
        )
    if boxes is not None:
        data = with_boxes(data, boxes, "grid_accuracy")
        data = replace(data, samples=[sample for sample in data.samples if sample.has_box])
    loader = plain_crops(model, data, batch_size=batch_size, workers=workers, skip_bad=skip_bad)
    first = next(model.parameters())
    sides = grid_sides(model.config.input_size // model.config.stride)
    hits, faces, labelled = torch.zeros(len(sides), 2, dtype=torch.int64), 0, 0
    with torch.no_grad():
        for batch in loader:
            features = model.forward_features(normalize(batch.crops.to(first.device), first.dtype))
            points_frac = batch.points_frac.to(first.device)
            hits += _hits(model, features, points_frac, len(sides)).cpu()
            faces += len(batch.index)
            labelled += int(points_frac.isfinite().all(dim=2).sum())
    if not labelled:
        raise ValueError(f"grid_accuracy: {data.name}: expected labelled landmarks, got none on {faces} face(s)")
    shares = (100 * hits.double() / labelled).tolist()
    grids = [
        Grid(model.config.input_size // side, side, pooled, merged)
        for side, (pooled, merged) in zip(sides, shares, strict=True)
    ]
    return GridAccuracy(name, data.name, tuple(grids), faces, labelled, (*data.bad, *loader.bad))


def grid_sides(side: int) -> list[int]:
    """Cells on a side of a network's grid and of its pooled ones, as far as 2 divides them."""
    sides = [side]
    while len(sides) <= POOLINGS and sides[-1] % 2 == 0:
        sides.append(sides[-1] // 2)
    return sides


def _hits(model: PIPNet, features: Tensor, points_frac: Tensor, count: int) -> Tensor:
    """(count, 2): on each of so many grids the right cells among those of the pooled scores, and of the first grid."""
    score_layer = model.get_submodule("cls_layer")
    hits, finest = [], features.new_zeros(0)
    for level in range(count):
        if level:
            features = F.max_pool2d(features, 2)
        side = features.shape[3]
        score = score_layer(features)
        reject_nan("grid_accuracy", score)
        _, cell = winning_cells(score)
        winner = torch.stack((cell % side, cell // side), dim=2)
        finest = finest if level else winner
        # NaN where not labelled, which no cell equals.
        right = (points_frac * side).floor().clamp(0, side - 1)
        found = torch.stack([(cells == right).all(dim=2) for cells in (winner, finest >> level)])
        hits.append(found.sum(dim=(1, 2)))
    return torch.stack(hits)
