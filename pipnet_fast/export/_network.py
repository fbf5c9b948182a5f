"""A model as one graph of standard operators: crops in, landmarks and scores out, any number of crops."""

import copy
from itertools import chain
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipnet_fast.engines.fold import fold_trunk
from pipnet_fast.models import GRMI, CoordNet, MapNet, PIPNet
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.grmi import VotingMaps, hough_votes, upsample
from pipnet_fast.models.mapnet import decode_heatmaps
from pipnet_fast.neighbors import NeighborTable
from pipnet_fast.ops import HeadWeights
from pipnet_fast.pipeline.images import scale_and_shift

Input = Literal["float32", "uint8"]

CROPS, OUTPUTS = "crops", ("landmarks", "scores")
# The weights by which the head is found in a graph again.
SCORE_WEIGHT = "head.score_weight"


class ExportNetwork(nn.Module):
    """Crops to landmarks (B, N, 2) in fractions of the crop and scores (B, N), B >= 1.

    A snapshot of a model in float32, on the model's device, BatchNorm folded.
    """

    def __init__(self, operation: str, model: Any, input: Input) -> None:
        """Take over ``model``; crops come as ``input`` says.

        Args:
            operation: for messages.
            model: a PIPNet with a mean shape, or a rival, in eval mode.
            input: "float32", crops (B, 3, S, S) normalized with the ImageNet mean and deviation; or "uint8", RGB crops
                (B, S, S, 3), normalized inside.

        Raises:
            TypeError, ValueError: another model or input.
        """
        super().__init__()
        if input not in get_args(Input):
            raise ValueError(f"{operation}: input: expected one of {get_args(Input)}, got {input!r}")
        model = _snapshot(operation, model)
        size = model.config.input_size
        self.normalize = _Normalize() if input == "uint8" else nn.Identity()
        self.trunk, self.head = _parts(operation, model)
        self.example_shape = (size, size, 3) if input == "uint8" else (3, size, size)
        self.example_dtype = torch.uint8 if input == "uint8" else torch.float32
        self.requires_grad_(False).eval()

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks and scores."""
        points, scores = self.head(self.trunk(self.normalize(crops)))
        return points, scores

    def example(self, batch: int) -> Tensor:
        """Crops to trace with."""
        return torch.zeros(batch, *self.example_shape, dtype=self.example_dtype, device=self.device)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(chain(self.parameters(), self.buffers())).device


class SparseHead(nn.Module):
    """``ops.head_decode`` in operators that every runtime has; its formulas, in the same order.

    Weights lie so that a single crop needs vector-matrix products only, which read them row by row.
    """

    def __init__(self, head: HeadWeights, table: NeighborTable, side: int) -> None:
        """Lay out a head in float32 for grids of ``side`` x ``side`` cells."""
        super().__init__()
        landmarks, rows, channels = head.vote_weight.shape
        votes = rows // 2
        score_weight = head.score_weight.transpose(1, 2).flatten(0, 1)[:landmarks]
        # A copy, for the packed one has rows to spare.
        self.register_buffer("score_weight", score_weight.reshape(landmarks, channels, 1, 1).clone())
        self.register_buffer("score_bias", head.score_bias[:landmarks].clone())
        # (N, 2V, C) with x and y in turn to (N, C, 2V) with all x first.
        weight = head.vote_weight.view(landmarks, votes, 2, channels).permute(0, 3, 2, 1).flatten(2)
        self.register_buffer("vote_weight", weight.contiguous())
        bias = head.vote_bias.view(landmarks, votes, 2).transpose(1, 2).flatten(1)
        self.register_buffer("vote_bias", bias.unsqueeze(1).contiguous())
        self.register_buffer("merge", _dense_merge(table, side).to(weight.device))
        cells = torch.arange(side * side, device=weight.device)
        self.register_buffer("corners", torch.stack((cells % side, cells // side), dim=1).float())
        self.landmarks, self.votes, self.cells = landmarks, votes, side * side

    score_weight: Tensor
    score_bias: Tensor
    vote_weight: Tensor
    vote_bias: Tensor
    merge: Tensor
    corners: Tensor

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, N, 2) and scores (B, N) of features (B, C, side, side)."""
        batch, channels = features.shape[:2]
        scores = F.conv2d(features, self.score_weight, self.score_bias).flatten(2)
        cell = scores.argmax(dim=2)
        columns = features.permute(0, 2, 3, 1).reshape(-1, channels)
        first = torch.arange(batch, device=cell.device).unsqueeze(1) * self.cells
        winners = columns.index_select(0, (cell + first).flatten()).view(batch, self.landmarks, channels)
        votes = torch.matmul(winners.transpose(0, 1), self.vote_weight) + self.vote_bias
        votes = votes.view(self.landmarks, batch, 2, self.votes).permute(1, 2, 0, 3)
        corner = self.corners.index_select(0, cell.flatten()).view(batch, self.landmarks, 2)
        votes = votes + corner.transpose(1, 2).unsqueeze(3)
        points = torch.matmul(votes.flatten(2), self.merge)
        return points.transpose(1, 2), scores.amax(dim=2)


