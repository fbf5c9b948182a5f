"""What PIPNet and the rival heads share: the backbone under its official names, the checks of inputs, prediction."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipnet_fast._errors import require_int
from pipnet_fast.backbones import Backbone
from pipnet_fast.crop import CropRule
from pipnet_fast.ops import Landmarks

# A model file says how large its crops are; it may not ask for all the memory there is.
MAX_INPUT_SIZE = 4096


class Config(Protocol):
    """What the configuration of every model tells."""

    @property
    def backbone(self) -> str:
        """Name of the backbone."""

    @property
    def num_landmarks(self) -> int:
        """N."""

    @property
    def input_size(self) -> int:
        """Side of the square crop in px."""

    @property
    def width(self) -> float:
        """Channel multiplier of the backbone."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""


class LandmarkModel(nn.Module):
    """A backbone and a head that gives landmarks of its features.

    The stages of the backbone are direct children under the official network's names. A subclass adds the layers
    of its head, ``config``, ``forward`` with what its loss needs, and ``landmarks``.
    """

    config: Config

    def __init__(self, trunk: Backbone, input_size: int, crop: CropRule | None) -> None:
        """Take over the stages of ``trunk``; ``input_size`` must be a multiple of its stride."""
        super().__init__()
        name, stride = type(self).__name__, trunk.stride
        require_int(name, "input_size", input_size, stride)
        if input_size % stride or input_size > MAX_INPUT_SIZE:
            raise ValueError(
                f"{name}: input_size: expected a multiple of the stride {stride} up to {MAX_INPUT_SIZE}, "
                f"got {input_size}"
            )
        self.crop = crop or CropRule()
        self._stride = stride
        self._channels = trunk.out_channels
        self._stages = [name for name, _ in trunk.named_children()]
        for name, stage in trunk.named_children():
            self.add_module(name, stage)

    def forward_features(self, x: Tensor) -> Tensor:
        """The backbone: (B, 3, H, W) normalized RGB to (B, C, H / stride, W / stride)."""
        for name in self._stages:
            x = getattr(self, name)(x)
        return x

    def loss(self, x: Tensor, points_frac: Tensor, *, counts: Tensor | None = None) -> tuple[Tensor, ...]:
        """The training loss: a named tuple of scalars, of which the first, ``total``, is what is differentiated.

        Args:
            x: as for ``forward``.
            points_frac: (B, N, 2) labels in fractions of the crop; may leave 0..1; NaN where not labelled.
            counts: what the means are over in place of the labels here: ``label_counts`` of a larger batch. The
                losses of its parts, and their gradients, then add up to its own.
        """
        raise NotImplementedError

    def label_counts(self, points_frac: Tensor) -> Tensor:
        """How many labels of points (B, N, 2) the means in the loss are over, float32, one number for every mean.

        Here a single one, (1,): the landmarks that are labelled.
        """
        return (points_frac == points_frac).all(dim=2).sum(dtype=torch.float32).view(1)

    def landmarks(self, features: Tensor) -> Landmarks:
        """Head and decoding: features (B, C, H, W) of ``forward_features``, or of an engine that runs it, B >= 0."""
        raise NotImplementedError

    @torch.no_grad()
    def predict(self, x: Tensor) -> Landmarks:
        """Landmarks of crops.

        Like ``forward``, it follows the module's mode: call ``eval()`` first, or BatchNorm uses the batch.

        Args:
            x: as for ``forward``; B may be 0.

        Returns:
            Landmarks: points (B, N, 2) in fractions of the crop and scores (B, N).

        Raises:
            TypeError, ValueError: a bad input.
        """
        self._check_input(x)
        return self.landmarks(self.forward_features(x))

    def _check_input(self, x: Tensor) -> None:
        name, stride = type(self).__name__, self._stride
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: x: expected a tensor, got {type(x).__name__}")
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise ValueError(f"{name}: x: expected floating-point (B, 3, H, W), got {tuple(x.shape)} {x.dtype}")
        dtype = next(self.parameters()).dtype
        if x.dtype != dtype and not torch.compiler.is_compiling() and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"{name}: x: expected {dtype} as the weights are, got {x.dtype}")
        if x.shape[2] % stride or x.shape[3] % stride or x.shape[2] < stride or x.shape[3] < stride:
            raise ValueError(
                f"{name}: x: expected height and width to be multiples of the stride {stride} (equation 4), "
                f"got {x.shape[2]}x{x.shape[3]}"
            )

    def _check_features(self, features: Tensor) -> None:
        name, channels = type(self).__name__, self._channels
        if not isinstance(features, Tensor):
            raise TypeError(f"{name}: features: expected a tensor, got {type(features).__name__}")
        if features.ndim != 4 or features.shape[1] != channels or not features.is_floating_point():
            raise ValueError(
                f"{name}: features: expected floating-point (B, {channels}, H, W), got {tuple(features.shape)} "
                f"{features.dtype}"
            )
        if features.shape[2] < 1 or features.shape[3] < 1:
            raise ValueError(
                f"{name}: features: expected a grid of at least one cell, got {features.shape[2]}x{features.shape[3]}"
            )
