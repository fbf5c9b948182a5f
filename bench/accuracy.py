"""Landmark error of a model on labelled faces, by pipnet_fast.evaluate, with boxes from labels or a detector."""

import argparse
from pathlib import Path

import torch

import pipnet_fast as pf
from bench.faces import labelled_faces
from bench.networks import load_pipnet
from bench.record import Record, device_name, measured
from pipnet_fast.evaluate import detected_boxes, evaluate
from pipnet_fast.ops.types import STORAGES
from pipnet_fast.pipeline.detectors import create_detector
from pipnet_fast.weights import default_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with val.csv and images/")
    parser.add_argument("--split", default="val")
    parser.add_argument("--detector", help="haar or yunet:PATH (default: boxes from the labels)")
    parser.add_argument("--merge", choices=("mean", "official"), help="another merge than the model's own")
    parser.add_argument("--head-storage", choices=STORAGES, help="how the head's weights are stored")
    parser.add_argument("--model", help="safetensors model (default: the one in the box)")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """The normalized error in percent, its mean and distribution, and the share of faces above 10%."""
    # A runtime is a copy of its model as it is now, so whatever is changed is changed before.
    model = load_pipnet(arguments.model or default_model())
    if arguments.merge:
        model.with_mean_shape(model.mean_shape, arguments.merge)
    runtime = pf.compile(model, "torch", head_storage=arguments.head_storage)
    data = labelled_faces(arguments.data / f"{arguments.split}.csv")
    detector = create_detector(arguments.detector)
    found = evaluate(model, data, run=runtime, boxes=None if detector is None else detected_boxes(data, detector))
    errors = found.face_errors[~found.missed]
    boxes = Path(arguments.detector.replace(":", "/")).parts[0] if arguments.detector else "labels"

    stored = f", head stored as {arguments.head_storage}" if arguments.head_storage else ""

    shared = {
        "case": "accuracy",
        "subject": f"{arguments.model or 'model in the box'}, boxes from {boxes}, merge {model.config.merge}{stored}",
        "device": device_name("cpu"),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "shape": f"{data.name}, {len(data)} faces",
    }
    values = {
        "NME inter-ocular, mean": [found.nme],
        "NME inter-ocular": errors.tolist(),
        "faces above 10%": [100 * (errors > 10).mean()],
        "faces not detected": [100 * found.missed.mean()],
    }
    return [measured(shared, metric, "%", numbers) for metric, numbers in values.items()]
