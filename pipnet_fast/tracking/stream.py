"""All frames of a video through one tracker."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np

from pipnet_fast.pipeline.faces import Faces
from pipnet_fast.pipeline.landmarker import FaceLandmarker
from pipnet_fast.pipeline.video import VideoReader
from pipnet_fast.tracking.tracker import Tracker

# Of frames that come without times.
FPS = 30.0


def track(
    landmarker: FaceLandmarker,
    frames: Iterable[Any] | str | os.PathLike[str],
    *,
    fps: float | None,
    timestamps: Iterable[float] | None,
    **options: Any,
) -> Iterator[Faces]:
    """See ``FaceLandmarker.track``. What is wrong with the arguments shows at once, not with the first frame."""
    tracker = Tracker(landmarker, **options)
    if fps is not None and timestamps is not None:
        raise ValueError("track: expected fps or timestamps, got both")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < math.inf):
        raise ValueError(f"track: fps: expected frames per second > 0, got {fps!r}")
    if timestamps is not None and not isinstance(timestamps, Iterable):
        raise TypeError(f"track: timestamps: expected seconds for each frame, got {type(timestamps).__name__}")
    if isinstance(frames, np.ndarray) and frames.ndim < 4:
        raise ValueError(f"track: frames: expected images one after another, got one of shape {frames.shape}")
    times = (number / (fps or FPS) for number in count()) if timestamps is None else timestamps
    if isinstance(frames, (str, os.PathLike)):
        video = VideoReader(frames)
        if fps is None and timestamps is None:
            return (tracker.update_rgb(frame.image, frame.time_s) for frame in video)
        return _track(tracker.update_rgb, (frame.image for frame in video), times)
    if not isinstance(frames, Iterable):
        raise TypeError(f"track: frames: expected images or the path of a video, got {type(frames).__name__}")
    return _track(tracker.update, frames, times)


def _track(update: Callable[[Any, float], Faces], frames: Iterable[Any], times: Iterable[float]) -> Iterator[Faces]:
    clock = iter(times)
    for index, frame in enumerate(frames):
        time_s = next(clock, None)
        if time_s is None:
            raise ValueError(f"track: timestamps: expected one for every frame, got {index}")
        yield update(frame, time_s)
