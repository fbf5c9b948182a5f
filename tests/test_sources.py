"""Frames of a video: the right one in any order, in processes and threads, and what is wrong with damaged files."""

import multiprocessing
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipnet_fast.data import sources
from pipnet_fast.data.sources import VideoFrame
from pipnet_fast.pipeline.images import ImageError

FRAMES = 130  # more than are skipped rather than sought


def write_video(path: Path, frames: int = FRAMES, codec: str = "MJPG") -> None:
    """Frame k, counted from 1, shows k in its upper half as seven stripes of red, off or on."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (112, 48))
    assert writer.isOpened()
    for number in range(1, frames + 1):
        image = np.full((48, 112, 3), 20, np.uint8)
        for bit in range(7 if number < 128 else 8):
            image[:24, 14 * bit : 14 * bit + 14, 2] = 230 * (number >> bit & 1)
        writer.write(image)
    writer.release()


def number_shown(image: np.ndarray) -> int:
    assert image.shape == (48, 112, 3)
    assert image.dtype == np.uint8
    return sum(1 << bit for bit in range(8) if image[4:20, 14 * bit + 4 : 14 * bit + 10, 0].mean() > 120)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "vid.avi"
    write_video(path)
    return path


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(range(1, FRAMES + 1), id="in order"),
        pytest.param(range(1, FRAMES + 1, 5), id="every fifth"),
        pytest.param(range(FRAMES, 0, -9), id="backwards"),
        pytest.param([1, FRAMES, 2, 2, 125, 7], id="to and fro"),
    ],
)
@pytest.mark.parametrize("codec", ["MJPG", "mp4v"])
def test_frames(tmp_path: Path, codec: str, order: range) -> None:
    path = tmp_path / "vid.avi"
    write_video(path, codec=codec)
    assert [number_shown(VideoFrame(path, number).read()) for number in order] == list(order)


def test_a_format_that_cannot_be_sought_in(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unseekable:
        def __init__(self, path: str) -> None:
            self.capture = capture(path)

        def set(self, *_: float) -> bool:
            return False

        def __getattr__(self, name: str) -> object:
            return getattr(self.capture, name)

    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Unseekable)
    assert [number_shown(VideoFrame(str(video), number).read()) for number in (120, 3, 110)] == [120, 3, 110]


def test_in_order_the_video_is_opened_once_and_never_sought(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    VideoFrame(video, 1).read()
    monkeypatch.setattr(sources._Video, "_open", lambda _: pytest.fail("opened again"))
    monkeypatch.setattr(sources._Video, "_seek", lambda *_: pytest.fail("sought"))
    assert [number_shown(VideoFrame(video, number).read()) for number in (2, 3, 50)] == [2, 3, 50]


def test_threads_do_not_share_a_position(video: Path) -> None:
    wrong: list[int] = []

    def read(numbers: range) -> None:
        wrong.extend(number for number in numbers if number_shown(VideoFrame(video, number).read()) != number)

    threads = [threading.Thread(target=read, args=(range(start, FRAMES, 3),)) for start in (1, 2, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _read_in_child(path: str, numbers: list[int], shown: "multiprocessing.SimpleQueue[list[int]]") -> None:
    shown.put([number_shown(VideoFrame(path, number).read()) for number in numbers])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_its_own(video: Path) -> None:
    assert number_shown(VideoFrame(video, 30).read()) == 30
    context = multiprocessing.get_context("fork")
    shown = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(str(video), [31, 5, 60], shown))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert shown.get() == [31, 5, 60]
    assert number_shown(VideoFrame(video, 31).read()) == 31


def test_errors(video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImageError, match=rf"vid.avi, frame 131: the video ends after frame {FRAMES}"):
        VideoFrame(video, FRAMES + 1).read()
    with pytest.raises(ImageError, match=rf"vid.avi, frame 9999: the video ends after frame {FRAMES}"):
        VideoFrame(video, 9999).read()
    assert number_shown(VideoFrame(video, 5).read()) == 5
    with pytest.raises(ImageError, match="vid.avi, frame 0: expected frames counted from 1"):
        VideoFrame(video, 0).read()
    with pytest.raises(ImageError, match="none.avi, frame 1: no such file"):
        VideoFrame(tmp_path / "none.avi", 1).read()
    (tmp_path / "junk.avi").write_bytes(b"RIFF junk" * 1000)
    with pytest.raises(ImageError, match="junk.avi, frame 1: not a video that OpenCV can read"):
        VideoFrame(tmp_path / "junk.avi", 1).read()


def test_truncated(video: Path, tmp_path: Path) -> None:
    """What is there is read; the frame that is not, is missed by its number."""
    whole = video.read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    assert number_shown(VideoFrame(tmp_path / "cut.avi", 20).read()) == 20
    with pytest.raises(ImageError, match=r"cut.avi, frame 120: the video (ends after frame \d+|is damaged here)"):
        VideoFrame(tmp_path / "cut.avi", 120).read()
    assert number_shown(VideoFrame(tmp_path / "cut.avi", 3).read()) == 3
