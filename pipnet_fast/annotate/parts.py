"""Parts of the tables of faces and of images: what is in them, how they are written, and how far a share has come."""

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipnet_fast._parquet import arrow, part_identity, text, write_part
from pipnet_fast.annotate.folder import RunFolder
from pipnet_fast.data.errors import DataError
from pipnet_fast.pipeline.faces import Faces

# A part ends after so many pictures or, of crowds, faces, which bounds memory.
PICTURES, FACES = 1024, 8192


class Position(NamedTuple):
    """A place in a share."""

    input: int
    """Which of its files."""
    frame: int
    """Of a video, from 0."""


class Part:
    """Rows of both tables that are not written yet.

    Args:
        landmarks: N.
        digest: of the model.
    """

    def __init__(self, landmarks: int, digest: str) -> None:
        """Begin without rows."""
        self._landmarks, self._digest = landmarks, digest
        self._images: list[tuple[str, int | None, int | None, str | None]] = []
        self._faces: list[tuple[str, int | None, Faces]] = []
        self._num_faces = 0

    @property
    def is_full(self) -> bool:
        """Whether it ought to be written."""
        return len(self._images) >= PICTURES or self._num_faces >= FACES

    def add_image(self, path: str, frame: int | None, faces: int | None, error: str | None) -> None:
        """Add a picture, with the number of its faces, or why it could not be read."""
        self._images.append((text(path), frame, faces, None if error is None else text(error)))
        self._num_faces += faces or 0

    def add_faces(self, path: str, frame: int | None, faces: Faces) -> None:
        """Add the faces of a picture."""
        self._faces.append((text(path), frame, faces))

    def images(self) -> Any:
        """The table of images."""
        columns = list(zip(*self._images, strict=True)) or [()] * 4
        return arrow().table([list(column) for column in columns], schema=image_schema())

    def faces(self) -> Any:
        """The table of faces."""
        pa, schema = arrow(), face_schema(self._landmarks)
        counts = [len(faces) for _, _, faces in self._faces]
        total = sum(counts)

        def each(values: list[Any]) -> list[Any]:
            return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]

        def lists(name: str, width: int, arrays: list[npt.NDArray[np.float32]]) -> Any:
            flat = np.concatenate([np.zeros(0, np.float32), *(array.ravel() for array in arrays)])
            return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=schema.field(name).type)

        found = [faces for _, _, faces in self._faces]
        return pa.table(
            [
                each([path for path, _, _ in self._faces]),
                each([frame for _, frame, _ in self._faces]),
                [number for count in counts for number in range(count)],
                lists("box", 5, [faces.boxes for faces in found]),
                lists("landmarks", 2 * self._landmarks, [faces.landmarks for faces in found]),
                lists("scores", self._landmarks, [faces.scores for faces in found]),
                [self._digest] * total,
            ],
            schema=schema,
        )


class Share:
    """The files of a share that are written, part after part.

    A part is done when both of its files are there, that of the images last.

    Args:
        folder: of the run.
        identity: of the run, which goes into every file.
        number: of the share.
    """

    def __init__(self, folder: RunFolder, identity: Mapping[str, Any], number: int) -> None:
        """Look at nothing yet."""
        self._folder, self._identity, self._number = folder, identity, number

    def progress(self) -> tuple[int, Position | None]:
        """How many parts are done, and where the next one begins; None if that is the end of the share."""
        part, position = 0, Position(0, 0)
        while True:
            end = self._end(part)
            if end is None:
                return part, position
            part += 1
            if end == []:
                return part, None
            position = Position(*end)

    def begin(self, part: int) -> None:
        """Take away a part and those behind it, which are damaged or lack one of their files."""
        for folder in (self._folder.images, self._folder.path):
            for path in folder.glob(f"part-{self._number:06d}-*.parquet"):
                if int(path.stem.rpartition("-")[2]) >= part:
                    path.unlink()

    def write(self, part: int, rows: Part, end: Position | None) -> None:
        """Write a part; ``end`` is where the next one begins, None if this is the last.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        identity = {**self._identity, "shard": self._number, "part": part, "end": [] if end is None else list(end)}
        for place, table in zip(self._places(part), (rows.faces(), rows.images()), strict=True):
            # Beside the tables, so that readers never see half a file.
            pending = self._folder.pending / uuid.uuid4().hex
            columns = [name for name in ("path", "model", "error") if name in table.schema.names]
            write_part(pending, table, identity, one_writer=True, dictionaries=columns)
            os.replace(pending, place)

    def _places(self, part: int) -> tuple[Path, Path]:
        """Of faces and images."""
        name = f"part-{self._number:06d}-{part:04d}.parquet"
        return self._folder.path / name, self._folder.images / name

    def _end(self, part: int) -> list[int] | None:
        """Where a part says that the next one begins, [] for the last; None unless it is done."""
        with suppress(DataError):
            faces, images = map(part_identity, self._places(part))
            end = images.pop("end", None)
            expected = {**self._identity, "shard": self._number, "part": part}
            if faces == {**images, "end": end} and images == expected and isinstance(end, list) and len(end) in (0, 2):
                return end
        return None


def image_schema() -> Any:
    """Columns of the table of images."""
    pa = arrow()
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("frame", pa.int64()),
            pa.field("faces", pa.int32()),
            pa.field("error", pa.string()),
        ]
    )


def face_schema(landmarks: int) -> Any:
    """Columns of the table of faces."""
    pa = arrow()

    def numbers(count: int) -> Any:
        return pa.list_(pa.field("element", pa.float32(), nullable=False), count)

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("frame", pa.int64()),
            pa.field("face", pa.int32(), nullable=False),
            pa.field("box", numbers(5), nullable=False),
            pa.field("landmarks", numbers(2 * landmarks), nullable=False),
            pa.field("scores", numbers(landmarks), nullable=False),
            pa.field("model", pa.string(), nullable=False),
        ]
    )
