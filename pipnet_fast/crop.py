"""From face boxes to crops and back: all box arithmetic of the package.

Pixel coordinates are continuous: pixel i covers [i, i + 1), its center is i + 0.5. OpenCV counts from the
pixel centers instead, so a matrix is shifted by half a pixel where it meets OpenCV, and only there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
# (2, 3), or (n, 2, 3) of as many faces: the first two columns turn and scale, the last one shifts.
Affine = npt.NDArray[np.float64]
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

    def affine(self, crop_boxes: Floats, size: int) -> Affine:
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

    def to_crop(self, points: Floats, affine: Affine, size: int) -> npt.NDArray[np.float64]:
        """Fractions of crops that ``affine`` (n, 2, 3) cuts, of points (n, N, 2) in image px; NaN stays NaN."""
        points_frac: npt.NDArray[np.float64] = (transform(affine, points) - self._half_pixel) / size
        return points_frac

    def to_image(self, points_frac: Floats, affine: Affine, size: int) -> npt.NDArray[np.float64]:
        """Points (n, N, 2) in image px from fractions of crops that were cut with ``affine`` (n, 2, 3)."""
        crop_px = self.crop_px(points_frac, size)
        inverse = np.linalg.inv(affine[:, :, :2])
        points: npt.NDArray[np.float64] = np.einsum("nij,nkj->nki", inverse, crop_px - affine[:, None, :, 2])
        return points

    def crop_px(self, points_frac: Floats, size: int) -> npt.NDArray[np.float64]:
        """Continuous px of a crop of ``size`` that fractions (..., 2) of it mean."""
        points_px: npt.NDArray[np.float64] = np.asarray(points_frac, dtype=np.float64) * size + self._half_pixel
        return points_px

    @property
    def _half_pixel(self) -> float:
        return 0.5 if self.pixel_base == "center" else 0.0


def fit_crop_rule(tight: Floats, crops: Floats) -> CropRule:
    """The rule that maps tight face boxes best to the crops that a data set has of its own, in the median over faces.

    A model that was trained on crops which follow from other boxes is used with tight ones: by this rule.

    Args:
        tight: (n, 4) tight boxes of the landmarks, px, n >= 1.
        crops: (n, 4) crop boxes of the same faces, px.
    """
    sides = np.concatenate((tight[:, 2:] - tight[:, :2],) * 2, axis=1)
    left, top, right, bottom = ((crops - tight) / sides * [-1, -1, 1, 1]).T
    grow = float(np.median(np.concatenate((left, right, bottom))))
    return CropRule(scale=1 + 2 * grow, top_shift=grow - float(np.median(top)))


def tight_boxes(landmarks: Floats) -> npt.NDArray[np.float64]:
    """Tight boxes (n, 4) of landmarks (n, N, 2)."""
    landmarks = np.asarray(landmarks, dtype=np.float64)
    return np.concatenate((landmarks.min(axis=1), landmarks.max(axis=1)), axis=1)


def transform(affine: Affine, points: Floats) -> npt.NDArray[np.float64]:
    """Points (..., N, 2) mapped by matrices (..., 2, 3)."""
    mapped: npt.NDArray[np.float64] = points @ affine[..., :2].swapaxes(-1, -2) + affine[..., None, :, 2]
    return mapped


def compose(outer: Affine, inner: Affine) -> Affine:
    """The matrix (2, 3) that maps by ``inner`` first and by ``outer`` then."""
    composed: Affine = outer[:, :2] @ inner
    composed[:, 2] += outer[:, 2]
    return composed


def about_center(size: int, *, shift_px: tuple[float, float], flip: bool, rotation_deg: float, scale: float) -> Affine:
    """Matrix (2, 3) from px of a crop of ``size`` to px of the same crop: shifted, mirrored, turned, enlarged.

    Args:
        size: side of the crop in px.
        shift_px: x and y, added first.
        flip: whether left and right change places.
        rotation_deg: about the crop's center, counterclockwise as one sees it.
        scale: about the crop's center, above 1 shows a smaller part, larger.
    """
    angle, mirror, center = math.radians(rotation_deg), -1.0 if flip else 1.0, size / 2
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    x, y = mirror * (shift_px[0] - center), shift_px[1] - center
    return np.array(
        [
            [mirror * cosine, sine, cosine * x + sine * y + center],
            [-mirror * sine, cosine, -sine * x + cosine * y + center],
        ]
    )


def warp(image: Image, affine: Affine, size: int) -> Image:
    """Cut a crop (size, size, c) out of an image (h, w, c) by a matrix (2, 3), image px to crop px; black outside.

    Bilinear. Where the crop shrinks the image to less than half, the image is averaged down first, so that
    large faces do not alias.
    """
    part, affine = cut_part(image, affine, size)
    if not part.size:
        return np.zeros((size, size, *image.shape[2:]), dtype=np.uint8)
    # Continuous to OpenCV's pixel centers: c = M p + o becomes c' = M p' + o + (M (1, 1) - (1, 1)) / 2.
    matrix = affine.copy()
    matrix[:, 2] += (affine[:, 0] + affine[:, 1] - 1) / 2
    crop = cv2.warpAffine(part, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    # OpenCV drops a channel axis of 1.
    return crop.astype(np.uint8, copy=False).reshape(size, size, *image.shape[2:])


def cut_part(image: Image, affine: Affine, size: int, *, reach: float = 0.0, zoom: float = 1.0) -> tuple[Image, Affine]:
    """What crops near one crop need of an image: a part of it, averaged down where all of them shrink it by half.

    Args:
        image: (h, w, c).
        affine: (2, 3), image px to px of the one crop.
        size: side of the crops in px.
        reach: how far the others show more than the one on each side, in fractions of the side.
        zoom: how much larger, 1 or more, they may show the image.

    Returns:
        The part, empty where nothing of the image is shown, perhaps a view of the image; and the matrix (2, 3) from
        its px to px of the one crop.
    """
    # In plain numbers, for on arrays of two most of the time would go to NumPy's calls.
    (a, b, offset_x), (c, d, offset_y) = affine.tolist()
    # A pixel's extents in the crop, and the rotation, perhaps mirrored, that is left of the matrix without them.
    scale_x, scale_y = math.hypot(a, c), math.hypot(b, d)
    turn = ((a / scale_x, b / scale_y), (c / scale_x, d / scale_y))
    determinant = turn[0][0] * turn[1][1] - turn[0][1] * turn[1][0]
    low, high = -reach * size, (1 + reach) * size
    corners = [(u - offset_x, v - offset_y) for u in (low, high) for v in (low, high)]
    height, width = image.shape[:2]
    x0, x1 = _span([(turn[1][1] * u - turn[0][1] * v) / determinant / scale_x for u, v in corners], width)
    y0, y1 = _span([(turn[0][0] * v - turn[1][0] * u) / determinant / scale_y for u, v in corners], height)
    part = image[y0:y1, x0:x1]
    offset_x, offset_y = offset_x + (a * x0 + b * y0), offset_y + (c * x0 + d * y0)

    shrink_x, shrink_y = (max(1.0, math.floor(1 / (scale * zoom))) for scale in (scale_x, scale_y))
    if part.size and max(shrink_x, shrink_y) > 1:
        height, width = part.shape[:2]
        new_width, new_height = math.ceil(width / shrink_x), math.ceil(height / shrink_y)
        a, c, b, d = a * width / new_width, c * width / new_width, b * height / new_height, d * height / new_height
        part = cv2.resize(part, (new_width, new_height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return part, np.array([[a, b, offset_x], [c, d, offset_y]])


def _span(values: Sequence[float], limit: int) -> tuple[int, int]:
    """First and last but one of the pixels 0 to ``limit`` that hold the values, with a margin to interpolate."""
    first, end = math.floor(max(min(values), -1e9)) - 2, math.ceil(min(max(values), 1e9)) + 2
    return min(max(first, 0), limit), min(max(end, 0), limit)
