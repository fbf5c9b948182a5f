"""Model files: the official network's state dicts in, safetensors in and out. Nothing is unpickled."""

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from types import NoneType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipnet_fast.backbones._neck import MARKS
from pipnet_fast.backbones.imagenet import as_state_dict, read_state_dict
from pipnet_fast.backbones.resnet import BLOCKS, scaled
from pipnet_fast.crop import CropRule
from pipnet_fast.models.pipnet import PIPNet, PIPNetConfig
from pipnet_fast.neighbors import Merge

# The version of the layout of our files' metadata.
FORMAT = "pipnet_fast/1"


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
    config = _read_config(state, source)
    return _build({**config, "input_size": input_size, "merge": merge}, state, mean_shape, crop, source)


def save(model: PIPNet, path: str | os.PathLike[str]) -> None:
    """Write a model as safetensors, with its configuration, mean shape and crop rule inside.

    The file appears whole or not at all; an older one of that name stays until then.

    Raises:
        TypeError: not a PIPNet.
        OSError: the folder cannot be written.
    """
    if not isinstance(model, PIPNet):
        raise TypeError(f"save: model: expected a PIPNet, got {type(model).__name__}")
    metadata = {
        "format": FORMAT,
        "config": json.dumps(model.config.to_dict()),
        "crop": json.dumps(asdict(model.crop)),
    }
    if model.mean_shape is not None:
        metadata["mean_shape"] = json.dumps(model.mean_shape.tolist())
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    temporary = f"{os.fspath(path)}.{uuid.uuid4().hex}.tmp"
    try:
        # Not by safetensors' own save_file, which makes files that only their owner may read.
        with open(temporary, "wb") as file:
            file.write(safetensors.torch.save(tensors, metadata))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def load(path: str | os.PathLike[str]) -> PIPNet:
    """Load a model that ``save`` wrote, in eval mode and float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not safetensors, damaged, or not a model of this package.
    """
    source = os.fspath(path)
    if not os.path.isfile(source):
        raise FileNotFoundError(f"no such model file: {source}")
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{source}: not a readable safetensors file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{source}: expected a model in format {FORMAT!r}, got {metadata.get('format')!r}")
    try:
        config = json.loads(metadata["config"])
        crop = CropRule(**json.loads(metadata["crop"]))
        mean_shape = json.loads(metadata.get("mean_shape", "null"))
        known = set(PIPNetConfig().to_dict())
        if not isinstance(config, dict) or set(config) != known:
            raise ValueError(f"expected the entries {sorted(known)}, got {config!r:.200}")
        # Not a name or a path: a model file has no say in which other files are read.
        if not isinstance(mean_shape, (list, NoneType)):
            raise ValueError(f"mean_shape: expected a list of points, got {type(mean_shape).__name__}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: bad metadata: {error}") from None
    # Half precision is for the disk; arithmetic on the CPU needs float32.
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    _check_size(config, state, source)
    return _build(config, state, mean_shape, crop, source)


def _build(
    config: dict[str, Any], state: dict[str, Tensor], mean_shape: Any, crop: CropRule | None, source: str
) -> PIPNet:
    # Built without memory and filled by assignment: nothing is initialized only to be overwritten.
    try:
        with torch.device("meta"):
            model = PIPNet(**config, crop=crop)
        if mean_shape is not None:
            model.with_mean_shape(mean_shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(f"{source}: does not fit a PIPNet of {config}: {' '.join(lines[1:3])}") from None
    return model.eval()


def _read_config(state: dict[str, Tensor], source: str) -> dict[str, Any]:
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


def _check_size(config: dict[str, Any], state: dict[str, Tensor], source: str) -> None:
    """Hold the metadata against the tensors that are there, so that they alone decide about memory."""
    actual = _read_config(state, source)
    width = config["width"]
    # Channels are rounded, so several widths have the same.
    if actual["backbone"] in BLOCKS and isinstance(width, (int, float)) and 0 < width <= 4:
        actual["width"] = width if scaled(64, width) == state["conv1.weight"].shape[0] else actual["width"]
    differing = {key: (config[key], value) for key, value in actual.items() if config[key] != value}
    if differing:
        raise ValueError(f"{source}: metadata and tensors disagree (metadata, tensors): {differing}")
