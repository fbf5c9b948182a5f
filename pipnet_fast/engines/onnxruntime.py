"""ONNX Runtime runs the trunk, reading and writing torch's memory; the head is ours."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipnet_fast.engines._onnx import INPUT, OUTPUT, package_missing, to_onnx
from pipnet_fast.engines._trunk import warmed_up
from pipnet_fast.engines._types import Engine, Network, Prepared, Spec
from pipnet_fast.engines.batching import one_and


def prepare(network: Network, spec: Spec) -> Prepared:
    """Open a session for one image and one for ``batch_size`` of them, with torch's current number of threads."""
    sizes = one_and(spec.batch_size)
    sessions = {size: _session(to_onnx(network.trunk, size, spec.input_size)) for size in sizes}
    shapes = {size: tuple(session.get_outputs()[0].shape) for size, session in sessions.items()}

    def trunk(x: Tensor) -> Tensor:
        session = sessions[len(x)]
        features = torch.empty(shapes[len(x)], dtype=torch.float32, device="cpu")
        # A session may run in many threads at once; a binding is of one call.
        binding = session.io_binding()
        binding.bind_input(INPUT, "cpu", 0, np.float32, x.shape, x.data_ptr())
        binding.bind_output(OUTPUT, "cpu", 0, np.float32, features.shape, features.data_ptr())
        session.run_with_iobinding(binding)
        return features

    return Prepared(warmed_up(trunk, network, spec, sizes, planar=True), sizes)


def _session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


ENGINE = Engine(devices=("cpu",), missing=functools.partial(package_missing, "onnxruntime"), prepare=prepare)
