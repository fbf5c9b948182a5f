"""Where an image comes from: a file, a frame of a video, an entry of an HDF5 file."""

import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np

from pipnet_fast.crop import Image
from pipnet_fast.data._optional import import_optional
from pipnet_fast.pipeline.capture import VideoError, open_video
from pipnet_fast.pipeline.images import MAX_PIXELS, ImageError, as_rgb, read_rgb


class ImageSource(Protocol):
    """A picture that is read when it is needed; small, and copied to worker processes."""

    def read(self) -> Image:
        """RGB (h, w, 3) of uint8.

        Raises:
            ImageError: missing, damaged, or no image.
        """

    def __str__(self) -> str:
        """For messages and tables: which file, and where in it."""


@dataclass(frozen=True)
class ImageFile:
    """An image file of its own."""

    path: str | os.PathLike[str]

    def read(self) -> Image:
        """See ``ImageSource``."""
        return read_rgb(self.path)

    def __str__(self) -> str:
        """The path."""
        return os.fspath(self.path)


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video. Reading frames in order is fast; going back in one seeks, which decodes from its last key.

    Attributes:
        path: the video.
        number: of the frame, counted from 1 in the order of decoding, as ffmpeg numbers the images it extracts.
    """

    path: str | os.PathLike[str]
    number: int

    def read(self) -> Image:
        """See ``ImageSource``. The video stays open for the next frame, once for every process and thread."""
        if self.number < 1:
            raise ImageError(f"{self}: expected frames counted from 1")
        try:
            return _open_video(os.fspath(self.path)).frame(self.number)
        except (ImageError, cv2.error) as error:
            _opened.videos.pop(os.getpid(), None)
            reason = error.err if isinstance(error, cv2.error) else error
            raise ImageError(f"{self}: {reason}") from None

    def __str__(self) -> str:
        """The path and the frame's number."""
        return f"{os.fspath(self.path)}, frame {self.number}"


@dataclass(frozen=True)
class BlackImage:
    """A picture blackened: what a network learns of positions alone, without features (section 3.4).

    Attributes:
        source: the picture.
    """

    source: ImageSource

    def read(self) -> Image:
        """Zeros of the picture's size."""
        return np.zeros_like(self.source.read())

    def __str__(self) -> str:
        """The picture's name."""
        return f"{self.source}, blackened"


class _Video:
    """An opened video, and where it stands."""

    # Decoding so many frames takes about as long as a seek, after which it decodes from the last key frame.
    MAX_SKIP = 100

    def __init__(self, path: str) -> None:
        self.path = path
        if not os.path.isfile(path):  # OpenCV only prints a warning
            raise ImageError("no such file")
        self._open()

    def frame(self, number: int) -> Image:
        """RGB (h, w, 3) of frame ``number``."""
        if not 0 <= number - self._next <= self.MAX_SKIP:
            self._seek(number)
        for _ in range(self._next, number):
            self._grab()
        self._grab()
        success, image = self._capture.retrieve()
        if not success or image is None or image.ndim != 3:
            raise ImageError("the video is damaged here")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    def _open(self) -> None:
        try:
            self._capture = open_video(self.path)
        except VideoError as error:
            raise ImageError(str(error)) from None
        self._next = 1

    def _grab(self) -> None:
        if not self._capture.grab():
            raise ImageError(f"the video ends after frame {self._next - 1}")
        self._next += 1

    def _seek(self, number: int) -> None:
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, number - 1)
        if round(self._capture.get(cv2.CAP_PROP_POS_FRAMES)) == number - 1:
            self._next = number
        else:  # not every format can be sought in: count from the start
            self._open()


class _Opened(threading.local):
    """The video that this thread reads, by process.

    A forked process sees its parent's, whose file position it shares and whose decoding threads it lacks: it may
    neither read nor close it.
    """

    def __init__(self) -> None:
        self.videos: dict[int, _Video] = {}


_opened = _Opened()


def _open_video(path: str) -> _Video:
    video = _opened.videos.get(os.getpid())
    if video is None or video.path != path:
        video = _opened.videos[os.getpid()] = _Video(path)
    return video


@dataclass(frozen=True)
class HDF5Image:
    """A cell of a MATLAB v7.3 file: (h, w, 3) RGB or (h, w) gray, which HDF5 has with its axes in reverse.

    The file stays open in every process that reads from it.

    Attributes:
        path: the file.
        variable: the cell array.
        index: the cell, from 0.
    """

    path: str | os.PathLike[str]
    variable: str
    index: int

    def read(self) -> Image:
        """See ``ImageSource``.

        Raises:
            ImportError: h5py is missing.
        """
        try:
            pixels = self._read_cell()
        except (ImageError, ImportError):
            raise
        except Exception as error:  # h5py has no error of its own, a damaged file can raise nearly any
            raise ImageError(f"{self}: {error}") from None
        return as_rgb(pixels, "rgb")

    def __str__(self) -> str:
        """File and cell, in MATLAB's notation."""
        return f"{os.fspath(self.path)}: {self.variable}{{{self.index + 1}}}"

    def _read_cell(self) -> Any:
        file = _open_hdf5(os.fspath(self.path))
        cells = file[self.variable]
        cell = file[cells[(0, self.index) if cells.shape[0] == 1 else (self.index, 0)]]
        shape, kind = cell.shape[::-1], cell.dtype  # before anything of that size is allocated
        if kind != "uint8" or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
            raise ImageError(f"{self}: expected an image (h, w, 3) or (h, w) of uint8, got {kind} {shape}")
        if not 1 <= shape[0] * shape[1] <= MAX_PIXELS:
            raise ImageError(f"{self}: expected 1 to {MAX_PIXELS} pixels, got {shape[0]} x {shape[1]}")
        return cell[...].T


@lru_cache(maxsize=8)
def _open_hdf5(path: str) -> Any:
    """An open file. A forked process can go on with it: HDF5 reads at given positions, h5py forks between two calls."""
    # Without a lock on the file, which network file systems and read-only ones refuse.
    return import_optional("h5py", f"{path}: reading its images").File(path, "r", locking=False)
