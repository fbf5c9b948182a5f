"""A model as an ``ExportedProgram`` of torch, which runs without this package."""

import io
import json
import os
from typing import Any

import torch

from pipnet_fast._files import write_whole
from pipnet_fast.engines._onnx import quiet_export
from pipnet_fast.export._export import prepare
from pipnet_fast.export._network import CROPS, ExportNetwork, Input
from pipnet_fast.export._verify import Arrays, Checked
from pipnet_fast.layouts import Layout

# The extra file inside that holds the metadata, as JSON.
METADATA = "metadata.json"


def export_program(
    model: Any,
    path: str | os.PathLike[str],
    *,
    input: Input = "float32",
    layout: str | Layout | None = None,
    crops: Any = None,
) -> Checked:
    """Write a model for ``torch.export.load(path).module()``: crops in, landmarks and scores out, any B >= 1.

    Arguments, results, metadata (in the extra file ``"metadata.json"``) and checks are those of ``export_onnx``. It
    computes on the CPU, and ``torch.export.passes.move_to_device_pass`` moves it.

    Args:
        model: as for ``export_onnx``.
        path: the file, ``.pt2``.
        input: as for ``export_onnx``.
        layout: as for ``export_onnx``.
        crops: as for ``export_onnx``.

    Returns:
        How the file was held against the model.

    Raises:
        TypeError, ValueError, ExportError, OSError: as ``export_onnx``.
    """
    export = prepare("export_program", model, path, ".pt2", input, layout, crops)
    file = io.BytesIO()
    torch.export.save(traced(export.network.cpu()), file, extra_files={METADATA: json.dumps(export.metadata)})
    file.seek(0)
    module = torch.export.load(file).module()
    checked = export.require_agreement("torch.export", lambda given: as_arrays(module(torch.from_numpy(given))))
    write_whole(export.place, lambda out: out.write(file.getbuffer()))
    return checked


def traced(network: ExportNetwork) -> torch.export.ExportedProgram:
    """The network as a graph for any B >= 1, without the places in files that its operations come from."""
    batch = torch.export.Dim("batch", min=1)
    with quiet_export():
        program = torch.export.export(network, (network.example(2),), dynamic_shapes={CROPS: {0: batch}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def as_arrays(outputs: Any) -> tuple[Arrays, Arrays]:
    """What a torch program gave, as arrays."""
    points, scores = outputs
    return points.detach().cpu().numpy(), scores.detach().cpu().numpy()
