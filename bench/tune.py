"""Block sizes of the Triton head_decode, measured: ``python -m bench.tune`` prints tables for kernels/tuning.py.

Every candidate is a CUDA graph of several calls, timed in turns with the others; the features are in L2, as they
are behind a backbone. Takes a few minutes, most of them compiling. Needs a CUDA device.
"""

import argparse
import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

import pipnet_fast as pf
from bench.head import Head, Shape
from bench.record import device_name, percentiles
from bench.timing import Call, InGraph, interleaved
from pipnet_fast.kernels import head_decode
from pipnet_fast.kernels.tuning import BatchBlocks, Blocks, LatencyBlocks, tuned_blocks

AnyBlocks = TypeVar("AnyBlocks", bound=Blocks)

SIDE = 8
# A row of the table is kept where another is not clearly faster.
NOISE = 0.02


def latency_candidates() -> Iterator[LatencyBlocks]:
    for channels, warps, stages in itertools.product((64, 128, 256), (4, 8, 16), (2, 3)):
        yield LatencyBlocks(64, channels, warps, stages)


def score_candidates(start: BatchBlocks) -> Iterator[BatchBlocks]:
    """``start`` with other blocks in its score pass."""
    widths = (start.score_channels // 2, start.score_channels)
    for landmarks, columns, channels, warps, stages in itertools.product(
        (16, 32, 64, 128), (64, 128), widths, (4, 8), (3, 4)
    ):
        yield start._replace(
            landmarks=landmarks, columns=columns, score_channels=channels, score_warps=warps, score_stages=stages
        )


def vote_candidates(start: BatchBlocks) -> Iterator[BatchBlocks]:
    """``start`` with other blocks in its vote pass."""
    widths = (start.vote_channels // 2, start.vote_channels, 2 * start.vote_channels)
    for images, channels, warps, stages in itertools.product((16, 32, 64), widths, (4, 8), (3, 4)):
        yield start._replace(images=images, vote_channels=channels, vote_warps=warps, vote_stages=stages)


class Problem:
    """Inputs of one batch size, the expected result, and the time of blocks upon them."""

    def __init__(self, layout: str, neighbors: int, channels: int, batch: int, dtype: torch.dtype) -> None:
        """Draw random features (B, C, 8, 8) and weights of ``dtype``."""
        head = Head(Shape(layout, neighbors, channels, SIDE, batch), "cuda", dtype)
        self.features, self.head, self.table = head.features["channels-last"], head.packed, head.table
        self.expected = pf.ops.head_decode(self.features, self.head, self.table, backend="reference")
        self.points = torch.empty_like(self.expected.points_frac)
        self.scores = torch.empty_like(self.expected.scores)

    def call(self, blocks: Blocks) -> None:
        """One call, into ``points`` and ``scores``."""
        table = self.table
        head_decode(
            self.features,
            *self.head[:4],
            table.starts,
            table.sources,
            table.weights,
            self.points,
            self.scores,
            blocks=blocks,
        )

    def graph(self, blocks: Blocks) -> Call | None:
        """Calls in a graph; None where the device cannot hold such blocks."""
        from triton.runtime.errors import OutOfResources

        try:
            self.call(blocks)
        except OutOfResources:
            return None
        self.check(blocks)
        return InGraph(partial(self.call, blocks))

    def check(self, blocks: Blocks) -> None:
        """Refuse to time wrong results. Scores that are equal up to rounding may move a point."""
        scores = (self.scores - self.expected.scores).abs().max()
        moved = ((self.points - self.expected.points_frac).abs() > 1e-3).float().mean()
        if not (scores < 1e-3 and moved < 0.01):
            raise RuntimeError(f"{blocks}: scores off by {float(scores)}, {float(moved):.1%} of the points moved")

    def microseconds(self, candidates: Iterable[AnyBlocks]) -> dict[AnyBlocks, float]:
        """Median time of a call with each of the candidates that run."""
        graphs = {blocks: self.graph(blocks) for blocks in dict.fromkeys(candidates)}
        subjects = {str(blocks): graph for blocks, graph in graphs.items() if graph}
        times = interleaved(subjects, rounds=20, device="cuda", inner=2)
        return {b: percentiles(times[str(b)])["median"] * 1e3 for b, graph in graphs.items() if graph}


def fastest(problem: Problem, tuned: Blocks, kept: Blocks | None) -> tuple[Blocks, dict[Blocks, float]]:
    """The fastest blocks, or ``kept`` (the table's row before) where nothing is clearly faster; and all times."""
    batch, dtype = len(problem.features), problem.features.dtype
    candidates = [tuned, *([kept] if kept else [])]
    # A single image takes the latency path always, and many never do.
    if batch <= 16:
        candidates += latency_candidates()
    if batch > 1:
        start = tuned_blocks(max(batch, 32), SIDE * SIDE, dtype)
        assert isinstance(start, BatchBlocks)
        scored = problem.microseconds(score_candidates(start))
        candidates += vote_candidates(min(scored, key=scored.__getitem__))
    times = problem.microseconds(candidates)
    best = min(times, key=times.__getitem__)
    if kept in times and times[kept] <= times[best] * (1 + NOISE):
        return kept, times
    return best, times


def as_table(rows: Sequence[tuple[int, Blocks]], name: str) -> str:
    """Python text of a table: neighboring rows of the same blocks become one, and the first holds from 0."""
    lines: list[str] = []
    previous = None
    for least, blocks in rows:
        if blocks != previous:
            lines.append(f"    ({least if lines else 0}, {blocks}),")
        previous = blocks
    return "\n".join([f"{name}: tuple[tuple[int, Blocks], ...] = (", *lines, ")"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layout", default="wflw98")
    parser.add_argument("--neighbors", type=int, default=10)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 256, 512])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no CUDA device")
    print(f"# {device_name('cuda')}, {arguments.layout}, C={arguments.channels}, {SIDE}x{SIDE}, microseconds of a call")
    problem = partial(Problem, arguments.layout, arguments.neighbors, arguments.channels)
    for name, dtype in (("SINGLE", torch.float32), ("HALF", torch.float16)):
        rows: list[tuple[int, Blocks]] = []
        for batch in sorted(arguments.batch):
            tuned = tuned_blocks(batch, SIDE * SIDE, dtype)
            best, times = fastest(problem(batch, dtype), tuned, rows[-1][1] if rows else None)
            rows.append((batch * SIDE * SIDE, best))
            print(f"# {name} B={batch}: {times[best]:.2f}, with today's blocks {times[tuned]:.2f}", flush=True)
        print(as_table(rows, name))


if __name__ == "__main__":
    main()
