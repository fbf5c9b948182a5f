"""ImageNet weights for the backbones: downloaded with a checksum, or from a local file."""

import os
from typing import Any

import torch
from torch import Tensor

from pipnet_fast._torch_files import read_torch_file
from pipnet_fast.backbones._backbone import Backbone

# The last part of each name is the head of the file's SHA-256, which torch.hub checks.
URLS = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "mobilenet_v2": "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    "mobilenet_v3": "https://github.com/d-li14/mobilenetv3.pytorch/raw/master/pretrained/"
    "mobilenetv3-large-1cd25616.pth",
}


def load_imagenet(backbone: Backbone, name: str, weights: str | os.PathLike[str]) -> None:
    """Load ImageNet weights into a backbone of width 1.

    Args:
        backbone: the trunk to fill, at the stride of ImageNet networks, 32.
        name: which backbone it is.
        weights: ``"imagenet"`` downloads torchvision's first weights (for ``mobilenet_v3`` those that the
            official code uses) into torch.hub's folder, once, and checks their SHA-256; anything else is the
            path of such a state dict.

    Raises:
        RuntimeError: the download failed; the message says where to put the file by hand.
        ValueError: a file that is no state dict, or one of another network.
    """
    source = URLS[name] if weights == "imagenet" else os.fspath(weights)
    state = _download(source) if weights == "imagenet" else read_state_dict(source)
    own = backbone.state_dict()
    # BatchNorm's step counters are missing from weights saved by old versions of torch.
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    missing = sorted(wanted - state.keys())
    wrong = sorted(key for key in wanted & state.keys() if state[key].shape != own[key].shape)
    if missing or wrong:
        first = (missing or wrong)[0]
        raise ValueError(
            f"imagenet weights: {source} does not fit {name}: {len(missing)} entries missing, {len(wrong)} of "
            f"another shape, the first is {first!r}"
        )
    backbone.load_state_dict({key: state[key] for key in wanted}, strict=False)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a torch file without running code from it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a torch file, one that would run code, or no state dict of tensors.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such weights file: {os.fspath(path)}")
    return as_state_dict(read_torch_file(path, "state dict"), os.fspath(path))


def as_state_dict(state: Any, source: str) -> dict[str, Tensor]:
    """Check that ``state`` maps names to tensors; unwrap ``{"state_dict": ...}`` and DataParallel's prefix."""
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items())
    ):
        raise ValueError(f"{source}: expected a state dict of named tensors, got {type(state).__name__}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _download(url: str) -> dict[str, Tensor]:
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    try:
        state = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except Exception as error:  # no network, a wrong checksum, or a damaged file in the folder
        raise RuntimeError(
            f"could not download ImageNet weights from {url} ({error}); put the whole file into {folder}, or pass its "
            "path as weights"
        ) from None
    return as_state_dict(state, url)