def _dense_merge(table: NeighborTable, side: int) -> Tensor:
    """(N * V, N): the table's sparse matrix, transposed, with the step from cells to fractions in it."""
    rows = torch.repeat_interleave(table.starts.diff())
    merge = torch.zeros(len(table.sources), table.num_landmarks, dtype=torch.float32)
    merge[table.sources.long(), rows] = table.weights / side
    return merge


class _Normalize(nn.Module):
    """RGB crops (B, S, S, 3) of uint8 to what the network takes."""

    def __init__(self) -> None:
        super().__init__()
        scale, shift = scale_and_shift()
        self.register_buffer("scale", scale.view(3, 1, 1))
        self.register_buffer("shift", shift.view(3, 1, 1))

    scale: Tensor
    shift: Tensor

    def forward(self, crops: Tensor) -> Tensor:
        """Bytes are moved before they are widened."""
        return crops.permute(0, 3, 1, 2).float() * self.scale + self.shift


class _Coordinates(nn.Module):
    """CoordNet's fully connected layers, and ones for its scores."""

    def __init__(self, model: CoordNet) -> None:
        super().__init__()
        self.layers = nn.Sequential(model.fc1, nn.ReLU(), model.fc2, nn.ReLU(), model.fc3)
        self.landmarks = model.config.num_landmarks

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        points = self.layers(features.flatten(1)).view(-1, self.landmarks, 2)
        return points, torch.ones_like(points[..., 0])


class _WithHeatmaps(nn.Module):
    """MapNet with its deconvolutions as part of the trunk, so that they fold like the backbone."""

    def __init__(self, model: MapNet) -> None:
        super().__init__()
        self.model = model

    def forward_features(self, x: Tensor) -> Tensor:
        heatmaps: Tensor = self.model.final_layer(self.model.deconv_layers(self.model.forward_features(x)))
        return heatmaps


class _HeatmapDecode(nn.Module):
    def __init__(self, quarter_offset: bool) -> None:
        super().__init__()
        self.quarter_offset = quarter_offset

    def forward(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        return decode_heatmaps(heatmaps, self.quarter_offset)


class _WithVotingMaps(nn.Module):
    """G-RMI with the layer that makes its maps as part of the trunk."""

    def __init__(self, model: GRMI) -> None:
        super().__init__()
        self.model = model

    def forward_features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.model.final_layer(self.model.forward_features(x))
        return maps


class _Votes(nn.Module):
    def __init__(self, model: GRMI) -> None:
        super().__init__()
        self.size, self.radius_px = model.config.input_size, model.config.radius_px

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        pixels = upsample(VotingMaps(*maps.chunk(3, dim=1)), self.size // maps.shape[2])
        return decode_heatmaps(hough_votes(pixels, self.radius_px), quarter_offset=False)


def _snapshot(operation: str, model: Any) -> LandmarkModel:
    """A copy in float32."""
    if not isinstance(model, LandmarkModel):
        raise TypeError(f"{operation}: model: expected a PIPNet, CoordNet, MapNet or GRMI, got {type(model).__name__}")
    if model.training:
        raise ValueError(f"{operation}: model: expected one in eval mode (model.eval()), got one in training mode")
    return copy.deepcopy(model).float()


def _parts(operation: str, model: LandmarkModel) -> tuple[nn.Module, nn.Module]:
    """The folded trunk, and what makes landmarks of its output."""
    if isinstance(model, PIPNet):
        with torch.no_grad():
            side = model.config.input_size // model.config.stride
            return fold_trunk(model), SparseHead(model.head, model.table, side)
    if isinstance(model, CoordNet):
        return fold_trunk(model), _Coordinates(model)
    if isinstance(model, MapNet):
        return fold_trunk(_WithHeatmaps(model)), _HeatmapDecode(model.config.stride > 1)
    assert isinstance(model, GRMI)
    return fold_trunk(_WithVotingMaps(model)), _Votes(model)
