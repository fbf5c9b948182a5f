"""Faces whose images are made up in memory, and pictures in which every landmark can be found again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import CropRule, Image
from pipnet_fast.data import FaceData, Sample
from pipnet_fast.layouts import Layout

# Landmarks 0 and 1 are each other's mirror, 2 its own.
THREE = Layout("three", np.array([1, 0, 2]), (0, 1))
SPREAD_PX = 4.0


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that is there already; None cannot be read."""

    name: str
    image: Image | None

    def read(self) -> Image:
        if self.image is None:
            raise OSError("the disk is gone")
        return self.image

    def __str__(self) -> str:
        return self.name


def dots(points: npt.NDArray[np.floating[Any]], height: int, width: int) -> Image:
    """A soft dot at each of three points, continuous px: the first in red, the second in green, the third in blue."""
    y, x = np.mgrid[:height, :width] + 0.5
    # A missing one is nowhere near.
    squares = [(x - px) ** 2 + (y - py) ** 2 for px, py in np.nan_to_num(points, nan=-1e3)]
    return np.stack([np.round(250 * np.exp(-s / 2 / SPREAD_PX**2)) for s in squares], axis=2).astype(np.uint8)


def centers(crop: Image) -> npt.NDArray[np.float64]:
    """(3, 2) centers of what is in each channel, continuous px."""
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]] + 0.5
    weights = crop.astype(np.float64)
    total = weights.sum(axis=(0, 1))
    return (
        np.stack(((weights * x[..., None]).sum(axis=(0, 1)), (weights * y[..., None]).sum(axis=(0, 1))), axis=1)
        / (total[:, None])
    )


def face(
    name: str,
    points: Any = ((60.3, 70.9), (130.2, 66.4), (101.7, 120.1)),
    image: Image | None = None,
    readable: bool = True,
) -> Sample:
    """A face with its dots, in a box about the three points, in an image of 200x180."""
    landmarks = None if points is None else np.array(points, dtype=np.float64)
    if image is None and readable:
        image = np.zeros((180, 200, 3), np.uint8) if landmarks is None else dots(landmarks, 180, 200)
    return Sample(Picture(name, image), landmarks, np.array([40.5, 40.25, 160.75, 140.0]))


def data(samples: Sequence[Sample]) -> FaceData:
    return FaceData("made/up", THREE, samples, CropRule(1.2))


def numbered(count: int, broken: Sequence[int] = ()) -> FaceData:
    """Faces whose images are noise, each its own."""
    random = np.random.default_rng(5)
    images = [random.integers(0, 256, (180, 200, 3), np.uint8) for _ in range(count)]
    return data([face(f"{i}.png", image=images[i] if i not in broken else None, readable=False) for i in range(count)])
