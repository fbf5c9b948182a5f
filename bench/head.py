"""Head and decoding on equal features: dense convolutions with an eager decode against the fused operation."""

import argparse
from functools import partial

import torch

import pipnet_fast as pf
from bench.dense import DenseHead
from bench.record import Record, device_name, percentiles
from bench.timing import Call, interleaved
from pipnet_fast.ops import HeadMaps, HeadWeights, pack_head

RIVAL = "five convolutions + eager decode"
# Name of the layout, neighbors, channels, side of the grid: ResNet-18 and the MobileNets at 256x256.
SHAPES = (("wflw98", 10, 512, 8), ("wflw98", 10, 960, 8), ("wflw98", 10, 1280, 8))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=100)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of every subject at every shape, batch and thread count."""
    # TF32 would flip winners: both sides compute in float32.
    torch.backends.cudnn.allow_tf32 = False
    records = []
    for threads in dict.fromkeys(arguments.threads if arguments.device == "cpu" else [torch.get_num_threads()]):
        torch.set_num_threads(threads)
        for layout, neighbors, channels, side in SHAPES:
            for batch in arguments.batch:
                records += _measure_shape(arguments, threads, layout, neighbors, channels, side, batch)
    return records


def _measure_shape(
    arguments: argparse.Namespace, threads: int, layout: str, neighbors: int, channels: int, side: int, batch: int
) -> list[Record]:
    device = arguments.device
    table = pf.neighbor_table(layout, neighbors, merge="official").to(device)
    landmarks = table.num_landmarks
    rows = (landmarks, landmarks, landmarks, landmarks * neighbors, landmarks * neighbors)
    torch.manual_seed(0)
    weights = HeadMaps(*(torch.randn(r, channels, device=device) / channels**0.5 for r in rows))
    biases = HeadMaps(*(torch.randn(r, device=device) for r in rows))
    features = torch.randn(batch, channels, side, side, device=device)
    dense, head = DenseHead(weights, biases, table.neighbors), pack_head(weights, biases)

    subjects: dict[str, Call] = {}
    for memory, x in (("NCHW", features), ("channels-last", features.to(memory_format=torch.channels_last))):
        subjects[f"{RIVAL}, {memory}"] = partial(dense, x)
        if device == "cuda":
            subjects[f"fused Triton, {memory}"] = partial(pf.ops.head_decode, x, head, table, "triton")
        elif pf.ops.backends()["cpp"]:
            for isa in _isas():
                subjects[f"fused C++ {isa}, {memory}"] = partial(_with_isa, isa, x, head, table)
    check(subjects)

    with torch.inference_mode():
        times = interleaved(subjects, arguments.rounds, device)
    common = {
        "case": "head",
        "device": device_name(device),
        "threads": threads,
        "dtype": "float32",
        "shape": f"B={batch} C={channels} {side}x{side} N={landmarks} K={neighbors}",
    }
    # The rival's better memory layout is the one to beat.
    best = min((name for name in subjects if name.startswith(RIVAL)), key=lambda n: percentiles(times[n])["median"])
    records = []
    for name, values in times.items():
        ratios = [rival / own for rival, own in zip(times[best], values, strict=True)]
        records.append(Record(subject=name, metric="latency", unit="ms", **common, **percentiles(values)))  # type: ignore[arg-type]
        records.append(Record(subject=name, metric=f"speed-up over {best}", unit="x", **common, **percentiles(ratios)))  # type: ignore[arg-type]
    return records


def check(subjects: dict[str, Call]) -> None:
    """Refuse to time subjects that disagree."""
    results = {name: call() for name, call in subjects.items()}
    first, *others = results
    expected = results[first]
    assert isinstance(expected, pf.Landmarks)
    for name in others:
        got = results[name]
        assert isinstance(got, pf.Landmarks)
        worst = float((got.points_frac - expected.points_frac).abs().max())
        if not worst < 1e-4 * float(expected.points_frac.abs().max()):
            raise RuntimeError(f"{name} differs from {first} by {worst} of the crop: not timed")


def _with_isa(isa: str, x: torch.Tensor, head: HeadWeights, table: pf.NeighborTable) -> pf.Landmarks:
    from pipnet_fast import _C

    before = _C.isa()
    _C.use_isa(isa)
    try:
        return pf.ops.head_decode(x, head, table, backend="cpp")
    finally:
        _C.use_isa(before)


def _isas() -> list[str]:
    from pipnet_fast import _C

    return _C.isas()
