"""From face boxes to crops and back: all box arithmetic of the package.

Pixel coordinates are continuous: pixel i covers [i, i + 1), its center is i + 0.5. OpenCV counts from the
pixel centers instead, so a matrix is shifted by half a pixel where it meets OpenCV, and only there.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Image = npt.NDArray[np.uint8]

PixelBase = Literal["continuous", "center"]


@dataclass(frozen=True)
class CropRule:
    """How a model's crop follows from a tight face box; a model is only good on the crops it was trained with.

    Attributes:
        scale: total growth of both sides about the box's center, 1.2 adds a tenth on every side.
        top_shift: how far the crop's top edge is moved down, as a share of the tight box's height (the paper's
            section 3.4 cuts 0.2 off WFLW's boxes).
        pixel_base: what a fraction f of the crop's side S means: ``"continuous"``, the point f * S from the
            crop's edge; ``"center"``, the center of pixel number f * S, counted from 0.
    """

    scale: float = 1.2
    top_shift: float = 0.0
    pixel_base: PixelBase = "continuous"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("scale", "top_shift"):
            if not isinstance(getattr(self, name), (int, float)):
                raise TypeError(f"CropRule: {name}: expected a number, got {getattr(self, name)!r}")
        if not 0 < self.scale <= 10:
            raise ValueError(f"CropRule: scale: expected 0 < scale <= 10, got {self.scale!r}")
        if not -1 <= self.top_shift < self.scale:
            raise ValueError(f"CropRule: top_shift: expected -1 <= top_shift < scale, got {self.top_shift!r}")
        if self.pixel_base not in get_args(PixelBase):
            raise ValueError(f"CropRule: pixel_base: expected one of {get_args(PixelBase)}, got {self.pixel_base!r}")

    def apply(self, boxes: Floats) -> npt.NDArray[np.float64]:
        """Crop boxes (n, 4) of tight face boxes (n, 4 or more), x0, y0, x1, y1 in px; not clipped to the image."""
        boxes = np.asarray(boxes, dtype=np.float64)
        if boxes.ndim != 2 or boxes.shape[1] < 4:
            raise ValueError(f"CropRule: boxes: expected shape (n, 4 or more), got {boxes.shape}")
        x0, y0, x1, y1 = boxes[:, :4].T
        width, height = x1 - x0, y1 - y0
        grow_x, grow_y = width * (self.scale - 1) / 2, height * (self.scale - 1) / 2
        top = y0 - grow_y + height * self.top_shift
        return np.stack((x0 - grow_x, top, x1 + grow_x, y1 + grow_y), axis=1)

    def affine(self, crop_boxes: Floats, size: int) -> npt.NDArray[np.float64]:
        """Matrices (n, 2, 3) from image px to px of crops of ``size``, both continuous."""
        x0, y0, x1, y1 = np.asarray(crop_boxes, dtype=np.float64).T
        scale_x, scale_y = size / (x1 - x0), size / (y1 - y0)
        shift = self._half_pixel
        zero = np.zeros_like(scale_x)
        return np.stack(
            (
                np.stack((scale_x, zero, shift - x0 * scale_x), axis=1),
                np.stack((zero, scale_y, shift - y0 * scale_y), axis=1),
            ),
            axis=1,
        )

    def to_image(self, points_frac: Floats, affine: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
        """Points (n, N, 2) in image px from fractions of crops that were cut with ``affine`` (n, 2, 3)."""
        crop_px = np.asarray(points_frac, dtype=np.float64) * size + self._half_pixel
        inverse = np.linalg.inv(affine[:, :, :2])
        points: npt.NDArray[np.float64] = np.einsum("nij,nkj->nki", inverse, crop_px - affine[:, None, :, 2])
        return points

    @property
    def _half_pixel(self) -> float:
        return 0.5 if self.pixel_base == "center" else 0.0


def tight_boxes(landmarks: Floats) -> npt.NDArray[np.float64]:
    """Tight boxes (n, 4) of landmarks (n, N, 2)."""
    landmarks = np.asarray(landmarks, dtype=np.float64)
    return np.concatenate((landmarks.min(axis=1), landmarks.max(axis=1)), axis=1)


def warp(image: Image, affine: Floats, size: int) -> Image:
    """Cut a crop (size, size, c) out of an image (h, w, c) by a matrix (2, 3) without rotation; black outside.

    Bilinear. Where the crop shrinks the image to less than half, the image is averaged down first, so that
    large faces do not alias.
    """
    height, width = image.shape[:2]
    scale = np.array([affine[0, 0], affine[1, 1]])
    offset = np.asarray(affine)[:, 2]
    # Only the part that the crop shows, with a margin for the interpolation.
    low = np.floor((0 - offset) / scale).clip(-1e9, 1e9).astype(np.int64) - 2
    high = np.ceil((size - offset) / scale).clip(-1e9, 1e9).astype(np.int64) + 2
    x0, y0 = low.clip(0, [width, height])
    x1, y1 = high.clip(0, [width, height])
    if x1 <= x0 or y1 <= y0:
        return np.zeros((size, size, *image.shape[2:]), dtype=np.uint8)
    part = image[y0:y1, x0:x1]
    offset = offset + scale * (x0, y0)

    shrink = np.maximum(1.0, np.floor(1 / scale))
    if (shrink > 1).any():
        target = np.maximum(1, np.ceil((part.shape[1], part.shape[0]) / shrink)).astype(int)
        scale = scale * (part.shape[1], part.shape[0]) / target
        smaller = cv2.resize(part, (int(target[0]), int(target[1])), interpolation=cv2.INTER_AREA)
        part = smaller.astype(np.uint8, copy=False)
    # Continuous to OpenCV's pixel centers: c = s * p + o becomes c' = s * p' + o + (s - 1) / 2.
    matrix = np.array([[scale[0], 0, offset[0] + (scale[0] - 1) / 2], [0, scale[1], offset[1] + (scale[1] - 1) / 2]])
    crop = cv2.warpAffine(part, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    # OpenCV drops a channel axis of 1.
    return crop.astype(np.uint8, copy=False).reshape(size, size, *image.shape[2:])
