"""Checkpoints of the official PIPNet: what network it is, read off the names and shapes of its tensors."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pipnet_fast.backbones._neck import MARKS
from pipnet_fast.backbones.imagenet import as_state_dict, read_state_dict
from pipnet_fast.backbones.resnet import BLOCKS
from pipnet_fast.crop import CropRule
from pipnet_fast.models._assembly import assemble
from pipnet_fast.models.pipnet import PIPNet
from pipnet_fast.neighbors import Merge


def load_official(
    checkpoint: str | os.PathLike[str] | Mapping[str, Tensor],
    mean_shape: Any,
    *,
    input_size: int = 256,
    merge: Merge = "official",
    crop: CropRule | None = None,
) -> PIPNet:
    """Load a checkpoint of the official PIPNet; backbone, width, N, K and stride are read off its keys.

    Args:
        checkpoint: the path of a ``.pth`` file, or its state dict. A ``module.`` prefix is dropped.
        mean_shape: a layout's name (``"wflw98"``), a ``meanface.txt`` or (N, 2) coordinates: the one that the
            checkpoint was trained with, for it defines who is whose neighbor.
        input_size: side of the crop in px.
        merge: "official" gives the points that the official code gives.
        crop: how crops follow from tight face boxes; by default the box grown to 1.2 of its sides.

    Returns:
        The model in eval mode, in the checkpoint's precision.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no state dict of a PIPNet, or a mean shape of another N.
    """
    if isinstance(checkpoint, (str, os.PathLike)):
        source, state = os.fspath(checkpoint), read_state_dict(checkpoint)
    elif not isinstance(checkpoint, Mapping):
        raise TypeError(f"load_official: checkpoint: expected a path or a state dict, got {type(checkpoint).__name__}")
    else:
        # Cloned, for the model takes the tensors as its own.
        state = {key: value.clone() for key, value in as_state_dict(dict(checkpoint), "state dict").items()}
        source = "state dict"
    config = read_config(state, source)
    config |= {"input_size": input_size, "merge": merge}
    model = assemble("pipnet", config, state, mean_shape, crop, source)
    assert isinstance(model, PIPNet)
    return model


def read_config(state: dict[str, Tensor], source: str) -> dict[str, Any]:
    """Backbone, width, N, K and stride of the PIPNet that a state dict belongs to.

    Raises:
        ValueError: it is none; the message begins with ``source``.
    """

    def channels(key: str) -> int:
        if key not in state or state[key].ndim != 4:
            raise ValueError(f"{source}: not a PIPNet: expected {key!r} with four dimensions in its state dict")
        return state[key].shape[0]

    backbone = _read_backbone(state, source)
    width = channels("conv1.weight") / 64 if backbone in BLOCKS else 1.0
    landmarks = channels("cls_layer.weight")
    neighbors = channels("nb_x_layer.weight") if "nb_x_layer.weight" in state else 0
    if landmarks < 1 or neighbors % landmarks:
        raise ValueError(
            f"{source}: expected nb_x_layer to have a multiple of the {landmarks} channels of cls_layer, "
            f"got {neighbors}"
        )
    stride = next((stride for mark, stride in MARKS.items() if mark in state), 32)
    return {
        "backbone": backbone,
        "width": width,
        "num_landmarks": landmarks,
        "num_neighbors": neighbors // landmarks,
        "stride": stride,
    }


def _read_backbone(state: dict[str, Tensor], source: str) -> str:
    if "features.0.0.weight" in state:
        return "mobilenet_v3" if "conv.0.weight" in state else "mobilenet_v2"
    if "conv1.weight" not in state:
        raise ValueError(
            f"{source}: not a PIPNet: expected a ResNet's conv1.weight or a MobileNet's features.0.0.weight"
        )
    blocks = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{index}.") and key.count(".") > 2})
        for index in range(1, 5)
    )
    bottleneck = "layer1.0.conv3.weight" in state
    for name, known in BLOCKS.items():
        if blocks == known and bottleneck == (name != "resnet18"):
            return name
    raise ValueError(f"{source}: expected one of the ResNets {list(BLOCKS)}, got one with {blocks} blocks")
