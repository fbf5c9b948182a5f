"""What compiling hands from one step to the next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, fx

from pipnet_fast.ops import Landmarks

WeightStorage = Literal["float32", "float16"]
WEIGHT_STORAGES: tuple[WeightStorage, ...] = get_args(WeightStorage)


@dataclass(frozen=True)
class Spec:
    """What a runtime is compiled for."""

    batch_size: int
    input_size: int
    num_landmarks: int
    dtype: torch.dtype
    device: torch.device
    weight_storage: WeightStorage = "float32"
    """What the engine keeps the trunk's weights as."""


@dataclass(frozen=True)
class Network:
    """An inference-only snapshot of a model, in the dtype and on the device of the ``Spec``."""

    trunk: fx.GraphModule
    """(B, 3, S, S), channels-last, to features; BatchNorm folded, weights channels-last."""
    head: Callable[[Tensor], Landmarks]
    """Features, in any memory format, to landmarks."""


@dataclass(frozen=True)
class Prepared:
    """A network as an engine runs it."""

    run: Callable[[Tensor], Landmarks]
    """Takes uint8 crops (B, S, S, 3) or floats (B, 3, S, S) of the spec's dtype, B >= 1, and returns new
    tensors on the spec's device; safe from many threads."""
    sizes: tuple[int, ...] | None = None
    """Batch sizes it is prepared for, ascending from 1; None: any batch, in one run."""
    pads: bool = False
    """Whether ``run`` also takes batches between two sizes and fills them up to the larger one."""


@dataclass(frozen=True)
class Engine:
    """One way to run a network."""

    devices: tuple[str, ...] | None
    """Types of devices that it runs on; None: any."""
    missing: Callable[[], str | None]
    """Why it cannot run here, or None where it can."""
    prepare: Callable[[Network, Spec], Prepared]
    """Compile, and run once at every size."""
