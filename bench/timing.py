"""Paired timing: the subjects take turns in one process, so that drift of the machine hits them alike."""

import time
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]


def interleaved(
    subjects: Mapping[str, Call],
    rounds: int,
    device: str,
    inner: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds of one call, ``rounds`` of them for each subject, each the mean of ``inner`` calls in a row.

    A few calls in a row, because a single one after a stranger finds the stranger's data in the caches. ``clock`` is
    that of the CPU.
    """
    for call in subjects.values():
        for _ in range(3):
            call()
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, call in subjects.items():
            times[name].append(_cuda_ms(call, inner) if device == "cuda" else _cpu_ms(call, inner, clock))
    return times


class InGraph:
    """``calls`` calls captured in one CUDA graph: what they take as nodes of somebody's graph, without launching."""

    calls = 20

    def __init__(self, call: Call) -> None:
        """Capture ``call``, after running it once to compile."""
        call()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for _ in range(self.calls):
                self.result = call()

    def __call__(self) -> object:
        """Replay; returns the last call's result."""
        self.graph.replay()
        return self.result


def _cpu_ms(call: Call, inner: int, clock: Callable[[], float]) -> float:
    call()
    start = clock()
    for _ in range(inner):
        call()
    return (clock() - start) * 1e3 / inner


def _cuda_ms(call: Call, inner: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    for _ in range(inner):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / inner / (call.calls if isinstance(call, InGraph) else 1)
