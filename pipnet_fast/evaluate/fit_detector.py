"""How a detector's boxes lie to the tight boxes of one's own landmarks, measured on labelled faces."""

from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pipnet_fast.data.errors import DataError
from pipnet_fast.data.samples import FaceData, tight_box
from pipnet_fast.evaluate.boxes import Floats, overlap
from pipnet_fast.pipeline.detectors import BoxStyle, create_detector
from pipnet_fast.pipeline.fitted_detector import FittedDetector, restyled
from pipnet_fast.pipeline.images import ImageError


class Fit(NamedTuple):
    """A fitted detector, and how good it is.

    Attributes:
        detector: what to give to ``FaceLandmarker``.
        faces: how many labelled faces there were.
        found: how many of them the detector found.
        before: median overlap (intersection over union) of its own boxes with the labels' tight ones.
        after: the same of the fitted boxes.
    """

    detector: FittedDetector
    faces: int
    found: int
    before: float
    after: float


def fit_detector(detector: str, data: FaceData) -> Fit:
    """Measure on faces labelled in full what turns a detector's boxes into the tight boxes of the labels.

    Of the detections in an image, the face's is the one with the nearest center of those that the center of the labels
    lies in. The style is the median over the faces found.

    Args:
        detector: "haar" or "yunet:PATH".
        data: labelled faces, at best hundreds, as the landmarker will see them.

    Raises:
        ValueError: no face is labelled in full, or none of them is found.
        DataError: an image that cannot be read.
    """
    find = create_detector(detector)
    assert find is not None
    complete = [s for s in data.samples if s.landmarks is not None and np.isfinite(s.landmarks).all()]
    seen, wanted = [], []
    for sample in tqdm(complete, unit="face", leave=False, disable=None):
        truth = tight_box(sample.landmarks, str(sample.image))
        try:
            boxes = np.asarray(find(sample.image.read()), dtype=np.float64)
        except ImageError as error:
            raise DataError(str(error)) from None
        center = (truth[:2] + truth[2:]) / 2
        boxes = boxes[((boxes[:, :2] < center) & (center < boxes[:, 2:4])).all(axis=1), :4]
        if len(boxes):
            distance = np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - center, axis=1)
            seen.append(boxes[distance.argmin()])
            wanted.append(truth)
    if not seen:
        raise ValueError(
            f"fit_detector: data: expected faces labelled in full that {detector} finds, got {len(complete)} labelled "
            f"in full in {data.name}, none found"
        )
    boxes, tight = np.array(seen), np.array(wanted)
    style = _style(boxes, tight)
    after = _median_overlap(restyled(boxes, style), tight)
    return Fit(FittedDetector(detector, style), len(complete), len(seen), _median_overlap(boxes, tight), after)


def _style(boxes: Floats, tight: Floats) -> BoxStyle:
    side, size = boxes[:, 2:] - boxes[:, :2], tight[:, 2:] - tight[:, :2]
    shift = ((tight[:, :2] + tight[:, 2:]) - (boxes[:, :2] + boxes[:, 2:])) / 2 / side
    return BoxStyle(*np.median(size / side, axis=0).tolist(), *np.median(shift, axis=0).tolist())


def _median_overlap(boxes: Floats, tight: Floats) -> float:
    return float(np.median([overlap(box[None], truth)[0] for box, truth in zip(boxes, tight, strict=True)]))
