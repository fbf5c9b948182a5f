"""The C++ engine's networks and files, without the engine: run by plain torch, read back as the format says."""

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pipnet_fast as pf
from pipnet_fast.backbones import BACKBONES
from pipnet_fast.backbones.mobilenet_v3 import SqueezeExcite
from pipnet_fast.engines._lower import lower
from pipnet_fast.engines.fold import fold_trunk
from pipnet_fast.engines.plan_file import Activation, LayerKind, PlanLayer, PlanNetwork, serialize
from pipnet_fast.models.pipnet import HEAD_LAYERS
from pipnet_fast.ops import BoundHead, HeadWeights
from pipnet_fast.ops.head_decode import reference
from pipnet_fast.pipeline.images import normalize
from tests.engine_cases import assert_same, crops_for, tiny
from tests.inputs import randomized
from tests.tolerances import ENGINE

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.NONE: lambda x: x,
    Activation.RELU: torch.relu,
    Activation.RELU6: F.relu6,
    Activation.HARD_SWISH: F.hardswish,
}


def interpret(layers: tuple[PlanLayer, ...], x: Tensor) -> Tensor:
    """The last layer's output, by the formula of network.h."""
    tensors = [x]
    for layer in layers:
        y = operate(layer, tensors[layer.input])
        if layer.residual >= 0:
            assert layer.kind == LayerKind.CONVOLUTION
            assert y.shape == tensors[layer.residual].shape
            y = y + tensors[layer.residual]
        tensors.append(ACTIVATIONS[layer.activation](y))
        assert tensors[-1].shape[1] == layer.channels
    return tensors[-1]


def operate(layer: PlanLayer, x: Tensor) -> Tensor:
    stride, padding = layer.stride, layer.padding
    if layer.kind == LayerKind.MAX_POOL:
        assert not layer.arrays
        return F.max_pool2d(x, layer.kernel, stride, padding)
    weight, bias, *excite = layer.arrays
    if layer.kind == LayerKind.CONVOLUTION:
        assert weight.shape == (layer.channels, x.shape[1], layer.kernel, layer.kernel)
        return F.conv2d(x, weight, bias, stride, padding)
    if layer.kind == LayerKind.DEPTHWISE:
        assert weight.shape == (x.shape[1], layer.kernel, layer.kernel)
        return F.conv2d(x, weight.unsqueeze(1), bias, stride, padding, groups=x.shape[1])
    if layer.kind == LayerKind.DECONVOLUTION:
        assert (layer.kernel, stride, padding) == (4, 2, 1)
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    assert layer.kind == LayerKind.GATE
    assert weight.shape == (layer.squeezed, x.shape[1])
    gate = F.linear(torch.relu(F.linear(x.mean((2, 3)), weight, bias)), *excite)
    return x * F.hardsigmoid(gate)[:, :, None, None]


