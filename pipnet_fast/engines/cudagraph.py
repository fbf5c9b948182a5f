"""Normalization, trunk and head as one CUDA graph a batch size, in buffers that stay where they are."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipnet_fast.engines._types import Engine, Network, Prepared, Spec
from pipnet_fast.engines.batching import powers_of_two, smallest
from pipnet_fast.ops import Landmarks, backends
from pipnet_fast.pipeline.images import Normalizer

# Before capture: cuDNN chooses its algorithms, Triton compiles, libraries allocate.
WARM_UP_RUNS = 3


def missing() -> str | None:
    """It needs a CUDA device, and Triton for a head that never waits for the device."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    return backends().reasons.get("triton")


def prepare(network: Network, spec: Spec) -> Prepared:
    """Capture a graph for every power of two up to ``batch_size``, for uint8 and for floating-point crops."""
    sizes = powers_of_two(spec.batch_size)
    return Prepared(_Graphs(network, spec, sizes), sizes, pads=True)


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    result: Landmarks
    """Where a replay leaves its result."""


class _Graphs:
    """Graphs over static buffers, replayed on a stream of their own, one at a time.

    They share one memory pool: each may overwrite what another left, so a result is copied before the next
    replay, in the order of the stream.
    """

    def __init__(self, network: Network, spec: Spec, sizes: tuple[int, ...]) -> None:
        self._spec, self._sizes = spec, sizes
        side, device = spec.input_size, spec.device
        self._normalize = Normalizer(side, spec.dtype, device)
        self._network = network
        self._crops = torch.zeros(sizes[-1], side, side, 3, dtype=torch.uint8, device=device)
        self._floats = torch.zeros(sizes[-1], side, side, 3, dtype=spec.dtype, device=device).permute(0, 3, 1, 2)
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        pool = torch.cuda.graph_pool_handle()
        # The largest first: its memory then serves the others.
        self._graphs = {
            (size, uint8): _capture(lambda s=size, u=uint8: self._compute(s, u), self._stream, pool)  # type: ignore[misc]
            for size in reversed(sizes)
            for uint8 in (True, False)
        }

    def __call__(self, x: Tensor) -> Landmarks:
        count, uint8 = len(x), x.dtype == torch.uint8
        captured = self._graphs[smallest(self._sizes, count), uint8]
        buffer = (self._crops if uint8 else self._floats)[:count]
        # The caller's memory from the caller's stream, so that it is not given away while he still reads it.
        result = Landmarks(*(torch.empty_like(static[:count]) for static in captured.result))
        caller = torch.cuda.current_stream(self._spec.device)
        with self._lock, torch.cuda.stream(self._stream):
            self._stream.wait_stream(caller)
            buffer.copy_(x)
            captured.graph.replay()
            for mine, static in zip(result, captured.result, strict=True):
                mine.copy_(static[:count])
            caller.wait_stream(self._stream)
        return result

    def _compute(self, size: int, uint8: bool) -> Landmarks:
        x = self._normalize(self._crops[:size]) if uint8 else self._floats[:size]
        return self._network.head(self._network.trunk(x))


def _capture(compute: Callable[[], Landmarks], stream: torch.cuda.Stream, pool: Any) -> _Captured:
    chosen = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                compute()
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            result = compute()
    finally:
        torch.backends.cudnn.benchmark = chosen
    return _Captured(graph, result)


ENGINE = Engine(devices=("cuda",), missing=missing, prepare=prepare)
