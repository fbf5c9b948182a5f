"""The operations, each with one name on every floor: here the reference and the public function,
in ``pipnet_fast.kernels`` the Triton kernel, in ``csrc/`` the C++ one. Shapes and units: ``ops/types.py``.
"""

from pipnet_fast.ops._backends import Backend, backends
from pipnet_fast.ops.decode import decode
from pipnet_fast.ops.head_decode import BoundHead, head_decode
from pipnet_fast.ops.head_loss import HeadLoss, default_balance, head_loss, label_counts
from pipnet_fast.ops.types import HeadMaps, HeadWeights, Landmarks, Storage, pack_head

__all__ = [
    "Backend",
    "BoundHead",
    "HeadLoss",
    "HeadMaps",
    "HeadWeights",
    "Landmarks",
    "Storage",
    "backends",
    "decode",
    "default_balance",
    "head_decode",
    "head_loss",
    "label_counts",
    "pack_head",
]
