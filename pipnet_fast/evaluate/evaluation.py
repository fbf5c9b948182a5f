"""What an evaluation found, face by face, and its measures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.data.samples import BadSample, FaceData, Norm
from pipnet_fast.evaluate import metrics

Floats = npt.NDArray[np.float64]

# The usual threshold of failure rate and AUC, percent of the norm; some works take 8.
THRESHOLD = 10.0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions on labelled faces, held against the labels. Coordinates are continuous px of the images.

    Attributes:
        name: whose predictions.
        data: name of the data set.
        norm: what errors are divided by.
        index: (n,) int64, which faces of the data set.
        images: (n,) where each picture is.
        subsets: (n,) the parts of the data set that each face belongs to.
        points: (n, N, 2) float64 predicted, NaN for a face that was not found.
        scores: (n, N) float64, NaN where not known.
        truth: (n, N, 2) float64 labels, NaN where there is none.
        distances: (n,) float64, the norm of each face in px, NaN where it cannot be measured.
        bad: faces that were left out, and why.
    """

    name: str
    data: str
    norm: Norm
    index: npt.NDArray[np.int64]
    images: tuple[str, ...]
    subsets: tuple[tuple[str, ...], ...]
    points: Floats
    scores: Floats
    truth: Floats
    distances: Floats
    bad: Sequence[BadSample] = ()

    def __post_init__(self) -> None:
        """Check the shapes."""
        faces, landmarks = self.truth.shape[:2]
        for name, shape in (
            ("points", (faces, landmarks, 2)),
            ("scores", (faces, landmarks)),
            ("truth", (faces, landmarks, 2)),
            ("distances", (faces,)),
            ("index", (faces,)),
            ("images", (faces,)),
        ):
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(f"Evaluation: {name}: expected shape {shape}, got {np.shape(getattr(self, name))}")

    def __len__(self) -> int:
        """How many faces."""
        return len(self.truth)

    @property
    def errors(self) -> Floats:
        """(n, N) percent of the norm; NaN for landmarks without a label and faces that were not found."""
        return metrics.normalized_errors(self.points, self.truth, self.distances)

    @property
    def face_errors(self) -> Floats:
        """(n,) mean over the labelled landmarks; infinite for a face not found, NaN for one that cannot be measured."""
        measurable = _has_labels(self.truth) & ~np.isnan(self.distances)
        means: Floats = np.where(self.missed, np.inf, metrics.nan_mean(self.errors, axis=1))
        return np.where(measurable, means, np.nan)

    @property
    def landmark_errors(self) -> Floats:
        """(N,) mean over the faces that were found."""
        means: Floats = metrics.nan_mean(self.errors, axis=0)
        return means

    @property
    def missed(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a face was not found."""
        missing: npt.NDArray[np.bool_] = np.isnan(self.points.sum(axis=(1, 2)))
        return missing

    @property
    def nme(self) -> float:
        """Normalized mean error over the faces that were found, percent."""
        return metrics.nme(self.face_errors)

    @property
    def point_var(self) -> float:
        """Point-Var of section 4.3.2 over the faces that were found, percent squared; see ``metrics.point_var``."""
        return float(metrics.nan_mean(metrics.point_var(self.points, self.truth, self.distances)))

    def failure_rate(self, threshold: float = THRESHOLD) -> float:
        """Percentage of the faces with an error above ``threshold`` percent; those not found are among them."""
        return metrics.failure_rate(self.face_errors, threshold)

    def auc(self, threshold: float = THRESHOLD) -> float:
        """Area under the CED up to ``threshold`` percent, 0 to 100; a face that was not found adds nothing."""
        return metrics.auc(self.face_errors, threshold)

    def ced(self, thresholds: npt.ArrayLike) -> Floats:
        """Percentage of the faces with an error up to each threshold."""
        return metrics.ced(self.face_errors, thresholds)

    def subset_names(self) -> tuple[str, ...]:
        """Names of the subsets, in the order of their first face."""
        return tuple(dict.fromkeys(name for names in self.subsets for name in names))

    def subset(self, name: str) -> "Evaluation":
        """The faces of one subset.

        Raises:
            ValueError: none has that name.
        """
        chosen = np.flatnonzero([name in names for names in self.subsets])
        if not len(chosen):
            raise ValueError(f"{self.data}: subset: expected one of {list(self.subset_names())}, got {name!r}")
        return replace(
            self,
            data=f"{self.data}/{name}",
            images=tuple(self.images[i] for i in chosen),
            subsets=tuple(self.subsets[i] for i in chosen),
            **{key: getattr(self, key)[chosen] for key in ("index", "points", "scores", "truth", "distances")},
        )

    def summary(self, threshold: float = THRESHOLD) -> list[dict[str, Any]]:
        """A row for all faces and one for each subset: plain values, None where nothing could be measured."""
        parts = [("all", self), *((name, self.subset(name)) for name in self.subset_names())]
        return [part._row(name, threshold) for name, part in parts]

    def _row(self, subset: str, threshold: float) -> dict[str, Any]:
        measured = ~np.isnan(self.face_errors)
        values = {
            "nme": self.nme,
            "failure_rate": self.failure_rate(threshold),
            "auc": self.auc(threshold),
            "point_var": self.point_var,
        }
        return {
            "model": self.name,
            "data": self.data,
            "subset": subset,
            "faces": int(measured.sum()),
            "missed": int((self.missed & measured).sum()),
            "norm": self.norm,
            "threshold": threshold,
            **{key: None if np.isnan(value) else value for key, value in values.items()},
        }


def hold_against(
    name: str,
    data: FaceData,
    points: Floats,
    scores: Floats,
    *,
    index: npt.NDArray[np.int64] | None = None,
    norm: Norm | None = None,
    bad: Sequence[BadSample] = (),
) -> Evaluation:
    """Predictions for the faces of a data set as an ``Evaluation``.

    Args:
        name: whose predictions.
        data: the faces.
        points: (n, N, 2) continuous px of the images, NaN for faces that were not found.
        scores: (n, N), NaN where not known.
        index: (n,) which faces the rows are; by default all, in order.
        norm: by default the data set's own.
        bad: faces that were left out.

    Raises:
        ValueError: another N than the data set's, or no face that can be measured.
    """
    index = np.arange(len(data)) if index is None else index
    landmarks = data.layout.num_landmarks
    if points.shape != (len(index), landmarks, 2):
        raise ValueError(
            f"evaluate: {name}: expected points of shape {(len(index), landmarks, 2)} for {data.name}, got "
            f"{points.shape}"
        )
    samples = [data.samples[i] for i in index]
    missing = np.full((landmarks, 2), np.nan)
    truth = np.array([missing if s.landmarks is None else s.landmarks for s in samples]).reshape(-1, landmarks, 2)
    norm = norm or data.norm
    boxes = np.array([sample.box for sample in samples]).reshape(-1, 4)
    distances = metrics.norm_distances(truth, norm, boxes=boxes, outer_eyes=data.layout.outer_eyes)
    if np.isnan(distances[_has_labels(truth)]).all():
        raise ValueError(f"evaluate: {data.name}: expected a face with labels and a {norm} distance, got none")
    return Evaluation(
        name,
        data.name,
        norm,
        index,
        tuple(str(sample.image) for sample in samples),
        tuple(sample.subsets for sample in samples),
        points,
        scores,
        truth,
        distances,
        (*data.bad, *bad),
    )


def _has_labels(truth: Floats) -> npt.NDArray[np.bool_]:
    """(n,) whether any landmark of a face is labelled."""
    labelled: npt.NDArray[np.bool_] = ~np.isnan(truth.sum(axis=2)).all(axis=1)
    return labelled
