"""A model as one ONNX file: landmarks and scores come out of the graph, in every runtime that reads ONNX."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from pipnet_fast._files import write_whole
from pipnet_fast.data._optional import import_optional
from pipnet_fast.engines._onnx import PACKAGES, quiet_export
from pipnet_fast.export._export import prepare
from pipnet_fast.export._network import CROPS, OUTPUTS, Input
from pipnet_fast.export._verify import Checked, Run
from pipnet_fast.export.int8 import Int8, checked_calibration, cost, quantized
from pipnet_fast.export.program import traced
from pipnet_fast.layouts import Layout

# Old enough for TensorRT and whoever else is behind; the newest operator here is older.
OPSET = 18


def export_onnx(
    model: Any,
    path: str | os.PathLike[str],
    *,
    input: Input = "float32",
    layout: str | Layout | None = None,
    crops: Any = None,
    int8: Int8 | None = None,
) -> Checked:
    """Write a model as one ONNX file: input "crops", outputs "landmarks" (B, N, 2) and "scores" (B, N), any B >= 1.

    Landmarks are float32, x before y, in fractions of the crop, not clamped; scores are those of ``predict``. Head and
    decoding are in the graph: the score map, each landmark's winning cell (the first of equal ones), the votes at those
    cells only, and their merge. BatchNorm is folded. The file's ``metadata_props`` tell how crops are cut and what the
    landmarks are; ``export._metadata.metadata`` lists them.

    The file is run before it is kept, in ONNX Runtime where that is installed, else in ONNX's own evaluator, on one
    crop after the other and on all at once, and held against the model. If it differs nothing is written, and an older
    file stays.

    Args:
        model: a PIPNet with a mean shape, or a rival, in eval mode, on any device. It stays as it is.
        path: the file, ``.onnx``.
        input: "float32", crops (B, 3, S, S) normalized with the ImageNet mean and deviation; or "uint8", RGB crops (B,
            S, S, 3), which the graph normalizes.
        layout: what the landmarks are, by name or as a ``Layout``, for the metadata; by default the layout whose mean
            shape the model has, if there is one.
        crops: uint8 RGB (B, S, S, 3) to compare on, best of faces; by default some are made up.
        int8: quantize a PIPNet's trunk, if it costs little enough; needs ONNX Runtime. What is compared is the file
            before that.

    Returns:
        How the file was held against the model, and what int8 costs.

    Raises:
        TypeError, ValueError: an argument out of its range, a model in training mode or without a mean shape, or crops
            none of which can be compared because rounding decides about their cells.
        ImportError: packages that write ONNX are not installed.
        ExportError: the file does not give what the model gives, or int8 costs more than it may.
        OSError: the folder cannot be written.
    """
    for package in PACKAGES:
        import_optional(package, "export_onnx", "onnxruntime")
    export = prepare("export_onnx", model, path, ".onnx", input, layout, crops)
    calibration = None if int8 is None else checked_calibration("export_onnx", int8, model)
    data = to_bytes(traced(export.network.cpu()), export.metadata)
    by, run = runner(data)
    checked = export.require_agreement(by, run)
    if int8 is not None and calibration is not None:
        data = quantized(data, calibration, input)
        found = cost("export_onnx", model, run, runner(data)[1], input, int8)
        checked = checked._replace(int8=found)
    write_whole(export.place, lambda file: file.write(data))
    return checked


def to_bytes(network: torch.export.ExportedProgram, entries: Mapping[str, str]) -> bytes:
    """A traced network as ONNX with its metadata."""
    with quiet_export():
        program = torch.onnx.export(
            network,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=[CROPS],
            output_names=list(OUTPUTS),
        )
    assert program is not None
    proto = program.model_proto
    # Else it carries the exporter's notes on every operation.
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    # The exporter's name for it is a number of its own.
    for part in (*proto.graph.input, *proto.graph.output):
        part.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.ClearField("value_info")
    proto.ClearField("metadata_props")
    for key, value in entries.items():
        proto.metadata_props.add(key=key, value=value)
    return bytes(proto.SerializeToString())


def runner(data: bytes) -> tuple[str, Run]:
    """What runs an ONNX file here: ONNX Runtime, or ONNX's own evaluator, which is slow."""
    try:
        import onnxruntime
    except ImportError:
        return _evaluator(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return f"ONNX Runtime {onnxruntime.__version__}", lambda crops: tuple(session.run(list(OUTPUTS), {CROPS: crops}))


def _evaluator(data: bytes) -> tuple[str, Run]:
    import onnx.checker
    import onnx.reference

    onnx.checker.check_model(data, full_check=True)
    evaluator = onnx.reference.ReferenceEvaluator(data)
    return f"onnx {onnx.__version__}'s evaluator", lambda crops: tuple(evaluator.run(list(OUTPUTS), {CROPS: crops}))
