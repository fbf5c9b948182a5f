"""An exported ONNX file in int8: which of its operators, from which crops, and what it may cost.

The trunk's convolutions and what stands between them become int8, a scale a channel for weights, one a tensor for
activations. Head and decoding stay in float32, where the argmax decides and fractions of a cell count.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipnet_fast.data._optional import import_optional
from pipnet_fast.export._network import CROPS, SCORE_WEIGHT, Input
from pipnet_fast.export._verify import Arrays, ExportError, Int8Cost, Run, as_input, checked_crops
from pipnet_fast.models import PIPNet
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.ops import Landmarks

if TYPE_CHECKING:
    from pipnet_fast.data import FaceData

# Convolutions and what stands between them; activations that are missing here are computed in float32.
OPERATORS = ("Conv", "Add", "MaxPool", "Relu", "Clip")
# Without labels, every so many-th crop is not calibrated on but compared.
HELD_OUT = 5
LEAST_CROPS = 10


@dataclass(frozen=True, eq=False)
class Int8:
    """How ``export_onnx`` quantizes, and when it refuses to.

    Attributes:
        calibration: uint8 RGB crops (B, S, S, 3) of faces, at least ten, from which the ranges of activations are
            taken; a few hundred are plenty.
        data: labelled faces that are not among them; None where there are none.
        max_nme_rise: with ``data``: by how much int8 may raise the normalized mean error, in percent of the norm.
        max_shift: without: how far int8 may move landmarks in the mean over every fifth crop of ``calibration``, which
            is then not calibrated on, in percent of the crop's side.
    """

    calibration: Any
    data: "FaceData | None" = None
    max_nme_rise: float = 0.1
    max_shift: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_nme_rise", "max_shift"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise ValueError(f"Int8: {name}: expected percent >= 0, got {value!r}")


def checked_calibration(operation: str, int8: Int8, model: LandmarkModel) -> Arrays:
    """The crops to calibrate on.

    Raises:
        TypeError, ValueError: no PIPNet, or not the crops that are expected.
        ImportError: ONNX Runtime is not installed.
    """
    import_optional("onnxruntime", f"{operation}: int8", "onnxruntime")
    if not isinstance(model, PIPNet):
        raise TypeError(f"{operation}: int8: expected a PIPNet, got a {type(model).__name__}")
    crops = checked_crops(operation, "int8.calibration", int8.calibration, model.config.input_size)
    if len(crops) < LEAST_CROPS:
        raise ValueError(f"{operation}: int8.calibration: expected at least {LEAST_CROPS} crops, got {len(crops)}")
    return crops if int8.data is not None else np.delete(crops, slice(None, None, HELD_OUT), axis=0)


def quantized(data: bytes, crops: Arrays, input: Input) -> bytes:
    """An ONNX file of ``to_bytes`` with its trunk in int8: quantize and dequantize operators in the standard form.

    Args:
        data: the file.
        crops: uint8 (B, S, S, 3), to calibrate on.
        input: what the file takes.
    """
    onnx = import_optional("onnx", "int8", "onnxruntime")
    ort = import_optional("onnxruntime.quantization", "int8", "onnxruntime")
    shapes = import_optional("onnxruntime.quantization.shape_inference", "int8", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, result = (Path(folder, f"{name}.onnx") for name in ("plain", "prepared", "int8"))
        plain.write_bytes(data)
        shapes.quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        ort.quantize_static(
            prepared,
            result,
            _Reader(as_input(crops[i : i + 1], input) for i in range(len(crops))),
            quant_format=ort.QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            nodes_to_exclude=_outside_trunk(onnx.load(prepared).graph),
        )
        proto = onnx.load(result)
    del proto.metadata_props[:]
    proto.metadata_props.extend(onnx.load_from_string(data).metadata_props)
    proto.metadata_props.add(key="trunk", value="int8")
    return bytes(proto.SerializeToString())


def cost(operation: str, model: LandmarkModel, plain: Run, small: Run, input: Input, int8: Int8) -> Int8Cost:
    """What int8 costs, if it is not too much.

    Raises:
        ExportError: it is.
    """
    if int8.data is not None:
        from pipnet_fast.evaluate import evaluate

        nmes = [evaluate(model, int8.data, run=_landmarks(run, input)).nme for run in (plain, small)]
        found = Int8Cost("NME", len(int8.data), *nmes)
        if not nmes[1] - nmes[0] <= int8.max_nme_rise:
            raise ExportError(
                f"{operation}: int8: expected the NME on the {len(int8.data)} faces of {int8.data.name} to rise by at "
                f"most {int8.max_nme_rise:g} %, got {nmes[1]:.3f} % instead of {nmes[0]:.3f} %; nothing was written"
            )
        return found
    crops = checked_crops(operation, "int8.calibration", int8.calibration, model.config.input_size)[::HELD_OUT]
    shift = _mean_shift(plain, small, as_input(crops, input))
    if not shift <= int8.max_shift:
        raise ExportError(
            f"{operation}: int8: expected landmarks of {len(crops)} crops to move by at most {int8.max_shift:g} % of "
            f"the crop in the mean, got {shift:.3f} %; nothing was written"
        )
    return Int8Cost("shift", len(crops), 0.0, shift)


def _mean_shift(plain: Run, small: Run, crops: Arrays) -> float:
    moved = [np.linalg.norm(small(c)[0] - plain(c)[0], axis=2) for c in np.split(crops, len(crops))]
    return 100 * float(np.mean(moved))


def _landmarks(run: Run, input: Input) -> Any:
    """A file as ``evaluate`` runs models."""

    def landmarks(crops: Tensor) -> Landmarks:
        return Landmarks(*map(torch.from_numpy, run(as_input(crops.numpy(), input))))

    return landmarks


class _Reader:
    """Calibration crops, one after the other, as ONNX Runtime asks for them."""

    def __init__(self, crops: Iterable[Arrays]) -> None:
        self._crops = iter(crops)

    def get_next(self) -> dict[str, Arrays] | None:
        crop = next(self._crops, None)
        return None if crop is None else {CROPS: crop}


def _outside_trunk(graph: Any) -> list[str]:
    """Names of the operators that the features do not depend upon, for they depend on the features."""
    makers = {output: node for node in graph.node for output in node.output}
    (score,) = (node for node in graph.node if SCORE_WEIGHT in node.input)
    inside: set[str] = set()
    waiting = [makers[score.input[0]]]
    while waiting:
        node = waiting.pop()
        if node.name not in inside:
            inside.add(node.name)
            waiting += [makers[name] for name in node.input if name in makers]
    return [node.name for node in graph.node if node.name not in inside]
