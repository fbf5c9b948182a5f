"""MobileNetV2 (Sandler et al. 2018), with torchvision's parameter names."""

from torch import Tensor, nn

from pipnet_fast.backbones._backbone import Backbone

# Expansion factor, channels, repeats, stride of the first (Table 2 of that paper).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
OUT_CHANNELS = 1280


def mobilenet_v2() -> Backbone:
    """The trunk of MobileNetV2 at stride 32."""
    layers: list[nn.Module] = [conv_bn_relu6(3, 32, kernel=3, stride=2)]
    channels = 32
    for expansion, out_channels, repeats, first_stride in STAGES:
        for position in range(repeats):
            stride = first_stride if position == 0 else 1
            layers.append(InvertedResidual(channels, out_channels, stride, expansion))
            channels = out_channels
    layers.append(conv_bn_relu6(channels, OUT_CHANNELS, kernel=1))
    backbone = Backbone({"features": nn.Sequential(*layers)}, OUT_CHANNELS, stride=32)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return backbone


def conv_bn_relu6(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter by depthwise 3x3, project by 1x1; a shortcut where the shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        """Map ``in_channels`` to ``out_channels`` through ``expansion * in_channels``."""
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_bn_relu6(in_channels, hidden, kernel=1))
        layers += [
            conv_bn_relu6(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y
