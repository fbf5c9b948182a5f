"""One's own photos and videos without labels, as they lie in a folder, for self-training on them.

Every image in the folder and below it, and every fifth frame of every video. A detector finds the faces later: until
then a picture is one ``Sample`` whose ``box`` is NaN. What begins with a dot is passed over, and links to other folders
are not followed.

No image is opened here, and of a video only what it takes to count its frames. Frames are read in order without loss;
for training, which wants them in any order, extract those of many videos once, as ``readers.vw300`` tells, and move the
videos elsewhere.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._files import IMAGE_SUFFIXES
from pipnet_fast.data.samples import FaceData, Points, Sample
from pipnet_fast.data.sources import ImageFile, ImageSource, VideoFrame
from pipnet_fast.layouts import load_layout
from pipnet_fast.pipeline.capture import VideoError, open_video
from pipnet_fast.pipeline.images import ImageError

SPLITS = ("all",)

IMAGES = (*IMAGE_SUFFIXES, ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

# What a header may claim and is worth trying; some claim -2^63.
_MAX_FRAMES = 1e8


def read(
    root: Path,
    split: str,
    bad: BadSamples,
    *,
    every: int = 5,
    layout: str = "300w68",
    scale: float = 1.2,
    top_shift: float = 0.0,
) -> FaceData:
    """List the pictures, sorted by path.

    Args:
        root: the folder.
        split: "all".
        bad: takes folders that cannot be listed and videos that cannot be read.
        every: take frames 1, 1 + every, 1 + 2 every, ... of each video.
        layout: name of the layout that landmarks are to be found in, for none is labelled.
        scale: how much of a found box's sides the crop has.
        top_shift: by how much of the box's height the crop's top is then moved down.

    Raises:
        ValueError: an option out of its range.
        DataError: unless they are skipped, a folder that cannot be listed, or a video without a frame that can be read.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"images: every: expected a number of frames >= 1, got {every!r}")
    meaning, crop = load_layout(layout), CropRule(scale, top_shift)
    # One for all: there may be hundreds of thousands.
    no_box: Points = np.full(4, np.nan)
    no_box.setflags(write=False)
    samples = [Sample(source, None, no_box) for path in _files(root, bad) for source in _sources(path, every, bad)]
    return FaceData(f"{root.resolve().name}/{split}", meaning, samples, crop, bad=bad.found)


def _files(root: Path, bad: BadSamples) -> list[str]:
    """Paths of the images and videos in a folder and below it, sorted."""
    found: list[str] = []
    folders = [os.fspath(root)]
    while folders:
        folder = folders.pop()
        with bad.guard(folder):
            try:
                with os.scandir(folder) as entries:
                    shown = [entry for entry in entries if not entry.name.startswith(".")]
            except OSError as error:
                raise DataError(f"{folder}: {error.strerror or error}") from None
            folders += [entry.path for entry in shown if entry.is_dir(follow_symlinks=False)]
            found += [entry.path for entry in shown if _suffix(entry.name) in IMAGES + VIDEOS and entry.is_file()]
    return sorted(found)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _sources(path: str, every: int, bad: BadSamples) -> Iterator[ImageSource]:
    """The image of a file, or frames of it."""
    if _suffix(path) in IMAGES:
        yield ImageFile(path)
        return
    with bad.guard(path):
        count = _num_frames(path)
        if not count:
            raise DataError(f"{path}: expected a video that OpenCV can read, found none")
        yield from (VideoFrame(path, number) for number in range(1, count + 1, every))


def _num_frames(path: str) -> int:
    """How many frames of a video can be read, 0 if it is none.

    Headers only estimate the number in some formats, and know nothing of the end that a file lost.
    """
    try:
        capture = open_video(path)
    except VideoError:
        return 0
    claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if 1 <= claimed <= _MAX_FRAMES and _is_readable(VideoFrame(path, int(claimed))):
        return int(claimed)
    count = 0
    while capture.grab():
        count += 1
    return count


def _is_readable(frame: VideoFrame) -> bool:
    try:
        frame.read()
    except ImageError:
        return False
    return True
