"""Faces of one video, frame by frame: the next crop from the last landmarks, a detector only where one is needed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipnet_fast._errors import require_int
from pipnet_fast.crop import Image, tight_boxes
from pipnet_fast.pipeline.faces import Faces
from pipnet_fast.pipeline.images import as_rgb
from pipnet_fast.pipeline.landmarker import FaceLandmarker
from pipnet_fast.pipeline.overlap import smaller_shares, union_shares
from pipnet_fast.tracking.cuts import CutDetector
from pipnet_fast.tracking.one_euro import OneEuroFilter, one_euro
from pipnet_fast.tracking.settings import DETECT_EVERY, MIN_SCORE, SMOOTHING

Floats = npt.NDArray[np.float64]

# Two boxes of which the smaller one lies so far in the other are on one face.
SAME_FACE = 0.6
# A detection so far on a lost face's last box (intersection over union) is that face again.
FOUND_AGAIN = 0.3
# A face so long lost is another one when it comes back.
MEMORY_S = 0.5
# Boxes tell nothing that are smaller than a square of this side, px, or so many times as long for their width as the
# box that the detector found: that of a face is nearly square, that of a model of the eyes alone is flat.
LEAST_SIDE, MOST_STRETCH = 8.0, 3.0


class Tracker:
    """Follows the faces of one video or camera; frames are pushed as they come.

    Each face is cropped by the tight box of its landmarks in the frame before, smoothed. It is lost when the mean score
    of its landmarks falls below ``min_score``, when its box is none any more or its center has left the frame, or when
    two tracks come upon one face: the one that has jumped there is lost. The detector is asked when there is no face,
    for half a second after one was lost, after a scene cut, and every ``detect_every`` frames, for new faces. A lost
    face that is found again in that half second, where it was, keeps its id; else ids are never used again. Nobody
    keeps an id over a cut.

    Landmarks and boxes are smoothed by One-Euro filters in units of the face's size.

    A tracker belongs to one video and is called by one thread at a time; many can share one landmarker.

    Args:
        landmarker: with a detector.
        smoothing: 0, none, to 1, calm.
        detect_every: frames, >= 1.
        min_score: 0..1.

    Raises:
        ValueError, TypeError: an argument out of its range.
    """

    def __init__(
        self,
        landmarker: FaceLandmarker,
        *,
        smoothing: float = SMOOTHING,
        detect_every: int = DETECT_EVERY,
        min_score: float = MIN_SCORE,
    ) -> None:
        """See the class."""
        if not isinstance(landmarker, FaceLandmarker):
            raise TypeError(f"Tracker: landmarker: expected a FaceLandmarker, got {type(landmarker).__name__}")
        if landmarker.detector is None:
            raise ValueError("Tracker: landmarker: expected one with a detector, got detector=None")
        require_int("Tracker", "detect_every", detect_every, 1)
        self._landmarker = landmarker
        self._smoothing = _require_share("smoothing", smoothing)
        self._detect_every = detect_every
        self._min_score = _require_share("min_score", min_score)
        self._is_cut = CutDetector()
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._since_search = 0
        self._next_id = 0
        self._time_s = -math.inf

    def update(self, frame: Any, time_s: float) -> Faces:
        """The faces of the next frame, in the order of their ids.

        Args:
            frame: an image as ``FaceLandmarker`` takes it.
            time_s: seconds, later than the frame before; from any start.

        Raises:
            ValueError, TypeError: no frame, or no later time. The tracker is as before.
        """
        return self.update_rgb(as_rgb(frame, self._landmarker.color, "Tracker"), time_s)

    def update_rgb(self, rgb: Image, time_s: float) -> Faces:
        """The same for a frame that is an RGB image already."""
        self._check_time(time_s)
        self._time_s = float(time_s)
        if self._is_cut(rgb):
            self._tracks, self._lost = [], []
        seen = self._follow(rgb)
        self._since_search += 1
        if not seen or self._lost or self._since_search >= self._detect_every:
            seen += self._search(rgb, seen)
            self._since_search = 0
        seen.sort(key=lambda sight: sight.track.id)
        self._tracks = [sight.track for sight in seen]
        return self._answer(seen)

    def _check_time(self, time_s: Any) -> None:
        try:
            later = math.isfinite(time_s) and time_s > self._time_s
        except TypeError:
            later = False
        if not later:
            after = f" after {self._time_s:.6g}" if math.isfinite(self._time_s) else ""
            raise ValueError(f"Tracker: time_s: expected finite seconds{after}, got {time_s!r}")

    def _follow(self, rgb: Image) -> list["_Sight"]:
        """The tracked faces that are still there; the others become lost ones."""
        looks = self._look(rgb, [(track.box, track.most_aspect) for track in self._tracks])
        sights = [_Sight(track, look) for track, look in zip(self._tracks, looks, strict=True) if look]
        sights.sort(key=lambda sight: -_share(union_shares, sight.track.box, sight.look.box))
        seen: list[_Sight] = []
        for sight in sights:
            if not _is_among(sight.look, seen):
                seen.append(sight)
        kept = [sight.track for sight in seen]
        self._lost += [track for track in self._tracks if track not in kept]
        self._lost = [track for track in self._lost if self._time_s - track.time_s <= MEMORY_S]
        return seen

    def _search(self, rgb: Image, seen: list["_Sight"]) -> list["_Sight"]:
        """Faces that the detector finds beside those seen; lost ones among them keep their tracks."""
        boxes = self._landmarker.detect_rgb(rgb)
        known = np.array([sight.look.box for sight in seen]).reshape(-1, 4)
        is_known = (union_shares(boxes, known) >= FOUND_AGAIN) | (smaller_shares(boxes, known) >= SAME_FACE)
        new = boxes[~is_known.any(axis=1), :4].astype(np.float64)
        looks = filter(None, self._look(rgb, [(box, MOST_STRETCH * _aspects(box)) for box in new]))
        # Once more, by the box that all later crops follow from.
        looks = filter(None, self._look(rgb, [(look.box, look.most_aspect) for look in looks]))
        found: list[_Sight] = []
        for look in sorted(looks, key=lambda look: -look.scores.mean()):
            if not _is_among(look, seen + found):
                found.append(_Sight(self._recall(look), look))
        return found

    def _recall(self, look: "_Look") -> "_Track":
        """The lost track that a face continues, or a new one."""
        shares = [_share(union_shares, track.box, look.box) for track in self._lost]
        if shares and max(shares) >= FOUND_AGAIN:
            number = self._lost.pop(int(np.argmax(shares))).id
        else:
            number, self._next_id = self._next_id, self._next_id + 1
        # Smoothed afresh: a filter would draw the face back to where it was lost.
        return _Track(
            number, look.box, look.most_aspect, self._time_s, one_euro(self._smoothing), one_euro(self._smoothing)
        )

    def _look(self, rgb: Image, places: Sequence[tuple[Floats, float]]) -> list["_Look | None"]:
        """What is in boxes (4,), at most of an aspect; None where it is no face."""
        boxes = np.array([[*box, 1.0] for box, _ in places], dtype=np.float32).reshape(-1, 5)
        limits = np.array([limit for _, limit in places])
        faces = self._landmarker.predict_rgb(rgb, boxes)
        tight = tight_boxes(faces.landmarks)
        good = (faces.scores.mean(axis=1) >= self._min_score) & _are_faces(tight, limits, rgb)
        looks = map(_Look, faces.landmarks, faces.scores, tight, limits.tolist())
        return [look if is_good else None for look, is_good in zip(looks, good, strict=True)]

    def _answer(self, seen: Sequence["_Sight"]) -> Faces:
        """The smoothed faces; moves the tracks' boxes."""
        landmarks = self._landmarker.model.config.num_landmarks
        faces = Faces(
            np.zeros((len(seen), landmarks, 2), dtype=np.float32),
            np.zeros((len(seen), landmarks), dtype=np.float32),
            np.zeros((len(seen), 5), dtype=np.float32),
            np.array([sight.track.id for sight in seen], dtype=np.int64),
        )
        for index, (track, (found, scores, box, _)) in enumerate(seen):
            points: npt.NDArray[np.floating[Any]] = found
            size = float(np.sqrt((box[2:] - box[:2]).prod()))
            if track.smooth_points and track.smooth_corners:
                points = track.smooth_points(points, self._time_s, size)
                box = track.smooth_corners(box.reshape(2, 2), self._time_s, size).ravel()
            track.box, track.time_s = box, self._time_s
            faces.landmarks[index], faces.scores[index] = points, scores
            faces.boxes[index] = *box, scores.mean()
        return faces


