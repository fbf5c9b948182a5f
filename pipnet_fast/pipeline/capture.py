"""Names of videos, and their opening: for names that are no UTF-8 OpenCV ends the process."""

import os

import cv2


class VideoError(ValueError):
    """A video that cannot be read or written."""


def require_utf8(path: str) -> None:
    """Raise for a name that OpenCV's videos cannot have.

    Raises:
        VideoError: it is no UTF-8. The message leaves it out.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise VideoError("expected the name of a video to be UTF-8") from None


def for_ffmpeg(path: str) -> str:
    """The name with its folder, for FFmpeg takes what stands before a colon at the beginning for a protocol."""
    return os.path.abspath(path)


def open_video(path: str) -> cv2.VideoCapture:
    """Open the file of a video.

    Raises:
        VideoError: its name is no UTF-8, or OpenCV cannot read it. The message leaves the name out.
    """
    require_utf8(path)
    capture = cv2.VideoCapture(for_ffmpeg(path))
    if not capture.isOpened():
        raise VideoError("not a video that OpenCV can read")
    return capture
