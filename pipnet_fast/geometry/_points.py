"""Checks of landmarks at the door."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def as_landmarks(operation: str, landmarks: Any, count: int | None = None) -> Floats:
    """Landmarks as an array (..., N, 2) of floats, of their own type where it is one.

    Raises:
        ValueError: no numbers, another shape, or another N than ``count``.
    """
    points = np.asarray(landmarks)
    wanted = f"(..., {'N' if count is None else count}, 2)"
    fits = points.ndim >= 2 and points.shape[-1] == 2 and points.shape[-2] >= 1
    if not fits or points.dtype.kind not in "iuf" or count not in (None, points.shape[-2]):
        raise ValueError(
            f"{operation}: landmarks: expected numbers of shape {wanted}, got {points.dtype} {points.shape}"
        )
    return points if points.dtype.kind == "f" else points.astype(np.float64)


def as_faces(operation: str, landmarks: Floats) -> npt.NDArray[np.float64]:
    """Finite float64 landmarks (n, N, 2), contiguous as OpenCV needs them, of one face (N, 2) or of faces (n, N, 2).

    Raises:
        ValueError: more dimensions, or a value that is not finite.
    """
    if landmarks.ndim > 3:
        raise ValueError(f"{operation}: landmarks: expected (N, 2) or (n, N, 2), got {landmarks.shape}")
    faces = np.ascontiguousarray(landmarks, dtype=np.float64).reshape(-1, *landmarks.shape[-2:])
    bad = ~np.isfinite(faces)
    if bad.any():
        face, landmark, _ = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"{operation}: landmarks: expected finite numbers, got {faces[face, landmark].tolist()} at landmark "
            f"{landmark} of face {face}"
        )
    return faces


def select(operation: str, table: dict[str, Any], layout: Any) -> Any:
    """What a table has for a layout.

    Raises:
        ValueError: it has nothing.
    """
    if not isinstance(layout, str) or layout not in table:
        raise ValueError(f"{operation}: layout: expected one of {', '.join(table)}, got {layout!r}")
    return table[layout]
