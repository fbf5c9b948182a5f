"""OpenVINO runs the trunk, reading and writing torch's memory; the head is ours."""

import functools
import threading
from typing import Any

import torch
from torch import Tensor

from pipnet_fast.engines._onnx import package_missing, to_onnx
from pipnet_fast.engines._trunk import warmed_up
from pipnet_fast.engines._types import Engine, Network, Prepared, Spec
from pipnet_fast.engines.batching import one_and


def prepare(network: Network, spec: Spec) -> Prepared:
    """Compile for one image and for ``batch_size`` of them, with torch's current number of threads."""
    sizes = one_and(spec.batch_size)
    requests = {size: _Request(to_onnx(network.trunk, size, spec.input_size)) for size in sizes}

    def trunk(x: Tensor) -> Tensor:
        return requests[len(x)](x)

    return Prepared(warmed_up(trunk, network, spec, sizes, planar=True), sizes)


_CORE_LOCK = threading.Lock()


@functools.cache
def _core() -> Any:
    """The process's one core.

    Ending one gives its thread back the signal stack of the one before, which may be freed by then; the next signal
    that Python handles, an interrupt or the end of a child process, would end the process.
    """
    import openvino

    return openvino.Core()


class _Request:
    """A compiled model and the one request it is run by; callers take turns, as they would inside."""

    def __init__(self, model: bytes) -> None:
        import openvino

        self._tensor: Any = openvino.Tensor
        with _CORE_LOCK:
            core = _core()
        compiled = core.compile_model(
            core.read_model(model),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                # Its own choice is bfloat16 on CPUs that have it.
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        self._shape = tuple(compiled.output(0).shape)
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> Tensor:
        features = torch.empty(self._shape, dtype=torch.float32, device="cpu")
        with self._lock:
            self._request.set_input_tensor(self._tensor(x.numpy(), shared_memory=True))
            self._request.set_output_tensor(self._tensor(features.numpy(), shared_memory=True))
            self._request.infer()
        return features


ENGINE = Engine(devices=("cpu",), missing=functools.partial(package_missing, "openvino"), prepare=prepare)
