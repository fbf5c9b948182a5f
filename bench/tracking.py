"""Tracking: jitter, lag and error on faces whose motion is known, calls of the detector saved, and frames per second.

Photos are moved along known smooth paths, with noise and compression in every frame, so that the labels, moved alike,
are the truth, and what the landmarks do beyond the motion is jitter. Expressions stay as they are.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

import pipnet_fast as pf
from bench.faces import labelled_faces
from bench.record import Record, device_name, measured
from pipnet_fast.crop import Affine, Image, tight_boxes, transform
from pipnet_fast.data import Sample
from pipnet_fast.evaluate.boxes import LEAST_OVERLAP, overlap
from pipnet_fast.tracking.cuts import CutDetector
from pipnet_fast.tracking.settings import DETECT_EVERY, MIN_SCORE, SMOOTHING

Floats = npt.NDArray[np.float64]

FPS = 30.0
# Sides of the frames and of the face in them, px.
FRAME, SIDE = 320, 110
NOISE, JPEG_QUALITY = 4.0, 80
# Inter-ocular distance of the 68 landmarks.
OUTER_EYES = 36, 45
# A face that is found in fewer frames is not judged.
MOST_MISSING = 0.5
# A box with less of a face (intersection over union) shows none.
NO_OVERLAP = 0.05
FACES_TOGETHER = 1, 3
SETTINGS = {"none": 0.0, "crisp": 0.25, "default": SMOOTHING, "calm": 1.0}


@dataclass(frozen=True)
class Motion:
    """Sinusoids of a face, each axis with a phase and period of its own.

    Attributes:
        shift: amplitude in sides of the face.
        turn_deg: amplitude of the turn in the image's plane.
        zoom: amplitude of the growth, as a share.
        period_s: about that of all of them.
    """

    shift: float
    turn_deg: float
    zoom: float
    period_s: float

    def affines(self, sample: Sample, frames: int, random: np.random.Generator) -> Affine:
        """Matrices (frames, 2, 3) from px of the photo to px of the frames."""
        times = np.arange(frames) / FPS
        periods = self.period_s * random.uniform(0.8, 1.2, 4)
        phases = random.uniform(0, 2 * np.pi, 4)
        waves = np.sin(2 * np.pi * times[:, None] / periods + phases)
        low, high = sample.box[:2], sample.box[2:]
        scale = SIDE / np.sqrt((high - low).prod()) * (1 + self.zoom * waves[:, 0])
        angle = np.deg2rad(self.turn_deg) * waves[:, 1]
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        turns = np.stack((np.stack((cosine, -sine), axis=1), np.stack((sine, cosine), axis=1)), axis=1)
        centers = FRAME / 2 + self.shift * SIDE * waves[:, 2:]
        return np.concatenate((turns, (centers - turns @ ((low + high) / 2))[:, :, None]), axis=2)


MOTIONS = {
    "at rest": Motion(0.0, 0.0, 0.0, 1.0),
    "swaying": Motion(0.25, 8.0, 0.1, 4.0),
    "swift": Motion(0.5, 15.0, 0.15, 1.2),
}


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames, and where the face is in them."""

    frames: list[Image]
    affines: Affine
    labels: Floats
    """(N, 2) px of the photo."""

    @property
    def truth(self) -> Floats:
        """(frames, N, 2)."""
        return transform(self.affines, np.broadcast_to(self.labels, (len(self.affines), *self.labels.shape)))


def make_clip(sample: Sample, motion: Motion, frames: int, seed: int) -> Clip:
    """A photo in motion."""
    assert sample.landmarks is not None
    random = np.random.default_rng(seed)
    photo, affines = sample.image.read(), motion.affines(sample, frames, random)
    return Clip([spoil(shown(photo, affine), random) for affine in affines], affines, sample.landmarks)


def shown(photo: Image, affine: Affine, size: tuple[int, int] = (FRAME, FRAME)) -> Image:
    """The photo in a frame, mirrored at its borders."""
    matrix = affine.copy()
    matrix[:, 2] += (affine[:, 0] + affine[:, 1] - 1) / 2  # to OpenCV's pixel centers
    image = cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return image.astype(np.uint8, copy=False)


def spoil(image: Image, random: np.random.Generator) -> Image:
    """With a sensor's noise, and compressed."""
    noisy = (image + random.normal(0, NOISE, image.shape)).clip(0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8, copy=False)


class Counted:
    """A detector that counts its calls."""

    def __init__(self, detector: Callable[[Image], Any]) -> None:
        """Count those of ``detector``."""
        self.detector, self.calls = detector, 0

    def __call__(self, image: Image) -> Any:
        """What the detector finds."""
        self.calls += 1
        return self.detector(image)


