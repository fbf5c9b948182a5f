"""MNN on the whole dense network, converted from ONNX."""

from bench.networks import Crops
from bench.rivals.dense import INPUT, dense_onnx
from bench.rivals.numpy_ends import NumpyDecode, normalized
from bench.task import Built, Points, Task
from pipnet_fast.ops import HeadMaps


def build(task: Task) -> Built:
    """A module of static shape on the CPU with the precision that keeps float32."""
    import MNN
    import MNN.nn

    runtime = MNN.nn.create_runtime_manager(
        ({"backend": "CPU", "precision": "high", "memory": "normal", "power": "high", "numThread": task.threads},)
    )
    outputs = list(HeadMaps._fields)
    network = MNN.nn.load_module_from_file(
        _converted(task), [INPUT], outputs, runtime_manager=runtime, dynamic=False, shape_mutable=False, rearrange=True
    )
    decode, shape = NumpyDecode(task.model()), [task.batch, 3, task.size, task.size]

    def run(crops: Crops) -> Points:
        x = MNN.expr.const(normalized(crops), shape, MNN.expr.NCHW)
        return decode([MNN.expr.convert(y, MNN.expr.NCHW).read() for y in network.forward([x])])

    return Built(run, ("MNN",))


def _converted(task: Task) -> str:
    # Not MNN.tools.mnnconvert or the mnnconvert command: importing that installs a package for telemetry with pip.
    import _tools

    file = str(task.file(f"dense-{task.batch}.mnn"))
    _tools.mnnconvert(
        ["mnnconvert", "-f", "ONNX", "--modelFile", str(dense_onnx(task)), "--MNNModel", file, "--bizCode", "bench"]
    )
    return file