def read(data: bytes) -> tuple[dict[str, Any], tuple[PlanLayer, ...], list[Any]]:
    """Header, layers and the head's and the table's arrays of a file, as plan_file.h describes it."""
    names = (
        "magic version checksum bytes input_size layers crop_scale crop_top_shift weight_storage landmarks neighbors"
    )
    header = dict(zip((*names.split(), "head_storage"), struct.unpack("<8sIIQ2I2f4I", data[:56]), strict=True))
    assert data[56:64] == bytes(8)
    offset = 64 + 64 * header["layers"]

    def take(dtype: str, *shape: int) -> Tensor:
        nonlocal offset
        begin = -(-offset // 64) * 64
        assert not any(data[offset:begin])
        array = np.frombuffer(data, dtype, int(np.prod(shape)), begin).reshape(shape)
        offset = begin + array.nbytes
        return torch.from_numpy(array.copy())

    layers: list[PlanLayer] = []
    for number in range(header["layers"]):
        record = data[64 + 64 * number :][:64]
        kind, activation, source, residual, channels, kernel, stride, padding, squeezed = struct.unpack(
            "<3Ii5I", record[:36]
        )
        assert not any(record[36:])
        inputs = layers[source - 1].channels if source else 3
        shapes: dict[int, list[tuple[int, ...]]] = {
            LayerKind.CONVOLUTION: [(channels, inputs, kernel, kernel), (channels,)],
            LayerKind.DEPTHWISE: [(channels, kernel, kernel), (channels,)],
            LayerKind.DECONVOLUTION: [(inputs, channels, 4, 4), (channels,)],
            LayerKind.MAX_POOL: [],
            LayerKind.GATE: [(squeezed, channels), (squeezed,), (channels, squeezed), (channels,)],
        }
        arrays = tuple(take("<f4", *shape) for shape in shapes[kind])
        window = kernel, stride, padding, squeezed
        layers.append(PlanLayer(LayerKind(kind), source, channels, arrays, *window, Activation(activation), residual))
    landmarks, votes = header["landmarks"], header["landmarks"] * (1 + header["neighbors"])
    head: list[Any] = []
    if landmarks:
        dtype, panels, features = ("<f4", "<f2", "i1")[header["head_storage"]], -(-landmarks // 16), layers[-1].channels
        head += [take(dtype, panels, features, 16), take("<f4", panels * 16)]
        head += [
            take(dtype, landmarks, 2 * votes // landmarks, features),
            take("<f4", landmarks, 2 * votes // landmarks),
        ]
        scales = [take("<f4", *like.shape) for like in head[1::2]] if dtype == "i1" else [None, None]
        head += [*scales, take("<i4", landmarks + 1), take("<i4", votes), take("<f4", votes)]
    assert offset == len(data)
    return header, tuple(layers), head


def lowered(model: Any) -> tuple[PlanLayer, ...]:
    return lower(fold_trunk(model), model.config.input_size)


def plan_of(model: pf.PIPNet, **options: Any) -> PlanNetwork:
    return PlanNetwork(model.config.input_size, lowered(model), BoundHead(model.head, model.table), **options)


WIDTHS = {"resnet18": 0.125, "resnet50": 0.125, "resnet101": 0.0625}
NETWORKS = [
    *({"backbone": name, "stride": stride} for name in BACKBONES for stride in (16, 32, 64, 128)),
    {"backbone": "resnet18", "stride": 16, "input_size": 96, "width": 0.07},
    {"backbone": "resnet18", "input_size": 32, "width": 0.01},
]


def network_id(config: dict[str, Any]) -> str:
    return "-".join(f"{key}{value}" if key != "backbone" else value for key, value in config.items())


@pytest.mark.parametrize("config", NETWORKS, ids=network_id)
def test_layers_are_the_same_function(config: dict[str, Any]) -> None:
    defaults = {"num_landmarks": 3, "num_neighbors": 0, "input_size": max(64, config.get("stride", 32))}
    model = randomized(**{**defaults, "width": WIDTHS.get(config["backbone"], 1.0), **config}).double()
    x = torch.randn(2, 3, model.config.input_size, model.config.input_size, dtype=torch.float64)
    layers = lowered(model)
    with torch.no_grad():
        expected = model.forward_features(x)
    torch.testing.assert_close(interpret(layers, x), expected, rtol=0, atol=1e-11 * float(expected.abs().max()))
    # Everything else went into these.
    own = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, SqueezeExcite)
    trunk = [module for name, module in model.named_modules() if name not in HEAD_LAYERS]
    assert len(layers) == sum(isinstance(module, own) for module in trunk)


class Trunk(nn.Module):
    """A trunk of 8 channels around ``run``."""

    def __init__(self, run: Callable[["Trunk", Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        self.first = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.relu = nn.ReLU(inplace=True)
        self.same = nn.Identity()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.eval()

    def forward_features(self, x: Tensor) -> Any:
        return self.run(self, x)


GATE = SqueezeExcite(8)
ACCEPTED = {
    "functions": lambda m, x: F.hardswish(m.conv(F.relu6(m.conv(torch.relu(m.first(x)))))),
    "method": lambda m, x: m.conv(m.first(x).relu()),
    "nothing-in-eval-mode": lambda m, x: m.same(m.relu(m.same(m.conv(m.same(m.first(x)))))),
    "sum-of-convolutions": lambda m, x: (lambda y: m.conv(y) + m.conv(y))(m.first(x)),
    "sum-then-sum": lambda m, x: (lambda y: m.conv(m.conv(y).add_(y)) + y)(m.first(x)),
    "gate": lambda m, x: m.conv(m.relu(m.other(m.depthwise(m.first(x))))),
    "gate-behind-activation": lambda m, x: m.conv(m.other(m.relu(m.depthwise(m.first(x))))),
    "gate-and-shortcut": lambda m, x: (lambda y: y + m.conv(m.other(m.depthwise(y))))(m.relu(m.first(x))),
    "gate-before-product": lambda m, x: (
        lambda y: m.conv(m.other.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))[:, :, None, None] * y)
    )(m.depthwise(m.first(x))),
}


@pytest.mark.parametrize("run", ACCEPTED.values(), ids=ACCEPTED)
def test_other_trunks_of_such_layers(run: Callable[[Trunk, Tensor], Tensor]) -> None:
    model = Trunk(run, other=GATE)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(interpret(lower(fold_trunk(model), 32), x), model.forward_features(x))


def behind_first(m: Trunk, x: Tensor) -> Tensor:
    return m.other(m.first(x))  # type: ignore[no-any-return, operator]


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(**{"in_channels": 8, "out_channels": 8, "kernel_size": 3, "padding": 1, **options})


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda *_: None)
    return layer


REFUSED_LAYERS = {
    "dilation": (conv(dilation=2), "dilation 1, got (2, 2)"),
    "groups": (conv(groups=2), "groups 1 or one a channel, got 2"),
    "two-filters-a-channel": (conv(groups=8, out_channels=16), "groups 1 or one a channel, got 8"),
    "even-kernel": (conv(kernel_size=2), "kernel 1 or 3, square, got (2, 2)"),
    "oblong-kernel": (conv(kernel_size=(3, 1)), "kernel 1 or 3, square, got (3, 1)"),
    "kernel-5": (conv(kernel_size=5, padding=2), "kernel 1 or 3, square, got (5, 5)"),
    "depthwise-1": (conv(kernel_size=1, padding=0, groups=8), "kernel 3 or 5, square, got (1, 1)"),
    "stride": (conv(stride=3), "stride 1 or 2, got (3, 3)"),
    "padding": (conv(padding=0), "padding 1, got (0, 0)"),
    "padding-same": (conv(padding="same"), "padding 1, got 'same'"),
    "reflect": (conv(padding_mode="reflect"), "padding with zeros, got 'reflect'"),
    "deconvolution-2x2": (nn.ConvTranspose2d(8, 8, 2, 2), "kernel 4, got (2, 2)"),
    "deconvolution-grouped": (nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2), "groups 1, got 2"),
    "pool-2x2": (nn.MaxPool2d(2), "kernel 3, got 2"),
    "pool-rounding-up": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), "no rounding up and no indices, got (True, False)"),
    "norm": (
        nn.BatchNorm2d(8, track_running_stats=False),
        "one of Conv2d, ConvTranspose2d, MaxPool2d, ReLU, ReLU6, Hardswish or squeeze and excite, got BatchNorm2d",
    ),
    "activation": (nn.GELU(), "squeeze and excite, got GELU"),
    "hooked": (hooked(conv()), "a module without hooks, got Conv2d with some"),
}


