"""Boxes for pictures without any, found by a face detector, in a table of many files."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipnet_fast._errors import require_int
from pipnet_fast._parquet import arrow, text
from pipnet_fast.data.errors import UNREADABLE, DataError, reason
from pipnet_fast.data.samples import BadSample, FaceData, Points, Sample
from pipnet_fast.pipeline.detectors import Detector, create_detector
from pipnet_fast.pipeline.landmarker import as_boxes
from pipnet_fast.selftrain.shards import ALONE, Shards, identity_of, read_identity
from pipnet_fast.train.distributed import World

# The version of the layout of the tables.
FORMAT = "pipnet_fast.boxes/1"

# Pictures in a file: a minute or two of the Haar cascade.
SHARD_SIZE = 1024

# Numbers of a box: x0, y0, x1, y1, score.
_WIDTH = 5


class BoxStatistics(NamedTuple):
    """What a detector found."""

    images: int
    """All of them."""
    unreadable: int
    """Those that could not be read."""
    faceless: int
    """Those in which no face was found."""
    faces: int
    """In the others."""


def write_boxes(
    data: FaceData,
    detector: str | Detector,
    folder: str | os.PathLike[str],
    *,
    shard_size: int = SHARD_SIZE,
    skip_bad: bool = False,
    world: World = ALONE,
) -> None:
    """Look for faces in pictures and write their tight boxes into Parquet files; needs pyarrow.

    Files that are there already are kept, so that a call that was killed is made again and goes on.

    Columns: index, of the sample in ``data``; image, its name; boxes (5 m), x0, y0, x1, y1 in px and score of each of
    its m >= 0 faces; error, why the image cannot be read.

    Args:
        data: one sample for each picture; its boxes and labels do not matter.
        detector: "auto", "haar", "yunet:PATH", or a callable, as for ``FaceLandmarker``. A callable is told from others
            by the name of its class or function only.
        folder: where the files go; data and detector must be those of the files in it.
        shard_size: pictures in a file.
        skip_bad: go on where an image cannot be read, and say so in the table.
        world: whose processes share the files out; all of them must call this with the same arguments.

    Raises:
        TypeError, ValueError: a detector that is none, or returns no boxes; no pictures; a folder with other boxes.
        DataError: an image that cannot be read, unless ``skip_bad``; the files before it stay.
        OSError: the disk is full, or the folder cannot be written.
        RuntimeError: a detector that is not present here, or processes that do not see the same folder.
        ImportError: pyarrow is missing.
    """
    find = create_detector(detector)
    if find is None:
        raise TypeError('write_boxes: detector: expected "auto", "haar", "yunet:PATH" or a callable, got None')
    require_int("write_boxes", "shard_size", shard_size, 1)
    if not len(data):
        raise ValueError(f"write_boxes: {data.name}: expected pictures, got none")
    identity = {
        "format": FORMAT,
        **identity_of(data),
        "detector": detector if isinstance(detector, str) else getattr(find, "__qualname__", type(find).__qualname__),
        "shard_size": shard_size,
    }
    shards = Shards(Path(folder), identity, _schema())

    def make(rows: range) -> Any:
        boxes: list[Any] = []
        errors: list[str | None] = []
        for sample in data.samples[rows.start : rows.stop]:
            found, error = _find(find, sample, skip_bad)
            boxes.append(found)
            errors.append(error)
        names = [text(str(sample.image)) for sample in data.samples[rows.start : rows.stop]]
        return arrow().table([rows, names, boxes, errors], schema=shards.schema)

    shards.write(make, world=world, accept=lambda table: skip_bad or table["error"].null_count == len(table))


def read_boxes(data: FaceData, folder: str | os.PathLike[str]) -> FaceData:
    """The faces that ``write_boxes`` found: a sample with a tight box and without labels for each.

    Args:
        data: the pictures that were searched.
        folder: where the files are.

    Returns:
        The faces, perhaps none, in the order of ``data`` and, in a picture, of the detector. Pictures that could not be
        read are in ``bad``; those without a face are just not there (``box_statistics`` counts them).

    Raises:
        ValueError: boxes of other pictures.
        DataError: a file is missing or damaged.
        ImportError: pyarrow is missing.
    """
    shards = _open(folder)
    shards.require("read_boxes", data)
    samples: list[Sample] = []
    bad = list(data.bad)
    for table in shards.tables():
        for index, boxes in zip(table["index"].to_pylist(), table["boxes"], strict=True):
            tight = boxes.values.to_numpy().reshape(-1, _WIDTH)[:, :4].astype(np.float64)
            samples += [replace(data.samples[index], box=box, landmarks=None) for box in tight]
        unread = table.filter(table["error"].is_valid())
        bad += map(BadSample, unread["image"].to_pylist(), unread["error"].to_pylist())
    return replace(data, samples=samples, tight=True, bad=bad)


def box_statistics(folder: str | os.PathLike[str]) -> BoxStatistics:
    """How many pictures were searched, and how many faces found.

    Raises:
        DataError, ImportError: as ``read_boxes``.
    """
    images, unreadable, faceless, faces = 0, 0, 0, 0
    for table in _open(folder).tables():
        counts = np.diff(table["boxes"].combine_chunks().offsets.to_numpy()) // _WIDTH
        read = table["error"].is_null().to_numpy()
        images += len(table)
        unreadable += int((~read).sum())
        faceless += int((counts[read] == 0).sum())
        faces += int(counts.sum())
    return BoxStatistics(images, unreadable, faceless, faces)


def _find(detector: Detector, sample: Sample, skip_bad: bool) -> tuple[Points, str | None]:
    """Boxes, (5 m,), or none and why the picture cannot be read."""
    try:
        image = sample.image.read()
    except UNREADABLE as error:
        why = reason(str(sample.image), error)
        if not skip_bad:
            raise DataError(why) from None
        return np.empty(0), text(why)
    try:
        found: Any = as_boxes(detector(image)).ravel()
    except (TypeError, ValueError) as error:
        raise type(error)(f"write_boxes: detector: {sample.image}: {error}") from error
    return found, None


def _schema() -> Any:
    pa = arrow()
    return pa.schema(
        [
            pa.field("index", pa.int64(), nullable=False),
            pa.field("image", pa.string(), nullable=False),
            pa.field("boxes", pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False),
            pa.field("error", pa.string()),
        ]
    )


def _open(folder: str | os.PathLike[str]) -> Shards:
    return Shards(Path(folder), read_identity(Path(folder), FORMAT), _schema())
