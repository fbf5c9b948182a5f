"""What the cases with whole engines share: their arguments, the network they run, and the records of a subject."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.isolated import FAR_PX, Outcome, Schedule, Subject, far_share
from bench.isolated import measure as measure_isolated
from bench.record import Record, device_name, measured, versions
from bench.task import Network, Task, prepare


def add_arguments(parser: argparse.ArgumentParser, backbones: Sequence[str], rounds: int) -> None:
    parser.add_argument("--backbone", nargs="+", default=list(backbones))
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="half on CUDA")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--engines", nargs="+", help="keys of subjects; default: all that the device has")
    parser.add_argument("--size", type=int, default=256, help="side of the crops, px")
    parser.add_argument("--width", type=float, default=1.0, help="channel multiplier of ResNets")
    parser.add_argument("--data", type=Path, help="CSV of labelled faces to cut the crops from; default: random crops")
    parser.add_argument("--model", type=Path, help="a trained PIPNet instead of random ones, for honest deviations")
    parser.add_argument("--block-ms", type=float, default=300, help="length of a block of calls")
    parser.add_argument("--timeout", type=float, default=900, help="for one answer of a subject, s")
    parser.add_argument("--folder", type=Path, help="keeps networks and what engines make of them, for later runs")


@contextlib.contextmanager
def networks(arguments: argparse.Namespace) -> Iterator[Iterator[Network]]:
    """The networks to measure, one after the other, in folders that do not outlive the context unless one was given."""
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or stack.enter_context(tempfile.TemporaryDirectory())

        def each() -> Iterator[Network]:
            for name in [arguments.model.stem] if arguments.model else arguments.backbone:
                place = Path(folder, f"{name}-{arguments.size}-{arguments.width:g}")
                place.mkdir(parents=True, exist_ok=True)
                yield prepare(place, name, arguments.size, arguments.width, arguments.data, arguments.model)

        yield each()


def tasks(arguments: argparse.Namespace, network: Network, batch: int) -> Iterator[Task]:
    """How to run a network, with each number of threads."""
    for threads in dict.fromkeys(arguments.threads):
        yield Task(network.folder, network.size, batch, threads, arguments.device, arguments.dtype)


def outcomes(
    arguments: argparse.Namespace, subjects: Sequence[Subject], network: Network, task: Task
) -> dict[str, Outcome]:
    """Measure ``subjects`` as the command line says."""
    schedule = Schedule(arguments.rounds, arguments.block_ms, timeout_s=arguments.timeout)
    return measure_isolated(subjects, task, network.landmarks_px, schedule)


def common(case: str, subject: Subject, outcome: Outcome, network: Network, task: Task) -> dict[str, Any]:
    """What all records of a subject have in common."""
    return {
        "case": case,
        "subject": subject.name,
        "device": device_name(task.device),
        "threads": task.threads,
        "dtype": "int8" if subject.options.get("int8") else task.dtype,
        "shape": f"{network.name} B={task.batch} {network.shape}",
        "versions": versions() | outcome.versions,
        "note": outcome.note,
    }


def deviation(shared: dict[str, Any], outcome: Outcome) -> Record:
    """How far the landmarks are from those computed densely in float64."""
    distances = outcome.deviation_px
    assert distances is not None
    far = f"{far_share(distances):.2%} of {np.size(distances)} landmarks are more than {FAR_PX:g} px away"
    note = "; ".join(filter(None, (far, outcome.note)))
    return measured({**shared, "note": note}, "deviation from float64", "px", distances.tolist())
