"""The pictures of a share: photos, and every so many-th frame of its videos."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2

from pipnet_fast.annotate.parts import Position
from pipnet_fast.annotate.sources import is_video
from pipnet_fast.crop import Image
from pipnet_fast.pipeline.capture import VideoError
from pipnet_fast.pipeline.images import ImageError, read_rgb
from pipnet_fast.pipeline.video import VideoReader

# What a file that is no picture, or a damaged one, may raise.
UNREADABLE = (ImageError, VideoError, OSError, MemoryError, cv2.error)


class Picture(NamedTuple):
    """A photo or a frame, or why there is none."""

    path: str
    frame: int | None
    """Of a video, from 0."""
    image: Image | None
    """(h, w, 3) RGB."""
    error: str | None
    next: Position
    """Of what comes behind it."""


def read_pictures(
    paths: Sequence[str], begin: Position, every: int, may_touch: Callable[[Position], bool]
) -> Iterator[Picture]:
    """Read the files of a share.

    Args:
        paths: the files.
        begin: where to.
        every: take frames 0, every, 2 every, ... of each video.
        may_touch: whether to try the picture at a place; asked before it is touched.
    """
    for number in range(begin.input, len(paths)):
        frame = begin.frame if number == begin.input else 0
        if is_video(paths[number]):
            yield from _frames(paths[number], Position(number, frame), every, may_touch)
        else:
            yield _photo(paths[number], Position(number, 0), may_touch)


def reason(error: BaseException, path: str) -> str:
    """In words, with the file's name."""
    words = error.err if isinstance(error, cv2.error) else getattr(error, "strerror", None) or str(error)
    words = " ".join(str(words).split()) or type(error).__name__
    return words if path in words else f"{path}: {words}"


def _photo(path: str, position: Position, may_touch: Callable[[Position], bool]) -> Picture:
    behind = Position(position.input + 1, 0)
    if not may_touch(position):
        return Picture(path, None, None, _deadly(path), behind)
    try:
        _require_file(path)
        return Picture(path, None, read_rgb(path), None, behind)
    except UNREADABLE as error:
        return Picture(path, None, None, reason(error, path), behind)


def _frames(path: str, position: Position, every: int, may_touch: Callable[[Position], bool]) -> Iterator[Picture]:
    """Frames from a position on. They are decoded from the first one, for not every format seeks truly."""
    behind, due = Position(position.input + 1, 0), position
    if not may_touch(due):
        yield Picture(path, due.frame, None, _deadly(path), behind)
        return
    reader = None
    try:
        _require_file(path)
        reader = VideoReader(path)
        for frame in reader:
            if frame.number != due.frame:
                continue
            due = Position(position.input, due.frame + every)
            yield Picture(path, frame.number, frame.image, None, due)
            if not may_touch(due):
                yield Picture(path, due.frame, None, _deadly(path), behind)
                return
        if not reader.read:
            raise VideoError(f"{path}: no frame of it can be read")
        if reader.is_cut_off:
            raise VideoError(f"{path}: the video breaks off after {reader.read} of {reader.expected} frames")
    except UNREADABLE as error:
        yield Picture(path, reader.read if reader else 0, None, reason(error, path), behind)
    finally:
        if reader:
            reader.close()


def _require_file(path: str) -> None:
    """Raise unless it is a regular file: reading from others may never end."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # tells why a folder could not be searched
        raise ImageError(f"{path}: expected a file, got a folder")
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path}: expected a file, got a device, a pipe or a socket")


def _deadly(path: str) -> str:
    return f"{path}: processes that tried it died, for want of memory or by a fault in a library"
