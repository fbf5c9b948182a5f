"""From an engine that runs a trunk to one that runs the whole network."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipnet_fast.engines._types import Network, Spec
from pipnet_fast.ops import Landmarks
from pipnet_fast.pipeline.images import Normalizer

Trunk = Callable[[Tensor], Tensor]


def warmed_up(trunk: Trunk, network: Network, spec: Spec, sizes: tuple[int, ...]) -> Callable[[Tensor], Landmarks]:
    """Normalize, run ``trunk``, run the network's head; ready when this returns.

    Args:
        trunk: takes (B, 3, S, S) of the spec's dtype on its device, channels-last in memory.
        network: whose head it is.
        spec: what to prepare for.
        sizes: batch sizes to run once now.
    """
    normalize = Normalizer(spec.input_size, spec.dtype, spec.device)

    def run(x: Tensor) -> Landmarks:
        x = x.to(spec.device)
        x = normalize(x) if x.dtype == torch.uint8 else x.contiguous(memory_format=torch.channels_last)
        return network.head(trunk(x))

    for size in sizes:
        run(torch.zeros(size, spec.input_size, spec.input_size, 3, dtype=torch.uint8, device=spec.device))
    return run
