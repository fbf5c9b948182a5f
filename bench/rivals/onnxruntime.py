"""ONNX Runtime on the whole dense network, all its graph optimizations on."""

from pathlib import Path
from typing import Any

from bench.networks import Crops
from bench.rivals.dense import INPUT, dense_onnx
from bench.rivals.numpy_ends import NumpyDecode, normalized
from bench.task import Built, Points, Task
from pipnet_fast.ops import HeadMaps


def build(task: Task) -> Built:
    """The session, between the arrays' ends."""
    runs = session(task)
    decode, outputs = NumpyDecode(task.model().cpu()), list(HeadMaps._fields)

    def run(crops: Crops) -> Points:
        return decode(runs.run(outputs, {INPUT: normalized(crops)}))

    return Built(run, ("onnxruntime", "onnx"))


def session(task: Task, path: Path | None = None) -> Any:
    """One of a file, or of the dense network in static shape; waiting threads spin, as they do by themselves."""
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[task.device]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this build of onnxruntime has no {provider}")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = task.threads
    return onnxruntime.InferenceSession(path or dense_onnx(task), options, providers=[provider])
