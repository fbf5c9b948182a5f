"""Aligned crops of faces, as networks that recognize faces or swap them take them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import Affine, Image, warp
from pipnet_fast.geometry._points import as_faces, as_landmarks
from pipnet_fast.geometry.five_points import to_5pts

# Where the five points of a face go in crops of a side, continuous px. ArcFace's were published for 112 px and count
# from the center of the first pixel (Deng et al. 2019, section 3).
_TEMPLATES: dict[str, tuple[int, npt.NDArray[np.float64]]] = {
    "arcface": (
        112,
        np.array(
            [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
        )
        + 0.5,
    )
}
# Points closer together than this, px, have no direction that could be measured.
_LEAST_SPREAD_PX = 0.1
_MAX_SIZE = 4096


class AlignedCrops(NamedTuple):
    """Crops of faces, and where they come from.

    Attributes:
        crops: (n, size, size, c) uint8, or (size, size, c) of a single face; black where the image ends.
        affines: (n, 2, 3) float64, or (2, 3): matrices from px of the image to px of the crop, both continuous: the
            center of the first pixel is 0.5. ``crop.transform`` maps points by them. For OpenCV, which counts from that
            center, add half of the first two columns' sum less one to the third: M[:, 2] += (M[:, :2].sum(1) - 1) / 2.
    """

    crops: Image
    affines: Affine


def norm_crop(
    image: Any, landmarks: Any, size: int = 112, mode: str = "arcface", *, layout: str | None = None
) -> AlignedCrops:
    """Cut faces out upright, with eyes, nose and mouth as close to a template's as turning, scaling and shifting bring.

    The similarity is the one of the least squares over the five points (Umeyama 1991, without mirroring).

    Args:
        image: (h, w, c) or (h, w) of uint8; colors stay in their order.
        landmarks: five points, as ``to_5pts`` gives them, or all landmarks of a layout: (n, N, 2) of n faces, or
            (N, 2) of a single one; continuous px of the image.
        size: side of the crops in px. Others than 112 show the same part of the face.
        mode: the template, "arcface".
        layout: of the landmarks, unless they are five points.

    Raises:
        TypeError, ValueError: a bad argument, or points that coincide.
    """
    image = _as_image(image)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _MAX_SIZE:
        raise ValueError(f"norm_crop: size: expected 1 to {_MAX_SIZE} px, got {size!r}")
    if mode not in _TEMPLATES:
        raise ValueError(f"norm_crop: mode: expected one of {', '.join(_TEMPLATES)}, got {mode!r}")
    points = as_landmarks("norm_crop", landmarks)
    if layout is not None:
        points = to_5pts(points, layout)
    elif points.shape[-2] != 5:
        raise ValueError(
            f"norm_crop: landmarks: expected five points, or layout= that tells which landmarks they are, got "
            f"{points.shape[-2]} points"
        )
    faces = as_faces("norm_crop", points)
    side, template = _TEMPLATES[mode]
    affines = similarities(faces, template * (size / side))
    crops = np.zeros((len(faces), size, size, *image.shape[2:]), dtype=np.uint8)
    for crop, affine in zip(crops, affines, strict=True):
        crop[:] = warp(image, affine, size)
    return AlignedCrops(crops[0], affines[0]) if points.ndim == 2 else AlignedCrops(crops, affines)


def similarities(faces: npt.NDArray[np.float64], template: npt.NDArray[np.float64]) -> Affine:
    """Matrices (n, 2, 3) that turn, scale and shift points (n, P, 2) closest to a template (P, 2).

    With x + iy in place of pairs, turning and scaling is one factor, and the least squares give it outright.

    Raises:
        ValueError: a face whose points coincide, or that no turning brings near the template.
    """
    source, target = faces[..., 0] + 1j * faces[..., 1], template[:, 0] + 1j * template[:, 1]
    center, target_center = source.mean(axis=1), target.mean()
    spread, target_spread = source - center[:, None], target - target_center
    size_px = np.sqrt((np.abs(spread) ** 2).mean(axis=1))
    factor = (spread.conj() * target_spread).sum(axis=1) / np.maximum((np.abs(spread) ** 2).sum(axis=1), 1e-12)
    # How much of the template the best fit explains: 1 is all of it.
    alike = np.abs(factor) * size_px / np.sqrt((np.abs(target_spread) ** 2).mean())
    bad = (size_px < _LEAST_SPREAD_PX) | (alike < 0.01)
    if bad.any():
        face = int(np.flatnonzero(bad)[0])
        raise ValueError(
            "norm_crop: landmarks: expected five points as of a face, eye on the image's left first, got "
            f"{faces[face].round(2).tolist()} of face {face}"
        )
    shift = target_center - factor * center
    rows = (np.stack((factor.real, -factor.imag, shift.real), 1), np.stack((factor.imag, factor.real, shift.imag), 1))
    return np.stack(rows, axis=1)


def _as_image(image: Any) -> Image:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"norm_crop: image: expected an array of uint8, got {got}")
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] > 4):
        raise ValueError(f"norm_crop: image: expected (h, w) or (h, w, 1 to 4), got {image.shape}")
    # Views with their channels turned around are not what OpenCV reads.
    return np.ascontiguousarray(image)
