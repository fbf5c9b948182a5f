"""Whole engines, each in a process of its own, timed in alternating blocks.

Of its own, because threads of one engine that still spin slow the next one: up to 1.8 times, as measured. In turns,
so that drift of the machine hits all alike; ratios are taken within a round. No engine is timed before its landmarks
agree with those that were computed densely in float64.
"""

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.task import Points, Task

ROOT = Path(__file__).parents[1]
FAR_PX = 1.0


@dataclass(frozen=True)
class Tolerance:
    """How far landmarks may be from the float64 ones.

    A landmark is far where rounding made another cell the winner, its own or a neighbor's that votes for it.
    """

    median_px: float
    far_share: float


TOLERANCES = {"float32": Tolerance(0.05, 0.03), "float16": Tolerance(0.5, 0.2), "bfloat16": Tolerance(4.0, 0.8)}


@dataclass(frozen=True)
class Subject:
    """Something to measure: its name, and the function ``module:function`` that builds it in a worker."""

    name: str
    factory: str
    options: dict[str, Any] = field(default_factory=dict)
    exact: bool = True
    """False for those that give other numbers by design: their deviation is recorded, not judged."""


@dataclass(frozen=True)
class Schedule:
    """How long and how often."""

    rounds: int
    block_ms: float = 300.0
    """Length of a block, within 1 to 100 calls."""
    pause_s: float = 0.25
    """Between two blocks, until the threads of the last one sleep."""
    timeout_s: float = 900.0
    """For any single answer; compiling is the longest."""


@dataclass
class Outcome:
    """Of a subject: milliseconds of the calls of every round, or the reason why there are none."""

    reason: str | None = None
    note: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    deviation_px: npt.NDArray[np.float64] | None = None
    rounds: list[list[float]] = field(default_factory=list)

    def calls(self) -> list[float]:
        """Milliseconds of all calls."""
        return [ms for block in self.rounds for ms in block]

    def speed_up_over(self, other: "Outcome") -> list[float]:
        """How many times faster than ``other`` this one was in each round; empty if one of both was not measured."""
        if self.reason or other.reason:
            return []
        return [float(np.median(b) / np.median(a)) for a, b in zip(self.rounds, other.rounds, strict=True)]


class WorkerError(Exception):
    """Why a worker gives no answer."""


def measure(subjects: Sequence[Subject], task: Task, expected: Points, schedule: Schedule) -> dict[str, Outcome]:
    """Outcomes by name; a subject that fails, dies, hangs or is wrong has its reason, and the others run on.

    Args:
        subjects: names must differ.
        task: what all of them do.
        expected: landmarks (n, N, 2) of the task's crops in px, repeated as often as the batch needs.
        schedule: how long and how often.
    """
    outcomes = {subject.name: Outcome() for subject in subjects}
    calls: dict[str, int] = {}
    workers: dict[str, WorkerProcess] = {}
    with contextlib.ExitStack() as stack:
        for subject in subjects:
            outcome = outcomes[subject.name]
            worker = stack.enter_context(WorkerProcess(task, schedule.timeout_s))
            start = time.monotonic()
            try:
                outcome.note, outcome.versions = worker.build(subject, task)
                outcome.deviation_px = _deviation(worker.compare(), expected)
                if subject.exact:
                    _require_close(outcome.deviation_px, TOLERANCES[task.dtype])
                warm_ms = min(worker.time(3))
            except WorkerError as failure:
                outcome.reason = str(failure)
                worker.close()
                _tell(f"{subject.name}: {failure}")
                continue
            workers[subject.name] = worker
            calls[subject.name] = max(1, min(100, round(schedule.block_ms / warm_ms)))
            _tell(f"{subject.name}: ready after {time.monotonic() - start:.0f} s, {warm_ms:.1f} ms a call")
        for number in range(schedule.rounds):
            # In another order every time, so that nobody always follows the same one.
            for name in random.Random(number).sample(sorted(workers), len(workers)):
                time.sleep(schedule.pause_s)
                try:
                    outcomes[name].rounds.append(workers[name].time(calls[name]))
                except WorkerError as failure:
                    outcomes[name].reason = str(failure)
                    workers.pop(name).close()
                    _tell(f"{name}: {failure}")
    return outcomes


def _deviation(points: Points, expected: Points) -> npt.NDArray[np.float64]:
    repeated = np.resize(expected, (len(points), *expected.shape[1:]))
    if points.shape != repeated.shape:
        raise WorkerError(f"landmarks of shape {points.shape}, expected {repeated.shape}: not timed")
    distances: npt.NDArray[np.float64] = np.linalg.norm(points - repeated, axis=2).ravel()
    return distances


def _require_close(deviation_px: npt.NDArray[np.float64], tolerance: Tolerance) -> None:
    median, far = np.median(deviation_px), far_share(deviation_px)
    if not (median <= tolerance.median_px and far <= tolerance.far_share):
        raise WorkerError(
            f"landmarks differ from those in float64 by {median:.3g} px in the median, {far:.1%} of them by more than "
            f"{FAR_PX:g} px (allowed: {tolerance.median_px:g} px and {tolerance.far_share:.0%}): not timed"
        )


def far_share(deviation_px: npt.NDArray[np.float64]) -> float:
    """Share of the landmarks that are far, or not a number."""
    return float(np.mean(~(deviation_px <= FAR_PX)))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class WorkerProcess:
    """A ``bench.worker``, and the one conversation with it; leaving the context ends it and all it started."""

    def __init__(self, task: Task, timeout_s: float) -> None:
        """Start it, with as many threads as the task has in every library that reads the environment."""
        threads = {name: str(task.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        # OpenVINO and NNCF send statistics unless they believe to run in a CI.
        environment = {**os.environ, **threads, "CI": "true", "NNCF_CI": "1"}
        self.timeout_s = timeout_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            # A group of its own: Ctrl-C reaches only the parent, which ends the group and compilers in it.
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def build(self, subject: Subject, task: Task) -> tuple[str | None, dict[str, str]]:
        """Build the subject; its note and its packages' versions."""
        request = {"factory": subject.factory, "task": asdict(task), "options": subject.options}
        reply = self._ask("building", {"build": request})
        return reply["note"], reply["versions"]

    def compare(self) -> Points:
        """Landmarks (n, N, 2) of all crops, px."""
        return np.array(self._ask("computing landmarks", {"compare": True})["landmarks_px"])

    def time(self, calls: int) -> list[float]:
        """Milliseconds of each of ``calls`` calls."""
        milliseconds: list[float] = self._ask("being timed", {"time": calls})["ms"]
        return milliseconds

    def close(self) -> None:
        """End it at once; may be called again."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def __enter__(self) -> "WorkerProcess":
        """The worker itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):  # closed while we wait
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")

    def _ask(self, doing: str, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died; the end of its lines says so below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=self.timeout_s)
        except queue.Empty:
            raise WorkerError(f"no answer within {self.timeout_s:g} s of {doing}: ended") from None
        if not line:
            raise WorkerError(self._last_words(doing))
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def _last_words(self, doing: str) -> str:
        status = self._process.wait()
        how = f"of {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"the process died {how} while {doing}" + (f": {said[-1]}" if said else "")
