"""300VW: 68 points in every frame of 50 videos to train on and 64 to test on, in three categories.

As the archive unpacks: for every video a folder ``001/`` with ``vid.avi`` and ``annot/000001.pts``, one for each frame,
also inside ``300VW_Dataset_2015_12_14/``. Frame k, counted from 1, belongs to ``k.pts``: they are joined by number.

Frames are read from the videos in order without loss. For training, which wants them in any order, extract them once,
into ``frames/`` beside the video, as in ``ffmpeg -i vid.avi -fps_mode passthrough -q:v 1 frames/%06d.jpg``: where that
folder is there, images are read from it.
"""

import json
import os
import re
from importlib import resources
from pathlib import Path

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.readers._files import IMAGE_SUFFIXES, box_of, find_folder, list_files, read_lines
from pipnet_fast.data.readers._pts import read_pts
from pipnet_fast.data.samples import BadSample, FaceData, Sample
from pipnet_fast.data.sources import ImageFile, ImageSource, VideoFrame
from pipnet_fast.layouts import load_layout

SPLITS = ("train", "test", "category1", "category2", "category3")


def read(
    root: Path,
    split: str,
    bad: BadSamples,
    *,
    every: int | None = None,
    exclude: str | os.PathLike[str] = "known",
    scale: float = 1.1,
) -> FaceData:
    """Read a split.

    Args:
        root: folder with the unpacked archive.
        split: "train", "test" (of the subsets "category1", "category2" and "category3"), or one of these.
        bad: takes what is wrong with single faces, and the excluded ones.
        every: take frames 1, 1 + every, 1 + 2 every, ... of each video; by default 5 for training, as the paper does,
            and 1 for testing.
        exclude: "known", the 2127 broken frames of the test videos that benchmarks leave out; "none"; or a text file
            with lines of a video and a frame, as ``401 722``.
        scale: how much of the landmarks' tight box's sides the crop has. The data set has no boxes of its own.

    Raises:
        ValueError: an option out of its range.
        DataError: a folder or the file of ``exclude`` is missing or damaged; or, unless they are skipped, what concerns
            a video or a frame.
    """
    step = every if every is not None else 5 if split == "train" else 1
    if not isinstance(step, int) or step < 1:
        raise ValueError(f"300vw: every: expected a number of frames >= 1, got {every!r}")
    crop = CropRule(scale)
    lists = json.loads(resources.files(__package__).joinpath("300vw.json").read_text(encoding="utf-8"))
    excluded = _known_broken(lists["broken"]) if exclude == "known" else _read_excluded(exclude)
    base = find_folder(root, "300VW_Dataset_2015_12_14", ".")
    samples: list[Sample] = []
    for part in ("category1", "category2", "category3") if split == "test" else (split,):
        for video in lists["videos"][part].split():
            with bad.guard(str(base / video)):
                images = _Images(base / video)
                for number, labels in _annotations(base / video / "annot"):
                    if (number - 1) % step:
                        continue
                    if (video, number) in excluded:
                        bad.found.append(BadSample(str(labels), "left out: listed as a broken frame"))
                        continue
                    with bad.guard(str(labels)):
                        landmarks = read_pts(labels)
                        box = box_of(landmarks, str(labels))
                        subsets = () if split == "train" else (part,)
                        samples.append(Sample(images.frame(number), landmarks, box, subsets))
    return FaceData(f"300vw/{split}", load_layout("300w68"), samples, crop, tight=True, bad=bad.found)


class _Images:
    """Where the frames of a video are."""

    def __init__(self, folder: Path) -> None:
        self.video, self.extracted = folder / "vid.avi", folder / "frames"
        self.names: dict[int, str] | None = None
        if self.extracted.is_dir():
            self.names = _numbered(self.extracted, IMAGE_SUFFIXES)
        elif not self.video.is_file():
            raise DataError(f"{self.video}: expected a video, found no such file")

    def frame(self, number: int) -> ImageSource:
        """The source of frame ``number``."""
        if self.names is None:
            return VideoFrame(self.video, number)
        if number not in self.names:
            raise DataError(f"{self.extracted}: expected an image of frame {number}, found none")
        return ImageFile(self.extracted / self.names[number])


def _annotations(folder: Path) -> list[tuple[int, Path]]:
    names = _numbered(folder, (".pts",))
    if not names:
        raise DataError(f"{folder}: expected files such as 000001.pts, found none")
    return [(number, folder / names[number]) for number in sorted(names)]


def _numbered(folder: Path, suffixes: tuple[str, ...]) -> dict[int, str]:
    """Names of files whose stem is a number."""
    parts = ((name, *os.path.splitext(name)) for name in list_files(folder))
    return {int(stem): name for name, stem, suffix in parts if re.fullmatch("[0-9]{1,9}", stem) and suffix in suffixes}


def _known_broken(spans: dict[str, str]) -> set[tuple[str, int]]:
    frames = set()
    for video, text in spans.items():
        for span in text.split():
            first, _, last = span.partition("-")
            frames |= {(video, number) for number in range(int(first), int(last or first) + 1)}
    return frames


def _read_excluded(source: str | os.PathLike[str]) -> set[tuple[str, int]]:
    if source == "none":
        return set()
    path = Path(source)
    frames = set()
    for number, line in enumerate(read_lines(path), start=1):
        if match := re.fullmatch(r"\s*([0-9]{3})\s+([0-9]{1,9})\s*", line):
            frames.add((match[1], int(match[2])))
        elif line.strip():
            raise DataError(f"{path}, line {number}: expected a video and a frame such as 401 722, got {line[:40]!r}")
    return frames
