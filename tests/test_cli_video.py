"""The command video, in process, with a landmarker that sees dots."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipnet_fast.cli import video as command
from pipnet_fast.pipeline.draw import COLORS
from pipnet_fast.pipeline.video import VideoFrame, VideoReader, VideoWriter
from tests.commands import Run, RunOne
from tests.tracked import dot_landmarker, face_points, frame

FRAMES = 30
LEFT = [face_points(40 + 0.5 * k, 50) for k in range(FRAMES)]
RIGHT = [face_points(120 - 0.5 * k, 80) for k in range(FRAMES)]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(command, "FaceLandmarker", lambda *_, **__: dot_landmarker())
    return RunOne(capsys, command)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = VideoWriter(path, 25)
    for k, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
        writer.write(frame(left, right), k / 25)
    writer.close()
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def check_frames(records: list[dict[str, Any]], count: int = FRAMES) -> None:
    assert [record["frame"] for record in records] == list(range(count))
    np.testing.assert_allclose([record["time_s"] for record in records], np.arange(count) / 25, atol=1e-3)
    for record, left, right in zip(records, LEFT, RIGHT, strict=False):
        assert [face["id"] for face in record["faces"]] == [0, 1]
        found = np.array([face["landmarks"] for face in record["faces"]])
        # MJPEG blurs colors.
        np.testing.assert_allclose(found[found[:, 0, 0].argsort()], np.stack((left, right)), atol=2.5)


def test_video_and_json(run: Run, clip: Path, tmp_path: Path) -> None:
    out, records = tmp_path / "out.mp4", tmp_path / "faces.jsonl"
    result = run(clip, "--out", out, "--json", records)
    assert result.status == 0
    assert f"2 face(s) in {FRAMES} frame(s)" in result.out
    assert f"frames/s, written to {out} and {records}" in result.out
    assert names(tmp_path) == ["clip.avi", "faces.jsonl", "out.mp4"]
    check_frames(lines(records))
    pictures = [shown.image for shown in VideoReader(out)]
    assert len(pictures) == FRAMES
    # Each face's box in the color of its id.
    for record, picture in list(zip(lines(records), pictures, strict=True))[::7]:
        for face in record["faces"]:
            x0, y0, _, y1 = map(round, face["box"])
            edge = picture[y0 + 4 : y1 - 4, x0 - 1 : x0 + 1].astype(int)
            # Lines of one pixel, whose color is stored for four: nearer to its own than to the other's.
            distances = [np.abs(edge - color).sum(axis=2).min(axis=1).mean() for color in COLORS[:2]]
            assert distances[face["id"]] < 0.9 * distances[1 - face["id"]]


def test_json_as_a_list(run: Run, clip: Path, tmp_path: Path) -> None:
    assert run(clip, "--json", tmp_path / "faces.json").status == 0
    check_frames(json.loads((tmp_path / "faces.json").read_text(encoding="utf-8")))


def test_a_cut_off_video_is_written_as_far_as_it_goes(run: Run, clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    result = run(clip, "--json", tmp_path / "faces.jsonl", "--out", tmp_path / "out.avi")
    records = lines(tmp_path / "faces.jsonl")
    assert result.status == 1
    assert 5 < len(records) < FRAMES
    assert f"clip.avi: cut off or damaged: {len(records)} of {FRAMES} frames could be read" in result.err
    check_frames(records, len(records))
    assert VideoReader(tmp_path / "out.avi").expected == len(records)


def test_settings_reach_the_tracker(run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    tracker = command.Tracker
    monkeypatch.setattr(command, "Tracker", lambda *a, **options: seen.append(options) or tracker(*a, **options))
    out = tmp_path / "faces.jsonl"
    run(clip, "--json", out, "--smoothing", 0.25, "--detect-every", 7, "--min-score", 0.125)
    assert seen == [{"smoothing": 0.25, "detect_every": 7, "min_score": 0.125}]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ValueError, "expected --out, --json or both"),
        (["--out", "{clip}"], ValueError, "--out: expected another file than the input"),
        (["--json", "{folder}/link.json"], ValueError, "--json: expected another file than the input"),
        (["--out", "{folder}/out.gif"], ValueError, r"out\.gif: expected a name that ends in one of"),
        (["--json", "{folder}/out.txt"], ValueError, r"--json: expected a name that ends in \.jsonl or \.json"),
        (["--out", "{folder}/none/out.mp4"], FileNotFoundError, "--out: no such folder"),
        (["--json", "{folder}/folder.json"], ValueError, "--json: expected a file, got the folder"),
        (["--json", "{folder}/o.json", "--smoothing", "2"], ValueError, "smoothing: expected 0 to 1, got 2.0"),
    ],
)
def test_bad_calls_write_nothing(
    run: Run, clip: Path, tmp_path: Path, arguments: list[str], error: type[Exception], message: str
) -> None:
    os.link(clip, tmp_path / "link.json")
    (tmp_path / "folder.json").mkdir()

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    before = content()
    with pytest.raises(error, match=message):
        run(clip, *(a.format(clip=clip, folder=tmp_path) for a in arguments))
    assert content() == before


def test_inputs_that_are_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"no video")
    for source, error, message in [
        (tmp_path / "noise.mp4", ValueError, "not a video that OpenCV can read"),
        (tmp_path / "none.mp4", FileNotFoundError, "no such video"),
        (98765, ValueError, "camera 98765: no such camera"),
    ]:
        with pytest.raises(error, match=message):
            run(source, "--out", tmp_path / "out.mp4")
    assert names(tmp_path) == ["noise.mp4"]


@pytest.mark.parametrize("where", ["decode", "track", "encode"])
def test_an_error_in_any_thread_ends_all_and_leaves_what_was_there(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    out, records = tmp_path / "out.mp4", tmp_path / "faces.json"
    out.write_bytes(b"older")
    owner, method = {
        "decode": (command.VideoReader, "__iter__"),
        "track": (command.Tracker, "update"),
        "encode": (command.VideoWriter, "write"),
    }[where]

    def fail(*_: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(owner, method, fail)
    threads = threading.active_count()
    with pytest.raises(OSError, match="the disk is gone"):
        run(clip, "--out", out, "--json", records)
    assert threading.active_count() == threads
    assert names(tmp_path) == ["clip.avi", "out.mp4"]
    assert out.read_bytes() == b"older"


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as at a terminal: what a shell runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted(VideoReader):
    """Frames without end; Ctrl-C after the twentieth."""

    def __iter__(self) -> Iterator[VideoFrame]:
        for k in range(100000):
            if k == 20:
                os.kill(os.getpid(), signal.SIGINT)
            yield VideoFrame(k, k / 25, frame(LEFT[0]))


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_file_without_results(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "VideoReader", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(clip, "--out", tmp_path / "out.mp4")
    assert names(tmp_path) == ["clip.avi"]
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_camera_with_results(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = Interrupted(clip)
    camera.is_camera, camera.expected = True, None
    monkeypatch.setattr(command, "VideoReader", lambda number: camera)
    result = run(0, "--out", tmp_path / "out.mp4", "--json", tmp_path / "faces.jsonl")
    assert result.status == 0
    records = lines(tmp_path / "faces.jsonl")
    assert 1 <= len(records) <= 100
    assert abs((VideoReader(tmp_path / "out.mp4").expected or 0) - len(records)) <= 1


def test_the_path_of_a_video_can_be_tracked(clip: Path) -> None:
    landmarker = dot_landmarker()
    found = list(landmarker.track(clip, smoothing=0))
    frames = [shown.image for shown in VideoReader(clip)]
    expected = list(landmarker.track(frames, smoothing=0, fps=25))
    assert [f.ids.tolist() for f in found] == [[0, 1]] * FRAMES
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
    assert len(list(landmarker.track(str(clip), timestamps=range(100)))) == FRAMES


def test_the_colors_of_a_video_are_right_for_bgr_landmarkers(clip: Path) -> None:
    rgb, bgr = (dot_landmarker() for _ in range(2))
    bgr.color = "bgr"
    for a, b in zip(rgb.track(clip), bgr.track(clip), strict=True):
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
