"""Frames per second of all heads and backbones at batch 1, beside those of the paper's Table 9.

All run in the same engine of ours, in one process, and those of one backbone in turns. N = 98 for all, as in the
paper's measurement on WFLW. The paper's numbers are of its own machines: an Intel Xeon E5-2698 v4 at 2.20 GHz, whose
threads it does not tell, and an NVIDIA Tesla V100.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

import pipnet_fast as pf
from bench.networks import Crops, pipnet, random_crops, randomized
from bench.params import TABLE_9, Row
from bench.record import Record, device_name, measured
from bench.rivals.ours import ENGINES
from bench.timing import interleaved
from pipnet_fast.models._base import LandmarkModel

LANDMARKS = 98
PAPER_MACHINE = {"cpu": "Intel Xeon E5-2698 v4", "cuda": "NVIDIA Tesla V100"}
# Table 9: frames per second on the CPU and on the GPU.
PAPER_FPS = {
    ("GRMI", "resnet50"): (0.1, 6.8),
    ("GRMI", "resnet101"): (0.1, 5.8),
    ("CoordNet", "resnet18"): (37.5, 256),
    ("CoordNet", "resnet50"): (14.8, 115),
    ("CoordNet", "resnet101"): (9.4, 62),
    ("MapNet", "resnet18"): (3.5, 200),
    ("MapNet", "resnet50"): (2.7, 82),
    ("MapNet", "resnet101"): (2.3, 46),
    ("PIPNet", "mobilenet_v2"): (29.5, 121),
    ("PIPNet", "mobilenet_v3"): (28.4, 80),
    ("PIPNet", "resnet18"): (35.7, 200),
    ("PIPNet", "resnet50"): (13.8, 99),
    ("PIPNet", "resnet101"): (8.8, 56),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="half on CUDA")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--engine", choices=sorted({e for engines in ENGINES.values() for e in engines}))
    parser.add_argument("--backbone", nargs="+", default=list(dict.fromkeys(row.backbone for row in TABLE_9)))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--slow-rounds", type=int, default=3, help="of G-RMI, which takes seconds")
    parser.add_argument("--size", type=int, default=256, help="side of the crops, px")
    parser.add_argument("--width", type=float, default=1.0, help="channel multiplier of ResNets")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of every row of Table 9, with each number of threads."""
    arguments.engine = arguments.engine or "torch"
    records = []
    for threads in dict.fromkeys(arguments.threads):
        torch.set_num_threads(threads)
        for backbone in arguments.backbone:
            rows = [row for row in TABLE_9 if row.backbone == backbone]
            slow = [row for row in rows if row.network is pf.GRMI]
            fast = [row for row in rows if row.network is not pf.GRMI]
            records += _measure(arguments, threads, fast, arguments.rounds, inner=3)
            records += _measure(arguments, threads, slow, arguments.slow_rounds, inner=1)
    return records


def _measure(arguments: argparse.Namespace, threads: int, rows: Sequence[Row], rounds: int, inner: int) -> list[Record]:
    calls: dict[str, Callable[[], object]] = {}
    reasons: dict[str, str] = {}
    crops = random_crops(1, arguments.size)
    for row in rows:
        try:
            model = network(row, arguments.size, arguments.width).to(arguments.device)
            runtime = pf.compile(model, arguments.engine, dtype=arguments.dtype)
            calls[subject(row)] = partial(_landmarks, runtime, crops)
        except (RuntimeError, ValueError) as error:
            reasons[subject(row)] = str(error)
    # The landmarks are on the CPU when a call returns, so a GPU's time is all in it.
    times = interleaved(calls, rounds, "cpu", inner)
    records = []
    for row in rows:
        name = subject(row)
        shared: dict[str, Any] = {
            "case": "fps",
            "subject": name,
            "device": device_name(arguments.device),
            "threads": threads,
            "dtype": arguments.dtype,
            "shape": f"B=1 {arguments.size}x{arguments.size} N={LANDMARKS}",
        }
        metric = f"FPS, engine {arguments.engine}"
        if name in reasons:
            records.append(Record(metric=metric, unit="FPS", reason=reasons[name], **shared))
            continue
        records.append(measured(shared, metric, "FPS", [1e3 / ms for ms in times[name]]))
        paper, machine = PAPER_FPS[name_of(row)][arguments.device == "cuda"], PAPER_MACHINE[arguments.device]
        noted = {**shared, "note": f"measured on {machine}"}
        records.append(measured(noted, "FPS, paper", "FPS", [paper]))
        rival = f"CoordNet {row.backbone}"
        if rival in times and name != rival:
            ratios = [other / own for other, own in zip(times[rival], times[name], strict=True)]
            records.append(measured(shared, f"speed-up over {rival}", "x", ratios))
    return records


def name_of(row: Row) -> tuple[str, str]:
    """The head's and the backbone's name."""
    return row.network.__name__, row.backbone


def subject(row: Row) -> str:
    """The row as records name it."""
    return " ".join(name_of(row))


def network(row: Row, size: int, width: float = 1.0) -> LandmarkModel:
    """A randomized network of the row for 98 landmarks."""
    if row.network is pf.PIPNet:
        return pipnet(row.backbone, size, width)
    return randomized(row.network(row.backbone, LANDMARKS, input_size=size, width=width))


def _landmarks(runtime: pf.Runtime, crops: Crops) -> torch.Tensor:
    return runtime(crops).points_frac.cpu()
