"""The implicit prior: where a model sees landmarks when there is no face (section 3.4, Figure 9).

Zero padding tells a convolutional network where in the crop it looks, so it learns where landmarks usually are besides
what they look like. Pictures without a face show that part alone.
"""

import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipnet_fast.data.readers import open_data
from pipnet_fast.evaluate.predict import Run
from pipnet_fast.layouts import MeanShape

Floats = npt.NDArray[np.float64]
Crops = npt.NDArray[np.uint8]

Plain = Literal["black", "gray", "noise"]

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Prior:
    """What a model sees in pictures without a face. Lengths are fractions of the crop's side.

    Attributes:
        model: its name.
        pictures: what they are.
        crops: (P, S, S, 3) the pictures.
        points_frac: (P, N, 2) float64, its predictions.
        mean_shape: (N, 2), the mean of the labels that it was trained with; None where not known.
    """

    model: str
    pictures: str
    crops: Crops
    points_frac: Floats
    mean_shape: MeanShape | None

    @property
    def distance(self) -> float | None:
        """Mean distance of a prediction from the mean shape, not aligned; None without a mean shape."""
        if self.mean_shape is None:
            return None
        return float(np.linalg.norm(self.points_frac - self.mean_shape, axis=2).mean())

    @property
    def spread(self) -> float | None:
        """Mean distance of a prediction from the landmark's mean over the pictures; None for one picture."""
        if len(self.points_frac) < 2:
            return None
        return float(np.linalg.norm(self.points_frac - self.points_frac.mean(axis=0), axis=2).mean())

    def row(self) -> dict[str, Any]:
        """The numbers as plain values, rounded, None where not known."""
        numbers = {"distance": self.distance, "spread": self.spread}
        return {
            "model": self.model,
            "pictures": self.pictures,
            "count": len(self.crops),
            **{name: None if value is None else round(value, 5) for name, value in numbers.items()},
        }


def implicit_prior(model: str, run: Run, pictures: str, crops: Crops, mean_shape: MeanShape | None = None) -> Prior:
    """Predict landmarks where there are none.

    Args:
        model: its name, for tables.
        run: what runs it, such as ``compile(model)``.
        pictures: what they are, for tables.
        crops: (P, S, S, 3) of uint8, RGB, P >= 1, as ``faceless`` makes them; S the model's input size.
        mean_shape: (N, 2) of the crops that the model was trained with; ``PIPNet.mean_shape``.

    Raises:
        ValueError: no picture, or a mean shape of another number of landmarks.
    """
    if not len(crops):
        raise ValueError("implicit_prior: crops: expected P >= 1 pictures, got none")
    with torch.no_grad():
        parts = [run(part).points_frac.double().cpu() for part in torch.split(torch.from_numpy(crops), _BATCH)]
    points_frac = torch.cat(parts).numpy()
    if mean_shape is not None and mean_shape.shape != points_frac.shape[1:]:
        raise ValueError(
            f"implicit_prior: mean_shape: expected {points_frac.shape[1:]} as {model} has, got {mean_shape.shape}"
        )
    return Prior(model, pictures, crops, points_frac, mean_shape)


def faceless(pictures: str | os.PathLike[str], size: int, count: int = 16, seed: int = 0) -> Crops:
    """Pictures without a face, (P, size, size, 3) of uint8, RGB.

    Args:
        pictures: "black" or "gray", which is one picture; "noise", every value independent and uniform; or a folder, of
            whose images, and of whose videos' frames, some are taken as whole crops, spread evenly over it.
        size: side in px.
        count: how many of noise, and at most of a folder.
        seed: of the noise.

    Raises:
        ValueError: none of these, or a number out of its range.
        DataError: a folder without images.
        ImageError: an image that cannot be read.
    """
    if size < 1 or count < 1:
        raise ValueError(f"faceless: expected size and count >= 1, got {size} and {count}")
    if pictures in ("black", "gray"):
        return np.full((1, size, size, 3), 0 if pictures == "black" else 128, np.uint8)
    if pictures == "noise":
        return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    if not os.path.isdir(pictures):
        known = ", ".join(get_args(Plain))
        raise ValueError(f"faceless: pictures: expected {known} or a folder, got {os.fspath(pictures)!r}")
    samples = open_data("images", pictures, "all").samples
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return np.stack([_resized(samples[i].image.read(), size) for i in places.tolist()])


def _resized(image: Crops, size: int) -> Crops:
    shrinks = min(image.shape[:2]) > size
    # Not a crop's warp, which is black beyond the image and would frame small ones.
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)
