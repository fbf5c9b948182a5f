"""The tensors that go into and come out of the operations.

B batch, C feature channels, H and W grid height and width, N landmarks, K neighbors per landmark.
Names end in their unit: ``_cells`` grid units, ``_frac`` 0..1 of the crop, ``_px`` image pixels.
A vote is one landmark's opinion of a position: vote 0 of landmark n is for itself, vote 1 + k for its
neighbor k; R = 2 * (1 + K) rows of weights give the x and y of them all.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Landmarks whose score rows are stored interleaved for the CPU, so that one load fills a vector with
# them: a multiple of every vector length there is (AVX-512 holds 16 floats).
CPU_PANEL = 16

Storage = Literal["float32", "float16", "int8"]
STORAGES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}


class HeadMaps(NamedTuple):
    """The dense output of the five 1x1 convolutions, in the official order (Figure 3d of the paper)."""

    score: Tensor
    """(B, N, H, W), how likely the landmark lies in the cell; trained towards 0 and 1, not bounded."""
    offset_x: Tensor
    """(B, N, H, W), x of the landmark from the cell's left edge, in cells."""
    offset_y: Tensor
    """(B, N, H, W), y of the landmark from the cell's top edge, in cells."""
    neighbor_x: Tensor
    """(B, N * K, H, W), channel n * K + k: x of neighbor k of landmark n from the left edge of n's cell."""
    neighbor_y: Tensor
    """(B, N * K, H, W), the same for y."""


class Landmarks(NamedTuple):
    """Decoded landmarks of a batch of crops."""

    points_frac: Tensor
    """(B, N, 2) float32, x before y, in fractions of the crop; not clamped, may leave 0..1."""
    scores: Tensor
    """(B, N) float32, the score of each landmark's winning cell, as the network gave it."""


class HeadWeights(NamedTuple):
    """The head's five convolutions, packed for the fused operation: one landmark's rows lie together.

    Packed once per change of the weights (``PIPNet.head``), on the device and in the dtype of the model.
    On the CPU reading the weights costs as much as the arithmetic, so they may be stored smaller (``stored_as``).
    """

    score_weight: Tensor
    """(ceil(N / L), C, L): score rows of L landmarks interleaved; L = 16 on the CPU, 1 elsewhere."""
    score_bias: Tensor
    """(ceil(N / L) * L,); entries beyond N are padding."""
    vote_weight: Tensor
    """(N, R, C): rows 2v and 2v + 1 give x and y of vote v."""
    vote_bias: Tensor
    """(N, R)."""
    score_scale: Tensor | None = None
    """(ceil(N / L) * L,): what the score rows are to be multiplied by; None for 1. int8 only."""
    vote_scale: Tensor | None = None
    """(N, R): the same for the vote rows."""

    @property
    def num_landmarks(self) -> int:
        """N."""
        return self.vote_weight.shape[0]

    @property
    def num_neighbors(self) -> int:
        """K."""
        return self.vote_weight.shape[1] // 2 - 1

    def stored_as(self, storage: Storage) -> "HeadWeights":
        """The same float32 head on the CPU with its weights, not its biases, stored in another type.

        Args:
            storage: ``"float32"``; ``"float16"``, half the memory, rounded to 11 bits; or ``"int8"``, a quarter,
                each row rounded to 255 steps of its own largest magnitude.

        Raises:
            ValueError: an unknown storage, or weights that it cannot hold.
            TypeError: a head that is not in float32 on the CPU.
        """
        if storage not in STORAGES:
            raise ValueError(f"stored_as: storage: expected one of {list(STORAGES)}, got {storage!r}")
        if self.vote_weight.dtype != torch.float32 or self.vote_weight.device.type != "cpu":
            raise TypeError(
                f"stored_as: expected a head in float32 on the CPU, got {self.vote_weight.dtype} on "
                f"{self.vote_weight.device}"
            )
        if storage == "float32":
            return self
        limit = torch.finfo(torch.float16 if storage == "float16" else torch.float32).max
        for name, weight in (("score_weight", self.score_weight), ("vote_weight", self.vote_weight)):
            most = float(weight.abs().max())
            if not most <= limit:
                raise ValueError(f"stored_as: expected {name} that {storage} can hold, got a magnitude of {most}")
        if storage == "float16":
            return self._replace(score_weight=self.score_weight.half(), vote_weight=self.vote_weight.half())
        score_weight, score_scale = _as_int8(self.score_weight, dim=1)
        vote_weight, vote_scale = _as_int8(self.vote_weight, dim=2)
        return HeadWeights(
            score_weight, self.score_bias, vote_weight, self.vote_bias, score_scale.flatten(), vote_scale
        )


def pack_head(weights: HeadMaps, biases: HeadMaps) -> HeadWeights:
    """Pack the weights (rows, C) and biases (rows,) of the five 1x1 convolutions, given in map order.

    ``score`` and the offsets have N rows, the neighbors N * K; all on one device and of one dtype.
    """
    num_landmarks, channels = weights.score.shape
    vote_weight, vote_bias = _pair_rows(weights), _pair_rows(biases)

    panel = CPU_PANEL if weights.score.device.type == "cpu" else 1
    padding = -num_landmarks % panel
    score_weight = torch.nn.functional.pad(weights.score, (0, 0, 0, padding))
    score_weight = score_weight.reshape(-1, panel, channels).transpose(1, 2).contiguous()
    score_bias = torch.nn.functional.pad(biases.score, (0, padding)).contiguous()
    return HeadWeights(score_weight, score_bias, vote_weight, vote_bias)


def _as_int8(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Rows along ``dim`` as int8, and what to multiply them by to have them back."""
    scale = weight.abs().amax(dim) / 127
    scale = torch.where(scale > 0, scale, 1.0)
    return (weight / scale.unsqueeze(dim)).round().to(torch.int8), scale


def _pair_rows(maps: HeadMaps) -> Tensor:
    """Interleave the x and y rows of each landmark's votes: (N, R, ...)."""
    num_landmarks, *row = maps.offset_x.shape
    num_neighbors = maps.neighbor_x.shape[0] // num_landmarks
    x = torch.cat((maps.offset_x.unsqueeze(1), maps.neighbor_x.reshape(num_landmarks, num_neighbors, *row)), dim=1)
    y = torch.cat((maps.offset_y.unsqueeze(1), maps.neighbor_y.reshape(num_landmarks, num_neighbors, *row)), dim=1)
    return torch.stack((x, y), dim=2).flatten(1, 2).contiguous()
