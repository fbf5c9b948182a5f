"""The C++ engine step by step: how long each takes, and how long it would take at the rates of the machine.

Two floors stand beside a step's time: the multiply-accumulates of its algorithm at the rate of the machine's own matrix
product, and its weights, as they are packed, at the rate of reading memory, for a large network's weights leave the
caches from call to call (a small one's may stay in the last one and be read faster). Winograd's transforms, which are
additions, and what maps are read and written for are in neither.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from bench import floor
from bench.floor import Machine, machine_of
from bench.networks import pipnet, random_crops
from bench.record import Record, device_name, measured
from pipnet_fast.backbones import BACKBONES
from pipnet_fast.engines._lower import plan_of
from pipnet_fast.engines._types import WEIGHT_STORAGES
from pipnet_fast.engines.plan_file import PlanNetwork, serialize


class Step(NamedTuple):
    """A step of a plan, and what it has to do."""

    name: str
    shapes: str
    multiplies: int
    weight_bytes: int


def steps(network: PlanNetwork, described: Sequence[tuple[str, int, int, int]]) -> list[Step]:
    """The steps of a plan of ``network``, in their order, from what the plan says of them."""
    shapes = [(3, network.input_size)]
    for layer in network.layers:
        shapes.append((layer.channels, layer.side(shapes[layer.input][1])))
    found, first = [], 0
    for name, layers, multiplies, weight_bytes in described:
        source, result = shapes[network.layers[first].input], shapes[first + layers]
        found.append(Step(name, f"{_text(*source)} to {_text(*result)}", multiplies, weight_bytes))
        first += layers
    return found


def _text(channels: int, side: int) -> str:
    return f"{channels}x{side}x{side}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", nargs="+", default=list(BACKBONES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--size", type=int, default=256, help="side of the crops, px")
    parser.add_argument("--width", type=float, default=1.0, help="channel multiplier of ResNets")
    parser.add_argument("--weight-storage", choices=WEIGHT_STORAGES, default="float32")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of every step of every backbone; equal ones of a network are one subject, and their times are added."""
    records = []
    for threads in dict.fromkeys(arguments.threads):
        machine = machine_of(floor.measure(argparse.Namespace(threads=[threads], rounds=arguments.rounds)), threads)
        for name in arguments.backbone:
            records += _measure(arguments, name, threads, machine)
    return records


def _measure(arguments: argparse.Namespace, backbone: str, threads: int, machine: Machine) -> list[Record]:
    from pipnet_fast import _C

    model = pipnet(backbone, arguments.size, arguments.width)
    network = plan_of(model, weight_storage=arguments.weight_storage)
    data = serialize(network)
    plan = _C.Plan(data.ctypes.data, data.size)
    crop = random_crops(1, arguments.size)
    plan.step_times(crop.ctypes.data, 0, threads)
    times = np.array([plan.step_times(crop.ctypes.data, 0, threads) for _ in range(arguments.rounds)])
    # Equal ones by their place in the plan.
    places: dict[Step, list[int]] = {}
    for place, step in enumerate(steps(network, plan.steps)):
        places.setdefault(step, []).append(place)
    shared = {
        "case": "layers",
        "device": device_name("cpu"),
        "threads": threads,
        "dtype": arguments.weight_storage,
        "shape": f"{backbone} B=1 {arguments.size}x{arguments.size} {_C.isa()}",
    }
    rate = f"{machine.gflops:.0f} GFLOP/s, {machine.memory_gb_s:.1f} GB/s"
    records = []
    for step, where in places.items():
        count = len(where)
        subject = {**shared, "subject": f"{step.name}, {step.shapes}", "note": f"{count} of them; floors at {rate}"}
        records += _records(subject, times[:, where].sum(axis=1), step, count, machine)
    return records


def _records(shared: dict[str, Any], times: Any, step: Step, count: int, machine: Machine) -> list[Record]:
    arithmetic = count * 2 * step.multiplies / machine.gflops * 1e-6
    reading = count * step.weight_bytes / machine.memory_gb_s * 1e-6
    return [
        measured(shared, "time", "ms", times.tolist()),
        measured(shared, "multiply-accumulates", "M", [count * step.multiplies / 1e6]),
        measured(shared, "floor of arithmetic", "ms", [arithmetic]),
        measured(shared, "floor of reading weights", "ms", [reading]),
    ]
