"""MobileNetV3-Large (Howard et al. 2019) in the official PIPNet's layout: ``features``, then ``conv``.

The squeeze-and-excite of an expanded block stands before its activation, as in the network that the
official code builds upon; torchvision's own MobileNetV3 has it after, so its weights do not fit.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from pipnet_fast.backbones._backbone import Backbone

# Kernel, expansion factor, channels, squeeze-and-excite, hard-swish, stride (Table 1 of that paper).
STAGES = (
    (3, 1, 16, False, False, 1),
    (3, 4, 24, False, False, 2),
    (3, 3, 24, False, False, 1),
    (5, 3, 40, True, False, 2),
    (5, 3, 40, True, False, 1),
    (5, 3, 40, True, False, 1),
    (3, 6, 80, False, True, 2),
    (3, 2.5, 80, False, True, 1),
    (3, 2.3, 80, False, True, 1),
    (3, 2.3, 80, False, True, 1),
    (3, 6, 112, True, True, 1),
    (3, 6, 112, True, True, 1),
    (5, 6, 160, True, True, 2),
    (5, 6, 160, True, True, 1),
    (5, 6, 160, True, True, 1),
)
OUT_CHANNELS = 960


def mobilenet_v3() -> Backbone:
    """The trunk of MobileNetV3-Large at stride 32."""
    layers: list[nn.Module] = [_conv_bn_hardswish(3, 16, kernel=3, stride=2)]
    channels = 16
    for kernel, expansion, out_channels, excite, hardswish, stride in STAGES:
        hidden = divisible_by_8(channels * expansion)
        layers.append(InvertedResidual(channels, hidden, out_channels, kernel, stride, excite, hardswish))
        channels = out_channels
    stages = {
        "features": nn.Sequential(*layers),
        "conv": _conv_bn_hardswish(channels, OUT_CHANNELS, kernel=1, stride=1),
    }
    backbone = Backbone(stages, OUT_CHANNELS, stride=32)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return backbone


def divisible_by_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at least nine tenths of ``channels``."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv_bn_hardswish(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        HardSwish(),
    )


class HardSigmoid(nn.Module):
    """min(max(x + 3, 0), 6) / 6, rounded at every step as the official network does.

    torch's own, in one step, differs in the last bit, which this network can carry up to the fourth digit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.relu6(x + 3) / 6


class HardSwish(HardSigmoid):
    """x times its hard sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * super().forward(x)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all."""

    def __init__(self, channels: int) -> None:
        """Gate ``channels`` through a quarter as many."""
        super().__init__()
        squeezed = divisible_by_8(channels // 4)
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed),
            nn.ReLU(inplace=True),
            nn.Linear(squeezed, channels),
            HardSigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), same shape out."""
        gate: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return x * gate[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter depthwise, excite, project by 1x1; a shortcut where the shapes allow."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel: int,
        stride: int,
        excite: bool,
        hardswish: bool,
    ) -> None:
        """Map ``in_channels`` to ``out_channels`` through ``hidden``."""
        super().__init__()

        def activation() -> nn.Module:
            return HardSwish() if hardswish else nn.ReLU(inplace=True)

        gate = SqueezeExcite(hidden) if excite else nn.Identity()
        depthwise = [
            nn.Conv2d(hidden, hidden, kernel, stride, (kernel - 1) // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
        ]
        project = [nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        if in_channels == hidden:
            layers = [*depthwise, activation(), gate, *project]
        else:
            expand = [nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), activation()]
            layers = [*expand, *depthwise, gate, activation(), *project]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y
