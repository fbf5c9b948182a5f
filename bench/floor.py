"""What this machine can do at best, and what follows for the fused head: the floors that latencies are held against.

Arithmetic: the fastest matrix product of the machine's own library. Reading: the fastest sum of an array that lies in
the last cache, and of one that lies in memory. A floor is the longer of the two, for the smallest number of
multiplications and the smallest number of bytes that the operation can do with; nobody reaches it.
"""

import argparse
from functools import partial
from typing import NamedTuple

import torch

from bench.record import Record, device_name, measured
from bench.timing import Call, interleaved

# Of the matrices that are multiplied.
SIDE = 1024
PRODUCT, CACHE, MEMORY = "matrix product", "reading the cache", "reading memory"


class Machine(NamedTuple):
    """What a machine can do with a number of threads."""

    gflops: float
    cache_gb_s: float
    memory_gb_s: float


class HeadWork(NamedTuple):
    """What the fused head has to do."""

    multiplies: int
    weight_bytes: int
    other_bytes: int


def head_work(batch: int, channels: int, cells: int, landmarks: int, neighbors: int, weight_size: int) -> HeadWork:
    """Score rows at every cell, 2 + 2K vote rows at one, every weight read once, every feature once."""
    rows = 2 + 2 * neighbors
    return HeadWork(
        multiplies=batch * landmarks * channels * (cells + rows),
        weight_bytes=landmarks * (1 + rows) * channels * weight_size,
        other_bytes=4 * batch * (channels * cells + landmarks * 3),
    )


def head_floor_ms(work: HeadWork, machine: Machine, cold: bool) -> float:
    """The least time for the head, its weights in the cache, or (cold) in memory, behind a network that used it up."""
    reading = work.weight_bytes / (machine.memory_gb_s if cold else machine.cache_gb_s)
    reading += work.other_bytes / machine.cache_gb_s
    return max(2 * work.multiplies / machine.gflops, reading) * 1e-6


def machine_of(records: list[Record], threads: int) -> Machine:
    """What the records of this case say."""
    found = {r.subject: r.median for r in records if r.case == "floor" and r.threads == threads}
    if not found.keys() >= {PRODUCT, CACHE, MEMORY}:
        raise ValueError(f"no floor records with {threads} thread(s)")
    return Machine(*(float(found[name] or 0) for name in (PRODUCT, CACHE, MEMORY)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--rounds", type=int, default=40)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of the three rates for every thread count; the best of the rounds counts, for a floor is a bound."""
    records = []
    for threads in dict.fromkeys(arguments.threads):
        torch.set_num_threads(threads)
        a, b = torch.randn(2, SIDE, SIDE).unbind()
        product = partial(torch.mm, a, b, out=torch.empty_like(a))
        cache, memory = torch.zeros(2 << 20), torch.zeros(64 << 20)
        subjects: dict[str, tuple[str, str, float, Call]] = {
            PRODUCT: (f"{SIDE}x{SIDE}x{SIDE}", "GFLOP/s", 2 * SIDE**3, product),
            CACHE: (f"{cache.nbytes >> 20} MiB", "GB/s", cache.nbytes, cache.sum),
            MEMORY: (f"{memory.nbytes >> 20} MiB", "GB/s", memory.nbytes, memory.sum),
        }
        times = interleaved({name: s[3] for name, s in subjects.items()}, arguments.rounds, "cpu", inner=1)
        for name, (shape, unit, amount, _) in subjects.items():
            shared = {
                "case": "floor",
                "subject": name,
                "device": device_name("cpu"),
                "threads": threads,
                "dtype": "float32",
                "shape": shape,
            }
            records.append(
                measured(shared, f"best rate of {arguments.rounds}", unit, [amount / 1e6 / min(times[name])])
            )
    return records
