"""From an engine that runs a trunk to one that runs the whole network."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipnet_fast.engines._types import Network, Spec
from pipnet_fast.ops import Landmarks
from pipnet_fast.pipeline.images import Normalizer, PlanarNormalizer

Trunk = Callable[[Tensor], Tensor]


def warmed_up(
    trunk: Trunk, network: Network, spec: Spec, sizes: tuple[int, ...], planar: bool = False
) -> Callable[[Tensor], Landmarks]:
    """Normalize, run ``trunk``, run the network's head; ready when this returns.

    Args:
        trunk: takes (B, 3, S, S) of the spec's dtype on its device, channels-last in memory.
        planar: it is not torch that runs it, but an engine on the CPU with threads of its own, which takes contiguous
            float32.
        network: whose head it is.
        spec: what to prepare for.
        sizes: batch sizes to run once now.
    """
    size, dtype, device = spec.input_size, spec.dtype, spec.device
    normalize = PlanarNormalizer() if planar else Normalizer(size, dtype, device)
    layout = torch.contiguous_format if planar else torch.channels_last

    def run(x: Tensor) -> Landmarks:
        x = x.to(device)
        x = normalize(x) if x.dtype == torch.uint8 else x.contiguous(memory_format=layout)
        return network.head(trunk(x))

    for count in sizes:
        run(torch.zeros(count, size, size, 3, dtype=torch.uint8, device=device))
    return run
