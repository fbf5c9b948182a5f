"""What every backbone is: named stages in a row, and what comes out of the last one."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn


class Backbone(nn.Sequential):
    """Named stages run in order: (B, 3, H, W) to (B, ``out_channels``, H / ``stride``, W / ``stride``).

    The names of the stages are those of torchvision and the official network, so state dicts of both fit.
    """

    def __init__(self, stages: Mapping[str, nn.Module], out_channels: int, stride: int) -> None:
        """Take ``stages`` in their order; ``out_channels`` and ``stride`` describe the last one's output."""
        super().__init__(OrderedDict(stages))
        self.out_channels = out_channels
        self.stride = stride
