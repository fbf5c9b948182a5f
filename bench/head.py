"""Head and decoding on equal features: dense heads against the fused operation on every backend."""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

import pipnet_fast as pf
from bench.dense import DenseHead, DenseProduct, random_maps
from bench.record import Record, device_name, measured, percentiles
from bench.timing import Call, InGraph, interleaved
from pipnet_fast.ops import HeadMaps, Storage, pack_head

EAGER = "five convolutions + eager decode"
PRODUCT = "one dense product + our decode"


class Shape(NamedTuple):
    """What the head is given: a layout of N landmarks, K neighbors, B images of C channels on a square grid."""

    layout: str = "wflw98"
    neighbors: int = 10
    channels: int = 512
    side: int = 8
    batch: int = 1


BASE = Shape()
# One property at a time: landmarks, the widths of the backbones, the strides, the batch.
SWEEPS = {
    "base": [BASE],
    "landmarks": [BASE._replace(layout=name) for name in ("aflw19", "cofw29", "300w68", "lapa106")],
    "width": [BASE._replace(channels=channels) for channels in (960, 1280, 2048)],
    "stride": [BASE._replace(side=side) for side in (16, 4, 2)],
    "batch": [BASE._replace(batch=batch) for batch in (2, 4, 8, 16, 32, 64, 128, 256)],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="on CUDA")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--sweep", choices=SWEEPS, nargs="+", default=list(SWEEPS))
    parser.add_argument("--rounds", type=int, default=60)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of every subject at every shape and thread count."""
    # TF32 would flip winners: both sides compute in float32.
    torch.backends.cudnn.allow_tf32 = False
    records = []
    for threads in dict.fromkeys(arguments.threads if arguments.device == "cpu" else [torch.get_num_threads()]):
        torch.set_num_threads(threads)
        for sweep in arguments.sweep:
            for shape in SWEEPS[sweep]:
                records += _measure_shape(arguments, threads, shape)
    return records


def _measure_shape(arguments: argparse.Namespace, threads: int, shape: Shape) -> list[Record]:
    head = Head(shape, arguments.device, getattr(torch, arguments.dtype))
    with torch.inference_mode():
        subjects = dict(head.on_cuda() if arguments.device == "cuda" else head.on_cpu(every_isa=shape == BASE))
        for name, call in subjects.items():
            check(name, call(), head.expected(name), arguments.dtype)
        rounds, inner = max(5, arguments.rounds // shape.batch), max(1, 10 // shape.batch)
        times = interleaved(subjects, rounds, arguments.device, inner)
    common = {
        "case": "head",
        "device": device_name(arguments.device),
        "threads": threads,
        "dtype": arguments.dtype,
        "shape": head.text(),
    }
    records = []
    rivals = [_fastest(times, start) for start in (EAGER, PRODUCT)]
    for name, values in times.items():
        shared = {**common, "subject": name}
        records.append(measured(shared, "latency", "ms", values))
        for rival in rivals:
            ratios = [theirs / own for theirs, own in zip(times[rival], values, strict=True)]
            records.append(measured(shared, f"speed-up over {rival}", "x", ratios))
    return records


def _fastest(times: dict[str, list[float]], start: str) -> str:
    """The better memory layout of a rival is the one to beat."""
    return min((name for name in times if name.startswith(start)), key=lambda n: percentiles(times[n])["median"])


class Head:
    """A random head of a shape, its features in both memory layouts, and what can be timed on them."""

    def __init__(self, shape: Shape, device: str, dtype: torch.dtype) -> None:
        """Weights and features are the same for every subject."""
        torch.manual_seed(0)
        self.table = pf.neighbor_table(shape.layout, shape.neighbors, merge="official").to(device)
        to = partial(Tensor.to, device=device, dtype=dtype)
        self.weights, self.biases = (HeadMaps(*map(to, maps)) for maps in random_maps(self.table, shape.channels))
        features = to(torch.randn(shape.batch, shape.channels, shape.side, shape.side))
        self.features = {"NCHW": features, "channels-last": features.to(memory_format=torch.channels_last)}
        self.packed = pack_head(self.weights, self.biases)
        self.shape = shape

    def text(self) -> str:
        """The shape as records have it."""
        s = self.shape
        return f"B={s.batch} C={s.channels} {s.side}x{s.side} N={self.table.num_landmarks} K={s.neighbors}"

    def rivals(self, backend: pf.ops.Backend) -> Iterator[tuple[str, Call]]:
        """The dense heads."""
        eager = DenseHead(self.weights, self.biases, self.table.neighbors)
        product = DenseProduct(self.weights, self.biases, self.table, backend)
        for layout, x in self.features.items():
            yield f"{EAGER}, {layout}", partial(eager, x)
            yield f"{PRODUCT}, {layout}", partial(product, x)

    def on_cpu(self, every_isa: bool) -> Iterator[tuple[str, Call]]:
        """The C++ backend on every instruction set, or those with vectors, and every storage."""
        if not pf.ops.backends()["cpp"]:
            yield from self.rivals("reference")
            return
        yield from self.rivals("cpp")
        from pipnet_fast import _C

        for isa in _C.isas() if every_isa else [name for name in _C.isas() if name != "scalar"]:
            for storage in ("float32",) if isa == "scalar" else ("float32", "float16", "int8"):
                bound = pf.ops.BoundHead(self.packed.stored_as(cast(Storage, storage)), self.table)
                for layout, x in self.features.items():
                    yield f"fused C++ {isa}, {storage} weights, {layout}", partial(_with_isa, _C, isa, bound, x)

    def on_cuda(self) -> Iterator[tuple[str, Call]]:
        """The Triton backend, called and replayed as nodes of a graph."""
        yield from self.rivals("triton")
        for layout, x in self.features.items():
            call = partial(pf.ops.head_decode, x, self.packed, self.table, "triton")
            yield f"fused Triton, {layout}", call
            yield f"fused Triton in a graph, {layout}", InGraph(call)

    def expected(self, subject: str) -> pf.Landmarks:
        """What the reference gives for the weights as the subject stores them."""
        storage = next((s for s in ("float16", "int8") if f"{s} weights" in subject), "float32")
        packed = self.packed if storage == "float32" else self.packed.stored_as(cast(Storage, storage))
        return pf.ops.head_decode(self.features["NCHW"], packed, self.table, backend="reference")


# Points that may be wrong, because a dense head rounds its score maps, and with them the order of close scores.
SHARE_OF_TIES = {"float32": 0.001, "float16": 0.02, "bfloat16": 0.1}


def check(name: str, got: object, expected: pf.Landmarks, dtype: str) -> None:
    """Refuse to time a subject that is wrong."""
    assert isinstance(got, pf.Landmarks)
    deviation = (got.points_frac.float() - expected.points_frac).abs().flatten()
    wrong = deviation > (1e-4 if dtype == "float32" else 2e-2) * max(1.0, float(expected.points_frac.abs().max()))
    if int(wrong.sum()) > deviation.numel() * SHARE_OF_TIES[dtype]:
        raise RuntimeError(f"{name} differs from the reference by {float(deviation.max())} of the crop: not timed")


def _with_isa(cpp: Any, isa: str, head: pf.ops.BoundHead, x: Tensor) -> pf.Landmarks:
    before = cpp.isa()
    cpp.use_isa(isa)
    try:
        return head(x)
    finally:
        cpp.use_isa(before)
