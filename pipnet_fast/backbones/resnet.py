"""ResNet-18, 50 and 101 (He et al. 2016, version 1.5), with torchvision's parameter names."""

from torch import Tensor, nn
from torch.nn import functional as F

from pipnet_fast.backbones._backbone import Backbone

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def resnet(name: str, width: float = 1.0) -> Backbone:
    """The trunk of a ResNet at stride 32; ``width`` multiplies every channel count."""
    block = BasicBlock if name == "resnet18" else Bottleneck
    stem = scaled(64, width)
    stages: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(stem),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    channels = stem
    for index, count in enumerate(BLOCKS[name]):
        planes = scaled(64 * 2**index, width)
        blocks = []
        for position in range(count):
            stride = 2 if index > 0 and position == 0 else 1
            blocks.append(block(channels, planes, stride))
            channels = planes * block.expansion
        stages[f"layer{index + 1}"] = nn.Sequential(*blocks)
    backbone = Backbone(stages, channels, stride=32)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone


def scaled(channels: int, width: float) -> int:
    """A channel count times the width, at least 1."""
    return max(1, round(channels * width))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        """Map ``in_channels`` to ``planes``."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, planes, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        y: Tensor = self.relu(x.add_(shortcut))
        return y


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        """Map ``in_channels`` to ``4 * planes``."""
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, 4 * planes, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        y: Tensor = self.relu(x.add_(shortcut))
        return y


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if in_channels == out_channels and stride == 1:
        return None
    convolution = nn.Conv2d if in_channels >= 8 else ThinShortcut
    return nn.Sequential(
        convolution(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class ThinShortcut(nn.Conv2d):
    """A strided 1x1 convolution of fewer than 8 channels, as one of stride 1 on every second pixel.

    In channels-last on CPUs with AVX2 but not AVX-512, the backward pass of the plain one writes beyond its memory
    (oneDNN in torch 2.13), and the process ends.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        down, across = self.stride
        return F.conv2d(x[:, :, ::down, ::across], self.weight, self.bias)
