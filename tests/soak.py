"""One landmarker called for as long as a busy hour from many threads: ``python -m tests.soak``, or ``make soak``.

Memory must stay where it is once all threads are running, and every answer must be the first one, to the bit.
"""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

import pipnet_fast as pf
from tests.inputs import randomized
from tests.memory import resident

MEGABYTE = 1 << 20
# What allocators and threads may still take once all are running, however long it lasts.
MOST_GROWTH = 16 * MEGABYTE
SAMPLES = 200


class Report(NamedTuple):
    """What a soak saw."""

    engine: str
    calls: int
    different: int
    """Calls whose answer was not the first one for their image."""
    seconds: float
    growth: int
    """Bytes of resident memory, from the mean of the second quarter of the calls to that of the last one."""
    bytes_per_call: float
    """Slope of resident memory behind the first quarter, by least squares."""

    def is_good(self) -> bool:
        """Whether all answers were equal and memory stayed."""
        return self.different == 0 and self.growth <= MOST_GROWTH

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.engine}: {self.calls} calls in {self.seconds:.0f} s, {self.different} of them with another answer; "
            f"memory grew by {self.growth / MEGABYTE:.1f} MB, {self.bytes_per_call:.1f} bytes a call"
        )


Job = tuple[npt.NDArray[np.uint8], list[list[float]]]


def jobs() -> list[Job]:
    """Small images of several sizes with none to three boxes."""
    random = np.random.default_rng(0)
    sizes = [(40, 60), (96, 96), (120, 80), (64, 64), (33, 47), (96, 128)]
    images = [random.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]
    return [
        (image, [[5.0 + 3 * n, 4.0 + n, 30.0 + 3 * n, 33.0] for n in range(number % 4)])
        for number, image in enumerate(images)
    ]


def landmarker(engine: str) -> pf.FaceLandmarker:
    """With a network as small as can be: what surrounds it is what is tested."""
    torch.manual_seed(0)
    mean_shape = np.random.RandomState(0).rand(5, 2)
    model = randomized(num_landmarks=5, num_neighbors=2, width=0.0625, input_size=32, mean_shape=mean_shape)
    return pf.FaceLandmarker(model, detector=None, device="cpu", engine=engine)


def soak(landmarker: pf.FaceLandmarker, calls: int, threads: int) -> Report:
    """Call a landmarker so often, from so many threads."""
    work = jobs()
    first = [landmarker(*job) for job in work]
    numbers, lock = count(), threading.Lock()
    memory: list[int] = []

    def run(_: int) -> int:
        different = 0
        while True:
            with lock:
                number = next(numbers)
                if number < calls and number % max(1, calls // SAMPLES) == 0:
                    memory.append(resident())
            if number >= calls:
                return different
            found, expected = landmarker(*work[number % len(work)]), first[number % len(work)]
            same = all(
                np.array_equal(getattr(found, name), getattr(expected, name)) for name in ("landmarks", "scores")
            )
            different += not same

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        different = sum(pool.map(run, range(threads)))
    seconds = time.perf_counter() - start
    quarter = len(memory) // 4
    growth = int(np.mean(memory[-quarter:]) - np.mean(memory[quarter : 2 * quarter]))
    at = np.arange(quarter, len(memory)) * max(1, calls // SAMPLES)
    slope = float(np.polyfit(at, memory[quarter:], 1)[0])
    return Report(landmarker.engine, calls, different, seconds, growth, slope)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if memory grew or an answer changed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--engines", nargs="+", default=["torch", "cpp"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    reports = []
    for engine in options.engines:
        reports.append(soak(landmarker(engine), options.calls, options.threads))
        print(reports[-1], flush=True)
    return 0 if all(report.is_good() for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
