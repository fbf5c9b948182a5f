"""How a detector's boxes relate to the tight boxes of the landmarks: the numbers in pipeline/detectors.py."""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.faces import labelled_faces
from bench.record import Record, device_name, percentiles
from pipnet_fast.evaluate.boxes import LEAST_OVERLAP, overlap
from pipnet_fast.pipeline.detectors import BoxStyle, HaarDetector, YuNetDetector

Boxes = npt.NDArray[np.float64]


def fit(detector: HaarDetector | YuNetDetector, labels: Path) -> dict[str, list[float]]:
    """Over the faces of a table: overlap, size ratios and center shifts of those found, and the detection rate."""
    found: dict[str, list[float]] = {name: [] for name in ("overlap", *BoxStyle.__dataclass_fields__)}
    detected: list[float] = []
    others: list[float] = []
    for sample in labelled_faces(labels).samples:
        truth = sample.box
        tight = detector(sample.image.read()).astype(np.float64)
        overlaps = overlap(tight, truth)
        hit = bool(len(tight)) and overlaps.max() >= LEAST_OVERLAP
        detected.append(float(hit))
        others.append(float(len(tight) - hit))
        if not hit:
            continue
        raw = undo(tight[overlaps.argmax()], detector.STYLE)
        size, side = truth[2:] - truth[:2], raw[2:] - raw[:2]
        shift = ((truth[2:] + truth[:2]) - (raw[2:] + raw[:2])) / 2 / side
        for name, value in zip(found, (overlaps.max(), *(size / side), *shift), strict=True):
            found[name].append(float(value))
    return {**found, "detection rate, mean": [float(np.mean(detected))], "other boxes, mean": [float(np.mean(others))]}


def undo(tight: Boxes, style: BoxStyle) -> Boxes:
    """The detector's own box of a tight one."""
    size = (tight[2:4] - tight[:2]) / (style.scale_x, style.scale_y)
    center = (tight[:2] + tight[2:4]) / 2 - size * (style.shift_x, style.shift_y)
    return np.concatenate((center - size / 2, center + size / 2))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv, val.csv and images/")
    parser.add_argument("--split", default="train")
    parser.add_argument("--yunet", help="YuNet's ONNX file, to fit it too")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of each detector: how well its present style does, and the medians that the style should hold."""
    detectors: list[HaarDetector | YuNetDetector] = [HaarDetector()]
    if arguments.yunet:
        detectors.append(YuNetDetector(arguments.yunet))
    labels = arguments.data / f"{arguments.split}.csv"
    return [
        Record(
            case="detector_boxes",
            subject=type(detector).__name__,
            metric=metric,
            unit="",
            device=device_name("cpu"),
            threads=1,
            dtype="uint8",
            shape=f"{arguments.data.name}/{arguments.split}",
            **percentiles(values),  # type: ignore[arg-type]
        )
        for detector in detectors
        for metric, values in fit(detector, labels).items()
    ]