@pytest.mark.parametrize(("layer", "message"), REFUSED_LAYERS.values(), ids=REFUSED_LAYERS)
def test_refused_layers_are_named(layer: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match="^other: expected ") as error:
        lower(fold_trunk(Trunk(behind_first, other=layer)), 32)
    assert str(error.value).endswith(message)


REFUSED_TRUNKS = {
    "relu-of-the-crop": (lambda m, x: m.relu(x), "relu: expected an activation right behind a convolution or a gate"),
    "relu-behind-pool": (lambda m, x: m.relu(m.pool(m.first(x))), "relu: expected an activation right behind"),
    "relu-twice": (lambda m, x: m.relu(m.relu(m.first(x))), "relu: expected an activation right behind"),
    "read-before-relu": (
        lambda m, x: (lambda y: m.conv(y) + m.relu(y))(m.first(x)),
        "relu: expected to be the one reader of what it reads, got one of several of first",
    ),
    "read-before-relu-under-another-name": (
        lambda m, x: (lambda y: m.conv(y) + m.relu(m.same(y)))(m.first(x)),
        "relu: expected to be the one reader",
    ),
    "sum-with-itself": (
        lambda m, x: (lambda y: y + y)(m.first(x)),
        "add: expected the later term to be a convolution's",
    ),
    "sum-of-activations": (
        lambda m, x: (lambda y: y + m.relu(m.conv(y)))(m.first(x)),
        "add: expected the later term to be a convolution's that nothing else reads",
    ),
    "sum-of-what-is-read": (
        lambda m, x: (lambda y: (lambda z: m.conv(z + y) + z)(m.conv(y)))(m.first(x)),
        "add: expected the later term to be a convolution's that nothing else reads",
    ),
    "sum-of-three": (
        lambda m, x: (lambda y: m.conv(y) + y + y)(m.first(x)),
        "add_1: expected the later term to be a convolution's",
    ),
    "sum-into-what-is-read": (
        lambda m, x: (lambda y: m.conv(y.add_(m.conv(y))) + y)(m.first(x)),
        "add_: expected to be the one reader of what it writes to, got one of several of first",
    ),
    "sum-with-a-number": (lambda m, x: m.first(x) + 1, "add: expected a sum of two tensors"),
    "sum-with-a-factor": (
        lambda m, x: (lambda y: torch.add(y, m.conv(y), alpha=2))(m.first(x)),
        "add: expected a sum of two tensors",
    ),
    "sum-of-other-shapes": (
        lambda m, x: (lambda y: m.one(y) + m.conv(y))(m.first(x)),
        "add: expected terms of one shape, got ",
    ),
    "half-a-gate": (
        lambda m, x: (lambda y: y * F.adaptive_avg_pool2d(y, 1))(m.first(x)),
        "adaptive_avg_pool2d: expected a layer of a PIPNet's backbone, got call_function of adaptive_avg_pool2d",
    ),
    "gate-behind-convolution": (
        lambda m, x: m.conv(m.gate(m.first(x))),
        "mul: expected a gate right behind a depthwise convolution, its only reader, got one elsewhere",
    ),
    "gate-of-what-is-read": (
        lambda m, x: (lambda y: m.conv(m.conv(m.gate(y)) + y))(m.depthwise(m.first(x))),
        "mul: expected a gate right behind a depthwise convolution",
    ),
    "two-stems": (
        lambda m, x: m.relu(m.first(x)) + m.stem(x),
        "stem: expected one convolution alone to read the crop, got another reader of it",
    ),
    "pooled-crop": (lambda m, x: m.conv(m.pool(x)), "pool: expected one convolution alone to read the crop"),
    "depthwise-at-the-end": (
        lambda m, x: m.depthwise(m.first(x)),
        "output: expected a convolution or deconvolution as the last layer, got depthwise",
    ),
    "nothing": (lambda m, x: x, "output: expected the output of the last layer, got x"),
    "two-outputs": (lambda m, x: (m.first(x), x), "output: expected the output of the last layer"),
    "unused-layer": (lambda m, x: (lambda y: (m.conv(y), y)[1])(m.first(x)), "output: expected the output of the last"),
}


