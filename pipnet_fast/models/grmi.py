"""G-RMI: disks and offsets that vote for the landmark (Papandreou et al. 2017; section 4.6)."""

import math
import os
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipnet_fast._errors import require_int
from pipnet_fast.backbones import create_backbone
from pipnet_fast.crop import CropRule
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models._labels import Labels, read_labels
from pipnet_fast.models.mapnet import decode_heatmaps
from pipnet_fast.neighbors import MAX_LANDMARKS
from pipnet_fast.ops import Landmarks
from pipnet_fast.ops._merge import result_dtype

# Votes that are in memory at once, about 64 bytes each: 1 GB, two images of 98 landmarks at 256x256.
MAX_VOTES = 1 << 24

# Weights of the two terms, section 4.6.
DISK_WEIGHT, OFFSET_WEIGHT = 4.0, 1.0


class VotingMaps(NamedTuple):
    """What G-RMI's loss needs and its votes are made of; at stride 8, or upsampled to the pixels of the crop."""

    logits: Tensor
    """(B, N, H, W), log odds that the landmark is at most the disk's radius away from the cell's center."""
    offset_x: Tensor
    """(B, N, H, W), x of the landmark from the cell's center, in px of the crop."""
    offset_y: Tensor
    """(B, N, H, W), the same for y."""


class GRMILoss(NamedTuple):
    """The loss and its terms, scalars in float32 (float64 if the model is)."""

    total: Tensor
    """4 * disk + offset, section 4.6."""
    disk: Tensor
    """Mean binary cross-entropy of the pixels, labelled 1 within the radius around the landmark."""
    offset: Tensor
    """Mean smooth L1 error of the offsets within the disk, both axes, in px."""


