"""How a detector's boxes lie to the tight boxes of one's own landmarks, measured on labelled faces."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pipnet_fast.data.errors import BadSamples
from pipnet_fast.data.samples import BadSample, FaceData, tight_box
from pipnet_fast.evaluate.boxes import Floats, overlap
from pipnet_fast.pipeline.detectors import BoxStyle, create_detector
from pipnet_fast.pipeline.fitted_detector import FittedDetector, restyled


class Fit(NamedTuple):
    """A fitted detector, and how good it is.

    Attributes:
        detector: what to give to ``FaceLandmarker``.
        faces: how many labelled faces there were, without the bad ones.
        found: how many of them the detector found.
        before: median overlap (intersection over union) of its own boxes with the labels' tight ones.
        after: the same of the fitted boxes.
        bad: faces that were left out, and why.
    """

    detector: FittedDetector
    faces: int
    found: int
    before: float
    after: float
    bad: Sequence[BadSample] = ()


def fit_detector(detector: str, data: FaceData, *, skip_bad: bool = False) -> Fit:
    """Measure on faces labelled in full what turns a detector's boxes into the tight boxes of the labels.

    Of the detections in an image, the face's is the one with the nearest center of those that the center of the labels
    lies in. The style is the median over the faces found.

    Args:
        detector: "haar" or "yunet:PATH".
        data: labelled faces, at best hundreds, as the landmarker will see them.
        skip_bad: leave out faces whose images cannot be read, and list them.

    Raises:
        ValueError: no face is labelled in full, or none of them is found.
        DataError: an image that cannot be read.
    """
    find = create_detector(detector)
    assert find is not None
    complete = [sample for sample in data.samples if sample.is_complete]
    seen, wanted = [], []
    bad = BadSamples(skip_bad)
    for sample in tqdm(complete, unit="face", leave=False, disable=None):
        truth = tight_box(sample.landmarks, str(sample.image))
        boxes = np.empty((0, 4))
        with bad.guard(str(sample.image)):
            boxes = np.asarray(find(sample.image.read()), dtype=np.float64)
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
    before, after = (_median_overlap(b, tight) for b in (boxes, restyled(boxes, style)))
    faces = len(complete) - len(bad.found)
    return Fit(FittedDetector(detector, style), faces, len(seen), before, after, bad.found)


def _style(boxes: Floats, tight: Floats) -> BoxStyle:
    side, size = boxes[:, 2:] - boxes[:, :2], tight[:, 2:] - tight[:, :2]
    shift = ((tight[:, :2] + tight[:, 2:]) - (boxes[:, :2] + boxes[:, 2:])) / 2 / side
    return BoxStyle(*np.median(size / side, axis=0).tolist(), *np.median(shift, axis=0).tolist())


def _median_overlap(boxes: Floats, tight: Floats) -> float:
    return float(np.median([overlap(box[None], truth)[0] for box, truth in zip(boxes, tight, strict=True)]))
