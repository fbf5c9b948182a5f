"""What every worker does, in whatever process: the pictures of a share in, parts of the tables out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from pipnet_fast.annotate.attempts import Attempt
from pipnet_fast.annotate.folder import RunFolder
from pipnet_fast.annotate.inputs import Inputs
from pipnet_fast.annotate.parts import Part, Position, Share
from pipnet_fast.annotate.pictures import Picture, read_pictures, reason
from pipnet_fast.pipeline.detectors import Boxes, Detector
from pipnet_fast.pipeline.landmarker import FaceLandmarker

# Pictures whose faces wait for one forward pass have at most so many pixels, 100 MB.
PIXELS = 1 << 25


@dataclass(frozen=True)
class Job:
    """What a worker must know; small, and copied to worker processes.

    Attributes:
        folder: of the run, which has the list of files and the model.
        identity: of the run, as JSON.
        detector, device, engine: of the ``FaceLandmarker``.
        batch_size: pictures in one forward pass.
        every: so many-th frames of videos.
    """

    folder: Path
    identity: str
    detector: str | Detector
    device: str
    engine: str
    batch_size: int
    every: int


def use_one_thread() -> None:
    """Let this process compute on one thread: there is a process for every core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@lru_cache(maxsize=1)
def worker(job: Job) -> "Worker":
    """The worker of this process, which keeps its model from share to share."""
    return Worker(job)


class Worker:
    """Annotates shares of a run.

    Args:
        job: what to do.

    Raises:
        ValueError, TypeError, RuntimeError, OSError: as ``FaceLandmarker``.
    """

    def __init__(self, job: Job) -> None:
        """Prepare the model."""
        self._job, self._folder = job, RunFolder(job.folder)
        self._identity: dict[str, Any] = json.loads(job.identity)
        self._landmarker = FaceLandmarker(self._folder.model, job.detector, job.device, job.engine, color="rgb")

    def annotate(self, number: int) -> None:
        """Annotate the pictures of a share, from where it was left.

        Raises:
            TypeError, ValueError: a detector that returns no boxes.
            FloatingPointError: landmarks that are not finite.
            OSError: the disk is full, or the folder cannot be written.
        """
        share = Share(self._folder, self._identity, number)
        part, begin = share.progress()
        if begin is None:
            return
        attempt = Attempt(self._folder.running / f"{number:06d}")
        share.begin(part)
        try:
            self._annotate(share, part, begin, Inputs(self._folder.list).shard(number), attempt)
        finally:
            # Whoever dies, or is killed, does not come here.
            attempt.end()

    def _annotate(self, share: Share, part: int, begin: Position, paths: Sequence[str], attempt: Attempt) -> None:
        rows, batch = self._no_rows(), _Batch(1 if attempt.is_careful else self._job.batch_size)
        for picture in read_pictures(paths, begin, self._job.every, attempt.may_touch):
            boxes, error = self._detect(picture)
            rows.add_image(picture.path, picture.frame, None if boxes is None else len(boxes), error)
            if boxes is not None and len(boxes):
                batch.add(picture, boxes)
            if batch.is_full or rows.is_full:
                self._predict(batch, rows)
            if rows.is_full:
                share.write(part, rows, picture.next)
                part, rows = part + 1, self._no_rows()
        self._predict(batch, rows)
        share.write(part, rows, None)

    def _no_rows(self) -> Part:
        return Part(self._landmarker.model.config.num_landmarks, self._identity["model"])

    def _detect(self, picture: Picture) -> tuple[Boxes | None, str | None]:
        """The boxes of a picture's faces, or why there are none."""
        if picture.image is None:
            return None, picture.error
        try:
            return self._landmarker.detect_rgb(picture.image), None
        except (cv2.error, MemoryError) as error:
            return None, reason(error, picture.path)
        except (TypeError, ValueError) as error:
            raise type(error)(f"annotate: {picture.path}: {error}") from error

    def _predict(self, batch: "_Batch", rows: Part) -> None:
        """Empty a batch into the rows."""
        found = self._landmarker.predict_batch([picture.image for picture in batch.pictures], batch.boxes)
        for picture, faces in zip(batch.pictures, found, strict=True):
            if not (np.isfinite(faces.landmarks).all() and np.isfinite(faces.scores).all()):
                raise FloatingPointError(
                    f"annotate: model: expected finite landmarks and scores, got others for {picture.path}; its "
                    "weights may be those of a training that diverged"
                )
            rows.add_faces(picture.path, picture.frame, faces)
        batch.clear()


class _Batch:
    """Pictures that have faces and wait for the network."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.clear()

    def clear(self) -> None:
        self.pictures: list[Picture] = []
        self.boxes: list[Boxes] = []
        self._pixels = 0

    def add(self, picture: Picture, boxes: Boxes) -> None:
        assert picture.image is not None
        self.pictures.append(picture)
        self.boxes.append(boxes)
        self._pixels += picture.image.shape[0] * picture.image.shape[1]

    @property
    def is_full(self) -> bool:
        return len(self.pictures) >= self._size or self._pixels >= PIXELS
