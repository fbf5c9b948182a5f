"""How much memory engines take, each in a process of its own: from a file on disk to the first landmarks or maps.

A process imports what the engine needs, resets the kernel's mark of its largest resident size, loads the file, makes
the engine, runs a few crops, and reads the mark: the difference is the peak. Files are exported before, by others.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pipnet_fast as pf
from bench import engine_case
from bench.isolated import ROOT
from bench.networks import Crops, randomized
from bench.record import Record, device_name, installed, measured, versions
from bench.rivals import ncnn as ncnn_rival
from bench.rivals import onnxruntime as onnxruntime_rival
from bench.rivals import openvino as openvino_rival
from bench.rivals.dense import INPUT, dense_onnx
from bench.rivals.numpy_ends import MEAN_255, SCALE_255, normalized
from bench.task import Network, Task
from pipnet_fast.engines._types import WeightStorage
from pipnet_fast.pipeline.images import normalize

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# What resets the mark, as proc(5) says.
RESET_PEAK = "5"
CROPS = 3

Run = Callable[[Crops], object]


@dataclass(frozen=True)
class Subject:
    """An engine: what it imports before anything is counted, and how it comes from its files."""

    name: str
    load: Callable[[Task], Run]
    imports: Callable[[], object]
    export: Callable[[Task], object] = lambda task: None
    package: str | None = None
    """Whose version decides about it."""


def _plan_file(task: Task) -> Run:
    from pipnet_fast import _C

    plan = _C.Plan.load(str(task.file("plan.pipnet")))
    points = np.empty((task.batch, plan.landmarks, 2), np.float32)
    scores = np.empty((task.batch, plan.landmarks), np.float32)

    def run(crops: Crops) -> object:
        plan.run(crops.ctypes.data, 0, len(crops), points.ctypes.data, scores.ctypes.data, task.threads)
        return points

    return run


def _save_plan(weight_storage: WeightStorage) -> Callable[[Task], object]:
    return lambda task: pf.save_plan(task.model(), task.file("plan.pipnet"), weight_storage=weight_storage)


def _whole(task: Task) -> Run:
    model = task.model()
    return lambda crops: model.predict(normalize(torch.from_numpy(crops)))


def _compiled(engine: str) -> Callable[[Task], Run]:
    def load(task: Task) -> Run:
        return pf.compile(task.model(), engine, batch_size=task.batch)

    return load


def _onnxruntime(task: Task) -> Run:
    session = onnxruntime_rival.session(task)
    return lambda crops: session.run(None, {INPUT: normalized(crops)})


def _openvino(task: Task) -> Run:
    network = openvino_rival.compiled(task)
    return lambda crops: network([crops])


def _ncnn(task: Task) -> Run:
    import ncnn

    net = ncnn_rival.loaded(task)
    inputs, outputs = net.input_names(), net.output_names()

    def run(crops: Crops) -> object:
        x = ncnn.Mat.from_pixels(crops[0], ncnn.Mat.PixelType.PIXEL_RGB, task.size, task.size)
        x.substract_mean_normalize(MEAN_255.tolist(), SCALE_255.tolist())
        with net.create_extractor() as extractor:
            extractor.input(inputs[0], x)
            return [np.array(extractor.extract(name)[1]) for name in outputs]

    return run


def _compile_tiny(engine: str) -> Callable[[], object]:
    """Compiling imports more of torch than importing it."""
    return lambda: pf.compile(randomized(pf.PIPNet(num_landmarks=1, num_neighbors=0, input_size=32, width=0.1)), engine)


def _package(name: str) -> Callable[[], object]:
    return lambda: importlib.import_module(name)


SUBJECTS = {
    "plan": Subject(
        "pipnet_fast cpp, plan file",
        _plan_file,
        _package("pipnet_fast._C"),
        _save_plan("float32"),
    ),
    "plan-float16": Subject(
        "pipnet_fast cpp, plan file, float16 weights",
        _plan_file,
        _package("pipnet_fast._C"),
        _save_plan("float16"),
    ),
    "ours-cpp": Subject("pipnet_fast cpp, from torch", _compiled("cpp"), _compile_tiny("cpp")),
    "ours-torch": Subject("pipnet_fast torch", _compiled("torch"), _compile_tiny("torch")),
    "torch": Subject("torch, the model itself", _whole, _compile_tiny("torch")),
    "onnxruntime": Subject("ONNX Runtime", _onnxruntime, _package("onnxruntime"), dense_onnx, "onnxruntime"),
    "openvino": Subject("OpenVINO fp32", _openvino, _package("openvino"), dense_onnx, "openvino"),
    "ncnn": Subject("ncnn", _ncnn, _package("ncnn"), ncnn_rival.converted, "ncnn"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", nargs="+", default=["resnet18", "mobilenet_v3"])
    parser.add_argument("--rounds", type=int, default=3, help="processes for each engine")
    parser.add_argument("--device", choices=("cpu",), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--engines", nargs="+", choices=tuple(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--size", type=int, default=256, help="side of the crops, px")
    parser.add_argument("--width", type=float, default=1.0, help="channel multiplier of ResNets")
    parser.add_argument("--timeout", type=float, default=300, help="for a process, s")
    parser.add_argument("--folder", type=Path, help="keeps networks and what engines make of them, for later runs")
    parser.set_defaults(model=None, data=None, dtype="float32")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Peak memory and the time until an engine is ready, of every engine with every network and number of threads."""
    records = []
    with engine_case.networks(arguments) as networks:
        for network in networks:
            for task in engine_case.tasks(arguments, network, batch=1):
                for key in arguments.engines:
                    records += _measure(key, network, task, arguments)
    return records