@dataclass(frozen=True)
class GRMIConfig:
    """What a G-RMI network is built from, besides its weights."""

    backbone: str = "resnet50"
    num_landmarks: int = 68
    radius_px: float = 15.0
    input_size: int = 256
    width: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class GRMI(LandmarkModel):
    """Every pixel votes, as loudly as it believes to be near the landmark, for where the landmark is.

    A ResNet with dilation in place of its last two strides and a 1x1 convolution give three maps a landmark at
    stride 8. They are upsampled bilinearly to the pixels of the crop, and the votes of all pixels are added up
    there (``hough_votes``). At N = 68 the parameters are those of Table 9: 23.9M and 42.9M with ResNet-50 and 101
    (N = 98 would give 24.1M and 43.1M).

    Args:
        backbone: one of the ResNets.
        num_landmarks: N, 1 to 4096.
        radius_px: the disk's radius in px of the crop, > 0; 15 is the paper's best.
        input_size: side of the square crop in px, a multiple of 8. The network takes any multiple; this one is
            what crops are resampled to.
        width: channel multiplier of the ResNet.
        weights: None, "imagenet" or the path of ImageNet weights, for the backbone.
        crop: how crops follow from face boxes.

    Raises:
        ValueError: an argument out of its range.
    """

    config: GRMIConfig

    def __init__(
        self,
        backbone: str = "resnet50",
        num_landmarks: int = 68,
        radius_px: float = 15.0,
        input_size: int = 256,
        *,
        width: float = 1.0,
        weights: str | os.PathLike[str] | None = None,
        crop: CropRule | None = None,
    ) -> None:
        """See the class."""
        require_int("GRMI", "num_landmarks", num_landmarks, 1, MAX_LANDMARKS)
        if not isinstance(radius_px, (int, float)) or not 0 < radius_px < math.inf:
            raise ValueError(f"GRMI: radius_px: expected a number > 0, got {radius_px!r}")
        trunk = create_backbone(backbone, width=width, weights=weights, dilated=True)
        super().__init__(trunk, input_size, crop)
        self.config = GRMIConfig(backbone, num_landmarks, float(radius_px), input_size, float(width))
        self.final_layer = nn.Conv2d(trunk.out_channels, 3 * num_landmarks, kernel_size=1)
        nn.init.normal_(self.final_layer.weight, std=0.001)
        nn.init.zeros_(self.final_layer.get_parameter("bias"))

    def forward(self, x: Tensor) -> VotingMaps:
        """The maps at stride 8; ``upsample`` brings them to the pixels of the crop.

        Args:
            x: (B, 3, H, W) RGB crops normalized with the ImageNet mean and deviation; H and W multiples of 8.
        """
        self._check_input(x)
        return self._maps(self.forward_features(x))

    def loss(self, x: Tensor, points_frac: Tensor, *, counts: Tensor | None = None) -> GRMILoss:
        """The training loss of section 4.6, on the maps upsampled to pixels, as Papandreou et al. define it.

        Args:
            x: as for ``forward``.
            points_frac: (B, N, 2) labels in fractions of the crop; may leave 0..1; NaN where not labelled. Means are
                over what is labelled, and 0 if nothing is.
            counts: what the means are over in place of the labels here, as ``label_counts`` has them.

        Raises:
            TypeError, ValueError: a bad input.
        """
        maps = self(x)
        labels = read_labels("GRMI", x, points_frac, self.config.num_landmarks, counts)
        disk, offset = voting_loss(maps, labels, self._stride, self.config.radius_px)
        return GRMILoss(DISK_WEIGHT * disk + OFFSET_WEIGHT * offset, disk, offset)

    @torch.no_grad()
    def landmarks(self, features: Tensor) -> Landmarks:
        """Landmarks of features (B, C, H / 8, W / 8), B >= 0.

        A landmark is the center of the pixel with the most votes, its score their sum, about 0 to 1.

        Raises:
            TypeError, ValueError: other features.
        """
        self._check_features(features)
        maps = self._maps(features.to(self.final_layer.weight.dtype))
        votes_an_image = maps.logits[:1].numel() * self._stride**2
        images = max(1, MAX_VOTES // max(1, votes_an_image))
        parts = [self._decode(VotingMaps(*part)) for part in zip(*(torch.split(m, images) for m in maps), strict=True)]
        return Landmarks(torch.cat([part.points_frac for part in parts]), torch.cat([part.scores for part in parts]))

    def _maps(self, features: Tensor) -> VotingMaps:
        return VotingMaps(*self.final_layer(features).chunk(3, dim=1))

    def _decode(self, maps: VotingMaps) -> Landmarks:
        votes = hough_votes(upsample(maps, self._stride), self.config.radius_px)
        return decode_heatmaps(votes, quarter_offset=False)


def upsample(maps: VotingMaps, factor: int) -> VotingMaps:
    """Interpolate maps bilinearly to ``factor`` times their height and width; a cell stands for its center."""
    dtype = result_dtype(maps.logits.dtype)
    return VotingMaps(*(F.interpolate(m.to(dtype), scale_factor=factor, mode="bilinear") for m in maps))


def hough_votes(maps: VotingMaps, radius_px: float) -> Tensor:
    """Add up the votes of all pixels, (B, N, H, W), on the pixels themselves.

        votes(x) = sum over pixels p of probability(p) * G(p + offset(p) - x) / (pi * radius^2)

    G is the kernel of bilinear interpolation, so every vote is split among the four pixels around it. Perfect maps
    give 1 on the landmark's pixel, less what its neighbors get. Votes off the map, or of offsets that are not
    finite, are lost. On CUDA the order of the sums changes from run to run, and with it the last bits.
    """
    batch, landmarks, height, width = maps.logits.shape
    probability = maps.logits.sigmoid()
    # The map has a border of one pixel for the parts of votes that fall beside it; its corner takes those that miss
    # it altogether. Positions count from the center of that corner.
    vote_x = maps.offset_x + torch.arange(1, width + 1, device=maps.offset_x.device)
    vote_y = maps.offset_y + torch.arange(1, height + 1, device=maps.offset_y.device).unsqueeze(1)
    meets = (vote_x > 0) & (vote_x < width + 1) & (vote_y > 0) & (vote_y < height + 1)
    vote_x, vote_y = torch.where(meets, vote_x, 0), torch.where(meets, vote_y, 0)
    row = width + 2
    pixel = torch.add(vote_x.long(), vote_y.long(), alpha=row).flatten(2)
    right, low = vote_x.frac(), vote_y.frac()
    votes = probability.new_zeros(batch, landmarks, (height + 2) * row)
    for step, share in ((0, 1 - low), (row, low)):
        votes[..., step:].scatter_add_(2, pixel, (probability * share * (1 - right)).flatten(2))
        votes[..., step + 1 :].scatter_add_(2, pixel, (probability * share * right).flatten(2))
    return votes.view(batch, landmarks, height + 2, row)[..., 1:-1, 1:-1] / (math.pi * radius_px**2)


def voting_loss(maps: VotingMaps, labels: Labels, stride: int, radius_px: float) -> tuple[Tensor, Tensor]:
    """The terms ``disk`` and ``offset`` of ``GRMILoss``.

    A disk counts by its area pi * radius^2 whether or not all of it lies in the crop, so that terms of parts of a batch
    add up to those of the whole. One image is upsampled at a time and once more in the backward pass: the pixels of a
    batch would take gigabytes.
    """
    # Of no images, for that an empty batch has gradients too.
    none = torch.stack([m[:0].sum() for m in maps]).sum().to(labels.share.dtype)
    terms = torch.stack((none, none))
    for image in zip(*maps, *labels, strict=True):
        terms = terms + checkpoint(_pixel_terms, *image, stride, radius_px, use_reentrant=False)
    disk, offset = terms.unbind()
    return disk, offset


def _pixel_terms(
    logits: Tensor,
    offset_x: Tensor,
    offset_y: Tensor,
    points_frac: Tensor,
    share: Tensor,
    stride: int,
    radius_px: float,
) -> Tensor:
    """What one image adds to the two terms; maps (N, H, W), points (N, 2), shares (N,)."""
    pixels = upsample(VotingMaps(*(m.unsqueeze(0).to(share.dtype) for m in (logits, offset_x, offset_y))), stride)
    height, width = pixels.logits.shape[2:]
    x, y = (
        points_frac[:, axis, None] * size - torch.arange(size, dtype=share.dtype, device=share.device) - 0.5
        for axis, size in ((0, width), (1, height))
    )
    near = (x.square().unsqueeze(1) + y.square().unsqueeze(2) <= radius_px**2).to(share.dtype)
    disk = F.binary_cross_entropy_with_logits(pixels.logits[0], near, reduction="none").mean(dim=(1, 2))
    error = F.smooth_l1_loss(pixels.offset_x[0], x.unsqueeze(1).expand_as(near), reduction="none")
    error = error + F.smooth_l1_loss(pixels.offset_y[0], y.unsqueeze(2).expand_as(near), reduction="none")
    offset = (error * near).sum(dim=(1, 2)) / (2 * math.pi * radius_px**2)
    return torch.stack(((disk * share).sum(), (offset * share).sum()))
