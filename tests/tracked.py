"""Faces of three dots that move over frames, and a landmarker that sees them, and nothing else, in no time."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.ops import Landmarks

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

SIZE = 64
HEIGHT, WIDTH = 120, 160
# About a face's center, in sides of it: a red, a green and a blue dot.
SHAPE = np.array([[-0.5, -0.5], [0.5, -0.4], [0.0, 0.5]])
SIDE = 24.0


def face_points(x: float, y: float, side: float = SIDE) -> Floats:
    """(3, 2) continuous px."""
    return np.array([x, y]) + SHAPE * side


def frame(*faces: Floats, background: Pixels | None = None) -> Pixels:
    """An RGB image (HEIGHT, WIDTH, 3) of faces (3, 2)."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32) if background is None else background.astype(np.float32)
    for points in faces:
        for channel, (px, py) in enumerate(points):
            across = np.exp(-((np.arange(WIDTH) + 0.5 - px) ** 2) / 8)
            down = np.exp(-((np.arange(HEIGHT) + 0.5 - py) ** 2) / 8)
            image[..., channel] += 250 * np.outer(down, across)
    return image.clip(0, 255).round().astype(np.uint8)


class Detector:
    """Finds every face that is wholly in the image, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Pixels) -> list[list[float]]:
        self.calls += 1
        red, green, blue = (blobs(image[..., channel]) for channel in range(3))
        if not (len(red) and len(green) and len(blue)):
            return []
        to_green, to_blue = (SHAPE[1:] - SHAPE[0]) * SIDE
        corners = [np.stack((r, nearest(green, r + to_green), nearest(blue, r + to_blue))) for r in red]
        boxes = [[*points.min(axis=0), *points.max(axis=0)] for points in corners]
        return [box for box in boxes if SIDE / 2 < box[2] - box[0] < 2 * SIDE]


def blobs(channel: Pixels) -> Floats:
    """(n, 2) centers of what is bright."""
    count, _, _, middles = cv2.connectedComponentsWithStats((channel > 120).astype(np.uint8))
    return middles[1:count] + 0.5


def nearest(points: Floats, point: Floats) -> Floats:
    return points[np.linalg.norm(points - point, axis=1).argmin()]


def see(crops: Tensor | Pixels) -> Landmarks:
    """Of each channel the brightest dot, and how bright it is."""
    images = np.asarray(crops)
    points, scores = np.zeros((len(images), 3, 2), np.float32), np.zeros((len(images), 3), np.float32)
    for index, crop in enumerate(images):
        soft = cv2.GaussianBlur(crop, (5, 5), 0)
        for channel in range(3):
            _, _, _, (x, y) = cv2.minMaxLoc(soft[..., channel])
            top, left = max(y - 7, 0), max(x - 7, 0)
            moments = cv2.moments(crop[top : y + 8, left : x + 8, channel])
            middle = np.array([moments["m10"], moments["m01"]]) / max(moments["m00"], 1e-9)
            points[index, channel] = (middle + np.array([left, top]) + 0.5) / SIZE
            scores[index, channel] = crop[y, x, channel] / 255
    return Landmarks(torch.from_numpy(points), torch.from_numpy(scores))


def dot_landmarker(detector: Any = None, **options: Any) -> pf.FaceLandmarker:
    """A landmarker whose network is ``see``."""
    model = pf.PIPNet(
        num_landmarks=3, num_neighbors=0, width=0.0625, input_size=SIZE, mean_shape=SHAPE + 0.5, crop=pf.CropRule(1.4)
    )
    landmarker = pf.FaceLandmarker(model, detector=detector or Detector(), device="cpu", color="rgb", **options)
    landmarker.runtime = see  # type: ignore[assignment]
    return landmarker


def near(found: pf.Faces, *expected: Floats, atol: float = 1.0) -> None:
    """Faces in the order of their ids are where they should be."""
    assert len(found) == len(expected)
    if expected:
        np.testing.assert_allclose(found.landmarks, np.stack(expected), atol=atol)


def ids(found: Sequence[pf.Faces]) -> list[list[int]]:
    return [faces.ids.tolist() for faces in found]
