"""The models that several commands are given."""

import os
from collections.abc import Sequence
from pathlib import Path

from pipnet_fast._device import usable_device
from pipnet_fast.models import load, load_official
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.weights import default_model

OFFICIAL = (".pth", ".pt")
# What stands for the model in the box.
BOX = "box"


def model_names(models: Sequence[str]) -> list[str]:
    """Names that differ: the files' own, with folders where two would be one, and with endings where they still are.

    Raises:
        ValueError: a file twice.
    """
    paths = [Path(os.path.normpath(model)) for model in models]
    # A name is part of file names.
    whole = [str(path).strip("./").replace(os.sep, "_") for path in paths]
    kinds = [[path.stem for path in paths], [os.path.splitext(name)[0] for name in whole], whole]
    for model, name in zip(models, whole, strict=True):
        if whole.count(name) > 1:
            raise ValueError(f"expected every MODEL once, got {model} twice")
    names = [next(kind[i] for kind in kinds if kind.count(kind[i]) == 1) for i in range(len(models))]
    # One's own name may be another's with its folder.
    return names if len(set(names)) == len(names) else whole


def load_model(model: str, mean_shape: str | None, device: str, also: Sequence[str] = ()) -> LandmarkModel:
    """The model of a file, or the one in the box, on a device.

    Args:
        model: a .safetensors file, an official checkpoint, or ``BOX``.
        mean_shape: of an official checkpoint: a layout's name or a text file.
        device: as torch names it.
        also: suffixes of what else the command takes, for the message.

    Raises:
        ValueError: another kind of file, a damaged one, a checkpoint without its mean shape, or no device.
        RuntimeError: a device that is not there.
    """
    suffix = Path(model).suffix.lower()
    if suffix in OFFICIAL:
        if mean_shape is None:
            raise ValueError(f"{model}: an official checkpoint needs --mean-shape: a layout's name or its meanface.txt")
        loaded: LandmarkModel = load_official(model, mean_shape)
    elif model == BOX or suffix == ".safetensors":
        loaded = load(default_model() if model == BOX else model)
    else:
        known = ", ".join((".safetensors", ".pth", *also))
        raise ValueError(f'MODEL: expected a file that ends in one of {known}, or "{BOX}", got {model!r}')
    return loaded.to(usable_device("--device", device))
