"""Boxes from a face detector for the faces of a data set."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.data.errors import DataError
from pipnet_fast.data.samples import FaceData, tight_box
from pipnet_fast.pipeline.detectors import Detector
from pipnet_fast.pipeline.images import ImageError
from pipnet_fast.pipeline.overlap import union_shares

Floats = npt.NDArray[np.float64]

# A detection belongs to the labelled face from this overlap on.
LEAST_OVERLAP = 0.3


def detected_boxes(data: FaceData, detector: Detector) -> Floats:
    """(n, 4) tight boxes: of the detections in a face's image the one that overlaps its labels most.

    NaN where none overlaps them by ``LEAST_OVERLAP``, or where the face has no labels.

    Raises:
        DataError: an image that cannot be read.
    """
    boxes = np.full((len(data), 4), np.nan)
    for row, sample in zip(boxes, data.samples, strict=True):
        if sample.landmarks is None or not np.isfinite(sample.landmarks).all(axis=1).any():
            continue
        try:
            found = np.asarray(detector(sample.image.read()), dtype=np.float64)
        except ImageError as error:
            raise DataError(str(error)) from None
        # An empty list has no columns.
        if not len(found):
            continue
        overlaps = overlap(found, tight_box(sample.landmarks, str(sample.image)))
        if overlaps.max() >= LEAST_OVERLAP:
            row[:] = found[overlaps.argmax(), :4]
    return boxes


def overlap(boxes: npt.NDArray[np.floating[Any]], other: npt.NDArray[np.floating[Any]]) -> Floats:
    """Intersection over union of boxes (n, 4 or more) with one box (4,)."""
    return union_shares(boxes, other[None])[:, 0]
