"""A training step and its memory: dense maps and target maps against the loss that reads labelled cells only."""

import argparse
import ctypes
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pipnet_fast as pf
from bench.dense import random_maps
from bench.dense_loss import Style, dense_loss, dense_targets
from bench.record import Record, device_name, measured, percentiles
from bench.timing import interleaved
from pipnet_fast.ops import HeadMaps, default_balance, head_loss

# Name of the layout, neighbors, channels, stride: ResNet-18 at 256x256, and where there is least to leave out.
SHAPES = (
    ("300w68", 10, 512, 32),
    *(("wflw98", 10, 512, stride) for stride in (16, 32, 64, 128)),
    *(("wflw98", 1, 512, stride) for stride in (64, 128)),
)
INPUT_SIZE = 256
RIVAL = "dense maps"
OURS = "labelled cells only"
# How far loss and gradients of two subjects may differ, relative to the largest value of each: sums in float32.
TOLERANCE = 1e-4
# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

Forward = Callable[[], Tensor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--rounds", type=int, default=20, help="of the loss on given features")
    parser.add_argument("--network-rounds", type=int, default=3, help="of the whole network's step, at stride 32")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Time and memory of the loss on given features, forward and backward, and of the whole network's step."""
    # TF32 rounds the two sides differently: both compute in float32.
    torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    records = []
    for threads in dict.fromkeys(arguments.threads if arguments.device == "cpu" else [torch.get_num_threads()]):
        torch.set_num_threads(threads)
        for layout, neighbors, channels, stride in SHAPES:
            table = pf.neighbor_table(layout, neighbors).to(arguments.device)
            side = INPUT_SIZE // stride
            for batch in arguments.batch:
                common = {
                    "case": "train",
                    "device": device_name(arguments.device),
                    "threads": threads,
                    "dtype": "float32",
                    "shape": f"B={batch} C={channels} {side}x{side} N={table.num_landmarks} K={neighbors}",
                }
                torch.manual_seed(0)
                points = torch.rand(batch, table.num_landmarks, 2, device=arguments.device)
                targets = dense_targets(points, table.neighbors, (side, side))
                records += _label_memory(targets, points, table, common)
                records += _loss(arguments, channels, table, points, targets, default_balance(stride), common)
                if stride == 32 and arguments.network_rounds:
                    records += _network(arguments, layout, points, targets, neighbors, common)
    return records


def keep_freed_memory() -> None:
    """Ask glibc not to hand freed memory back to the system between steps.

    Otherwise a process's history decides whether each step pays a thousand page faults, for the one subject or the
    other: up to half the time of a small step.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 2**25)


def _loss(
    arguments: argparse.Namespace,
    channels: int,
    table: pf.NeighborTable,
    points: Tensor,
    targets: HeadMaps,
    balance: float,
    common: dict[str, Any],
) -> list[Record]:
    batch, _, side, _ = targets.score.shape
    weights, biases = (HeadMaps(*(m.to(points.device) for m in maps)) for maps in random_maps(table, channels))
    records = []
    for memory in (torch.contiguous_format, torch.channels_last):
        features = torch.randn(batch, channels, side, side, device=points.device).to(memory_format=memory)
        leaves = [t.requires_grad_() for t in (features, *weights, *biases)]

        def dense(x: Tensor, style: Style, build: bool = False) -> Tensor:
            maps = [torch.conv2d(x, w[:, :, None, None], b) for w, b in zip(weights, biases, strict=True)]
            made = dense_targets(points, table.neighbors, (side, side)) if build else targets
            return dense_loss(HeadMaps(*maps), made, balance, style)

        def ours(x: Tensor) -> Tensor:
            return head_loss(x, weights, biases, points, table, alpha=balance, beta=balance).total

        name = "channels-last" if memory is torch.channels_last else "NCHW"
        subjects: dict[str, Forward] = {
            f"{RIVAL}, gathered, {name}": partial(dense, features, "gather"),
            f"{RIVAL}, masked, {name}": partial(dense, features, "mask"),
            f"{RIVAL}, gathered, targets built, {name}": partial(dense, features, "gather", build=True),
            f"{OURS}, {name}": partial(ours, features),
        }
        records += _steps("loss", subjects, leaves, arguments.rounds, arguments.device, common)
    return records


def _network(
    arguments: argparse.Namespace,
    layout: str,
    points: Tensor,
    targets: HeadMaps,
    neighbors: int,
    common: dict[str, Any],
) -> list[Record]:
    batch, landmarks, _, _ = targets.score.shape
    model = pf.PIPNet("resnet18", landmarks, neighbors, 32, INPUT_SIZE, layout).to(points.device)
    x = torch.randn(batch, 3, INPUT_SIZE, INPUT_SIZE, device=points.device)
    subjects: dict[str, Forward] = {
        f"{RIVAL}, gathered, ResNet-18": lambda: dense_loss(model(x), targets, default_balance(32), "gather"),
        f"{OURS}, ResNet-18": lambda: model.loss(x, points).total,
    }
    return _steps("network", subjects, [*model.parameters()], arguments.network_rounds, arguments.device, common)


def _steps(
    what: str,
    subjects: Mapping[str, Forward],
    leaves: Sequence[Tensor],
    rounds: int,
    device: str,
    common: dict[str, Any],
) -> list[Record]:
    """Records of each subject's forward and backward pass: time, ratio to the fastest rival, memory between them."""
    check(subjects, leaves)

    def step(forward: Forward) -> None:
        for leaf in leaves:
            leaf.grad = None
        forward().backward()  # type: ignore[no-untyped-call]

    calls = {name: partial(step, forward) for name, forward in subjects.items()}
    times = interleaved(calls, rounds, device, inner=10 if device == "cuda" else 1)
    rivals = [name for name in subjects if name.startswith(RIVAL) and "built" not in name]
    best = min(rivals, key=lambda n: percentiles(times[n])["median"])
    records = []
    for name, values in times.items():
        ratios = [rival / own for rival, own in zip(times[best], values, strict=True)]
        shared = {**common, "subject": name}
        records.append(measured(shared, f"{what} step", "ms", values))
        records.append(measured(shared, f"{what} speed-up over {best}", "x", ratios))
        kept = kept_bytes(subjects[name], leaves)
        records.append(_bytes(name, f"{what}, kept between the passes", kept, common))
        if device == "cuda":
            records.append(_bytes(name, f"{what}, peak memory", _cuda_peak(calls[name]), common))
    return records


def check(subjects: Mapping[str, Forward], leaves: Sequence[Tensor]) -> None:
    """Refuse to time subjects whose losses or gradients disagree."""
    results = {}
    for name, forward in subjects.items():
        loss = forward()
        results[name] = [loss.detach(), *torch.autograd.grad(loss, leaves)]
    first, *others = results
    for name in others:
        for got, expected in zip(results[name], results[first], strict=True):
            worst = float((got - expected).abs().max())
            if not worst <= TOLERANCE * float(expected.abs().max()):
                raise RuntimeError(f"{name} differs from {first} by {worst} in a loss or gradient: not timed")


def kept_bytes(forward: Forward, leaves: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps from the forward pass for the backward one, besides the leaves."""
    inputs = {leaf.untyped_storage().data_ptr() for leaf in leaves}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in inputs:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    del loss
    return sum(kept.values())


def _cuda_peak(call: Callable[[], None]) -> int:
    """Bytes that a step allocates at most, beyond those allocated before it."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() - before


def _label_memory(targets: HeadMaps, points: Tensor, table: pf.NeighborTable, common: dict[str, Any]) -> list[Record]:
    dense, ours = sum(t.nbytes for t in targets), points.nbytes + table.neighbors.nbytes
    return [_bytes(RIVAL, "labels of a batch", dense, common), _bytes(OURS, "labels of a batch", ours, common)]


def _bytes(subject: str, metric: str, size: int, common: dict[str, Any]) -> Record:
    return measured({**common, "subject": subject}, metric, "MB", [size / 1e6])
