"""Pseudo-labels of few and of many faces: how many a second, and whether memory grows with them.

The faces are those of a table, over and over, as so many samples of their own. A small network of random weights
predicts them: here it is the rest that counts. Every run is a process of its own.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pipnet_fast as pf
from bench.networks import randomized
from bench.record import Record, device_name, installed, measured, versions
from bench.watched import in_processes, memory
from pipnet_fast.data import FaceData, ImageFile, open_data
from pipnet_fast.selftrain import write_labels

LAYOUT = "300w68"
SIZE = 128
# Labelled before, for what is imported and allocated once.
WARM_UP = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="a table's folder, of 68 landmarks")
    parser.add_argument("--faces", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--rounds", type=int, default=1)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """For each number of faces: faces per second, what the set itself takes, and what labelling it takes besides."""
    shared: dict[str, Any] = {"case": "labelling", "subject": "write_labels", "device": device_name("cpu")}
    shared |= {"threads": 1, "dtype": "float32"}
    shared["versions"] = {**versions(), **installed("opencv-python-headless", "pyarrow")}
    counts = arguments.faces
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for _ in range(arguments.rounds):
        for count in counts:
            runs[count].append(in_processes("bench.labelling", str(arguments.data.resolve()), str(count)))
    records = []
    for count in counts:
        own = {**shared, "shape": f"{count} faces, {SIZE}x{SIZE}"}
        done = runs[count]
        records.append(measured(own, "faces per second", "1/s", [count / run["seconds"] for run in done]))
        records.append(measured(own, "the set of samples", "MB", [run["set"] / 1e6 for run in done]))
        records.append(measured(own, "growth while it is labelled", "MB", [_growth(run) for run in done]))
        records.append(measured(own, "the table on disk", "MB", [run["bytes"] / 1e6 for run in done]))
    return records


def _growth(run: dict[str, float]) -> float:
    return (run["peak"] - run["before"]) / 1e6


def repeated(data: FaceData, count: int) -> FaceData:
    """So many faces of a set, over and over, none of which shares anything with another."""
    samples = [
        replace(sample, image=ImageFile(Path(str(sample.image))), landmarks=None, box=np.array(sample.box))
        for sample in islice(cycle(data.samples), count)
    ]
    return replace(data, samples=samples)


def main() -> None:
    """``python -m bench.labelling FOLDER COUNT``: labels so many faces, and prints seconds and bytes."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    found = open_data("table", folder, "train", layout=LAYOUT)
    model = randomized(pf.PIPNet("resnet18", 68, 10, input_size=SIZE, mean_shape=LAYOUT, width=0.125))
    with tempfile.TemporaryDirectory() as out:
        write_labels(model, repeated(found, WARM_UP), Path(out, "first"))
        without = memory(os.getpid())
        data = repeated(found, count)
        before = memory(os.getpid())
        start = time.perf_counter()
        write_labels(model, data, Path(out, "all"))
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(out, "all").iterdir())
    print(json.dumps({"seconds": seconds, "set": before - without, "before": before, "bytes": size}))


if __name__ == "__main__":
    main()
