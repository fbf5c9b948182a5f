"""What stands before and after an engine that knows arrays only: normalization and decoding in NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import pipnet_fast as pf
from bench.dense import padded_votes
from bench.networks import Crops
from bench.task import Points
from pipnet_fast.pipeline.images import IMAGENET_MEAN, IMAGENET_STD

Floats = npt.NDArray[np.float32]

MEAN_255 = np.array(IMAGENET_MEAN, np.float32) * 255
SCALE_255 = 1 / (np.array(IMAGENET_STD, np.float32) * 255)


def normalized(crops: Crops) -> Floats:
    """Crops (B, S, S, 3) as the network takes them, (B, 3, S, S), contiguous."""
    x = crops.astype(np.float32)
    x -= MEAN_255
    x *= SCALE_255
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


class NumpyDecode:
    """Maps to landmarks, a whole batch in a dozen array operations."""

    def __init__(self, model: pf.PIPNet) -> None:
        """Take the neighbors and the size of the crop from ``model``."""
        self._size = model.config.input_size
        self._received = padded_votes(model.table.neighbors.numpy())

    def __call__(self, maps: Sequence[npt.NDArray[Any]]) -> Points:
        """Landmarks (B, N, 2) in px of the crop from the five maps (B, N or N * K, H, W)."""
        score, *offsets = maps
        batch, landmarks, height, width = score.shape
        cell = score.reshape(batch, landmarks, -1).argmax(axis=2)
        near = np.repeat(cell, offsets[2].shape[1] // landmarks, axis=1)
        axes = []
        for own, neighbor, count, corner in (
            (offsets[0], offsets[2], width, np.remainder),
            (offsets[1], offsets[3], height, np.floor_divide),
        ):
            votes = self._at(own, cell) + corner(cell, width)
            received = (self._at(neighbor, near) + corner(near, width))[:, self._received]
            merged = (votes + received.sum(axis=2)) / (1 + received.shape[2])
            axes.append(merged * (self._size / count))
        return np.stack(axes, axis=2)

    @staticmethod
    def _at(plane: npt.NDArray[Any], cell: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        flat = plane.reshape(*plane.shape[:2], -1)
        return np.take_along_axis(flat, cell[:, :, None], axis=2)[:, :, 0]
