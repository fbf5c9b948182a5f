"""A ResNet of stride 8: dilation in place of its last two strides, as G-RMI has it (Papandreou et al. 2017)."""

from torch import nn

from pipnet_fast.backbones._backbone import Backbone


def dilate(trunk: Backbone) -> Backbone:
    """Replace the strides of a ResNet's ``layer3`` and ``layer4`` by dilation, in place; the weights stay as they are.

    A convolution behind a stride that was taken out sees its grid twice as fine, so its taps move twice as far apart.
    Every fourth row and column of the result is what the ResNet of stride 32 gives.
    """
    dilation = 1
    for name in ("layer3", "layer4"):
        for conv in trunk.get_submodule(name).modules():
            if not isinstance(conv, nn.Conv2d):
                continue
            was_strided, conv.stride = conv.stride == (2, 2), (1, 1)
            if conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (dilation, dilation)
                dilation *= 2 if was_strided else 1
    return Backbone(dict(trunk.named_children()), trunk.out_channels, stride=8)
