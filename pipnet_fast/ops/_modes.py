"""What may watch, replace or change torch's operations while ours run."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def are_watched() -> bool:
    """Whether something traces or replaces operations: torch.compile, FakeTensorMode, make_fx, vmap and the like."""
    return (
        torch.compiler.is_compiling()
        or bool(torch._C._len_torch_dispatch_stack())
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor's numbers can be looked at here and now."""
    return not (tensor.is_meta or isinstance(tensor, FakeTensor) or are_watched())


def no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Autocast would compute what it can in half precision."""
    # Entering its context costs as much as three operations; tensors without numbers have none.
    enabled = device_type != "meta" and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if enabled else nullcontext()
