"""Landmark error of a model on labelled faces, through FaceLandmarker with boxes from the labels."""

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import pipnet_fast as pf
from bench.record import Record, device_name, percentiles
from pipnet_fast.crop import tight_boxes

# Outer eye corners of the 68-point layout, whose distance the error is divided by.
OUTER_EYES = (36, 45)
BATCH = 32


def read_csv(path: Path) -> Iterator[tuple[Path, npt.NDArray[np.float64]]]:
    """Image paths and landmarks (68, 2), continuous px, of a table with 0-based pixel centers."""
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points = [[float(row[f"x{n}"]), float(row[f"y{n}"])] for n in range(68)]
            yield path.parent / "images" / row["file"], np.array(points) + 0.5


def inter_ocular_errors(landmarker: pf.FaceLandmarker, labels: Path) -> npt.NDArray[np.float64]:
    """Mean landmark distance of each face over the distance of its outer eye corners."""
    samples = list(read_csv(labels))
    errors = []
    for start in range(0, len(samples), BATCH):
        paths, truths = zip(*samples[start : start + BATCH], strict=True)
        found = landmarker.predict_batch([*map(str, paths)], [tight_boxes(truth[None]) for truth in truths])
        for faces, truth in zip(found, truths, strict=True):
            distance = np.linalg.norm(faces.landmarks[0] - truth, axis=1).mean()
            errors.append(distance / np.linalg.norm(truth[OUTER_EYES[0]] - truth[OUTER_EYES[1]]))
    return np.array(errors)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with val.csv and images/")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", help="safetensors model (default: the one in the box)")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """The normalized error in percent, its mean and distribution, and the share of faces above 10%."""
    landmarker = pf.FaceLandmarker(arguments.model, detector=None, color="rgb")
    errors = 100 * inter_ocular_errors(landmarker, arguments.data / f"{arguments.split}.csv")

    def record(metric: str, values: Sequence[float]) -> Record:
        return Record(
            case="accuracy",
            subject=arguments.model or "model in the box",
            metric=metric,
            unit="%",
            device=device_name("cpu"),
            threads=torch.get_num_threads(),
            dtype="float32",
            shape=f"{arguments.data.name}/{arguments.split}, {len(errors)} faces",
            **percentiles(values),  # type: ignore[arg-type]
        )

    return [
        record("NME inter-ocular, mean", [errors.mean()]),
        record("NME inter-ocular", errors.tolist()),
        record("faces above 10%", [100 * (errors > 10).mean()]),
    ]
