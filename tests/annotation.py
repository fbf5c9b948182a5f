"""Pictures for bulk annotation whose color tells how many faces a detector is to find, and what its tables hold."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from pyarrow import parquet

import pipnet_fast as pf
from pipnet_fast.annotate import annotate
from pipnet_fast.crop import Image
from tests.inputs import randomized

# A step of red for every face, at most 3 of them, and of green for every number, at most 20: they survive JPEG.
RED, GREEN = 80, 12


def picture(number: int, faces: int) -> Image:
    """RGB (90, 100, 3), a pattern in blue."""
    image = np.empty((90, 100, 3), np.uint8)
    image[:, :, 0], image[:, :, 1] = RED * faces, GREEN * number
    image[:, :, 2] = 100 + 50 * np.sin(np.arange(100) / 9)[None] * np.cos(np.arange(90) / 7)[:, None]
    return image


def write_picture(path: Path, number: int, faces: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Encoded here: OpenCV does not write into names that are no UTF-8.
    path.write_bytes(cv2.imencode(path.suffix, picture(number, faces)[:, :, ::-1])[1].tobytes())


def write_video(path: Path, faces: list[int], first: int = 0) -> None:
    """Of which a frame for each entry has so many faces; they are numbered from ``first``."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (100, 90))
    assert video.isOpened()
    for number, count in enumerate(faces, first):
        video.write(np.ascontiguousarray(picture(number, count)[:, :, ::-1]))
    video.release()


def color(image: Image) -> tuple[int, int]:
    """Number and faces of a picture."""
    red, green = image[:, :, 0].mean(), image[:, :, 1].mean()
    return round(green / GREEN), round(red / RED)


def boxes_of(number: int, faces: int) -> Any:
    """(n, 5), in float32, as detectors have them."""
    low = np.arange(faces)[:, None] * 8 + number + np.array([5.125, 6.1])
    return np.concatenate((low, low + 40.3, np.full((faces, 1), 0.9)), axis=1).astype(np.float32)


@dataclass(frozen=True)
class Finder:
    """Finds the faces that a picture's color tells of.

    Kills its process at pictures of some numbers, so many times each. It keeps count in a folder of its deaths, or,
    where it takes its time, of the processes that it is in.
    """

    deadly: tuple[int, ...] = ()
    times: int = 0
    notes: Path = Path()
    delay_s: float = 0

    def __call__(self, image: Image) -> Any:
        number, faces = color(image)
        if number in self.deadly and len(list(self.notes.glob(f"{number}-*"))) < self.times:
            (self.notes / f"{number}-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.delay_s:
            (self.notes / str(os.getpid())).touch()
            time.sleep(self.delay_s)
        return boxes_of(number, faces)


def make_model(**options: Any) -> pf.PIPNet:
    shape = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.7]])
    small: dict[str, Any] = {"num_landmarks": 3, "num_neighbors": 2, "input_size": 64, "width": 0.0625}
    return randomized(**{**small, "mean_shape": shape, **options})


def run(sources: Any, out: Path, **options: Any) -> Any:
    """``annotate`` with small shares and what else tests have in common."""
    usual: dict[str, Any] = {"detector": Finder(), "device": "cpu", "engine": "torch", "processes": 0, "shard_size": 4}
    return annotate(sources, out, **{**usual, **options})


def faces_of(out: Path) -> list[dict[str, Any]]:
    """The table of faces in the order of its files."""
    return _rows(out)


def images_of(out: Path) -> list[tuple[Any, ...]]:
    """Rows of the table of images: path, frame, faces, error."""
    return [tuple(row.values()) for row in _rows(out / "_images")]


def errors_of(out: Path) -> list[tuple[Any, ...]]:
    """Rows of the table of errors: path, frame, error."""
    return [tuple(row.values()) for row in parquet.read_table(out / "_errors.parquet").to_pylist()]


def assert_same(got: Path, expected: Path) -> None:
    """The same rows, whatever parts they are in; numbers up to the rounding of other batches."""
    assert images_of(got) == images_of(expected)
    assert errors_of(got) == errors_of(expected)
    assert_same_faces(faces_of(got), faces_of(expected))


def assert_same_faces(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert {**one, "landmarks": 0, "scores": 0} == {**other, "landmarks": 0, "scores": 0}
        for name in ("landmarks", "scores"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-2)


def _rows(folder: Path) -> list[dict[str, Any]]:
    tables = [parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist() if tables else []
    return rows
