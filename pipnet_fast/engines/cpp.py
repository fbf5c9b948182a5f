"""The package's own engine: the whole network in C++, from crop to landmarks in one call."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipnet_fast.engines._lower import lower
from pipnet_fast.engines._types import Engine, Network, Prepared, Spec
from pipnet_fast.engines.plan_file import PlanNetwork, serialize
from pipnet_fast.ops import BoundHead, Landmarks, backends


def missing() -> str | None:
    """It is part of the C++ extension."""
    return backends().reasons.get("cpp")


def prepare(network: Network, spec: Spec) -> Prepared:
    """Pack the weights; runs use up to torch's current number of threads.

    The head of a PIPNet runs in C++ too; another one gets the features from there.
    """
    head = network.head
    bound = head if isinstance(head, BoundHead) else None
    layers = lower(network.trunk, spec.input_size)
    data = serialize(PlanNetwork(spec.input_size, layers, bound, weight_storage=spec.weight_storage))
    # The plan takes more memory than they do, and a traced module goes no sooner than its cycles are collected.
    del layers
    network.trunk.to("meta")
    plan = Plan(data, torch.get_num_threads())

    def run(x: Tensor) -> Landmarks:
        x = x.to(spec.device).contiguous()
        return plan.landmarks(x) if bound else head(plan.features(x))

    run(torch.zeros(spec.batch_size, spec.input_size, spec.input_size, 3, dtype=torch.uint8))
    return Prepared(run)


def pin_threads(cores: Sequence[int]) -> None:
    """Keep the threads of the C++ code, now and later, each to one core.

    They are the package's own, one pool for all runtimes of the process; torch's are not among them.

    Args:
        cores: numbers of cores as the system counts them. The first is that of the calling threads, which pin
            themselves (``os.sched_setaffinity``); threads of the pool take the second, the third and so on round the
            list. Empty: they may run anywhere again.

    Raises:
        ValueError: numbers that are none of cores that this process may use, or another system than Linux.
        RuntimeError: the C++ extension is not there.
    """
    backends().require("pin_threads", "extension", "cpp")
    from pipnet_fast import _C

    if not all(isinstance(core, int) and abs(core) < 1 << 31 for core in cores):
        raise ValueError(f"pin_threads: cores: expected numbers of cores, got {cores!r}")
    _C.pin_workers(list(cores))


class Plan:
    """A network made ready in C++, with weights of its own; safe from many threads.

    It takes contiguous crops on the CPU: uint8 RGB (B, S, S, 3), or normalized float32 (B, 3, S, S).

    Args:
        data: what to run, of ``serialize``; afterwards it holds nothing of use.
        threads: how many making it and a call use at most, >= 1.

    Raises:
        ValueError: a network that the engine has no code for.
    """

    def __init__(self, data: npt.NDArray[np.uint8], threads: int) -> None:
        """See the class."""
        from pipnet_fast import _C

        self._plan = _C.Plan(data.ctypes.data, data.size, spend=True, threads=threads)
        self._threads = threads

    def landmarks(self, x: Tensor) -> Landmarks:
        """Landmarks of crops, by a network with a head: points (B, N, 2) in fractions of the crop, scores (B, N)."""
        # Whatever torch's defaults are: addresses of these go to C++.
        points = torch.empty(len(x), self._plan.landmarks, 2, dtype=torch.float32, device="cpu")
        scores = torch.empty(len(x), self._plan.landmarks, dtype=torch.float32, device="cpu")
        self._plan.run(*_addresses(x), len(x), points.data_ptr(), scores.data_ptr(), self._threads)
        return Landmarks(points, scores)

    def features(self, x: Tensor) -> Tensor:
        """The last layer's output (B, C, H, W), channels-last in memory."""
        channels, height, width = self._plan.features
        features = torch.empty(len(x), height, width, channels, dtype=torch.float32, device="cpu")
        self._plan.run_trunk(*_addresses(x), len(x), features.data_ptr(), self._threads)
        return features.permute(0, 3, 1, 2)


def _addresses(x: Tensor) -> tuple[int, int]:
    """Where the bytes are and where the planes are, 0 for what is not there."""
    return (x.data_ptr(), 0) if x.dtype == torch.uint8 else (0, x.data_ptr())


ENGINE = Engine(devices=("cpu",), missing=missing, prepare=prepare)
