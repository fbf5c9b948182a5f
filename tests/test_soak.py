"""A short soak, and that it would see what it is for."""

import itertools
import mmap
from typing import Any

import numpy as np
import pytest

import pipnet_fast as pf
from tests.engine_cases import require
from tests.soak import MEGABYTE, landmarker, main, soak


@pytest.mark.parametrize("engine", ["torch", "cpp"])
def test_many_threads_many_calls(engine: str) -> None:
    require(engine)
    report = soak(landmarker(engine), calls=600, threads=8)
    assert report.is_good(), report
    assert report.calls == 600


class Leaking:
    """Keeps a part of what it saw, and errs once."""

    engine = "leaking"

    def __init__(self) -> None:
        # Threads share it, and it counts every one of them.
        self.numbers, self.kept = itertools.count(), list[mmap.mmap]()

    def __call__(self, image: Any, boxes: Any) -> pf.Faces:
        # Pages of its own: the heap would first fill what earlier tests left free in it.
        self.kept.append(mmap.mmap(-1, MEGABYTE // 8))
        self.kept[-1].write(b"\1" * (MEGABYTE // 8))
        wrong = np.full((1, 5, 2), next(self.numbers) == 300, np.float32)
        return pf.Faces(wrong, np.zeros((1, 5), np.float32), np.zeros((1, 5), np.float32), np.zeros(1, np.int64))


def test_leaks_and_other_answers_are_seen() -> None:
    report = soak(Leaking(), calls=400, threads=4)  # type: ignore[arg-type]
    assert report.different == 1
    assert report.growth > 16 * MEGABYTE
    assert report.bytes_per_call == pytest.approx(MEGABYTE / 8, rel=0.5)
    assert not report.is_good()


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--calls", "40", "--threads", "2", "--engines", "torch"]) == 0
    assert capsys.readouterr().out.startswith("torch: 40 calls in ")
