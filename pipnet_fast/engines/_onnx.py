"""A trunk as an ONNX model, for the engines that read those."""

import contextlib
import functools
import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import fx

PACKAGES = ("onnx", "onnxscript")
INPUT, OUTPUT = "crops", "features"


@functools.cache
def package_missing(package: str) -> str | None:
    """Why the engine that is ``package`` cannot run here: itself, or one of those that torch writes ONNX with."""
    absent = [name for name in (package, *PACKAGES) if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}; pip install 'pipnet_fast[{package}]'"
    try:
        importlib.import_module(package)
    except Exception as error:  # a broken one fails in many ways, and none may break the others
        return f"{package} does not work here ({type(error).__name__}: {error})"
    return None


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Without what torch's exporter says about itself on every call."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it tells everyone that torchvision's operators are left out
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own calls
            yield
    finally:
        log.setLevel(level)


def to_onnx(trunk: fx.GraphModule, batch: int, size: int) -> bytes:
    """Export ``trunk`` for inputs (``batch``, 3, ``size``, ``size``) named ``INPUT``; features are ``OUTPUT``."""
    with quiet_export():
        program = torch.onnx.export(
            trunk,
            (torch.zeros(batch, 3, size, size, dtype=torch.float32, device="cpu"),),
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())
