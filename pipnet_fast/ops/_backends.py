"""Which implementations of the operations are present, and the one rule that chooses between them."""

import functools
import importlib.util
from importlib import resources
from typing import Literal

import torch
from torch import Tensor

from pipnet_fast._availability import Availability

Backend = Literal["auto", "reference", "cpp", "triton"]
Chosen = Literal["reference", "cpp", "triton"]

TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def backends() -> Availability:
    """Implementations of the operations: ``{"reference": True, "cpp": ..., "triton": ...}``.

    ``.reasons`` says why an absent one is absent.
    """
    return Availability({"reference": None, "cpp": _cpp_missing(), "triton": _triton_missing()})


def choose(operation: str, backend: str, tensor: Tensor) -> Chosen:
    """Resolve ``backend`` for an operation on ``tensor``.

    ``"auto"`` takes the fast implementation of the tensor's device where it can run and the reference
    otherwise; a backend asked for by name runs or raises.
    """
    if backend == "auto":
        if tensor.device.type == "cpu" and tensor.dtype == torch.float32 and _cpp_missing() is None:
            return "cpp"
        if tensor.device.type == "cuda" and tensor.dtype in TRITON_DTYPES and _triton_missing() is None:
            return "triton"
        return "reference"
    if backend == "reference":
        return "reference"
    backends().require(operation, "backend", backend)
    if backend == "cpp":
        if tensor.device.type != "cpu":
            raise ValueError(f"{operation}: backend 'cpp' expects tensors on the CPU, got {tensor.device}")
        if tensor.dtype != torch.float32:
            raise TypeError(f"{operation}: backend 'cpp' expects float32, got {tensor.dtype}")
        return "cpp"
    if tensor.device.type != "cuda" and not interpreting():
        raise ValueError(
            f"{operation}: backend 'triton' expects tensors on a CUDA device, got {tensor.device} "
            "(TRITON_INTERPRET=1, set before the first import, runs it on the CPU for tests)"
        )
    if tensor.dtype not in TRITON_DTYPES:
        raise TypeError(f"{operation}: backend 'triton' expects one of {TRITON_DTYPES}, got {tensor.dtype}")
    return "triton"


@functools.cache
def _cpp_missing() -> str | None:
    try:
        import pipnet_fast._C  # noqa: F401
    except ImportError as error:
        note = resources.files("pipnet_fast").joinpath("_C_missing.txt")
        if note.is_file():
            return note.read_text(encoding="utf-8").strip()
        return f"the C++ extension is not built ({error}); build it with: pip install ."
    return None


@functools.cache
def _triton_missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    try:
        import pipnet_fast.kernels  # noqa: F401
    except Exception as error:  # a broken triton fails in many ways, and none may break the CPU path
        return f"triton does not work here ({type(error).__name__}: {error})"
    if not torch.cuda.is_available() and not interpreting():
        return "no CUDA device"
    return None


@functools.cache
def interpreting() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU (TRITON_INTERPRET=1)."""
    if importlib.util.find_spec("triton") is None:
        return False
    from triton import knobs

    return bool(knobs.runtime.interpret)
