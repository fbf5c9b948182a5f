"""Landmark error of models on labelled faces, by pipnet_fast.evaluate, with boxes from labels or a detector."""

import argparse
from pathlib import Path

import torch

import pipnet_fast as pf
from bench.faces import labelled_faces
from bench.networks import load_pipnet
from bench.record import Record, device_name, measured
from pipnet_fast.cli._arguments import named_values
from pipnet_fast.cli._models import BOX
from pipnet_fast.evaluate import THRESHOLD, Evaluation, detected_boxes, evaluate
from pipnet_fast.ops.types import STORAGES
from pipnet_fast.pipeline.detectors import create_detector
from pipnet_fast.weights import default_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with val.csv and images/")
    parser.add_argument("--split", default="val")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the table's reader, as offset_px=[-1,0]"
    )
    parser.add_argument("--detector", help="haar or yunet:PATH (default: boxes from the labels)")
    parser.add_argument("--flip-average", action="store_true", help="also average with the mirrored crop, apart")
    parser.add_argument("--merge", choices=("mean", "official"), help="another merge than the models' own")
    parser.add_argument("--head-storage", choices=STORAGES, help="how the head's weights are stored")
    parser.add_argument("--model", nargs="+", default=[BOX], help=f'safetensors models, or "{BOX}": the one in the box')


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of every model, and of each with mirrored crops averaged in if they are asked for."""
    options = named_values("--option", arguments.option)
    data = labelled_faces(arguments.data / f"{arguments.split}.csv", **options)
    detector = create_detector(arguments.detector)
    boxes = None if detector is None else detected_boxes(data, detector)
    boxes_from = Path(arguments.detector.replace(":", "/")).parts[0] if arguments.detector else "labels"
    stored = f", head stored as {arguments.head_storage}" if arguments.head_storage else ""
    common = {
        "case": "accuracy",
        "device": device_name("cpu"),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "shape": ", ".join((data.name, f"{len(data)} faces", *arguments.option)),
    }
    records = []
    for name in arguments.model:
        # A runtime is a copy of its model as it is now, so whatever is changed is changed before.
        model = load_pipnet(default_model() if name == BOX else name)
        if arguments.merge:
            model.with_mean_shape(model.mean_shape, arguments.merge)
        runtime = pf.compile(model, "torch", head_storage=arguments.head_storage)
        subject = "model in the box" if name == BOX else Path(name).stem
        subject += f", boxes from {boxes_from}, merge {model.config.merge}{stored}"
        for flip_average in (False, True)[: 1 + arguments.flip_average]:
            found = evaluate(model, data, run=runtime, boxes=boxes, flip_average=flip_average)
            records += _records({**common, "subject": subject + ", flip average" * flip_average}, found)
    return records


def _records(shared: dict[str, object], found: Evaluation) -> list[Record]:
    """Errors in percent, the shares of faces that failed, and how far landmarks are off to one side."""
    errors = found.face_errors[~found.missed]
    off_px = (found.points - found.truth)[~found.missed].mean(axis=(0, 1))
    percent = {
        "NME inter-ocular, mean": [found.nme],
        "NME inter-ocular": errors.tolist(),
        f"faces above {THRESHOLD:g}%": [100 * (errors > THRESHOLD).mean()],
        "faces not detected": [100 * found.missed.mean()],
        f"faces not detected or above {THRESHOLD:g}%": [found.failure_rate()],
    }
    records = [measured(shared, metric, "%", numbers) for metric, numbers in percent.items()]
    for axis, off in zip("xy", off_px.tolist(), strict=True):
        records.append(measured(shared, f"mean error along {axis}", "px", [off]))
    return records
