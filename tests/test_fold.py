"""The folded trunk is the same function, and folds only what it may."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import pipnet_fast as pf
from pipnet_fast.backbones.mobilenet_v3 import HardSwish
from pipnet_fast.engines.fold import fold_trunk
from tests.inputs import randomized

CONFIGS: list[dict[str, Any]] = [
    {"backbone": "resnet18", "width": 0.125, "stride": 16},
    {"backbone": "resnet50", "width": 0.125, "stride": 64},
    {"backbone": "resnet101", "width": 0.0625},
    {"backbone": "mobilenet_v2", "stride": 128, "input_size": 128},
    {"backbone": "mobilenet_v3", "stride": 16},
]


def norms(module: nn.Module) -> int:
    return sum(isinstance(child, nn.BatchNorm2d) for child in module.modules())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["backbone"])
def test_folded_in_float64_is_equal_to_its_rounding(config: dict[str, Any]) -> None:
    model = randomized(**{"num_landmarks": 3, "num_neighbors": 0, "input_size": 64, **config}).double()
    x = torch.randn(2, 3, model.config.input_size, model.config.input_size, dtype=torch.float64)
    with torch.no_grad():
        expected = model.forward_features(x)
        trunk = fold_trunk(model)
        got = trunk(x)
    assert norms(trunk) == 0
    assert norms(model) > 0
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(3)
        self.other = nn.BatchNorm2d(3)
        for norm in (self.norm, self.other):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)


class Plain(Layers):
    def forward_features(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class CalledTwice(Layers):
    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.other(self.conv(x + 1))


class ReadTwice(Layers):
    def forward_features(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.norm(x)


class NoConvolution(Layers):
    def forward_features(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(F.relu(self.other(x))))


class NoAffine(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class NoStatistics(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class GroupedDeconvolution(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 3, 2, groups=3)  # type: ignore[assignment]

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Parametrized(Layers):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Pruned(Plain):
    def __init__(self) -> None:
        super().__init__()
        prune.l1_unstructured(self.conv, "weight", 0.5)


class HookedConvolution(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_pre_hook(lambda module, inputs: inputs[0] + 1)


class HookedNorm(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm.register_forward_hook(lambda module, inputs, output: output * 2)


class HookedActivation(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.swish = HardSwish()
        self.swish.register_forward_hook(lambda module, inputs, output: output * 2)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.swish(self.norm(self.conv(x)))


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (Plain, 0),
        (NoAffine, 0),
        (CalledTwice, 2),
        (ReadTwice, 1),
        (NoConvolution, 2),
        (NoStatistics, 1),
        (GroupedDeconvolution, 1),
        (Parametrized, 0),
        (Pruned, 0),
        (HookedConvolution, 1),
        (HookedNorm, 1),
        (HookedActivation, 0),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_folds_only_a_convolution_of_its_own(kind: type[Any], left: int) -> None:
    model = kind().double().eval()
    state = copy.deepcopy(model.state_dict())
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    trunk = fold_trunk(model)
    with torch.no_grad():
        torch.testing.assert_close(trunk(x), model.forward_features(x), rtol=0, atol=1e-12)
    assert norms(trunk) == left
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    with torch.no_grad():
        # The model is as it was: torch keeps computed weights in a class that copies have in common.
        torch.testing.assert_close(fold_trunk(model)(x), model.forward_features(x), rtol=0, atol=1e-12)


def test_the_trunk_is_for_inference_and_holds_no_head() -> None:
    model = pf.PIPNet(num_landmarks=3, num_neighbors=0, width=0.125, input_size=64).eval()
    trunk = fold_trunk(model)
    assert not trunk.training
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    assert not any("cls_layer" in name for name, _ in trunk.named_modules())


def test_other_threads_call_modules_meanwhile_and_fold_too() -> None:
    call, model = nn.Module.__call__, randomized(backbone="resnet18", width=0.0625, num_landmarks=3, num_neighbors=0)
    x, done = torch.randn(1, 3, 64, 64), threading.Event()

    def serve() -> list[Tensor]:
        found = []
        while not done.is_set():
            with torch.no_grad():
                found.append(model.layer1(model.conv1(x)))
        return found

    with ThreadPoolExecutor(4) as pool:
        serving = pool.submit(serve)
        folding = [pool.submit(fold_trunk, model) for _ in range(9)]
        try:
            trunks = [future.result(60) for future in folding]
        finally:
            done.set()
        first, *others = serving.result(60)
    assert others
    assert all(torch.equal(other, first) for other in others)
    assert [norms(trunk) for trunk in trunks] == [0] * 9
    assert nn.Module.__call__ is call