@pytest.mark.parametrize(("run", "message"), REFUSED_TRUNKS.values(), ids=REFUSED_TRUNKS)
def test_refused_trunks_say_where(run: Callable[[Trunk, Tensor], Any], message: str) -> None:
    model = Trunk(run, pool=nn.MaxPool2d(3, 2, 1), one=nn.Conv2d(8, 1, 1), gate=GATE, stem=nn.Conv2d(3, 8, 3, 2, 1))
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared
        lower(fold_trunk(model), 32)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (nn.Conv2d(3, 8, 3, 1, 1), r"stride 2, got \(1, 1\)"),
        (nn.Conv2d(3, 8, 2, 2), r"kernel 1 or 3 or 5 or 7, square, got \(2, 2\)"),
        (nn.Conv2d(3, 8, 7, 2), r"padding 3, got \(0, 0\)"),
        (nn.Conv2d(3, 3, 3, 2, 1, groups=3), "one convolution alone to read the crop, got another reader of it"),
    ],
    ids=["stride", "kernel", "padding", "depthwise"],
)
def test_refused_stems(first: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=f"^first: expected {message}$"):
        lower(fold_trunk(Trunk(lambda m, x: m.first(x), first=first)), 32)


@pytest.mark.parametrize("size", [0, 16, 48])
def test_refused_sizes(size: int) -> None:
    with pytest.raises(ValueError, match=f"input_size: expected a multiple of 32, got {size}"):
        lower(fold_trunk(Trunk(behind_first, other=conv())), size)


