"""Backbones of the paper at every stride of its section 4.2.1, with torchvision's parameter names."""

import os
from typing import get_args

from pipnet_fast.backbones._backbone import Backbone
from pipnet_fast.backbones._dilation import dilate
from pipnet_fast.backbones._neck import Stride, with_stride
from pipnet_fast.backbones.imagenet import load_imagenet
from pipnet_fast.backbones.mobilenet_v2 import mobilenet_v2
from pipnet_fast.backbones.mobilenet_v3 import mobilenet_v3
from pipnet_fast.backbones.resnet import BLOCKS, resnet

__all__ = ["BACKBONES", "Backbone", "create_backbone"]

BACKBONES = (*BLOCKS, "mobilenet_v2", "mobilenet_v3")


def create_backbone(
    name: str,
    stride: int = 32,
    width: float = 1.0,
    weights: str | os.PathLike[str] | None = None,
    *,
    dilated: bool = False,
) -> Backbone:
    """Build a backbone.

    Args:
        name: one of ``BACKBONES``.
        stride: input pixels per grid cell: 16, 32, 64 or 128.
        width: multiplies the channels of a ResNet, 0 < width <= 4; the others have width 1 only. The layers
            that make strides other than 32 have the paper's 512 channels at any width.
        weights: None for random initialization, ``"imagenet"``, or the path of ImageNet weights; width 1 only.
        dilated: dilation in place of a ResNet's last two strides, which makes ``stride`` 32 into 8 (for G-RMI).

    Raises:
        ValueError: an argument out of its range, or weights that do not fit.
        RuntimeError: weights that could not be downloaded.
    """
    if name not in BACKBONES:
        raise ValueError(f"create_backbone: name: expected one of {BACKBONES}, got {name!r}")
    if not isinstance(stride, int) or stride not in get_args(Stride):
        raise ValueError(f"create_backbone: stride: expected one of {get_args(Stride)}, got {stride!r}")
    if not isinstance(width, (int, float)) or not 0 < width <= 4:
        raise ValueError(f"create_backbone: width: expected 0 < width <= 4, got {width!r}")
    if width != 1 and name not in BLOCKS:
        raise ValueError(f"create_backbone: width: {name} has width 1 only, got {width}")
    if dilated and (name not in BLOCKS or stride != 32):
        raise ValueError(
            f"create_backbone: dilated: expected one of {tuple(BLOCKS)} with stride 32, got {name} with {stride}"
        )
    if weights is not None and width != 1:
        raise ValueError(f"create_backbone: weights: ImageNet weights are of width 1, got width {width}")
    trunk = (
        resnet(name, width) if name in BLOCKS else {"mobilenet_v2": mobilenet_v2, "mobilenet_v3": mobilenet_v3}[name]()
    )
    if weights is not None:
        load_imagenet(trunk, name, weights)
    return dilate(trunk) if dilated else with_stride(trunk, stride)
