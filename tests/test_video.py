"""Videos read and written: every frame with its time, upright; what is cut off, damaged, or no video."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipnet_fast.data.sources import VideoFrame
from pipnet_fast.pipeline import ahead as ahead_module
from pipnet_fast.pipeline import video as video_module
from pipnet_fast.pipeline.ahead import ahead
from pipnet_fast.pipeline.capture import VideoError
from pipnet_fast.pipeline.images import ImageError
from pipnet_fast.pipeline.video import CODECS, VideoReader, VideoWriter
from tests.mp4 import time_frames, turn
from tests.test_sources import number_shown, write_video


def write(path: Path, count: int, step_s: float = 0.04, fps: float = 25) -> None:
    """Frame k is gray, 10 k."""
    writer = VideoWriter(path, fps)
    for k in range(count):
        writer.write(np.full((48, 64, 3), 10 * k, np.uint8), k * step_s)
    writer.close()


def grays(path: Path) -> list[int]:
    return [round(float(frame.image.mean()) / 10) for frame in VideoReader(path)]


@pytest.mark.parametrize(("name", "codec"), [("v.avi", "MJPG"), ("v.mp4", "mp4v"), ("v.mkv", "mp4v")])
def test_frames_and_their_times(tmp_path: Path, name: str, codec: str) -> None:
    write_video(tmp_path / name, 20, codec)
    video = VideoReader(tmp_path / name)
    assert (video.fps, video.is_camera) == (25, False)
    frames = list(video)
    assert [number_shown(frame.image) for frame in frames] == list(range(1, 21))
    assert [frame.number for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) / 25, atol=2e-3)
    assert (video.read, video.expected, video.is_cut_off) == (20, 20, False)


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, 12, "mp4v")
    durations = [0.5, 0.5, 2.0] * 4
    time_frames(path, durations)
    video = VideoReader(path)
    times = [frame.time_s for frame in video]
    np.testing.assert_allclose(times, np.cumsum([0, *durations[:-1]]) / 25, atol=2e-3)
    assert not video.is_cut_off


def test_rotation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, 3, "mp4v")
    upright = [frame.image for frame in VideoReader(path)]
    turn(path)
    for frame, expected in zip(VideoReader(path), upright, strict=True):
        np.testing.assert_array_equal(frame.image, np.rot90(expected, -1))


def test_times_that_stand_still_or_leap_go_on_by_the_frame_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v.avi", 6)
    clock = iter([0.0, 40.0, 40.0, 20.0, 1e12, 1e12 + 80])

    class Strange:
        def __init__(self, capture: cv2.VideoCapture) -> None:
            self.grab, self.retrieve, self._get = capture.grab, capture.retrieve, capture.get

        def get(self, name: int) -> float:
            return next(clock) if name == cv2.CAP_PROP_POS_MSEC else self._get(name)

    video = VideoReader(tmp_path / "v.avi")
    monkeypatch.setattr(video, "_capture", Strange(video._capture))
    times = [frame.time_s for frame in video]
    np.testing.assert_allclose(times, [0, 0.04, 0.08, 0.12, 0.16, 0.24], atol=1e-4)


@pytest.mark.parametrize("keep", [0.4, 0.8])
def test_a_cut_off_video_is_read_as_far_as_it_goes(tmp_path: Path, keep: float) -> None:
    write_video(tmp_path / "v.avi", 60)
    data = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "v.avi").write_bytes(data[: int(len(data) * keep)])
    video = VideoReader(tmp_path / "v.avi")
    shown = [number_shown(frame.image) for frame in video]
    assert shown == list(range(1, len(shown) + 1))
    assert 10 < len(shown) < 60
    assert (video.read, video.expected, video.is_cut_off) == (len(shown), 60, True)


@pytest.mark.parametrize("content", [b"", b"no video", bytes(range(256)) * 40], ids=["empty", "text", "noise"])
def test_no_videos(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"v\.mp4: not a video that OpenCV can read"):
        VideoReader(tmp_path / "v.mp4")
    with pytest.raises(FileNotFoundError, match=r"no such video: .*none\.mp4"):
        VideoReader(tmp_path / "none.mp4")
    for number in (98765, 1 << 32):
        with pytest.raises(VideoError, match=f"camera {number}: no such camera"):
            VideoReader(number)


@pytest.mark.parametrize("suffix", CODECS)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"v{suffix}", 20)
    assert grays(tmp_path / f"v{suffix}") == list(range(20))


@pytest.mark.parametrize("fps", [65.537, 100.123, 119.987, 239.761, 1000.0])
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_rates_of_slow_motion(tmp_path: Path, suffix: str, fps: float) -> None:
    writer = VideoWriter(tmp_path / f"v{suffix}", fps)
    for k in range(5):
        writer.write(np.full((48, 64, 3), 10 * k, np.uint8), k / fps)
    writer.close()
    assert grays(tmp_path / f"v{suffix}") == list(range(5))


def test_why_a_file_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.v\.mp4"):
        VideoWriter(tmp_path / "none" / "v.mp4", 25).write(np.zeros((48, 64, 3), np.uint8), 0)


def test_a_frame_stays_until_the_next_ones_time(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "v.avi", 25)
    for k, time_s in enumerate([0.0, 0.04, 0.16, 0.165, 0.17, 0.24]):
        writer.write(np.full((48, 64, 3), 10 * k, np.uint8), time_s)
    writer.close()
    assert grays(tmp_path / "v.avi") == [0, 1, 1, 1, 2, 2, 5]


@pytest.mark.parametrize(("height", "width"), [(47, 65), (2, 2), (1, 3)])
def test_odd_sizes(tmp_path: Path, height: int, width: int) -> None:
    writer = VideoWriter(tmp_path / "v.mp4", 25)
    for k in range(3):
        writer.write(np.full((height, width, 3), 50 * k, np.uint8), k / 25)
    writer.close()
    shapes = [frame.image.shape for frame in VideoReader(tmp_path / "v.mp4")]
    assert shapes == [(height + height % 2, width + width % 2, 3)] * 3


def test_frames_of_another_size_are_not_lost(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "v.avi", 25)
    for k, shape in enumerate([(48, 64, 3), (96, 128, 3), (48, 64, 3)]):
        writer.write(np.full(shape, 50 * k, np.uint8), k / 25)
    writer.close()
    assert [frame.image.shape for frame in VideoReader(tmp_path / "v.avi")] == [(48, 64, 3)] * 3


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"v\.gif: expected a name that ends in one of \.avi, \.m4v, \.mkv"):
        VideoWriter(tmp_path / "v.gif", 25)
    monkeypatch.setitem(video_module.CODECS, ".avi", ("zzzz",))
    with pytest.raises(VideoError, match=r"v\.avi: OpenCV 4\..* can encode none of zzzz here"):
        VideoWriter(tmp_path / "v.avi", 25).write(np.zeros((48, 64, 3), np.uint8), 0)


def test_a_file_that_lost_frames_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "v.mp4", 5)
    writer = VideoWriter(tmp_path / "w.mp4", 25)
    monkeypatch.setattr(cv2.VideoWriter, "write", lambda *_: None)
    for k in range(5):
        writer.write(np.zeros((48, 64, 3), np.uint8), k / 25)
    with pytest.raises(VideoError, match=r"w\.mp4: 5 frames were encoded, 0 are in the file"):
        writer.close()


def test_ahead_gives_all_in_order_and_no_more_than_the_limit_early() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for k in range(30):
            made.append(k)
            yield k

    taken = []
    for k in ahead(items(), 3):
        time.sleep(0.002)
        assert len(made) <= k + 1 + 3 + 1  # in the queue, and the one that waits for a place
        taken.append(k)
    assert taken == list(range(30))


def test_ahead_raises_what_went_wrong_after_the_items_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    found = ahead(ahead(items(), 2), 2)
    assert next(found) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)


def test_closing_ahead_ends_all_threads_and_closes_the_source() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    found: Any = ahead(ahead(items(), 2), 2)
    next(found)
    assert threading.active_count() == before + 2
    found.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_a_stuck_source_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "PATIENCE_S", 0.05)
    release = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        release.wait(20)

    found: Any = ahead(items(), 2)
    next(found)
    start = time.monotonic()
    found.close()
    assert time.monotonic() - start < 5
    release.set()


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_no_utf8_do_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "\udcff.mp4"
    path.write_bytes(b"")
    with pytest.raises(VideoError, match="expected the name of a video to be UTF-8"):
        VideoReader(path)
    with pytest.raises(VideoError, match="expected the name of a video to be UTF-8"):
        VideoWriter(path, 30)
    with pytest.raises(ImageError, match="expected the name of a video to be UTF-8"):
        VideoFrame(str(path), 1).read()


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("12:30.avi"), 3)
    assert grays(Path("12:30.avi")) == [0, 1, 2]
