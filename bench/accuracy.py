"""Landmark error of a model on labelled faces, through FaceLandmarker, with boxes from labels or a detector."""

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import pipnet_fast as pf
from bench.record import Record, device_name, percentiles
from pipnet_fast.crop import tight_boxes
from pipnet_fast.ops.types import STORAGES
from pipnet_fast.weights import default_model

# Outer eye corners of the 68-point layout, whose distance the error is divided by.
OUTER_EYES = (36, 45)
BATCH = 32
# A detection belongs to the labelled face from this overlap on.
LEAST_OVERLAP = 0.3

Boxes = npt.NDArray[np.floating[Any]]


def read_csv(path: Path) -> Iterator[tuple[Path, npt.NDArray[np.float64]]]:
    """Image paths and landmarks (68, 2), continuous px, of a table with 0-based pixel centers."""
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points = [[float(row[f"x{n}"]), float(row[f"y{n}"])] for n in range(68)]
            yield path.parent / "images" / row["file"], np.array(points) + 0.5


def inter_ocular_errors(landmarker: pf.FaceLandmarker, labels: Path) -> npt.NDArray[np.float64]:
    """Mean landmark distance of each face over the distance of its outer eye corners; NaN where none was detected.

    Without a detector the boxes are those of the labels; with one, the detected face that overlaps the label counts.
    """
    samples = list(read_csv(labels))
    errors = []
    for start in range(0, len(samples), BATCH):
        paths, truths = zip(*samples[start : start + BATCH], strict=True)
        tight = [tight_boxes(truth[None]) for truth in truths]
        found = landmarker.predict_batch([*map(str, paths)], tight if landmarker.detector is None else None)
        for faces, box, truth in zip(found, tight, truths, strict=True):
            overlaps = overlap(faces.boxes, box[0])
            if not len(faces) or overlaps.max() < LEAST_OVERLAP:
                errors.append(np.nan)
                continue
            distance = np.linalg.norm(faces.landmarks[overlaps.argmax()] - truth, axis=1).mean()
            errors.append(distance / np.linalg.norm(truth[OUTER_EYES[0]] - truth[OUTER_EYES[1]]))
    return np.array(errors)


def overlap(boxes: Boxes, other: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes (n, 4 or 5) with one box (4,)."""
    low, high = np.maximum(boxes[:, :2], other[:2]), np.minimum(boxes[:, 2:4], other[2:])
    shared: npt.NDArray[np.float64] = (high - low).clip(0).prod(axis=1)
    areas: npt.NDArray[np.float64] = (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1) + (other[2:] - other[:2]).prod()
    return np.divide(shared, areas - shared)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with val.csv and images/")
    parser.add_argument("--split", default="val")
    parser.add_argument("--detector", help="haar or yunet:PATH (default: boxes from the labels)")
    parser.add_argument("--merge", choices=("mean", "official"), help="another merge than the model's own")
    parser.add_argument("--head-storage", choices=STORAGES, help="how the head's weights are stored")
    parser.add_argument("--model", help="safetensors model (default: the one in the box)")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """The normalized error in percent, its mean and distribution, and the share of faces above 10%."""
    # A landmarker runs a copy of its model as it is now, so whatever is changed is changed before.
    model = pf.load(arguments.model or default_model())
    if arguments.merge:
        model.with_mean_shape(model.mean_shape, arguments.merge)
    landmarker = pf.FaceLandmarker(model, arguments.detector, color="rgb")
    if arguments.head_storage:
        landmarker.runtime = pf.compile(landmarker.model, landmarker.engine, head_storage=arguments.head_storage)
    every = 100 * inter_ocular_errors(landmarker, arguments.data / f"{arguments.split}.csv")
    errors = every[~np.isnan(every)]
    boxes = Path(arguments.detector.replace(":", "/")).parts[0] if arguments.detector else "labels"

    stored = f", head stored as {arguments.head_storage}" if arguments.head_storage else ""

    def record(metric: str, values: Sequence[float]) -> Record:
        return Record(
            case="accuracy",
            subject=f"{arguments.model or 'model in the box'}, boxes from {boxes}, merge {model.config.merge}{stored}",
            metric=metric,
            unit="%",
            device=device_name("cpu"),
            threads=torch.get_num_threads(),
            dtype="float32",
            shape=f"{arguments.data.name}/{arguments.split}, {len(every)} faces",
            **percentiles(values),  # type: ignore[arg-type]
        )

    return [
        record("NME inter-ocular, mean", [errors.mean()]),
        record("NME inter-ocular", errors.tolist()),
        record("faces above 10%", [100 * (errors > 10).mean()]),
        record("faces not detected", [100 * np.isnan(every).mean()]),
    ]
