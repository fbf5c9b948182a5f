"""Boxes from a face detector for the faces of a data set."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.data.errors import BadSamples
from pipnet_fast.data.samples import FaceData, tight_box
from pipnet_fast.pipeline.detectors import Detector
from pipnet_fast.pipeline.overlap import union_shares

Floats = npt.NDArray[np.float64]

# A detection belongs to the labelled face from this overlap on.
LEAST_OVERLAP = 0.3


def label_boxes(data: FaceData) -> Floats:
    """(n, 4) tight boxes of the labels; NaN where the face has none.

    Raises:
        ValueError: labels that span no area.
    """
    boxes = np.full((len(data), 4), np.nan)
    for row, sample in zip(boxes, data.samples, strict=True):
        if sample.landmarks is not None and np.isfinite(sample.landmarks).all(axis=1).any():
            row[:] = tight_box(sample.landmarks, str(sample.image))
    return boxes


def detected_boxes(data: FaceData, detector: Detector, *, skip_bad: bool = False) -> Floats:
    """(n, 4) tight boxes: of the detections in a face's image the one that overlaps its labels most.

    NaN where none overlaps them by ``LEAST_OVERLAP``, or where the face has no labels.

    Args:
        data: the faces.
        detector: as of ``create_detector``.
        skip_bad: give a face whose image cannot be read its ``label_boxes``, so that ``evaluate`` comes upon the image
            and lists it as bad, not as missed.

    Raises:
        DataError: an image that cannot be read.
        ValueError: labels that span no area.
    """
    boxes, bad = label_boxes(data), BadSamples(skip_bad)
    for row, sample in zip(boxes, data.samples, strict=True):
        if np.isnan(row).all():
            continue
        with bad.guard(str(sample.image)):
            found = np.asarray(detector(sample.image.read()), dtype=np.float64)
            # An empty list has no columns.
            overlaps = overlap(found, row) if len(found) else np.zeros(1)
            row[:] = found[overlaps.argmax(), :4] if overlaps.max() >= LEAST_OVERLAP else np.nan
    return boxes


def overlap(boxes: npt.NDArray[np.floating[Any]], other: npt.NDArray[np.floating[Any]]) -> Floats:
    """Intersection over union of boxes (n, 4 or more) with one box (4,)."""
    return union_shares(boxes, other[None])[:, 0]
