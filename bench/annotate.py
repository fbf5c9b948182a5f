"""Bulk annotation: pictures per second by processes against a plain loop, and the memory of small and of large runs.

Every run is a process of its own with new folders, timed from the call to its return: listing, the start of workers and
the writing of tables are in it. Memory is that of all its processes together, pages that they share counted once.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

import pipnet_fast as pf
from bench.record import Record, device_name, installed, measured, versions
from bench.watched import in_processes
from pipnet_fast.annotate import annotate

LOOP = "landmarker(path) in a loop"


@dataclass(frozen=True)
class Subject:
    """A way to annotate: the plain loop, or so many processes."""

    name: str
    processes: int | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with images/")
    parser.add_argument("--images", type=int, default=300, help="pictures of a small run (default: %(default)s)")
    parser.add_argument("--times", type=int, default=4, help="how many of them a large run has (default: %(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--engine", default="cpp")
    parser.add_argument("--rounds", type=int, default=3)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Pictures per second of whole runs, the marginal rate, speed-up over the loop, peak memory, bytes a face."""
    subjects = [Subject(LOOP, None)]
    subjects += [Subject(f"annotate, {n} process{'es' * (n > 1)}", n) for n in arguments.processes]
    small, large = arguments.images, arguments.images * arguments.times
    found: dict[tuple[str, int], list[dict[str, float]]] = {(s.name, n): [] for s in subjects for n in (small, large)}
    with tempfile.TemporaryDirectory() as folder:
        sources = {count: link(arguments.data, count, Path(folder, str(count))) for count in (small, large)}
        for _ in range(arguments.rounds):
            for count, source in sources.items():
                for subject in subjects:
                    found[subject.name, count].append(_in_process(subject, source, arguments.engine))
    records = []
    for subject in subjects:
        records += _records(subject, small, large, found, arguments)
    return records


def _records(
    subject: Subject,
    small: int,
    large: int,
    found: dict[tuple[str, int], list[dict[str, float]]],
    arguments: argparse.Namespace,
) -> list[Record]:
    shared: dict[str, Any] = {"case": "annotate", "subject": subject.name, "device": device_name("cpu")}
    shared |= {"threads": subject.processes or 1, "dtype": "float32"}
    shared["versions"] = {**versions(), **installed("opencv-python-headless", "pyarrow")}
    pictures = f"{arguments.data.name}, Haar, the model in the box, {arguments.engine}"
    of_all = {**shared, "shape": f"{pictures}; {small} and {large} pictures"}
    records = []
    for count in (small, large):
        runs = found[subject.name, count]
        shape = {**shared, "shape": f"{pictures}; {count} pictures"}
        records.append(measured(shape, "pictures per second", "1/s", [count / run["seconds"] for run in runs]))
        records.append(measured(shape, "peak memory, all processes", "MB", [run["peak"] / 1e6 for run in runs]))
    ones, others = found[subject.name, small], found[subject.name, large]
    loops = found[LOOP, large]
    # What one picture more costs: the start of everything is in both.
    marginal = [(large - small) / (b["seconds"] - a["seconds"]) for a, b in zip(ones, others, strict=True)]
    records.append(measured(of_all, "pictures per second, marginal", "1/s", marginal))
    ratios = [loop["seconds"] / run["seconds"] for loop, run in zip(loops, others, strict=True)]
    records.append(measured(of_all, "speed-up over the loop, large run", "x", ratios))
    if subject.processes:
        records.append(measured(of_all, "table, bytes a face", "B", [run["bytes"] / run["faces"] for run in others]))
    return records


def link(data: Path, count: int, folder: Path) -> Path:
    """A folder of so many pictures: those of a data set, evenly over it, and all of them again under other names."""
    folder.mkdir()
    images = sorted((data / "images").iterdir())
    for number in range(count):
        image = images[number * len(images) // count if count <= len(images) else number % len(images)]
        (folder / f"{number:07d}{image.suffix}").symlink_to(image.resolve())
    return folder


def _in_process(subject: Subject, source: Path, engine: str) -> dict[str, float]:
    """Seconds, faces and bytes of the table as ``main`` says, and the peak of memory."""
    return in_processes("bench.annotate", json.dumps(subject.processes), str(source), engine)


def main() -> None:
    """``python -m bench.annotate PROCESSES FOLDER ENGINE``: annotates, and prints seconds, faces and bytes."""
    processes, source, engine = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    if processes is None:
        cv2.setNumThreads(1)
        start = time.perf_counter()
        landmarker = pf.FaceLandmarker(device="cpu", engine=engine)
        faces = sum(len(landmarker(path)) for path in sorted(source.iterdir()))
        print(json.dumps({"seconds": time.perf_counter() - start, "faces": faces, "bytes": 0}))
        return
    out = Path(tempfile.mkdtemp())
    start = time.perf_counter()
    found = annotate(source, out, device="cpu", engine=engine, processes=processes)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in out.glob("part-*"))
    shutil.rmtree(out)
    print(json.dumps({"seconds": seconds, "faces": found.faces, "bytes": size}))


if __name__ == "__main__":
    main()
