"""MapNet: heatmaps by deconvolutions (section 4.3.1, after Xiao et al. 2018)."""

import os
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from pipnet_fast._errors import require_int
from pipnet_fast.backbones import create_backbone
from pipnet_fast.backbones._neck import CHANNELS, deconvolution
from pipnet_fast.crop import CropRule
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models._labels import Labels, read_labels
from pipnet_fast.neighbors import MAX_LANDMARKS
from pipnet_fast.ops import Landmarks
from pipnet_fast.ops._merge import result_dtype, winning_cells

MapStride = Literal[1, 2, 4]

# Section 4.3.1: the Gaussians of the labels are 4 px wide at every stride.
GAUSSIAN_PX = 4


class Heatmaps(NamedTuple):
    """What MapNet's loss needs."""

    heatmaps: Tensor
    """(B, N, H / stride, W / stride), trained towards a Gaussian of height 1 at the landmark; not bounded."""


class MapNetLoss(NamedTuple):
    """A scalar in float32 (float64 if the model is)."""

    total: Tensor
    """Mean squared error of the labelled landmarks' heatmaps."""


@dataclass(frozen=True)
class MapNetConfig:
    """What a MapNet is built from, besides its weights."""

    backbone: str = "resnet18"
    num_landmarks: int = 98
    stride: int = 2
    input_size: int = 256
    width: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class MapNet(LandmarkModel):
    """One heatmap a landmark, at a stride of 4, 2 or 1: 3 to 5 deconvolutions on top of stride 32.

    Each deconvolution is 4x4 with stride 2, 512 channels, no bias, BatchNorm and ReLU; a 1x1 convolution makes the
    heatmaps. At stride 2 the parameters are those of Table 9 for N = 68 and N = 98 alike: 28.0M, 52.9M and 71.9M
    with ResNet-18, 50 and 101 (Xiao et al.'s 256 channels would give 16.4M with ResNet-18). The layers have the
    names of their network.

    Args:
        backbone: one of ``pipnet_fast.backbones.BACKBONES``.
        num_landmarks: N, 1 to 4096.
        stride: input pixels per heatmap cell, 1, 2 or 4.
        input_size: side of the square crop in px, a multiple of 32. The network takes any multiple; this one is
            what crops are resampled to.
        width: channel multiplier of the ResNets; the head keeps its widths.
        weights: None, "imagenet" or the path of ImageNet weights, for the backbone.
        crop: how crops follow from face boxes.

    Raises:
        ValueError: an argument out of its range.
    """

    config: MapNetConfig

    def __init__(
        self,
        backbone: str = "resnet18",
        num_landmarks: int = 98,
        stride: int = 2,
        input_size: int = 256,
        *,
        width: float = 1.0,
        weights: str | os.PathLike[str] | None = None,
        crop: CropRule | None = None,
    ) -> None:
        """See the class."""
        require_int("MapNet", "num_landmarks", num_landmarks, 1, MAX_LANDMARKS)
        if not isinstance(stride, int) or stride not in get_args(MapStride):
            raise ValueError(f"MapNet: stride: expected one of {get_args(MapStride)}, got {stride!r}")
        trunk = create_backbone(backbone, width=width, weights=weights)
        super().__init__(trunk, input_size, crop)
        self.config = MapNetConfig(backbone, num_landmarks, stride, input_size, float(width))
        layers: list[nn.Module] = []
        doublings = (trunk.stride // stride).bit_length() - 1
        for in_channels in (trunk.out_channels, *(CHANNELS,) * (doublings - 1)):
            layers += deconvolution(in_channels)
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(CHANNELS, num_landmarks, kernel_size=1)
        nn.init.normal_(self.final_layer.weight, std=0.001)
        nn.init.zeros_(self.final_layer.get_parameter("bias"))

    def forward(self, x: Tensor) -> Heatmaps:
        """The heatmaps.

        Args:
            x: (B, 3, H, W) RGB crops normalized with the ImageNet mean and deviation; H and W multiples of 32.
        """
        self._check_input(x)
        return Heatmaps(self._heatmaps(self.forward_features(x)))

    def loss(self, x: Tensor, points_frac: Tensor, *, counts: Tensor | None = None) -> MapNetLoss:
        """The training loss of section 4.3.1: L2 on Gaussians of radius 1, 2 and 4 cells at stride 4, 2 and 1.

        Args:
            x: as for ``forward``.
            points_frac: (B, N, 2) labels in fractions of the crop; may leave 0..1; NaN where not labelled. The mean is
                over what is labelled, and 0 if nothing is.
            counts: what the means are over in place of the labels here, as ``label_counts`` has them.

        Raises:
            TypeError, ValueError: a bad input.
        """
        heatmaps = self(x).heatmaps
        labels = read_labels("MapNet", x, points_frac, self.config.num_landmarks, counts)
        return MapNetLoss(heatmap_loss(heatmaps, labels, GAUSSIAN_PX / self.config.stride))

    @torch.no_grad()
    def landmarks(self, features: Tensor) -> Landmarks:
        """Landmarks of features (B, C, H / 32, W / 32), B >= 0; scores are the highest responses.

        Raises:
            TypeError, ValueError: other features.
        """
        self._check_features(features)
        heatmaps = self._heatmaps(features.to(self.final_layer.weight.dtype))
        return decode_heatmaps(heatmaps, quarter_offset=self.config.stride > 1)

    def _heatmaps(self, features: Tensor) -> Tensor:
        heatmaps: Tensor = self.final_layer(self.deconv_layers(features))
        return heatmaps


def gaussians(points_frac: Tensor, height: int, width: int, sigma_cells: float) -> Tensor:
    """Perfect heatmaps (B, N, H, W) of points (B, N, 2): 1 at the point itself, which need not be a cell's center.

    Points beside the map leave on it what reaches there, so that nothing is taught to see a landmark on the border.
    """
    x, y = (
        points_frac[..., axis, None] * size
        - torch.arange(size, dtype=points_frac.dtype, device=points_frac.device)
        - 0.5
        for axis, size in ((0, width), (1, height))
    )
    x, y = ((distance.square() / (-2 * sigma_cells**2)).exp() for distance in (x, y))
    return y.unsqueeze(3) * x.unsqueeze(2)


def heatmap_loss(heatmaps: Tensor, labels: Labels, sigma_cells: float) -> Tensor:
    """Mean squared error of heatmaps (B, N, H, W) against Gaussians, over cells and labelled landmarks."""
    height, width = heatmaps.shape[2:]
    targets = gaussians(labels.points_frac, height, width, sigma_cells)
    error = (heatmaps.to(targets.dtype) - targets).square().mean(dim=(2, 3))
    return (error * labels.share).sum()


def decode_heatmaps(heatmaps: Tensor, quarter_offset: bool) -> Landmarks:
    """Landmarks at the highest responses of heatmaps (B, N, H, W).

    A landmark lies at the center of its cell; with ``quarter_offset`` it moves from there a quarter of a cell
    towards the second highest response of the whole map, which is how section 4.3.1 reads. On Gaussians of 2 cells
    it takes the mean error at stride 2 from 0.78 to 0.46 px. (Xiao et al. describe it in the same words; their code
    compares the neighbors on either side and moves along both axes, which gives 0.39 px.)

    Of equal responses the first counts; a NaN counts as minus infinity.
    """
    height, width = heatmaps.shape[2:]
    heatmaps = heatmaps.to(result_dtype(heatmaps.dtype))
    scores, highest = winning_cells(heatmaps)
    points = _corners(highest, width).to(heatmaps.dtype) + 0.5
    if quarter_offset:
        others = heatmaps.flatten(2).scatter(2, highest.unsqueeze(2), -torch.inf)
        _, second = winning_cells(others.view_as(heatmaps))
        towards = (_corners(second, width) - _corners(highest, width)).to(heatmaps.dtype)
        # No direction where a map has one cell only.
        points = points + 0.25 * towards / towards.norm(dim=2, keepdim=True).clamp(min=1)
    return Landmarks(points / heatmaps.new_tensor([width, height]), scores)


def _corners(cell: Tensor, width: int) -> Tensor:
    return torch.stack((cell % width, cell // width), dim=2)
