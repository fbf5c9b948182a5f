"""Bulk annotation by processes that are killed: nothing is lost, nothing doubled, and who kills is told."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.annotate import processes
from pipnet_fast.annotate.attempts import TRIES
from tests.annotation import Finder, assert_same, errors_of, images_of, make_model, run, write_picture, write_video

# However busy the machine is.
PATIENCE_S = 240
COUNTS = (1, 0, 2, 1, 3, 0, 1, 1, 2, 0, 1, 2)

needs_forkserver = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="processes would take seconds to start"
)
pytestmark = needs_forkserver


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in three shares, and a video."""
    folder = tmp_path_factory.mktemp("in")
    for number, count in enumerate(COUNTS):
        write_picture(folder / "in" / f"{number:02d}.png", number, count)
    write_video(folder / "in" / "v.avi", [1, 0, 2, 1, 0, 1], 14)
    torch.manual_seed(1)
    pf.save(make_model(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run writes."""
    out = tmp_path_factory.mktemp("undisturbed")
    annotate(folder, out, processes=0)
    return out


def annotate(folder: Path, out: Path, **options: Any) -> Any:
    return run(folder / "in", out, **{"model": folder / "model.safetensors", "every": 2, **options})


def test_processes_write_the_table_of_one(folder: Path, expected: Path, tmp_path: Path) -> None:
    annotate(folder, tmp_path, processes=2)
    assert_same(tmp_path, expected)
    assert not multiprocessing.active_children()


def test_dead_workers_are_replaced(folder: Path, expected: Path, tmp_path: Path) -> None:
    deaths, out = tmp_path / "deaths", tmp_path / "out"
    deaths.mkdir()
    annotate(folder, out, processes=2, detector=Finder((1, 9), 1, deaths))
    assert len(os.listdir(deaths)) == 2
    assert_same(out, expected)
    assert os.listdir(out / "_run" / "running") == []


def test_files_that_kill_are_told(folder: Path, expected: Path, tmp_path: Path) -> None:
    deaths, out = tmp_path / "deaths", tmp_path / "out"
    deaths.mkdir()
    # Two in one share, and the video's third frame. The first death at a share is nobody's.
    found = annotate(folder, out, processes=1, detector=Finder((5, 6, 16), 99, deaths))
    assert len(os.listdir(deaths)) == 1 + TRIES + TRIES + 1 + TRIES
    killers = [("05.png", None), ("06.png", None), ("v.avi", 2)]
    for (path, frame, error), (name, number) in zip(errors_of(out), killers, strict=True):
        assert (os.path.basename(path), frame) == (name, number)
        assert error == f"{path}: processes that tried it died, for want of memory or by a fault in a library"
    # All others are as ever; of the video, what is behind the frame is given up.
    bad = {(path, frame) for path, frame, _ in errors_of(out)}
    rest = [row for row in images_of(out) if row[3] is None]
    assert rest == [row for row in images_of(expected) if row[:2] not in bad and row[1] in (None, 0)]
    assert found.errors == 3


def test_too_many_deaths_end_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DEATHS", 1)
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    with pytest.raises(RuntimeError, match="annotate: 2 processes died at one share of the files; .* memory"):
        annotate(folder, tmp_path / "out", processes=2, detector=Finder((5,), 99, deaths))
    assert not multiprocessing.active_children()


def test_errors_of_workers_are_the_callers(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"annotate: .*/0\d\.png: FaceLandmarker: boxes: expected shape"):
        annotate(folder, tmp_path / "a", processes=2, detector=returns_wrong_boxes)
    with pytest.raises(RuntimeError, match="UnportableError: words"):
        annotate(folder, tmp_path / "b", processes=1, detector=raises_what_cannot_travel)
    with pytest.raises(ValueError, match="engine: expected "):
        annotate(folder, tmp_path / "c", processes=1, engine="steam")
    assert not multiprocessing.active_children()


def returns_wrong_boxes(image: Any) -> Any:
    return [[1, 2, 3]]


class UnportableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first}{second}")


def raises_what_cannot_travel(image: Any) -> Any:
    raise UnportableError("wor", "ds")


def in_a_process(folder: Path, out: Path, detector: Any, workers: int) -> None:
    torch.set_num_threads(1)
    # A server of its own would take seconds to start, and this process has no threads yet.
    context = multiprocessing.get_context("fork")
    vars(multiprocessing).update(get_all_start_methods=lambda: [], get_context=lambda method: context)
    annotate(folder, out, processes=workers, detector=detector)


def begin(folder: Path, out: Path, detector: Any, workers: int) -> Any:
    process = multiprocessing.get_context("forkserver").Process(
        target=in_a_process, args=(folder, out, detector, workers)
    )
    process.start()
    return process


def test_a_run_that_is_killed_again_and_again_goes_on(folder: Path, expected: Path, tmp_path: Path) -> None:
    deaths, out = tmp_path / "deaths", tmp_path / "out"
    deaths.mkdir()
    # In two shares, and in the video.
    deadly = Finder((1, 7, 16), 1, deaths)
    for dead in range(1, 4):
        process = begin(folder, out, deadly, 0)
        process.join(PATIENCE_S)
        assert process.exitcode == -signal.SIGKILL
        assert len(os.listdir(deaths)) == dead
    annotate(folder, out, processes=0)
    assert_same(out, expected)
    assert errors_of(out) == []


def test_workers_end_with_a_run_that_is_killed(folder: Path, expected: Path, tmp_path: Path) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    process = begin(folder, out, Finder(notes=notes, delay_s=0.1), 2)
    wait_for(lambda: any(out.glob("_images/part-*")))
    workers = [int(name) for name in os.listdir(notes)]
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE_S)
    wait_for(lambda: not any(map(is_alive, workers)))
    done = {path: path.stat().st_ino for path in out.glob("_images/part-*")}
    assert 0 < len(done) < 4
    annotate(folder, out, processes=2)
    assert_same(out, expected)
    assert {path: path.stat().st_ino for path in done} == done


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)
