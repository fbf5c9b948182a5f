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


def open_video(path: str) -> cv2.VideoCapture:
    """Open the file of a video.

    Raises:
        VideoError: its name is no UTF-8, or OpenCV cannot read it. The message leaves the name out.
    """
    require_utf8(path)
    # FFmpeg takes what stands before a colon for a protocol, unless there is a folder.
    capture = cv2.VideoCapture(os.path.abspath(path))
    if not capture.isOpened():
        raise VideoError("not a video that OpenCV can read")
    return capture
