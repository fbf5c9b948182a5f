"""Videos and cameras in, videos out, by OpenCV; without sound."""

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from pipnet_fast.crop import Image
from pipnet_fast.pipeline.capture import VideoError, for_ffmpeg, open_video, require_utf8

# Of files that do not tell theirs.
FPS = 30.0
# What a header may claim and is worth believing.
MAX_FPS, MAX_FRAMES = 240.0, 1e8
# Frames further apart than this have wrong times.
MAX_GAP_S = 600.0

# What OpenCV may be able to encode, the better one first, by the end of the file's name.
CODECS = {
    ".avi": ("MJPG",),
    ".m4v": ("mp4v", "avc1"),
    ".mkv": ("mp4v", "avc1"),
    ".mov": ("mp4v", "avc1"),
    ".mp4": ("mp4v", "avc1"),
}


class VideoFrame(NamedTuple):
    """A frame of a video."""

    number: int
    """From 0."""
    time_s: float
    """Seconds since the first frame, each later than the one before."""
    image: Image
    """(h, w, 3) RGB, upright as the video's rotation says."""


class VideoReader:
    """The frames of a video file or camera, in order, once.

    Times are the file's own, so that a variable frame rate is kept, and a camera's by the clock.

    Args:
        source: the path of a file, or the number of a camera.

    Raises:
        FileNotFoundError: no such file.
        VideoError: no video that OpenCV can read, or no such camera.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        """See the class."""
        self.is_camera = isinstance(source, int)
        self.name = f"camera {source}" if isinstance(source, int) else os.fspath(source)
        if isinstance(source, int) and not 0 <= source < 1 << 31:
            raise VideoError(f"{self.name}: no such camera")
        if not isinstance(source, int) and not os.path.isfile(source):
            raise FileNotFoundError(f"no such video: {self.name}")
        try:
            self._capture = cv2.VideoCapture(source) if isinstance(source, int) else open_video(self.name)
        except VideoError as error:
            raise VideoError(f"{self.name}: {error}") from None
        if not self._capture.isOpened():
            raise VideoError(f"{self.name}: no such camera")
        fps, frames = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if 0 < fps <= MAX_FPS else FPS
        # Headers only estimate it in some formats; some claim -2^63.
        self.expected = int(frames) if 1 <= frames <= MAX_FRAMES and not self.is_camera else None
        self.read = 0
        self._time_s = 0.0

    def __iter__(self) -> Iterator[VideoFrame]:
        """The frames; ends where none can be read any more."""
        last_clock = None
        while self._capture.grab():
            success, image = self._capture.retrieve()
            if not success or image is None or image.ndim != 3:
                return
            clock = time.monotonic() if self.is_camera else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if last_clock is not None:
                step = clock - last_clock
                self._time_s += step if 0 < step <= MAX_GAP_S else 1 / self.fps
            last_clock = clock
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            self.read += 1
            yield VideoFrame(self.read - 1, self._time_s, rgb)

    @property
    def is_cut_off(self) -> bool:
        """Whether fewer frames could be read, and of a shorter time, than the file's header says there are.

        Both, because a header counts frames or estimates them from the duration. What lacks a frame and a hundredth is
        taken for whole.
        """
        if self.expected is None:
            return False
        return max(self.read, self._time_s * self.fps + 1) + 1 < 0.99 * self.expected

    def close(self) -> None:
        """Let go of the file or camera."""
        self._capture.release()


class VideoWriter:
    """Writes a video of a constant frame rate: a frame is repeated until the next one's time has come.

    The size is that of the first frame, its sides made even, to which later ones are brought. The first codec of
    ``CODECS`` that OpenCV can encode is used.

    Args:
        path: the file; one that is there is overwritten. Its name ends in one of ``CODECS``.
        fps: frames per second, > 0, in hundredths above 65. Frames that come faster are left out.

    Raises:
        ValueError: another ending, or a name that is no UTF-8.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        """See the class."""
        # OpenCV makes a fraction of it by thousandths, of which MPEG-4 takes denominators up to 65,535.
        self._path, self._fps = os.fspath(path), fps if fps <= 65 else round(fps, 2)
        self._codecs = codecs_of(path)
        require_utf8(self._path)
        self._writer: cv2.VideoWriter | None = None
        self._size = 0, 0
        self._last: Image | None = None
        self._written = 0

    def write(self, image: Image, time_s: float) -> None:
        """Add an RGB frame (h, w, 3) that is shown from ``time_s`` on, counted from the first frame.

        Raises:
            OSError: the file cannot be written.
            VideoError: OpenCV can encode none of the codecs.
        """
        bgr = _even(image[..., ::-1])
        if self._writer is None:
            self._size = bgr.shape[1], bgr.shape[0]
            self._writer = self._open()
        place = round(time_s * self._fps)
        while self._last is not None and self._written < place:
            self._put(self._last)
        if self._written <= place:
            if bgr.shape[1::-1] != self._size:  # OpenCV would leave the frame out without a word
                bgr = cv2.resize(bgr, self._size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            self._last = bgr
            self._put(bgr)

    def close(self) -> None:
        """Finish the file.

        Raises:
            VideoError: what is there is not what was written, as on a full disk.
        """
        if self._writer is not None:
            self._writer.release()
            there = cv2.VideoCapture(for_ffmpeg(self._path)).get(cv2.CAP_PROP_FRAME_COUNT)
            # Some formats round the duration.
            if abs(there - self._written) > 1:
                raise VideoError(f"{self._path}: {self._written} frames were encoded, {there:.0f} are in the file")

    def _put(self, image: Image) -> None:
        assert self._writer is not None
        self._writer.write(image)
        self._written += 1

    def _open(self) -> cv2.VideoWriter:
        # OpenCV does not tell why a file cannot be made.
        with open(self._path, "wb"):
            pass
        for codec in self._codecs:
            writer = cv2.VideoWriter(for_ffmpeg(self._path), cv2.VideoWriter.fourcc(*codec), self._fps, self._size)
            if writer.isOpened():
                return writer
        raise VideoError(f"{self._path}: OpenCV {cv2.__version__} can encode none of {', '.join(self._codecs)} here")


def codecs_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The codecs for a file of such a name.

    Raises:
        ValueError: it ends in something else than videos do.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in CODECS:
        raise ValueError(f"{os.fspath(path)}: expected a name that ends in one of {', '.join(CODECS)}")
    return CODECS[suffix]


def _even(image: Image) -> Image:
    """The image with even sides, its last row and column repeated: of odd ones OpenCV writes less, or crashes."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return padded.astype(np.uint8, copy=False)
