"""OpenVINO on the whole dense network: float32, or int8 by NNCF's post-training quantization."""

from typing import Any

import numpy as np

from bench.networks import Crops
from bench.rivals.dense import dense_onnx
from bench.rivals.numpy_ends import MEAN_255, SCALE_255, NumpyDecode, normalized
from bench.task import Built, Points, Task

INT8_NOTE = (
    "quantized by NNCF's post-training quantization on 64 crops: not the same numbers, so its landmarks are not held "
    "to the tolerance; their deviation is a record of its own"
)


def build(task: Task, hint: str = "LATENCY", int8: bool = False) -> Built:
    """One request for the batch (``hint`` "LATENCY"), or asynchronous requests of one image each ("THROUGHPUT")."""
    network, decode = compiled(task, hint, int8), NumpyDecode(task.model())
    packages = ("openvino", "nncf") if int8 else ("openvino",)
    note = INT8_NOTE if int8 else None
    if hint == "THROUGHPUT":
        return Built(_asynchronous(network, decode), packages, note)
    request = network.create_infer_request()
    outputs = range(len(network.outputs))

    def run(crops: Crops) -> Points:
        request.infer([crops], share_inputs=True)
        return decode([request.get_output_tensor(i).data for i in outputs])

    return Built(run, packages, note)


def compiled(task: Task, hint: str = "LATENCY", int8: bool = False) -> Any:
    """The network as OpenVINO's own, of uint8 crops (B, S, S, 3).

    Normalization is inside the graph, as OpenVINO's guides advise; float32 is forced, for its own choice is
    bfloat16 on CPUs that have it.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(dense_onnx(task, 1 if hint == "THROUGHPUT" else None))
    if int8:
        model = _quantized(model, task)
    return core.compile_model(_with_normalization(model), "CPU", settings(task, hint))


def settings(task: Task, hint: str = "LATENCY") -> dict[str, Any]:
    """How OpenVINO runs a network."""
    return {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": task.threads, "INFERENCE_PRECISION_HINT": "f32"}


def _asynchronous(network: Any, decode: NumpyDecode) -> Any:
    import openvino

    queue = openvino.AsyncInferQueue(network)
    outputs = range(len(network.outputs))

    def run(crops: Crops) -> Points:
        points: list[Points] = [np.empty(0)] * len(crops)

        def keep(request: Any, index: int) -> None:
            points[index] = decode([request.get_output_tensor(i).data for i in outputs])[0]

        queue.set_callback(keep)
        for index in range(len(crops)):
            queue.start_async([crops[index : index + 1]], userdata=index)
        queue.wait_all()
        return np.stack(points)

    return run


def _with_normalization(model: Any) -> Any:
    import openvino
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    tensor = steps.input().tensor()
    tensor.set_element_type(openvino.Type.u8)
    tensor.set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    prepared = steps.input().preprocess()
    prepared.convert_element_type(openvino.Type.f32)
    prepared.mean(MEAN_255.tolist())
    prepared.scale((1 / SCALE_255).tolist())
    return steps.build()


def _quantized(model: Any, task: Task) -> Any:
    """The network in int8; quantized once a folder."""
    import nncf
    import openvino

    batch = model.inputs[0].shape[0]
    path = task.file(f"int8-{batch}.xml")
    if path.exists():
        return openvino.Core().read_model(path)
    crops = task.calibration()
    batches = [crops[i : i + batch] for i in range(0, len(crops) - batch + 1, batch)]
    quantized = nncf.quantize(model, nncf.Dataset(batches, normalized), subset_size=len(batches))
    openvino.save_model(quantized, path, compress_to_fp16=False)
    return quantized
