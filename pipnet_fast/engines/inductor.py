"""torch.compile with freezing: weights become constants, packed once for the CPU's convolutions."""

import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx

from pipnet_fast.engines._trunk import warmed_up
from pipnet_fast.engines._types import Engine, Network, Prepared, Spec
from pipnet_fast.engines.batching import one_and, smallest


def missing() -> str | None:
    """TorchInductor builds with the C++ compiler that CXX names, or the system's usual one."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    return None if shutil.which(compiler) else f"no C++ compiler: {compiler} not found; install it or set CXX"


def prepare(network: Network, spec: Spec) -> Prepared:
    """Compile the trunk for one image and for ``batch_size`` of them; takes tens of seconds each."""
    sizes = one_and(spec.batch_size)
    pads = spec.device.type == "cuda"
    compiled = {size: _compiled(network.trunk) for size in sizes}

    def trunk(x: Tensor) -> Tensor:
        count = len(x)
        size = smallest(sizes, count)
        if count < size:
            x = torch.cat((x, x.new_zeros(size - count, *x.shape[1:])))
        return compiled[size](x.contiguous(memory_format=torch.channels_last))[:count]

    return Prepared(warmed_up(trunk, network, spec, sizes), sizes, pads)


def _compiled(trunk: fx.GraphModule) -> Callable[[Tensor], Tensor]:
    # A graph module of its own, for Dynamo keeps what it compiled by code, and here without guards: shapes,
    # dtypes and modes are always those of the first call.
    module = fx.GraphModule(trunk, trunk.graph)
    options: dict[str, Any] = {"freezing": True, "guard_filter_fn": lambda guards: [False] * len(guards)}
    compiled = torch.compile(module, dynamic=False, fullgraph=True, options=options)
    return cast(Callable[[Tensor], Tensor], compiled)


ENGINE = Engine(devices=("cpu", "cuda"), missing=missing, prepare=prepare)