def _measure(key: str, network: Network, task: Task, arguments: argparse.Namespace) -> list[Record]:
    subject = SUBJECTS[key]
    shared: dict[str, Any] = {
        "case": "memory",
        "subject": subject.name,
        "device": device_name("cpu"),
        "threads": task.threads,
        "dtype": "float32",
        "shape": f"{network.name} B=1 {network.shape}",
        "versions": versions() | (installed(subject.package) if subject.package else {}),
    }
    try:
        _in_process("export", key, task, arguments.timeout)
        found = [_in_process("run", key, task, arguments.timeout) for _ in range(arguments.rounds)]
    except RuntimeError as failure:
        return [Record(metric="peak memory", unit="MB", reason=str(failure), **shared)]
    peaks, kept, milliseconds = zip(*found, strict=True)
    return [
        measured(shared, "peak memory", "MB", [peak / 1e6 for peak in peaks]),
        measured(shared, "memory kept", "MB", [size / 1e6 for size in kept]),
        measured(shared, "time until ready", "ms", milliseconds),
    ]


def _in_process(doing: str, key: str, task: Task, timeout: float) -> tuple[int, int, float]:
    """What ``main`` says."""
    threads = {name: str(task.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, "-m", "bench.memory", doing, key, json.dumps(asdict(task))]
    try:
        # OpenVINO sends statistics unless it believes to run in a CI.
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **threads, "CI": "true"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {timeout:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(said[-1] if said else f"the process ended with exit status {done.returncode}")
    peak, kept, milliseconds = json.loads(done.stdout.splitlines()[-1])
    return peak, kept, milliseconds


def main() -> None:
    """``python -m bench.memory export|run ENGINE TASK``: prints bytes at the peak and at the end, ms until ready."""
    doing, key, task_text = sys.argv[1:]
    subject, task = SUBJECTS[key], Task(**json.loads(task_text))
    torch.set_num_threads(task.threads)
    if doing == "export":
        subject.export(task)
        print([0, 0, 0])
        return
    crops = task.batches()[0]
    subject.imports()
    before = reset_peak()
    start = time.perf_counter()
    run = subject.load(task)
    milliseconds = (time.perf_counter() - start) * 1e3
    for _ in range(CROPS):
        run(crops)
    print([peak_memory() - before, resident() - before, milliseconds])


def reset_peak() -> int:
    """Begin to watch for the largest resident size of this process; returns the present one, bytes."""
    CLEAR.write_text(RESET_PEAK)
    return resident()


def resident() -> int:
    """The present size, bytes."""
    return _status("VmRSS")


def peak_memory() -> int:
    """The largest resident size since then, bytes."""
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"bench: memory: {STATUS} has no {name}")


if __name__ == "__main__":
    main()
