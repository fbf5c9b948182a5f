"""Parameters and multiply-accumulates of all heads and backbones, beside those of the paper's Table 9.

Nothing is computed: the networks live on the meta device. N is the one whose parameters the paper counted, which
differs between its rows. torch's FlopCounterMode counts the products of convolutions, deconvolutions and matrices;
the paper's "GFLOPs" are multiply-accumulates too, up to 1% more of them with what else its tool counted. Only those
of MapNet differ: the paper's leave out the deconvolutions, so the sum without them stands beside the whole one.
Decoding is in no sum, and so G-RMI's votes, one for every pixel and landmark, are not.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import pipnet_fast as pf
from bench.record import Record, measured
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.ops.head_decode import reference

SIZE = 256


class Row(NamedTuple):
    """A row of Table 9, and the number of landmarks that gives its parameters."""

    network: Callable[..., LandmarkModel]
    backbone: str
    landmarks: int
    parameters_m: float
    gmacs: float


TABLE_9 = (
    Row(pf.GRMI, "resnet50", 68, 23.9, 25.5),
    Row(pf.GRMI, "resnet101", 68, 42.9, 45.1),
    Row(pf.CoordNet, "resnet18", 98, 28.3, 2.4),
    Row(pf.CoordNet, "resnet50", 98, 91.0, 5.5),
    Row(pf.CoordNet, "resnet101", 98, 110.0, 10.4),
    Row(pf.MapNet, "resnet18", 68, 28.0, 3.0),
    Row(pf.MapNet, "resnet50", 68, 52.9, 6.0),
    Row(pf.MapNet, "resnet101", 68, 71.9, 10.9),
    Row(pf.PIPNet, "mobilenet_v2", 68, 4.2, 0.5),
    Row(pf.PIPNet, "mobilenet_v3", 68, 4.5, 0.4),
    Row(pf.PIPNet, "resnet18", 68, 12.0, 2.4),
    Row(pf.PIPNet, "resnet50", 68, 26.7, 5.6),
    Row(pf.PIPNet, "resnet101", 68, 45.7, 10.5),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to choose: networks and sizes are those of the table."""


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of every row of Table 9: what is counted here, and what the paper says."""
    return [record for row in TABLE_9 for record in _count(row)]


def _count(row: Row) -> list[Record]:
    with torch.device("meta"):
        model = row.network(row.backbone, row.landmarks).eval()
        x = torch.empty(1, 3, SIZE, SIZE)
        features = model.forward_features(x)
    total = gmacs(lambda: model(x))
    counts = [
        ("parameters", "M", sum(p.numel() for p in model.parameters()) / 1e6),
        ("parameters, paper", "M", row.parameters_m),
        ("multiply-accumulates", "GMAC", total),
        ("multiply-accumulates, paper", "GMAC", row.gmacs),
    ]
    shape = f"B=1 {SIZE}x{SIZE} N={row.landmarks}"
    if isinstance(model, pf.MapNet):
        without = total - gmacs(lambda: model.deconv_layers(features))
        counts.append(("multiply-accumulates without deconvolutions", "GMAC", without))
    if isinstance(model, pf.PIPNet):
        shape += f" K={model.config.num_neighbors}"
        dense, fused = total - gmacs(lambda: model.forward_features(x)), gmacs(lambda: fused_head(model, features))
        counts += [
            ("multiply-accumulates, fused head", "GMAC", total - dense + fused),
            ("multiply-accumulates of dense head", "GMAC", dense),
            ("multiply-accumulates of fused head", "GMAC", fused),
        ]
    shared = {
        "case": "params",
        "subject": f"{type(model).__name__} {row.backbone}",
        "device": "meta",
        "threads": 1,
        "dtype": "float32",
        "shape": shape,
    }
    is_map = isinstance(model, pf.MapNet)
    note = {"note": "the paper's sum leaves out the deconvolutions"} if is_map else {}
    return [
        measured({**shared, **(note if metric.startswith("multiply") else {})}, metric, unit, [value])
        for metric, unit, value in counts
    ]


def gmacs(call: Callable[[], object]) -> float:
    """Multiply-accumulates of a call, in 10^9: half of what torch counts as FLOPs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 2e9


def fused_head(model: pf.PIPNet, features: Tensor) -> object:
    """The fused head in plain torch, whose products are those of the kernels."""
    anywhere = torch.rand(model.config.num_landmarks, 2).numpy()
    table = pf.neighbor_table(anywhere, model.config.num_neighbors).to("meta")
    return reference(features, *model.head, table.starts, table.sources, table.weights)
