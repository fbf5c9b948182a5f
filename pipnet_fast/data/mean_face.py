"""Mean faces (Figure 10), and how far the crops of two data sets disagree (section 3.4).

A network learns where in the crop a landmark usually is, so it is only good on crops cut in one style. Whether two sets
have one is seen in the averages of their crops, and measured on the means of their labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from pipnet_fast.crop import CropRule, Image
from pipnet_fast.data.errors import BadSamples
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.data.samples import BadSample, FaceData, Points, Sample
from pipnet_fast.layouts import Layout, load_layout, wflw98_to_300w68
from pipnet_fast.pipeline.detectors import Detector
from pipnet_fast.pipeline.draw import COLORS, SHIFT, fixed_point

# What is no longer taken for the same style. The paper's own case lies on either side of it: from 300W's crops to those
# of WFLW-68, by the official mean shapes, it is dy = 0.095 and scale = 0.92 as WFLW's boxes are, and 0.011 and 1.014
# once their tops are reduced. In a crop of 256 px, 0.03 is a quarter of a cell of stride 32, and 5 % move the crop's
# edges as far.
MAX_SHIFT_FRAC = 0.03
MIN_SCALE, MAX_SCALE = 0.95, 1.05

_BATCH = 32
_GAP_PX, _CAPTION_PX = 4, 20


@dataclass(frozen=True, eq=False)
class MeanFace:
    """The average of the crops of a data set.

    Attributes:
        name: of the data set.
        picture: (S, S, 3) of uint8, RGB.
        shape_frac: (N, 2) float64, the mean of all labels in fractions of their crops; None where nothing is labelled.
        count: crops that the picture is the average of.
        bad: what was left out under ``skip_bad``.
    """

    name: str
    picture: Image
    shape_frac: Points | None
    count: int
    bad: Sequence[BadSample] = ()


class Disagreement(NamedTuple):
    """What leads from one set's mean shape to another's, in fractions of the crop.

    A point p becomes c + scale * (p - c) + (dx, dy), c the crop's center, which ``CropRule.scale`` grows a box about.
    """

    dx: float
    """To the right."""
    dy: float
    """Down."""
    scale: float


def mean_face(
    data: FaceData,
    *,
    size: int = 256,
    limit: int = 1000,
    detector: Detector | None = None,
    workers: int = 0,
    skip_bad: bool = False,
) -> MeanFace:
    """Average the crops of a data set, cut from its own boxes by its own rule.

    Args:
        data: the faces.
        size: side S of the crops in px.
        limit: take at most so many pictures, spread evenly over the set.
        detector: finds the faces of pictures that have no box.
        workers: processes that read ahead; 0 to read in this one.
        skip_bad: leave out faces whose images cannot be read, and list them.

    Raises:
        ValueError: a bad argument, no face, or pictures without boxes and no detector.
        DataError: an image that cannot be read.
    """
    if limit < 1:
        raise ValueError(f"mean_face: limit: expected pictures >= 1, got {limit!r}")
    places = np.linspace(0, len(data) - 1, min(limit, len(data))).round().astype(int)
    bad = BadSamples(skip_bad)
    chosen = [data.samples[i] for i in places.tolist()]
    missing = sum(not sample.has_box for sample in chosen)
    if missing and detector is None:
        raise ValueError(
            f"mean_face: {data.name}: detector: {missing} of {len(chosen)} picture(s) have no box; name a detector "
            "that finds the faces"
        )
    if detector is not None:
        chosen = [face for sample in chosen for face in _with_box(sample, detector, bad)]
    loader = CropLoader(
        replace(data, samples=chosen),
        data.crop,
        size,
        _BATCH,
        augmentation=None,
        shuffle=False,
        workers=workers,
        skip_bad=skip_bad,
    )
    total, count = np.zeros((size, size, 3)), 0
    for batch in loader:
        total += batch.crops.numpy().sum(axis=0, dtype=np.float64)
        count += len(batch.crops)
    if not count:
        raise ValueError(f"mean_face: {data.name}: expected a face that can be read, got none of {len(chosen)}")
    picture: Image = (total / count).round().astype(np.uint8)
    return MeanFace(data.name, picture, _mean_shape(data), count, (*bad.found, *loader.bad))


def draw_mean_faces(faces: Sequence[MeanFace]) -> Image:
    """Mean faces side by side under their names, each with its mean shape drawn in.

    Args:
        faces: at least one, of one size S.
    """
    tiles = [np.concatenate((_caption(face), _drawn(face)), axis=0) for face in faces]
    gap = np.full((len(tiles[0]), _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (gap, tile)][1:], axis=1)


def disagreement(a: FaceData, b: FaceData) -> Disagreement | None:
    """The shift and scale that lead from the mean shape of a's crops to that of b's, by least squares.

    WFLW's 98 landmarks are converted to 300W's 68 where the other set has those. None where a set has no labels, or
    where layouts have nothing in common.

    Raises:
        ValueError: a landmark that is labelled nowhere in its set.
    """
    shapes = _in_common(a, b)
    if shapes is None:
        return None
    (center_a, from_a), (center_b, from_b) = ((s.mean(axis=0), s - s.mean(axis=0)) for s in shapes)
    # Without an extent there is no scale.
    scale = float((from_a * from_b).sum() / (from_a**2).sum()) if from_a.any() else 1.0
    dx, dy = (center_b - 0.5 - scale * (center_a - 0.5)).tolist()
    return Disagreement(dx, dy, scale)


def warn_of_disagreement(sets: Sequence[FaceData]) -> list[str]:
    """A message for every data set whose mean shape lies elsewhere in the crop than that of the first labelled one.

    Sets without labels, or with landmarks of another kind, cannot be compared and have none; pseudo-labels will do.
    """
    labelled = [data for data in sets if _is_labelled(data)]
    messages = []
    for data in labelled[1:]:
        step = disagreement(labelled[0], data)
        if step is not None and not _is_small(step):
            messages.append(
                f"{data.name}: against {labelled[0].name} {_told(step)}: cut both alike, by crop_scale and top_shift "
                "or by the reader's options for boxes"
            )
    return messages


def warn_of_other_crops(data: FaceData, rule: CropRule) -> str | None:
    """A message if a model that crops tight boxes by ``rule`` is used to other crops than those of a data set.

    Seen on the faces that are labelled in full; None if there are none.
    """
    complete = [sample for sample in data.samples if sample.is_complete]
    if data.tight or not complete:
        return None
    faces = replace(data, samples=complete)
    step = disagreement(faces.with_tight_boxes(rule), faces)
    if step is None or _is_small(step):
        return None
    return (
        f"{data.name}: against the model's own crops of the labels' tight boxes (scale {rule.scale:.3g}, top_shift "
        f"{rule.top_shift:.3g}) {_told(step)}"
    )


def _told(step: Disagreement) -> str:
    return (
        f"the mean face is shifted by {step.dx:+.3f}, {step.dy:+.3f} of the crop (within {MAX_SHIFT_FRAC} expected) "
        f"and {step.scale:.3f} times as large ({MIN_SCALE} to {MAX_SCALE} expected)"
    )


def _is_small(step: Disagreement) -> bool:
    return max(abs(step.dx), abs(step.dy)) <= MAX_SHIFT_FRAC and MIN_SCALE <= step.scale <= MAX_SCALE


def _is_labelled(data: FaceData) -> bool:
    return any(sample.landmarks is not None for sample in data.samples)


def _mean_shape(data: FaceData) -> Points | None:
    return data.mean_shape() if _is_labelled(data) else None


def _in_common(a: FaceData, b: FaceData) -> tuple[Points, Points] | None:
    """The mean shapes (N, 2) of the landmarks that both sets have."""
    shape_a, shape_b = _mean_shape(a), _mean_shape(b)
    if shape_a is None or shape_b is None:
        return None
    if not _same(a.layout, b.layout):
        (layout_a, shape_a), (layout_b, shape_b) = _as_68(a.layout, shape_a), _as_68(b.layout, shape_b)
        if not _same(layout_a, layout_b):
            return None
    return shape_a, shape_b


def _as_68(layout: Layout, shape: Points) -> tuple[Layout, Points]:
    if not _same(layout, load_layout("wflw98")):
        return layout, shape
    return load_layout("300w68"), np.asarray(wflw98_to_300w68(shape), dtype=np.float64)


def _same(a: Layout, b: Layout) -> bool:
    """By their mirror images: a table of one's own may have a known layout under another name."""
    return np.array_equal(a.flip, b.flip)


def _with_box(sample: Sample, detector: Detector, bad: BadSamples) -> list[Sample]:
    """The sample, or for a picture without a box every face that is found in it."""
    if sample.has_box:
        return [sample]
    boxes = np.empty((0, 4))
    with bad.guard(str(sample.image)):
        boxes = np.asarray(detector(sample.image.read()), dtype=np.float64)
    return [replace(sample, box=box[:4]) for box in boxes]


def _caption(face: MeanFace) -> Image:
    size = face.picture.shape[1]
    strip = np.zeros((_CAPTION_PX, size, 3), np.uint8)
    # OpenCV's letters are ASCII.
    text = f"{face.name}, {face.count}".encode("ascii", "replace").decode()
    cv2.putText(strip, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return strip


def _drawn(face: MeanFace) -> Image:
    picture: Image = face.picture.copy()
    size = len(picture)
    radius = max(1.0, size / 130) * 2**SHIFT
    for point in [] if face.shape_frac is None else face.shape_frac * size:
        cv2.circle(picture, fixed_point(*point), round(radius), COLORS[0], cv2.FILLED, cv2.LINE_AA, SHIFT)
    return picture
