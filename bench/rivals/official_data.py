"""The steps by which the official code makes a training sample, one after the other, and its loops over landmarks.

Written anew after what that code does: crops of 256x256 lie on disk as JPEG; each is shifted, occluded, mirrored,
turned and blurred by Pillow and NumPy, grayed, made a normalized tensor; five dense target maps are filled in loops.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from pipnet_fast.ops import HeadMaps
from pipnet_fast.pipeline.images import IMAGENET_MEAN, IMAGENET_STD

Points = npt.NDArray[np.float64]


class OfficialData:
    """Samples of stored crops: a normalized image (3, S, S), and target maps."""

    def __init__(
        self,
        files: Sequence[Path],
        points_frac: Points,
        flip: npt.NDArray[np.int64],
        neighbors: Sequence[Sequence[int]],
        *,
        stride: int = 32,
        augment: bool = True,
        targets: bool = True,
    ) -> None:
        """``points_frac`` (n, N, 2) of the crops in ``files``; ``neighbors`` N x K; the rest switches steps off."""
        self.files, self.points_frac, self.flip, self.neighbors = files, points_frac, flip, neighbors
        self.stride, self.augment, self.targets = stride, augment, targets
        self.random = random.Random(0)
        self._mean, self._std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))

    def batch(self, indices: Sequence[int]) -> list[Tensor]:
        """Crops (B, 3, S, S), and the five target maps, each stacked."""
        return [torch.stack(parts) for parts in zip(*map(self.sample, indices), strict=True)]

    def sample(self, index: int) -> list[Tensor]:
        """One crop, and its target maps."""
        with Image.open(self.files[index]) as file:
            image = file.convert("RGB")
        points = self.points_frac[index]
        if self.augment:
            image, points = self._shifted(image, points)
            image = self._occluded(image)
            image, points = self._mirrored(image, points)
            image, points = self._turned(image, points)
            if self.random.random() > 0.7:
                image = image.filter(ImageFilter.GaussianBlur(5 * self.random.random()))
        maps = self._maps(points, image.width // self.stride) if self.targets else []
        if self.augment and self.random.random() < 0.2:
            gray = np.array(image.convert("L"))
            image = Image.fromarray(np.dstack((gray, gray, gray)))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return [pixels.sub_(self._mean).div_(self._std), *maps]

    def _shifted(self, image: Image.Image, points: Points) -> tuple[Image.Image, Points]:
        if self.random.random() <= 0.5:
            return image, points
        dx, dy = (int(60 * (self.random.random() - 0.5)) for _ in range(2))
        image = image.transform(image.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy))
        moved = points - np.array([dx / image.width, dy / image.height])
        return image, moved.clip(0, 1)

    def _occluded(self, image: Image.Image) -> Image.Image:
        if self.random.random() <= 0.5:
            return image
        pixels = np.array(image)
        height, width = (int(0.4 * side * self.random.random()) for side in pixels.shape[:2])
        x = int((image.width - width - 10) * self.random.random())
        y = int((image.height - height - 10) * self.random.random())
        for channel in range(3):
            pixels[y : y + height, x : x + width, channel] = int(255 * self.random.random())
        return Image.fromarray(pixels)

    def _mirrored(self, image: Image.Image, points: Points) -> tuple[Image.Image, Points]:
        if self.random.random() <= 0.5:
            return image, points
        points = points[self.flip]
        points[:, 0] = 1 - points[:, 0]
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), points

    def _turned(self, image: Image.Image, points: Points) -> tuple[Image.Image, Points]:
        if self.random.random() <= 0.5:
            return image, points
        degrees = self.random.uniform(-30, 30)
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return image.rotate(degrees), (points - 0.5) @ np.array([[cosine, -sine], [sine, cosine]]) + 0.5

    def _maps(self, points: Points, side: int) -> HeadMaps:
        """One value after the other, as its dataset class fills them."""
        count, near = len(points), len(self.neighbors[0])
        score, x_map, y_map = (np.zeros((count, side, side)) for _ in range(3))
        near_x, near_y = (np.zeros((count * near, side, side)) for _ in range(2))
        for n in range(count):
            column = min(max(0, math.floor(points[n][0] * side)), side - 1)
            row = min(max(0, math.floor(points[n][1] * side)), side - 1)
            score[n, row, column] = 1
            x_map[n, row, column] = points[n][0] * side - column
            y_map[n, row, column] = points[n][1] * side - row
            for k in range(near):
                neighbor = points[self.neighbors[n][k]]
                near_x[near * n + k, row, column] = neighbor[0] * side - column
                near_y[near * n + k, row, column] = neighbor[1] * side - row
        return HeadMaps(*(torch.from_numpy(values).float() for values in (score, x_map, y_map, near_x, near_y)))
