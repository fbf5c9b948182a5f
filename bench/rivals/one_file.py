"""This package's ONNX file with landmarks inside, in the runtimes that people deploy with; none of our code runs."""

from pathlib import Path

from bench.networks import Crops
from bench.rivals.numpy_ends import normalized
from bench.rivals.onnxruntime import session
from bench.rivals.openvino import settings
from bench.task import Built, Points, Task
from pipnet_fast.export._network import ExportNetwork, Input
from pipnet_fast.export.int8 import quantized
from pipnet_fast.export.onnx import to_bytes
from pipnet_fast.export.program import traced

INT8_NOTE = (
    "backbone quantized by ONNX Runtime on 64 crops: not the same numbers, so its landmarks are not held to the "
    "tolerance; their deviation is a record of its own"
)


def onnxruntime(task: Task, input: Input = "uint8", int8: bool = False) -> Built:
    """ONNX Runtime's session, with NumPy's normalization before it for float32."""
    runs = session(task, one_file(task, input, int8))

    def run(crops: Crops) -> Points:
        points: Points = runs.run(["landmarks"], {"crops": crops if input == "uint8" else normalized(crops)})[0]
        return points * task.size

    return Built(run, ("onnxruntime",), INT8_NOTE if int8 else None)


def openvino(task: Task, input: Input = "uint8", int8: bool = False, static: bool = True) -> Built:
    """OpenVINO's request; with ``static`` the batch is fixed when the file is read, by one call."""
    import openvino

    core = openvino.Core()
    model = core.read_model(one_file(task, input, int8))
    if static:
        model.reshape([task.batch, *model.inputs[0].partial_shape[1:]])
    request = core.compile_model(model, "CPU", settings(task)).create_infer_request()

    def run(crops: Crops) -> Points:
        request.infer([crops if input == "uint8" else normalized(crops)], share_inputs=True)
        points: Points = request.get_output_tensor(0).data
        return points * task.size

    return Built(run, ("openvino",), INT8_NOTE if int8 else None)


def one_file(task: Task, input: Input, int8: bool) -> Path:
    """The file, exported once a folder; whether it is right is seen by the landmarks."""
    path = task.file(f"one-file-{input}{'-int8' * int8}.onnx")
    if not path.exists():
        data = to_bytes(traced(ExportNetwork("bench", task.model().cpu(), input)), {})
        path.write_bytes(quantized(data, task.calibration(), input) if int8 else data)
    return path