class _Look(NamedTuple):
    """A face that was found in a box."""

    points: npt.NDArray[np.float32]
    """(N, 2)."""
    scores: npt.NDArray[np.float32]
    """(N,)."""
    box: Floats
    """(4,) tight about the points."""
    most_aspect: float
    """How many times the box may be as long as wide."""


class _Sight(NamedTuple):
    """What is seen of a track."""

    track: "_Track"
    look: _Look


@dataclass(eq=False)
class _Track:
    """A face through the frames."""

    id: int
    box: Floats
    """(4,) tight about the landmarks, smoothed: what the next crop follows from."""
    most_aspect: float
    """How many times it may be as long as wide."""
    time_s: float
    """When it was last seen."""
    smooth_points: OneEuroFilter | None
    smooth_corners: OneEuroFilter | None


def _are_faces(tight: Floats, most_aspects: Floats, rgb: Image) -> npt.NDArray[np.bool_]:
    """Which of the boxes (n, 4) can be those of faces in an image."""
    height, width = rgb.shape[:2]
    areas, centers = (tight[:, 2:] - tight[:, :2]).prod(axis=1), (tight[:, 2:] + tight[:, :2]) / 2
    inside = (centers >= 0).all(axis=1) & (centers <= [width, height]).all(axis=1)
    good: npt.NDArray[np.bool_] = inside & (areas >= LEAST_SIDE**2)
    good[good] = _aspects(tight[good]) <= most_aspects[good]
    return good


def _aspects(boxes: Floats) -> Any:
    """(...,) how many times boxes (..., 4) with an area are as long as wide, whichever way they lie."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return sides.max(axis=-1) / sides.min(axis=-1)


def _is_among(look: _Look, seen: Sequence[_Sight]) -> bool:
    """Whether a face is one of those seen."""
    return any(_share(smaller_shares, look.box, sight.look.box) >= SAME_FACE for sight in seen)


def _share(shares: Callable[[Floats, Floats], Floats], box: Floats, other: Floats) -> float:
    return float(shares(box[None], other[None])[0, 0])


def _require_share(argument: str, value: Any) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"Tracker: {argument}: expected 0 to 1, got {value!r}")
    return float(value)
