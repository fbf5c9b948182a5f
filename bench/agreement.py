"""The C++ engine against torch on labelled faces: winning cells, landmarks, and the error of both.

The winning cells of both follow from their features by the same dense scores. Landmarks are those that the engine and
the model's own ``predict`` return; one that is far lost its winner, or is voted for by a neighbor that did.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import pipnet_fast as pf
from bench.faces import labelled_faces
from bench.networks import load_pipnet, pipnet
from bench.record import Record, device_name, measured
from pipnet_fast.data import FaceData
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.engines._lower import plan_of
from pipnet_fast.engines._types import WEIGHT_STORAGES, WeightStorage
from pipnet_fast.engines.cpp import Plan
from pipnet_fast.engines.plan_file import serialize
from pipnet_fast.evaluate import hold_against
from pipnet_fast.ops import Landmarks
from pipnet_fast.pipeline.images import normalize
from pipnet_fast.weights import default_model

NEAR = 1e-3
BATCH = 8
NME = "NME inter-ocular, mean"


class Found(NamedTuple):
    """Of all crops: winning cells (n, N) and landmarks (n, N, 2), fractions of the crop."""

    cells: Tensor
    points: Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with val.csv and images/")
    parser.add_argument("--split", default="val")
    parser.add_argument("--faces", type=int, help="only so many of the first ones")
    parser.add_argument("--model", nargs="*", type=Path, help="safetensors models (default: the one in the box)")
    parser.add_argument("--random", nargs="*", default=["resnet18"], help="backbones of random networks of 98 points")
    parser.add_argument("--isa", nargs="+", help="instruction sets (default: all vectors that the CPU has)")
    parser.add_argument("--weight-storage", nargs="+", choices=WEIGHT_STORAGES, default=list(WEIGHT_STORAGES))


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of every model, instruction set and storage; errors only of those with the data's own landmarks."""
    from pipnet_fast import _C

    isas = arguments.isa or [isa for isa in _C.isas() if isa != "scalar"]
    data = labelled_faces(arguments.data / f"{arguments.split}.csv")
    data = replace(data, samples=data.samples[: arguments.faces])
    models = [(file.stem, load_pipnet(file)) for file in arguments.model or ()]
    if arguments.model is None:
        models.append(("model in the box", load_pipnet(default_model())))
    models += [(f"random {name}", pipnet(name, 256)) for name in arguments.random]
    records = []
    for name, model in models:
        model.eval()
        faces = _Faces(model, data)
        expected = _torch(model, faces.crops)
        for isa in isas:
            for storage in arguments.weight_storage:
                with _using(isa):
                    found = _engine(model, _plan(model, storage), faces.crops)
                shared = {
                    "case": "agreement",
                    "subject": f"{name}, C++ {isa}, {storage} weights",
                    "device": device_name("cpu"),
                    "threads": 1,
                    "dtype": storage,
                    "shape": f"{data.name}, {len(data)} faces, N={model.config.num_landmarks}",
                }
                records += _records(shared, found, expected)
                if model.config.num_landmarks == data.layout.num_landmarks:
                    ours, torchs = faces.nme(found.points), faces.nme(expected.points)
                    records.append(measured(shared, NME, "%", [ours]))
                    records.append(measured(shared, f"{NME}, torch", "%", [torchs]))
                    records.append(measured(shared, "NME, difference from torch", "%", [abs(ours - torchs)]))
    return records


def _records(shared: dict[str, Any], found: Found, expected: Found) -> list[Record]:
    distances = (found.points - expected.points).abs().amax(dim=2).flatten()
    other = found.cells != expected.cells
    near = 100 * (distances <= NEAR).double().mean()
    counted = {**shared, "note": f"of {other.numel()}"}
    return [
        measured(counted, "other winning cells than torch's", "cells", [int(other.sum())]),
        measured(shared, "winning cells as in torch", "%", [100 * float(1 - other.double().mean())]),
        measured(shared, f"landmarks within {NEAR:g} of the crop", "%", [float(near)]),
        measured(shared, "distance from torch's landmarks", "crop", distances.tolist()),
        measured(shared, "distance from torch's landmarks, largest", "crop", [float(distances.max())]),
    ]


class _Faces:
    """Crops (n, S, S, 3) uint8 of a data set's faces as a model is shown them."""

    def __init__(self, model: pf.PIPNet, data: FaceData) -> None:
        self._data, self._rule, self._size = data, model.crop, model.config.input_size
        loader = CropLoader(data, self._rule, self._size, BATCH, augmentation=None, shuffle=False, workers=0)
        self.crops = torch.cat([batch.crops for batch in loader])
        self._affines = loader.affines(torch.arange(len(data)))

    def nme(self, points: Tensor) -> float:
        """Percent, of landmarks (n, N, 2) in fractions of the crops."""
        points_px = self._rule.to_image(points.double().numpy(), self._affines, self._size)
        return hold_against("", self._data, points_px, np.ones(points_px.shape[:2])).nme


def _plan(model: pf.PIPNet, storage: WeightStorage) -> Plan:
    return Plan(serialize(plan_of(model, weight_storage=storage)), threads=1)


@contextmanager
def _using(isa: str) -> Iterator[None]:
    from pipnet_fast import _C

    before = _C.isa()
    _C.use_isa(isa)
    try:
        yield
    finally:
        _C.use_isa(before)


@torch.no_grad()
def _torch(model: pf.PIPNet, crops: Tensor) -> Found:
    parts = []
    for part in torch.split(crops, BATCH):
        features = model.forward_features(normalize(part))
        parts.append(_found(model, features, model.landmarks(features)))
    return Found(*map(torch.cat, zip(*parts, strict=True)))


@torch.no_grad()
def _engine(model: pf.PIPNet, plan: Plan, crops: Tensor) -> Found:
    parts = [_found(model, plan.features(part), plan.landmarks(part)) for part in torch.split(crops, BATCH)]
    return Found(*map(torch.cat, zip(*parts, strict=True)))


def _found(model: pf.PIPNet, features: Tensor, landmarks: Landmarks) -> Found:
    scores: Tensor = model.get_submodule("cls_layer")(features)
    return Found(scores.flatten(2).argmax(dim=2), landmarks.points_frac)
