"""The layers that turn a stride-32 backbone into one of stride 16, 64 or 128 (section 4.2.1)."""

from typing import Literal

from torch import nn

from pipnet_fast.backbones._backbone import Backbone

Stride = Literal[16, 32, 64, 128]
CHANNELS = 512
# How a state dict tells its stride: the layer that only this stride has, the longest chain first.
MARKS: dict[str, Stride] = {"layer6.weight": 128, "layer5.weight": 64, "deconv1.weight": 16}


def with_stride(trunk: Backbone, stride: int) -> Backbone:
    """Append 3x3 stride-2 convolutions or one 4x4 stride-2 deconvolution, each with BatchNorm and ReLU."""
    stages = dict(trunk.named_children())
    if stride == 32:
        return trunk
    if stride == 16:
        names = ("deconv1", "bn_deconv1", "relu_deconv1")
        stages.update(zip(names, deconvolution(trunk.out_channels), strict=True))
        return Backbone(stages, CHANNELS, stride)
    in_channels = trunk.out_channels
    for number in (5, 6)[: 1 if stride == 64 else 2]:
        conv = nn.Conv2d(in_channels, CHANNELS, kernel_size=3, stride=2, padding=1)
        nn.init.normal_(conv.weight, std=0.001)
        nn.init.zeros_(conv.get_parameter("bias"))
        stages[f"layer{number}"] = conv
        stages[f"bn{number}"] = nn.BatchNorm2d(CHANNELS)
        stages[f"relu{number}"] = nn.ReLU(inplace=True)
        in_channels = CHANNELS
    return Backbone(stages, CHANNELS, stride)


def deconvolution(in_channels: int) -> tuple[nn.Module, ...]:
    """A 4x4 stride-2 deconvolution to 512 channels, BatchNorm and ReLU: twice the height and width."""
    deconv = nn.ConvTranspose2d(in_channels, CHANNELS, kernel_size=4, stride=2, padding=1, bias=False)
    nn.init.normal_(deconv.weight, std=0.001)
    return deconv, nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True)
