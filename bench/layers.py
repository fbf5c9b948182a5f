"""The C++ engine step by step: how long each takes, and how long it would take at the rates of the machine.

Two floors stand beside a step's time: the multiply-accumulates of its algorithm at the rate of the machine's own matrix
product, and its weights at the rate of reading memory, for a large network's weights leave the caches from call to call
(a small one's may stay in the last one and be read faster). Winograd's transforms, which are additions, and what maps
are read and written for are in neither.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from bench import floor
from bench.floor import Machine, machine_of
from bench.networks import pipnet, random_crops
from bench.record import Record, device_name, measured
from pipnet_fast.backbones import BACKBONES
from pipnet_fast.engines._lower import lower
from pipnet_fast.engines._types import WeightStorage
from pipnet_fast.engines.fold import fold_trunk
from pipnet_fast.engines.plan_file import LayerKind, PlanLayer, PlanNetwork, serialize
from pipnet_fast.ops import BoundHead

WEIGHT_SIZE = {"float32": 4, "float16": 2}


class Tiles(NamedTuple):
    """What a transform makes of a tile, along one axis (``csrc/engine/kernels.h``)."""

    weights: int
    products: int
    outputs: int


# By the names that steps have.
TRANSFORMS = {
    "3x3 F(4,3)": Tiles(6, 6, 4),
    "3x3 F(2,3)": Tiles(4, 4, 2),
    "3x3/2 F(4,3)": Tiles(6, 9, 4),
    "3x3/2 F(2,3)": Tiles(4, 5, 2),
    "deconvolution": Tiles(4, 4, 2),
}
LAYERS_OF = {"stem": 1, "stem, max-pool": 2, "depthwise": 1, "depthwise, gate": 2, "1x1": 1, "1x1/2": 1, "max-pool": 1}


class Shape(NamedTuple):
    """Of a map."""

    channels: int
    side: int


class Step(NamedTuple):
    """A step of a plan, and what it has to do."""

    name: str
    shapes: str
    multiplies: int
    weight_bytes: int


def steps(network: PlanNetwork, names: Sequence[str]) -> list[Step]:
    """What steps of these names do, which are a plan's of ``network``, in their order.

    Raises:
        ValueError: names that are not those of the network's layers.
    """
    shapes = list(_shapes(network))
    found, layer = [], 0
    for name in names:
        count = 1 if name in TRANSFORMS else LAYERS_OF.get(name)
        if count is None or layer + count > len(network.layers):
            raise ValueError(
                f"bench: layers: expected steps of {len(network.layers)} layers with names among "
                f"{[*LAYERS_OF, *TRANSFORMS]}, got {name!r} at layer {layer}"
            )
        parts = network.layers[layer : layer + count]
        source, result = shapes[parts[0].input], shapes[layer + count]
        multiplies = sum(
            _multiplies(part, name, shapes[part.input], shapes[layer + 1 + i]) for i, part in enumerate(parts)
        )
        weights = sum(_weight_bytes(part, name, network.weight_storage) for part in parts)
        text = f"{source.channels}x{source.side}x{source.side} to {result.channels}x{result.side}x{result.side}"
        found.append(Step(name, text, multiplies, weights))
        layer += count
    if layer != len(network.layers):
        raise ValueError(f"bench: layers: expected steps of {len(network.layers)} layers, got some of {layer}")
    return found


def _shapes(network: PlanNetwork) -> Iterator[Shape]:
    """Of every tensor."""
    shapes = [Shape(3, network.input_size)]
    for layer in network.layers:
        side = shapes[layer.input].side
        if layer.kind == LayerKind.DECONVOLUTION:
            side *= 2
        elif layer.kind != LayerKind.GATE:
            side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
        shapes.append(Shape(layer.channels, side))
    yield from shapes


def _multiplies(layer: PlanLayer, name: str, source: Shape, result: Shape) -> int:
    if layer.kind == LayerKind.MAX_POOL:
        return 0
    if layer.kind == LayerKind.GATE:
        return 2 * layer.squeezed * layer.channels
    if layer.kind == LayerKind.DEPTHWISE:
        return layer.channels * layer.kernel**2 * result.side**2
    if transform := TRANSFORMS.get(name):
        tiles = -(-result.side // transform.outputs)
        return source.channels * layer.channels * (tiles * transform.products) ** 2
    return source.channels * layer.channels * layer.kernel**2 * result.side**2


def _weight_bytes(layer: PlanLayer, name: str, storage: WeightStorage) -> int:
    weights = sum(array.numel() for array in layer.arrays[::2])
    if layer.kind in (LayerKind.DEPTHWISE, LayerKind.GATE):
        return 4 * weights
    if transform := TRANSFORMS.get(name):
        weights = weights // layer.kernel**2 * transform.weights**2
    return WEIGHT_SIZE[storage] * weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", nargs="+", default=list(BACKBONES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--size", type=int, default=256, help="side of the crops, px")
    parser.add_argument("--width", type=float, default=1.0, help="channel multiplier of ResNets")
    parser.add_argument("--weight-storage", choices=tuple(WEIGHT_SIZE), default="float32")


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
    network = PlanNetwork(
        arguments.size,
        lower(fold_trunk(model), arguments.size),
        BoundHead(model.head, model.table),
        weight_storage=arguments.weight_storage,
    )
    data = serialize(network)
    plan = _C.Plan(data.ctypes.data, data.size)
    crop = random_crops(1, arguments.size)
    plan.step_times(crop.ctypes.data, 0, threads)
    timed = [plan.step_times(crop.ctypes.data, 0, threads) for _ in range(arguments.rounds)]
    times = np.array([[milliseconds for _, milliseconds in run] for run in timed])
    # Equal ones by their place in the plan.
    places: dict[Step, list[int]] = {}
    for place, step in enumerate(steps(network, [name for name, _ in timed[0]])):
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