def tracked(landmarker: pf.FaceLandmarker, clip: Clip, **options: Any) -> Iterator[pf.Faces]:
    return landmarker.track(clip.frames, fps=FPS, **options)


def detected(landmarker: pf.FaceLandmarker, clip: Clip) -> Iterator[pf.Faces]:
    return map(landmarker, clip.frames)


def labelled(landmarker: pf.FaceLandmarker, clip: Clip) -> Iterator[pf.Faces]:
    return (landmarker(frame, box[None]) for frame, box in zip(clip.frames, tight_boxes(clip.truth), strict=True))


Method = Callable[[pf.FaceLandmarker, Clip], Iterator[pf.Faces]]
METHODS: dict[str, Method] = {
    "boxes of the labels": labelled,
    "boxes of the detector": detected,
    **{f"track, smoothing {value:g} ({name})": partial(tracked, smoothing=value) for name, value in SETTINGS.items()},
}


def follow(results: Iterator[pf.Faces], truth: Floats) -> tuple[Floats, int]:
    """The face's landmarks (frames, N, 2), NaN where it is not found, and how many ids it had."""
    found = np.full(truth.shape, np.nan)
    ids = set()
    for row, faces, box in zip(found, results, tight_boxes(truth), strict=True):
        overlaps = overlap(faces.boxes, box)
        if len(faces) and overlaps.max() >= LEAST_OVERLAP:
            row[:] = faces.landmarks[overlaps.argmax()]
            ids.add(int(faces.ids[overlaps.argmax()]))
    return found, len(ids)


def judge(found: Floats, clip: Clip) -> dict[str, float]:
    """Jitter and error in percent of the face's side and of the eyes' distance; lag in milliseconds."""
    side = np.sqrt((tight_boxes(clip.labels[None])[0, 2:] - tight_boxes(clip.labels[None])[0, :2]).prod())
    back = np.linalg.inv(clip.affines[:, :, :2])
    # Where the landmarks are in the photo, which does not move.
    still = np.einsum("tij,tnj->tni", back, found - clip.affines[:, None, :, 2])
    jerk = np.linalg.norm(np.diff(still, n=2, axis=0), axis=2)
    eyes = np.linalg.norm(clip.labels[OUTER_EYES[0]] - clip.labels[OUTER_EYES[1]])
    # Landmarks that come late are behind in proportion to their speed. Both are held against their own means: errors
    # that stay are no lag, and a clip that ends within a period has a mean speed.
    speed = np.einsum("tij,tnj->tni", back, np.gradient(clip.truth, 1 / FPS, axis=0))
    speed[np.isnan(still)] = np.nan
    ahead, speed = (values - np.nanmean(values, axis=0) for values in (still, speed))
    moved = float(np.nansum(speed**2))
    return {
        "jitter": 100 * float(np.sqrt(np.nanmean(jerk**2))) / side,
        "NME": 100 * float(np.nanmean(np.linalg.norm(still - clip.labels, axis=2)) / eyes),
        "lag": -1e3 * float(np.nansum(ahead * speed)) / moved if moved else 0.0,
    }


