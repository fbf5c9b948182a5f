"""The measures of section 4.1.3 and 4.3.2, in plain NumPy.

Errors are in percent of a distance that belongs to the face, its norm. NaN stands for a landmark that is not labelled,
or a face that cannot be measured, and is left out; an infinite error stands for a face that was not found, which fails
at every threshold but has no part in the mean.
"""

from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from pipnet_fast.data.samples import Norm

Floats = npt.NDArray[np.float64]


def norm_distances(
    truth: npt.NDArray[np.floating[Any]],
    norm: Norm,
    *,
    boxes: npt.NDArray[np.floating[Any]] | None = None,
    outer_eyes: tuple[int, int] | None = None,
) -> Floats:
    """What the errors of each face are divided by (section 4.1.3).

    Args:
        truth: (n, N, 2) labels, NaN where there is none.
        norm: ``"inter_ocular"``, the distance of the outer eye corners; ``"box"``, the square root of the area of the
            face box, the image size of AFLW; ``"diagonal"``, that of the tight box of the labels, as for Menpo 2D.
        boxes: (n, 4) face boxes, for ``"box"``.
        outer_eyes: the landmarks at the outer eye corners, for ``"inter_ocular"``.

    Returns:
        (n,) in the unit of the labels; NaN where it is zero or its labels are missing.

    Raises:
        ValueError: an unknown norm, or one whose boxes or eye corners are not given.
    """
    truth = _points("truth", truth)
    if norm == "inter_ocular":
        if outer_eyes is None:
            raise ValueError("norm_distances: outer_eyes: expected two landmarks for the norm 'inter_ocular', got None")
        distances = np.linalg.norm(truth[:, outer_eyes[0]] - truth[:, outer_eyes[1]], axis=1)
    elif norm == "box":
        if boxes is None or boxes.shape != (len(truth), 4):
            got = None if boxes is None else boxes.shape
            raise ValueError(f"norm_distances: boxes: expected shape {(len(truth), 4)} for the norm 'box', got {got}")
        distances = np.sqrt((boxes[:, 2:] - boxes[:, :2]).astype(np.float64).clip(0).prod(axis=1))
    elif norm == "diagonal":
        labelled = np.isfinite(truth).all(axis=2, keepdims=True)
        low, high = (np.where(labelled, truth, sign * np.inf) for sign in (1, -1))
        # Without labels -inf - inf, which is no positive distance either.
        distances = np.hypot(*(high.max(axis=1) - low.min(axis=1)).clip(0).T)
    else:
        raise ValueError(f"norm_distances: norm: expected one of {get_args(Norm)}, got {norm!r}")
    return np.where(distances > 0, distances, np.nan)


def normalized_errors(
    predicted: npt.NDArray[np.floating[Any]], truth: npt.NDArray[np.floating[Any]], distances: Floats
) -> Floats:
    """(n, N) distances of predicted to labelled points (n, N, 2), in percent of ``distances`` (n,).

    NaN where a landmark is not labelled, not predicted, or its face has no distance.
    """
    predicted, truth = _points("predicted", predicted), _points("truth", truth)
    if predicted.shape != truth.shape or np.shape(distances) != (len(truth),):
        raise ValueError(
            "normalized_errors: expected predicted and truth (n, N, 2) and distances (n,), got "
            f"{predicted.shape}, {truth.shape} and {np.shape(distances)}"
        )
    errors: Floats = 100 * np.linalg.norm(predicted - truth, axis=2) / distances[:, None]
    return errors


def nan_mean(values: npt.NDArray[np.floating[Any]], axis: int | None = None) -> Any:
    """The mean over what is not NaN; NaN, without a warning, where nothing is."""
    known = ~np.isnan(values)
    counts = known.sum(axis=axis)
    sums = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)[()]


def nme(face_errors: Floats) -> float:
    """Normalized mean error in percent: the mean over the faces that were found; NaN where none was."""
    return float(nan_mean(face_errors[~np.isinf(face_errors)]))


def failure_rate(face_errors: Floats, threshold: float = 10.0) -> float:
    """Percentage of the faces whose mean error is above ``threshold`` percent."""
    _check_threshold("failure_rate", threshold)
    known = face_errors[~np.isnan(face_errors)]
    return float(100 * (known > threshold).mean()) if len(known) else float("nan")


def ced(face_errors: Floats, thresholds: npt.ArrayLike) -> Floats:
    """Cumulative error distribution: percentage of the faces with a mean error up to each threshold, in percent."""
    known = np.sort(face_errors[~np.isnan(face_errors)])
    counts = np.searchsorted(known, np.asarray(thresholds, dtype=np.float64), side="right")
    return 100.0 * counts / len(known) if len(known) else np.full(np.shape(thresholds), np.nan)


def auc(face_errors: Floats, threshold: float = 10.0) -> float:
    """Area under the CED from 0 to ``threshold`` percent, in percent of the area that no error at all would have.

    Exact, not on a grid: each face adds the part of the way to the threshold that lies above its error.
    """
    _check_threshold("auc", threshold)
    known = face_errors[~np.isnan(face_errors)]
    return float(100 * (1 - known.clip(0, threshold) / threshold).mean()) if len(known) else float("nan")


def point_var(
    predicted: npt.NDArray[np.floating[Any]], truth: npt.NDArray[np.floating[Any]], distances: Floats
) -> Floats:
    """(n,) variance of the differences between labels and predictions within each face (section 4.3.2).

    The paper gives no unit and no axes. Here differences are vectors in percent of the face's distance, and the
    variance is the mean squared length of their deviations from their mean: in percent squared, the same for any scale
    and rotation of the image, and 0 where all landmarks are off by the same vector. The paper's Point-Var is the mean
    over the faces. NaN where a face has no labels, no prediction or no distance.
    """
    differences = 100 * (_points("predicted", predicted) - _points("truth", truth)) / distances[:, None, None]
    deviations = differences - nan_mean(differences, axis=1)[:, None]
    variances: Floats = nan_mean((deviations**2).sum(axis=2), axis=1)
    return variances


def _points(name: str, points: npt.NDArray[np.floating[Any]]) -> Floats:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"metrics: {name}: expected points (n, N, 2), got {points.shape}")
    # A landmark with one coordinate has no place.
    return np.where(np.isnan(points).any(axis=2, keepdims=True), np.nan, points)


def _check_threshold(operation: str, threshold: float) -> None:
    if not threshold > 0:
        raise ValueError(f"{operation}: threshold: expected percent of the norm above 0, got {threshold!r}")
