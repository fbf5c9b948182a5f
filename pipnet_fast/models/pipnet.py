"""PIPNet: a backbone and five 1x1 convolutions on its low-resolution grid (sections 3.1 and 3.2)."""

import os
from dataclasses import asdict, dataclass, replace
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from pipnet_fast._errors import require_int
from pipnet_fast.backbones import create_backbone
from pipnet_fast.crop import CropRule
from pipnet_fast.layouts import MeanShape, load_mean_shape
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.neighbors import MAX_LANDMARKS, Merge, NeighborTable, cap_num_neighbors, neighbor_table
from pipnet_fast.ops import (
    HeadLoss,
    HeadMaps,
    HeadWeights,
    Landmarks,
    default_balance,
    head_decode,
    head_loss,
    label_counts,
    pack_head,
)

# The head's layers as the official network names them, in the order of HeadMaps.
HEAD_LAYERS = ("cls_layer", "x_layer", "y_layer", "nb_x_layer", "nb_y_layer")


@dataclass(frozen=True)
class PIPNetConfig:
    """What a PIPNet is built from, besides its weights and its mean shape; travels inside model files."""

    backbone: str = "resnet18"
    num_landmarks: int = 98
    num_neighbors: int = 10
    stride: int = 32
    input_size: int = 256
    width: float = 1.0
    merge: Merge = "mean"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class PIPNet(LandmarkModel):
    """Facial landmarks from a crop of a face.

    Stages of the backbone and the layers of the head are direct children under the official network's names,
    so its state dicts load unchanged, in both directions.

    Args:
        backbone: "resnet18", "resnet50", "resnet101", "mobilenet_v2" or "mobilenet_v3".
        num_landmarks: N, 1 to 4096.
        num_neighbors: K >= 0; more than N - 1 is cut with a warning. K = 0 leaves the neighbor layers out.
        stride: input pixels per grid cell, 16, 32, 64 or 128 (section 4.2.1).
        input_size: side of the square crop in px, a multiple of the stride. The network takes any multiple;
            this one is what crops are resampled to.
        mean_shape: a layout's name, a text file or (N, 2) coordinates; needed by ``predict`` when K > 0.
        width: channel multiplier of the ResNets.
        merge: how neighbors' votes are merged, "mean" (the paper) or "official" (the official code's padding).
        weights: None, "imagenet" or the path of ImageNet weights, for the backbone.
        crop: how crops follow from face boxes.

    Raises:
        ValueError: an argument out of its range, or a mean shape of another N.
    """

    config: PIPNetConfig

    def __init__(
        self,
        backbone: str = "resnet18",
        num_landmarks: int = 98,
        num_neighbors: int = 10,
        stride: int = 32,
        input_size: int = 256,
        mean_shape: Any = None,
        *,
        width: float = 1.0,
        merge: Merge = "mean",
        weights: str | os.PathLike[str] | None = None,
        crop: CropRule | None = None,
    ) -> None:
        """See the class."""
        require_int("PIPNet", "num_landmarks", num_landmarks, 1, MAX_LANDMARKS)
        num_neighbors = cap_num_neighbors(num_neighbors, num_landmarks)
        trunk = create_backbone(backbone, stride, width, weights)
        super().__init__(trunk, input_size, crop)
        if merge not in get_args(Merge):
            raise ValueError(f"PIPNet: merge: expected one of {get_args(Merge)}, got {merge!r}")
        self.config = PIPNetConfig(backbone, num_landmarks, num_neighbors, stride, input_size, float(width), merge)
        self.mean_shape: MeanShape | None = None
        self._table: NeighborTable | None = None
        if mean_shape is not None or num_neighbors == 0:
            self.with_mean_shape(np.zeros((num_landmarks, 2)) if mean_shape is None else mean_shape)

        rows = (num_landmarks,) * 3 + (num_landmarks * num_neighbors,) * 2
        for name, out_channels in zip(HEAD_LAYERS, rows, strict=True):
            if out_channels:
                layer = nn.Conv2d(trunk.out_channels, out_channels, kernel_size=1)
                nn.init.normal_(layer.weight, std=0.001)
                nn.init.zeros_(layer.get_parameter("bias"))
                self.add_module(name, layer)
        self._packed: _PackedHead | None = None
        # Whether a forward pass since the last eval() or train() was recorded for a backward one.
        self._learning = False

    def forward_features(self, x: Tensor) -> Tensor:
        """The backbone: (B, 3, H, W) normalized RGB to (B, C, H / stride, W / stride)."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._learning, self._packed = True, None
        return super().forward_features(x)

    def forward(self, x: Tensor) -> HeadMaps:
        """The five dense maps, for training and for those who decode themselves.

        Args:
            x: (B, 3, H, W) RGB crops normalized with the ImageNet mean and deviation; H and W multiples of
                the stride.
        """
        self._check_input(x)
        features = self.forward_features(x)
        maps = [getattr(self, name)(features) for name in HEAD_LAYERS if hasattr(self, name)]
        if self.config.num_neighbors == 0:
            empty = maps[0].new_empty(maps[0].shape[0], 0, *maps[0].shape[2:])
            maps += [empty, empty.clone()]
        return HeadMaps(*maps)

    @torch.no_grad()
    def landmarks(self, features: Tensor) -> Landmarks:
        """Landmarks of features (B, C, H, W) by the fused head: those of the dense maps, without writing them.

        Raises:
            TypeError, ValueError: other features, or a model that was built without a mean shape.
        """
        self._check_features(features)
        head = self.head
        # Under autocast the features come in half precision, the weights do not.
        return head_decode(features.to(head.vote_bias.dtype), head, self.table)

    def loss(
        self,
        x: Tensor,
        points_frac: Tensor,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        sample_weights: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> HeadLoss:
        """The training loss, equation 5: that of ``forward``'s maps, of which it computes the score map only.

        Args:
            x: as for ``forward``.
            points_frac: (B, N, 2) labels in fractions of the crop; may leave 0..1; NaN where not labelled.
            alpha: weight of the offset term; by default as ``ops.default_balance`` has it for the stride.
            beta: weight of the neighbor term, likewise.
            sample_weights: (B, 3), how much each sample counts in each term; see ``ops.head_loss``.
            counts: what the means are over in place of the labels here, as ``label_counts`` has them.

        Raises:
            ValueError: a bad input, or a model that was built without a mean shape.
        """
        self._check_input(x)
        return self.loss_of_features(
            self.forward_features(x),
            points_frac,
            alpha=alpha,
            beta=beta,
            sample_weights=sample_weights,
            counts=counts,
        )

    def loss_of_features(
        self,
        features: Tensor,
        points_frac: Tensor,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        sample_weights: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> HeadLoss:
        """The head's part of ``loss``: on features (B, C, H, W) of ``forward_features``, or on coarser ones of them."""
        balance = default_balance(self.config.stride)
        return head_loss(
            features,
            *_map_order(*self._head_layers()),
            points_frac,
            self.table,
            alpha=balance if alpha is None else alpha,
            beta=balance if beta is None else beta,
            sample_weights=sample_weights,
            counts=counts,
        )

    def label_counts(self, points_frac: Tensor, sample_weights: Tensor | None = None) -> Tensor:
        """(3,): the landmarks that are labelled, for score and offset, and the pairs of neighbors.

        With ``sample_weights`` (B, 3) they are sums of weights, as in ``loss``.
        """
        return label_counts(points_frac, self.table, sample_weights)

    @property
    def table(self) -> NeighborTable:
        """The neighbor table, on the model's device."""
        if self._table is None:
            raise ValueError(
                "PIPNet: mean_shape: the neighbors' votes cannot be merged without it; build the model with "
                "mean_shape=<name or (N, 2) array>, or with num_neighbors=0"
            )
        return self._table.to(self._head_tensor("cls_layer", "weight").device)

    @property
    def head(self) -> HeadWeights:
        """The head's weights, packed for ``head_decode``; kept in eval mode until they change.

        Fused optimizers and writes through ``.data`` leave no trace that could be noticed. So nothing is kept
        between a forward pass with gradients and the next call of ``eval()`` or ``train()``; after writing
        through ``.data``, call one of them.
        """
        weights, biases = self._head_layers()
        if torch.compiler.is_compiling() or self.training or self._learning or weights[0].is_inference():
            return _pack(weights, biases)
        packed = self._packed
        if packed is None or not packed.fits(weights + biases):
            packed = self._packed = _PackedHead(weights + biases, _pack(weights, biases))
        return packed.head

    def train(self, mode: bool = True) -> "PIPNet":
        """Switch between training and evaluation, as every module; forgets the packed head."""
        self._learning, self._packed = False, None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the packed head out of copies and pickles."""
        return {**self.__dict__, "_packed": None}

    def with_mean_shape(self, mean_shape: Any, merge: Merge | None = None) -> "PIPNet":
        """Set the mean shape, and with it the neighbor table, in place.

        Args:
            mean_shape: a layout's name, a text file or (N, 2) coordinates.
            merge: another merge than the model has.

        Returns:
            The model itself.
        """
        points = load_mean_shape(mean_shape)
        if len(points) != self.config.num_landmarks:
            raise ValueError(f"PIPNet: mean_shape: expected {self.config.num_landmarks} landmarks, got {len(points)}")
        config = replace(self.config, merge=merge or self.config.merge)
        self._table = neighbor_table(points, config.num_neighbors, config.merge)
        self.mean_shape, self.config = points, config
        return self

    def _head_layers(self) -> tuple[list[Tensor], list[Tensor]]:
        names = [name for name in HEAD_LAYERS if hasattr(self, name)]
        weights = [self._head_tensor(name, "weight") for name in names]
        return weights, [self._head_tensor(name, "bias") for name in names]

    def _head_tensor(self, layer: str, name: str) -> Tensor:
        # Not get_parameter: a pruned or parametrized layer computes its weight.
        return cast(Tensor, getattr(self.get_submodule(layer), name))


class _PackedHead:
    """A packed head and what it was packed from.

    The aliases keep the old storage alive, so that another tensor cannot take its address and pass for it.
    """

    def __init__(self, parameters: list[Tensor], head: HeadWeights) -> None:
        self.aliases = [p.detach() for p in parameters]
        self.versions = [p._version for p in parameters]
        self.head = head

    def fits(self, parameters: list[Tensor]) -> bool:
        return len(parameters) == len(self.aliases) and all(
            p.data_ptr() == alias.data_ptr() and p._version == version and p.dtype == alias.dtype
            for p, alias, version in zip(parameters, self.aliases, self.versions, strict=True)
        )


def _pack(weights: list[Tensor], biases: list[Tensor]) -> HeadWeights:
    return pack_head(*_map_order([w.detach() for w in weights], [b.detach() for b in biases]))


def _map_order(weights: list[Tensor], biases: list[Tensor]) -> tuple[HeadMaps, HeadMaps]:
    """The layers' weights (rows, C) and biases (rows,), for K = 0 with empty ones for the neighbors."""
    rows, offsets = [w.flatten(1) for w in weights], list(biases)
    if len(rows) == 3:
        rows += [rows[0][:0]] * 2
        offsets += [offsets[0][:0]] * 2
    return HeadMaps(*rows), HeadMaps(*offsets)
