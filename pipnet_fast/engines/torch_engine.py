"""Eager PyTorch: channels-last, BatchNorm folded; takes any batch in one run."""

from pipnet_fast.engines._trunk import warmed_up
from pipnet_fast.engines._types import Engine, Network, Prepared, Spec


def prepare(network: Network, spec: Spec) -> Prepared:
    """Run the trunk as it is."""
    return Prepared(warmed_up(network.trunk, network, spec, sizes=(spec.batch_size,)))


ENGINE = Engine(devices=None, missing=lambda: None, prepare=prepare)
