"""Model files: safetensors, with all that is needed to build the model inside. Nothing is unpickled."""

import json
import os
from dataclasses import asdict
from types import NoneType
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipnet_fast._files import write_whole
from pipnet_fast.backbones.resnet import BLOCKS, scaled
from pipnet_fast.crop import CropRule
from pipnet_fast.models._assembly import KINDS, assemble
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.official import read_config
from pipnet_fast.models.pipnet import PIPNet

# The version of the layout of our files' metadata.
FORMAT = "pipnet_fast/1"


def save(model: LandmarkModel, path: str | os.PathLike[str]) -> None:
    """Write a model as safetensors, with its kind, configuration, mean shape and crop rule inside.

    The file appears whole or not at all; an older one of that name stays until then.

    Raises:
        TypeError: not a PIPNet, CoordNet, MapNet or GRMI.
        OSError: the folder cannot be written.
    """
    kind = next((kind for kind, (cls, _) in KINDS.items() if isinstance(model, cls)), None)
    if kind is None:
        raise TypeError(f"save: model: expected a PIPNet, CoordNet, MapNet or GRMI, got {type(model).__name__}")
    metadata = {
        "format": FORMAT,
        "kind": kind,
        "config": json.dumps(model.config.to_dict()),
        "crop": json.dumps(asdict(model.crop)),
    }
    if isinstance(model, PIPNet) and model.mean_shape is not None:
        metadata["mean_shape"] = json.dumps(model.mean_shape.tolist())
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    # Not by safetensors' own save_file, which makes files that only their owner may read.
    write_whole(path, lambda file: file.write(safetensors.torch.save(tensors, metadata)))


def load(path: str | os.PathLike[str]) -> LandmarkModel:
    """Load a model that ``save`` wrote, in eval mode and float32: a PIPNet, CoordNet, MapNet or GRMI.

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
    # Files of the first version are PIPNets and do not say so.
    kind = metadata.get("kind", "pipnet")
    try:
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {list(KINDS)}, got {kind!r:.200}")
        config = json.loads(metadata["config"])
        crop = CropRule(**json.loads(metadata["crop"]))
        mean_shape = json.loads(metadata.get("mean_shape", "null"))
        known = KINDS[kind].entries
        if not isinstance(config, dict) or set(config) != known:
            raise ValueError(f"expected the entries {sorted(known)}, got {config!r:.200}")
        # Not a name or a path: a model file has no say in which other files are read.
        if not isinstance(mean_shape, (list, NoneType)):
            raise ValueError(f"mean_shape: expected a list of points, got {type(mean_shape).__name__}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: bad metadata: {error}") from None
    # Half precision is for the disk; arithmetic on the CPU needs float32.
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    if kind == "pipnet":
        _check_size(config, state, source)
    return assemble(kind, config, state, mean_shape, crop, source)


def _check_size(config: dict[str, Any], state: dict[str, Tensor], source: str) -> None:
    """Hold a PIPNet's metadata against the tensors that are there: they alone decide how large its table is."""
    actual = read_config(state, source)
    width = config["width"]
    # Channels are rounded, so several widths have the same.
    if actual["backbone"] in BLOCKS and isinstance(width, (int, float)) and 0 < width <= 4:
        actual["width"] = width if scaled(64, width) == state["conv1.weight"].shape[0] else actual["width"]
    differing = {key: (config[key], value) for key, value in actual.items() if config[key] != value}
    if differing:
        raise ValueError(f"{source}: metadata and tensors disagree (metadata, tensors): {differing}")