UNITS = {"jitter": "%", "NME": "%", "lag": "ms"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with val.csv and images/")
    parser.add_argument("--split", default="val")
    parser.add_argument("--people", type=int, default=24, help="a face of each (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=90, help="of each clip (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="of timing (default: %(default)s)")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--motion", nargs="+", choices=MOTIONS, default=list(MOTIONS))


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of every method and motion, of the thresholds of scores and cuts, and of speed."""
    torch.set_num_threads(arguments.threads)
    data = labelled_faces(arguments.data / f"{arguments.split}.csv")
    people = {Path(str(sample.image)).stem.rsplit("_", 1)[0]: sample for sample in data.samples}
    samples = list(people.values())[: arguments.people]
    detector = Counted(pf.HaarDetector())
    landmarker = pf.FaceLandmarker(detector=detector, device="cpu", engine=arguments.engine, color="rgb")
    shared = {
        "case": "tracking",
        "device": device_name("cpu"),
        "threads": arguments.threads,
        "dtype": "float32",
    }
    records: list[Record] = []
    clips: list[Clip] = []
    for motion in arguments.motion:
        shape = f"{motion}, {len(samples)} faces of {data.name}, {arguments.frames} frames each"
        clips = [make_clip(s, MOTIONS[motion], arguments.frames, seed) for seed, s in enumerate(samples)]
        for subject, method in METHODS.items():
            here = {**shared, "subject": subject, "shape": shape}
            records += _judged(here, method, landmarker, detector, clips)
        records += _speed(shared, motion, landmarker, clips, arguments.rounds)
    return [*records, *_thresholds(shared, landmarker, samples, clips)]


def _judged(
    shared: dict[str, Any], method: Method, landmarker: pf.FaceLandmarker, detector: Counted, clips: Sequence[Clip]
) -> list[Record]:
    before = detector.calls
    followed = [follow(method(landmarker, clip), clip.truth) for clip in clips]
    frames = sum(len(clip.frames) for clip in clips)
    missing = [float(np.isnan(found[:, 0, 0]).mean()) for found, _ in followed]
    # A face that is hardly found cannot be judged; it counts in the frames without it.
    judged = [
        judge(found, clip) for (found, _), clip, m in zip(followed, clips, missing, strict=True) if m < MOST_MISSING
    ]
    records = [measured(shared, name, unit, [values[name] for values in judged]) for name, unit in UNITS.items()]
    counts = {
        "frames without the face": ("%", 100 * float(np.mean(missing))),
        "frames with a call of the detector": ("%", 100 * (detector.calls - before) / frames),
        "faces with more than one id": ("faces", sum(ids > 1 for _, ids in followed)),
    }
    return records + [measured(shared, name, unit, [value]) for name, (unit, value) in counts.items()]


def _thresholds(
    shared: dict[str, Any], landmarker: pf.FaceLandmarker, samples: Sequence[Sample], clips: Sequence[Clip]
) -> list[Record]:
    """How well ``min_score`` tells faces from what is beside them, and the cut detector cuts from motion."""
    faces, others = [], []
    for sample in samples:
        photo = sample.image.read()
        faces.append(float(landmarker(photo, sample.box[None]).scores.mean()))
        beside = boxes_beside(sample.box, photo.shape[:2])
        others += landmarker(photo, beside).scores.mean(axis=1).tolist()
    cuts = [_cuts([clip.frames[0], other.frames[0]]) for clip, other in pairwise(clips)]
    moving = [_cuts(clip.frames) / (len(clip.frames) - 1) for clip in clips]
    wrong = 100 * float(np.mean(np.less(faces, MIN_SCORE))), 100 * float(np.mean(np.greater(others, MIN_SCORE)))
    here = {**shared, "subject": "thresholds", "shape": f"{len(samples)} faces"}
    return [
        measured(here, "score of faces", "", faces),
        measured(here, "score beside faces", "", others),
        measured(here, f"faces below {MIN_SCORE:g}", "%", [wrong[0]]),
        measured(here, f"boxes beside faces above {MIN_SCORE:g}", "%", [wrong[1]]),
        measured(here, "cuts noticed", "%", [100 * float(np.mean(cuts))]),
        measured(here, "frames of swift clips taken for cuts", "%", [100 * float(np.mean(moving))]),
    ]


def boxes_beside(box: Floats, size: tuple[int, ...]) -> Floats:
    """Boxes (n, 4) of the size of a face's that lie in the image and not on the face."""
    width, height = box[2:] - box[:2]
    corners = [(x, y) for x in (0.0, size[1] - width) for y in (0.0, size[0] - height)]
    boxes = np.array([(x, y, x + width, y + height) for x, y in corners])
    return boxes[overlap(boxes, box) < NO_OVERLAP]


def _cuts(frames: Sequence[Image]) -> int:
    is_cut = CutDetector()
    return sum(map(is_cut, frames))


def _speed(
    shared: dict[str, Any], motion: str, landmarker: pf.FaceLandmarker, clips: Sequence[Clip], rounds: int
) -> Iterator[Record]:
    """Frames per second of tracking and of detecting in every frame, in turns."""
    for count in FACES_TOGETHER:
        frames = [side_by_side(images) for images in zip(*(clip.frames for clip in clips[:count]), strict=True)]
        height, width = frames[0].shape[:2]
        methods: dict[str, Callable[[], Iterator[pf.Faces]]] = {
            f"track, detector every {DETECT_EVERY} frames": partial(landmarker.track, frames),
            "detector every frame": partial(map, landmarker, frames),
        }
        rates: dict[str, list[float]] = {subject: [] for subject in methods}
        for _ in range(rounds + 1):
            for subject, method in methods.items():
                start = time.perf_counter()
                found = [len(faces) for faces in method()]
                rates[subject].append(len(found) / (time.perf_counter() - start))
        for subject, values in rates.items():
            shape = f"{count} face{'s' * (count > 1)} {motion}, {width}x{height}"
            here = {**shared, "subject": subject, "shape": shape}
            yield measured(here, "frames per second", "1/s", values[1:])  # the first round is slower


def side_by_side(images: Sequence[Image]) -> Image:
    """An image of 1280x720 with others in a row, and nothing else in it."""
    canvas = np.full((720, 1280, 3), 90, np.uint8)
    for index, image in enumerate(images):
        canvas[200 : 200 + FRAME, FRAME * index : FRAME * (index + 1)] = image
    return canvas