def test_a_dilated_trunk_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^layer3\.0\.conv2: expected dilation 1, got \(2, 2\)$"):
        lowered(pf.GRMI("resnet18", 5, input_size=64, width=0.125).eval())


FILES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "no-neighbors": {"num_neighbors": 0},
    "one-landmark": {"num_landmarks": 1, "num_neighbors": 0, "mean_shape": np.zeros((1, 2))},
    "merge-official": {"merge": "official", "num_landmarks": 33, "mean_shape": np.random.RandomState(0).rand(33, 2)},
    "resnet18-stride16": {"stride": 16},
    "mobilenet_v2": {"backbone": "mobilenet_v2", "width": 1.0},
    "mobilenet_v3": {"backbone": "mobilenet_v3", "width": 1.0},
}


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("config", FILES.values(), ids=FILES)
def test_a_file_read_back_finds_the_landmarks(config: dict[str, Any], storage: str, tmp_path: Path) -> None:
    model = tiny(**config)
    model.crop = pf.CropRule(scale=1.25, top_shift=-0.5)
    pf.save_plan(model, tmp_path / "model.plan", head_storage=storage, weight_storage="float16")  # type: ignore[arg-type]
    data = (tmp_path / "model.plan").read_bytes()
    header, layers, (*head, starts, sources, weights) = read(data)
    stored = model.head.stored_as(storage)  # type: ignore[arg-type]
    assert header == {
        "magic": b"pipnet\n\0",
        "version": 1,
        "checksum": zlib.crc32(data[16:]),
        "bytes": len(data),
        "input_size": 64,
        "layers": len(layers),
        "crop_scale": 1.25,
        "crop_top_shift": -0.5,
        "weight_storage": 1,
        "landmarks": model.config.num_landmarks,
        "neighbors": model.config.num_neighbors,
        "head_storage": ("float32", "float16", "int8").index(storage),
    }
    for got, expected in zip(HeadWeights(*head), stored, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    crops = normalize(crops_for(model, 3))
    with torch.no_grad():
        expected_landmarks = pf.ops.head_decode(model.forward_features(crops), stored, model.table, "reference")
    found = pf.Landmarks(*reference(interpret(layers, crops), *head, starts, sources, weights))
    assert_same(found, expected_landmarks, ENGINE["resnet" if "resnet" in model.config.backbone else "mobilenet"])


def test_a_file_without_a_head() -> None:
    network = PlanNetwork(64, lowered(pf.CoordNet("resnet18", 5, 64, width=0.125).eval()))
    header, layers, head = read(serialize(network).tobytes())
    assert (header["landmarks"], header["neighbors"], header["head_storage"], head) == (0, 0, 0, [])
    assert (header["crop_scale"], header["crop_top_shift"], header["weight_storage"]) == (1, 0, 0)
    for got, expected in zip(layers, network.layers, strict=True):
        assert replace(got, arrays=()) == replace(expected, arrays=())
        for array, as_it_was in zip(got.arrays, expected.arrays, strict=True):
            assert torch.equal(array, as_it_was)


def test_bytes_are_the_same_in_any_type_and_layout() -> None:
    network = plan_of(tiny())
    layers = tuple(
        replace(layer, arrays=tuple(a.double().mT.contiguous().mT if a.ndim > 1 else a for a in layer.arrays))
        for layer in network.layers
    )
    np.testing.assert_array_equal(serialize(replace(network, layers=layers)), serialize(network))


def test_serialize_refuses() -> None:
    network = plan_of(tiny())
    with pytest.raises(ValueError, match=r"weight_storage: expected one of .*'float16'.*, got 'int8'"):
        serialize(replace(network, weight_storage="int8"))  # type: ignore[arg-type]
    first = network.layers[0]
    for value in (1e6, torch.nan):
        layers = (replace(first, arrays=(first.arrays[0] * value, first.arrays[1])), *network.layers[1:])
        serialize(replace(network, layers=layers))
        with pytest.raises(ValueError, match="weights that float16 can hold, got a magnitude of .* in layer 0"):
            serialize(replace(network, layers=layers, weight_storage="float16"))
    assert network.head is not None
    rows = network.head.head.score_weight.transpose(1, 2).reshape(-1, first.channels * 8, 1)
    head = BoundHead(network.head.head, network.head.table)
    head.head = head.head._replace(score_weight=rows)
    with pytest.raises(ValueError, match="head: expected score rows in panels of 16, got 1"):
        serialize(replace(network, head=head))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_plan_is_of_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny().half()
    pf.save_plan(model.float(), tmp_path / "float32.plan")
    pf.save_plan(model.to(dtype), tmp_path / "other.plan")
    assert model.cls_layer.weight.dtype == dtype  # type: ignore[union-attr]
    # Folding float64 rounds once.
    for one, other in zip(*(read((tmp_path / f"{n}.plan").read_bytes())[1] for n in ("float32", "other")), strict=True):
        torch.testing.assert_close(one.arrays, other.arrays, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        pytest.param(nn.Linear(2, 2), {}, TypeError, "model: expected a PIPNet, got Linear", id="other-module"),
        pytest.param(
            pf.CoordNet("resnet18", 5, 64).eval(),
            {},
            TypeError,
            "model: expected a PIPNet, got CoordNet",
            id="coordnet",
        ),
        pytest.param(tiny().train(), {}, ValueError, "save_plan: model: .* eval mode .* training", id="training"),
        pytest.param(tiny(mean_shape=None), {}, ValueError, "mean_shape", id="no-mean-shape"),
        pytest.param(
            tiny("resnet18-stride16", input_size=48),
            {},
            ValueError,
            "save_plan: model: input_size: expected a multiple of 32, got 48",
            id="input-size",
        ),
        pytest.param(tiny(), {"head_storage": "int4"}, ValueError, "head_storage: .* got 'int4'", id="head-storage"),
        pytest.param(tiny(), {"weight_storage": "int8"}, ValueError, "weight_storage: .* got 'int8'", id="storage"),
    ],
)
def test_save_plan_refuses(
    model: Any, options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        pf.save_plan(model, tmp_path / "model.plan", **options)
    assert not list(tmp_path.iterdir())


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.plan"
    path.write_text("older")

    def full(*_: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space left"):
            pf.save_plan(tiny(), path)
    assert path.read_text() == "older"
    model = tiny()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    pf.save_plan(model, os.fspath(path))
    assert list(tmp_path.iterdir()) == [path]
    assert read(path.read_bytes())[0]["landmarks"] == model.config.num_landmarks
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
