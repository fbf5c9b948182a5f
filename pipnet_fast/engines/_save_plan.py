"""A PIPNet as a file for the C++ engine alone, without Python or torch: ``csrc/pipnet.h`` reads it."""

import copy
import os

from pipnet_fast._files import write_whole
from pipnet_fast.engines._lower import plan_of
from pipnet_fast.engines._types import WEIGHT_STORAGES, WeightStorage
from pipnet_fast.engines.plan_file import serialize
from pipnet_fast.models import PIPNet
from pipnet_fast.ops import Storage
from pipnet_fast.ops.types import STORAGES


def save_plan(
    model: PIPNet,
    path: str | os.PathLike[str],
    *,
    head_storage: Storage | None = None,
    weight_storage: WeightStorage = "float32",
) -> None:
    """Write a PIPNet as a plan: the whole network from crop to landmarks, for the C API.

    The file appears whole or not at all; an older one of that name stays until then. It holds the crop's size and how
    crops follow from face boxes, too.

    Args:
        model: a PIPNet in eval mode with a mean shape, of an input size that is a multiple of 32. It stays as it is.
        path: the file.
        head_storage: what the head's weights are stored as, "float32", "float16" or "int8"; None for float32.
        weight_storage: what the engine keeps the other weights as, "float32" or "float16"; in the file they are
            float32.

    Raises:
        TypeError: not a PIPNet.
        ValueError: an argument out of its range, a model in training mode or without a mean shape, layers that the
            engine has no code for, or weights that their storage cannot hold.
        OSError: the folder cannot be written.
    """
    if not isinstance(model, PIPNet):
        raise TypeError(f"save_plan: model: expected a PIPNet, got {type(model).__name__}")
    if model.training:
        raise ValueError("save_plan: model: expected one in eval mode (model.eval()), got one in training mode")
    if head_storage is not None and head_storage not in STORAGES:
        raise ValueError(f"save_plan: head_storage: expected None or one of {list(STORAGES)}, got {head_storage!r}")
    if weight_storage not in WEIGHT_STORAGES:
        raise ValueError(f"save_plan: weight_storage: expected one of {list(WEIGHT_STORAGES)}, got {weight_storage!r}")
    try:
        network = plan_of(copy.deepcopy(model).cpu().float(), head_storage, weight_storage)
    except ValueError as error:
        raise ValueError(f"save_plan: model: {error}") from None
    data = serialize(network)
    write_whole(path, lambda file: file.write(data.data))
