"""ncnn on the whole dense network, converted by pnnx with static shapes, so that it can choose its Winograd tiles."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.networks import Crops
from bench.rivals.dense import dense_network, example
from bench.rivals.numpy_ends import MEAN_255, SCALE_255, NumpyDecode
from bench.task import Built, Points, Task
from pipnet_fast.engines._onnx import quiet_export


def build(task: Task) -> Built:
    """A network in float32; of a batch, one crop after the other, for ncnn knows no batches."""
    import ncnn

    net = loaded(task)
    decode, mean, scale = NumpyDecode(task.model()), MEAN_255.tolist(), SCALE_255.tolist()
    inputs, outputs = net.input_names(), net.output_names()

    def one(crop: Crops) -> list[Any]:
        x = ncnn.Mat.from_pixels(crop, ncnn.Mat.PixelType.PIXEL_RGB, task.size, task.size)
        x.substract_mean_normalize(mean, scale)
        with net.create_extractor() as extractor:
            extractor.input(inputs[0], x)
            return [np.array(extractor.extract(name)[1])[None] for name in outputs]

    def run(crops: Crops) -> Points:
        return np.concatenate([decode(one(crop)) for crop in crops])

    return Built(run, ("ncnn", "pnnx"), "one image at a time" if task.batch > 1 else None)


def loaded(task: Task) -> Any:
    """The network as ncnn's own, its options set."""
    import ncnn

    param, weights = converted(task)
    net = ncnn.Net()
    net.opt.num_threads = task.threads
    net.opt.lightmode = True
    net.opt.use_winograd_convolution = True
    net.opt.use_packing_layout = True
    # Half precision, its default in memory, gives other numbers.
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise RuntimeError(f"ncnn does not load {param}")
    return net


def converted(task: Task) -> tuple[Path, Path]:
    """The dense network in ncnn's two files; converted once a folder."""
    traced = task.file("dense.pt")
    files = traced.with_suffix(".ncnn.param"), traced.with_suffix(".ncnn.bin")
    if all(file.exists() for file in files):
        return files
    import pnnx

    with quiet_export():
        torch.jit.trace(dense_network(task), example(task, 1), check_trace=False).save(str(traced))  # type: ignore[no-untyped-call]
    shape = f"inputshape=[1,3,{task.size},{task.size}]"
    done = subprocess.run(
        [pnnx.EXEC_PATH, traced.name, shape, "fp16=0"], cwd=task.folder, capture_output=True, text=True, check=False
    )
    if done.returncode or not all(file.exists() for file in files):
        raise RuntimeError(f"pnnx wrote no network for ncnn: {(done.stderr.splitlines() or ['no message'])[-1]}")
    return files
