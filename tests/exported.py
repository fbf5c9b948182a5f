"""One small model and its files, made once: exporting takes seconds, and many tests look at the same file."""

import functools
from typing import Any

import numpy as np
import torch

import pipnet_fast as pf
from pipnet_fast.engines.openvino import _core
from pipnet_fast.export._metadata import metadata
from pipnet_fast.export._network import ExportNetwork
from pipnet_fast.export._verify import made_up_crops
from pipnet_fast.export.int8 import quantized
from pipnet_fast.export.onnx import to_bytes
from pipnet_fast.export.program import traced
from tests.inputs import randomized

SIZE, N = 64, 68
CROP = pf.CropRule(1.3, 0.1, "center")
# Neither square in landmarks and votes, nor every landmark with as many votes as the others.
CONFIG: dict[str, Any] = {"num_landmarks": N, "num_neighbors": 4, "input_size": SIZE, "width": 0.0625, "stride": 16}


def model(seed: int = 0) -> pf.PIPNet:
    torch.manual_seed(seed)
    return randomized(**CONFIG, mean_shape="300w68", merge="official", crop=CROP)


def noise(batch: int) -> Any:
    return np.random.RandomState(batch).randint(0, 256, (batch, SIZE, SIZE, 3), np.uint8)


def compared() -> Any:
    """Crops to compare on, few, for every one takes a float64 model."""
    return made_up_crops(SIZE)[:2]


@functools.cache
def program() -> torch.export.ExportedProgram:
    return traced(ExportNetwork("test", model(), "uint8"))


@functools.cache
def onnx_file() -> bytes:
    return to_bytes(program(), metadata("test", model(), "uint8", None))


@functools.cache
def int8_file() -> bytes:
    return quantized(onnx_file(), noise(12), "uint8")


def by_onnxruntime(data: bytes, crops: Any, **others: Any) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"crops": crops, **others}), strict=True))


def by_openvino(data: bytes, crops: Any, **others: Any) -> dict[str, Any]:
    # One core a process, as the engine explains; and not its own choice of bfloat16.
    compiled = _core().compile_model(_core().read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = compiled({"crops": crops, **others})
    return {name: result[name] for name in ("landmarks", "scores")}


RUNTIMES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}
