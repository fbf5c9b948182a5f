"""CoordNet: coordinates by fully connected layers (section 4.3.1)."""

import os
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipnet_fast._errors import require_int
from pipnet_fast.backbones import create_backbone
from pipnet_fast.crop import CropRule
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models._labels import read_labels
from pipnet_fast.neighbors import MAX_LANDMARKS
from pipnet_fast.ops import Landmarks
from pipnet_fast.ops._merge import result_dtype

HIDDEN = 512


class Coordinates(NamedTuple):
    """What CoordNet's loss needs."""

    points_frac: Tensor
    """(B, N, 2), x before y, in fractions of the crop."""


class CoordNetLoss(NamedTuple):
    """A scalar in float32 (float64 if the model is)."""

    total: Tensor
    """Mean absolute error of the labelled coordinates, in fractions of the crop."""


@dataclass(frozen=True)
class CoordNetConfig:
    """What a CoordNet is built from, besides its weights."""

    backbone: str = "resnet18"
    num_landmarks: int = 98
    input_size: int = 256
    width: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class CoordNet(LandmarkModel):
    """Regresses all coordinates at once from the whole stride-32 map, which fixes the size of its input.

    Three fully connected layers of 512, 512 and 2N channels, ReLU between them. At 256x256 and N = 98 the
    parameters are those of Table 9: 28.3M, 91.0M and 110.0M with ResNet-18, 50 and 101 (N = 68 would give 90.9M
    and 109.9M).

    Args:
        backbone: one of ``pipnet_fast.backbones.BACKBONES``.
        num_landmarks: N, 1 to 4096.
        input_size: side of the square crop in px, a multiple of 32; no other is accepted afterwards.
        width: channel multiplier of the ResNets; the head keeps its widths.
        weights: None, "imagenet" or the path of ImageNet weights, for the backbone.
        crop: how crops follow from face boxes.

    Raises:
        ValueError: an argument out of its range.
    """

    config: CoordNetConfig

    def __init__(
        self,
        backbone: str = "resnet18",
        num_landmarks: int = 98,
        input_size: int = 256,
        *,
        width: float = 1.0,
        weights: str | os.PathLike[str] | None = None,
        crop: CropRule | None = None,
    ) -> None:
        """See the class."""
        require_int("CoordNet", "num_landmarks", num_landmarks, 1, MAX_LANDMARKS)
        trunk = create_backbone(backbone, width=width, weights=weights)
        super().__init__(trunk, input_size, crop)
        self.config = CoordNetConfig(backbone, num_landmarks, input_size, float(width))
        self._side = input_size // trunk.stride
        self.fc1 = nn.Linear(trunk.out_channels * self._side**2, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.fc3 = nn.Linear(HIDDEN, 2 * num_landmarks)

    def forward(self, x: Tensor) -> Coordinates:
        """The coordinates.

        Args:
            x: (B, 3, input_size, input_size) RGB crops normalized with the ImageNet mean and deviation.
        """
        self._check_input(x)
        return Coordinates(self._points(self.forward_features(x)))

    def loss(self, x: Tensor, points_frac: Tensor, *, counts: Tensor | None = None) -> CoordNetLoss:
        """The training loss of section 4.3.1, L1.

        Args:
            x: as for ``forward``.
            points_frac: (B, N, 2) labels in fractions of the crop; may leave 0..1; NaN where not labelled. The mean is
                over what is labelled, and 0 if nothing is.
            counts: what the means are over in place of the labels here, as ``label_counts`` has them.

        Raises:
            TypeError, ValueError: a bad input.
        """
        points = self(x).points_frac
        labels = read_labels("CoordNet", x, points_frac, self.config.num_landmarks, counts)
        error = (points.to(labels.share.dtype) - labels.points_frac).abs().mean(dim=2)
        return CoordNetLoss((error * labels.share).sum())

    @torch.no_grad()
    def landmarks(self, features: Tensor) -> Landmarks:
        """Landmarks of features (B, C, input_size / 32, input_size / 32), B >= 0.

        The scores are ones: a CoordNet does not know how sure it is.

        Raises:
            TypeError, ValueError: other features.
        """
        self._check_features(features)
        if features.shape[2:] != (self._side, self._side):
            raise ValueError(
                f"CoordNet: features: expected a grid of {self._side}x{self._side} for input_size "
                f"{self.config.input_size}, got {features.shape[2]}x{features.shape[3]}"
            )
        points = self._points(features.to(self.fc1.weight.dtype))
        points = points.to(result_dtype(points.dtype))
        return Landmarks(points, torch.ones_like(points[..., 0]))

    def _points(self, features: Tensor) -> Tensor:
        hidden = self.fc1(features.flatten(1)).relu()
        hidden = self.fc2(hidden).relu()
        points: Tensor = self.fc3(hidden)
        return points.view(points.shape[0], self.config.num_landmarks, 2)

    def _check_input(self, x: Tensor) -> None:
        super()._check_input(x)
        size = self.config.input_size
        if x.shape[2:] != (size, size):
            raise ValueError(
                f"CoordNet: x: expected crops of {size}x{size}, which its fully connected layers are made for, "
                f"got {x.shape[2]}x{x.shape[3]}"
            )
