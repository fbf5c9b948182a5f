"""Backbones at every stride: shapes, names of their parameters, ImageNet weights."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor

from pipnet_fast.backbones import BACKBONES, Backbone, create_backbone
from pipnet_fast.backbones.imagenet import URLS
from pipnet_fast.backbones.mobilenet_v3 import HardSwish
from pipnet_fast.backbones.resnet import ThinShortcut

GOLDEN = Path(__file__).parent / "golden" / "official.npz"
CHANNELS = {"resnet18": 512, "resnet50": 2048, "resnet101": 2048, "mobilenet_v2": 1280, "mobilenet_v3": 960}
HEAD = ("cls_layer", "x_layer", "y_layer", "nb_x_layer", "nb_y_layer")


def on_meta(*args: Any, **kwargs: Any) -> Backbone:
    """A backbone without memory: for names and shapes only."""
    with torch.device("meta"):
        return create_backbone(*args, **kwargs).eval()


def imagenet_file(path: Path, name: str) -> dict[str, Tensor]:
    """Write what torchvision would: all of the trunk, and a classifier that is of no use here."""
    state = {key: torch.randn(value.shape).abs() for key, value in on_meta(name).state_dict().items()}
    state |= {key: torch.tensor(7) for key in state if key.endswith("num_batches_tracked")}
    head = "classifier.1" if name.startswith("mobilenet") else "fc"
    torch.save({**state, f"{head}.weight": torch.zeros(10, 4), f"{head}.bias": torch.zeros(10)}, path)
    return state


class Evil:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.folder,)


def test_names() -> None:
    assert tuple(CHANNELS) == BACKBONES


@pytest.mark.parametrize("stride", [16, 32, 64, 128])
@pytest.mark.parametrize("name", BACKBONES)
def test_output_shape(name: str, stride: int) -> None:
    backbone = on_meta(name, stride)
    assert backbone.stride == stride
    assert backbone.out_channels == (CHANNELS[name] if stride == 32 else 512)
    side = 128 // stride
    assert backbone(torch.empty(2, 3, 128, 128, device="meta")).shape == (2, backbone.out_channels, side, side)
    assert backbone(torch.empty(1, 3, 128, 384, device="meta")).shape == (1, backbone.out_channels, side, 3 * side)


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 64), ("mobilenet_v2", 16), ("mobilenet_v3", 32)])
def test_numbers_come_out(name: str, stride: int) -> None:
    with torch.no_grad():
        backbone = create_backbone(name, stride).eval()
        y = backbone(torch.randn(1, 3, 128, 128))
    assert y.shape == (1, backbone.out_channels, 128 // stride, 128 // stride)
    assert y.isfinite().all()
    assert y.std() > 0


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3"])
def test_gradients_reach_the_first_layer(name: str) -> None:
    # The shortcuts are added in place, which must not spoil what the backward pass needs.
    backbone = create_backbone(name, 32).train()
    backbone(torch.randn(2, 3, 64, 64)).square().mean().backward()
    gradients = [p.grad for p in backbone.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert gradients[0] is not None
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("width", [0.5, 0.25])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
def test_width(name: str, width: float) -> None:
    full, thin = on_meta(name), on_meta(name, width=width)
    assert thin.out_channels == CHANNELS[name] * width
    assert thin(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, CHANNELS[name] * width, 2, 2)
    shapes = {key: value.shape for key, value in full.state_dict().items()}
    for key, value in thin.state_dict().items():
        expected = [size if size in (3, 7, 1) else int(size * width) for size in shapes[key]]
        assert list(value.shape) == expected, key
    assert thin.state_dict().keys() == full.state_dict().keys()


def test_width_leaves_the_layers_of_other_strides() -> None:
    assert on_meta("resnet18", 128, 0.25).out_channels == 512
    assert on_meta("resnet18", 128, 0.25).state_dict()["layer5.weight"].shape == (512, 128, 3, 3)


with np.load(GOLDEN) as golden:
    KEYS = {name.removeprefix("keys/"): golden[name].tolist() for name in golden if name.startswith("keys/")}


@pytest.mark.parametrize("case", KEYS)
def test_names_of_the_official_network(case: str) -> None:
    name, stride = case.split("/s")
    expected = [key for key in KEYS[case] if key.split(".")[0] not in HEAD]
    assert len(expected) == len(KEYS[case]) - 10
    assert sorted(on_meta(name, int(stride)).state_dict()) == sorted(expected)


def test_every_backbone_has_golden_names() -> None:
    assert {case.split("/")[0] for case in KEYS} == set(BACKBONES)


@pytest.mark.parametrize(
    ("name", "stride", "kind"),
    [("resnet18", 32, str), ("resnet18", 128, Path), ("mobilenet_v2", 16, Path), ("mobilenet_v3", 32, str)],
)
def test_weights_from_a_file(name: str, stride: int, kind: type, tmp_path: Path) -> None:
    state = imagenet_file(tmp_path / "weights.pth", name)
    loaded = create_backbone(name, stride, weights=kind(tmp_path / "weights.pth")).state_dict()
    for key, value in state.items():
        # The step counters matter to nobody, and old files lack them.
        assert key.endswith("num_batches_tracked") or torch.equal(loaded[key], value), key
    assert all(value.isfinite().all() for value in loaded.values())
    assert len(loaded) - len(state) == {16: 6, 32: 0, 64: 7, 128: 14}[stride]


def test_weights_without_step_counters(tmp_path: Path) -> None:
    file = tmp_path / "old.pth"
    state = {k: v for k, v in imagenet_file(file, "resnet18").items() if not k.endswith("num_batches_tracked")}
    torch.save(state, file)
    assert torch.equal(create_backbone("resnet18", weights=file).state_dict()["bn1.weight"], state["bn1.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("mobilenet_v2", r"does not fit resnet18: \d+ entries missing, .* the first is", id="other kind"),
        pytest.param("resnet50", r"does not fit resnet18: 0 entries missing, \d+ of another shape", id="larger"),
    ],
)
def test_weights_of_another_network(content: str, message: str, tmp_path: Path) -> None:
    imagenet_file(tmp_path / "weights.pth", content)
    with pytest.raises(ValueError, match=message):
        create_backbone("resnet18", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not a readable state dict", id="empty"),
        pytest.param(b"no weights at all", "not a readable state dict", id="text"),
        pytest.param(b"PK\x03\x04" + bytes(100), "not a readable state dict", id="broken archive"),
    ],
)
def test_damaged_weights(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.pth: {message}"):
        create_backbone("resnet18", weights=tmp_path / "weights.pth")


def test_truncated_weights(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    imagenet_file(file, "mobilenet_v3")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="not a readable state dict"):
        create_backbone("mobilenet_v3", weights=file)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([torch.zeros(1)], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({"conv1.weight": "text"}, id="no tensors"),
        pytest.param({1: torch.zeros(1)}, id="no names"),
        pytest.param(torch.zeros(3), id="tensor"),
    ],
)
def test_weights_that_are_no_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth: expected a state dict of named tensors, got \w+"):
        create_backbone("resnet18", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize("container", ["archive", "bare pickle"])
def test_weights_that_would_run_code(container: str, tmp_path: Path) -> None:
    file, marker = tmp_path / "weights.pth", tmp_path / "marker"
    content = {"conv1.weight": torch.zeros(1), "evil": Evil(marker)}
    if container == "archive":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="not a readable state dict"):
        create_backbone("resnet18", weights=file)
    assert not marker.exists()
    # The file is as evil as it is meant to be.
    if container == "archive":
        torch.load(file, weights_only=False)
    else:
        pickle.loads(file.read_bytes())
    assert marker.exists()


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such weights file: .*none\.pth"):
        create_backbone("resnet18", weights=tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        *(pytest.param(name, URLError("no route to host"), id=f"{name}, no network") for name in BACKBONES),
        pytest.param("resnet18", RuntimeError("invalid hash value"), id="wrong checksum"),
        pytest.param("resnet18", PermissionError("read-only"), id="read-only folder"),
    ],
)
def test_imagenet_offline(name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    # On meta, since the weights never come.
    with pytest.raises(RuntimeError, match="could not download ImageNet weights") as caught:
        on_meta(name, weights="imagenet")
    assert URLS[name] in str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints") in str(caught.value)
    assert (str(error.reason) if isinstance(error, URLError) else str(error)) in str(caught.value)


def test_imagenet_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = imagenet_file(tmp_path / "resnet18.pth", "resnet18")
    calls = []

    def download(url: str, **options: Any) -> Any:
        calls.append((url, options.get("check_hash"), options.get("weights_only")))
        return torch.load(tmp_path / "resnet18.pth", weights_only=True)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    loaded = create_backbone("resnet18", 64, weights="imagenet").state_dict()
    assert calls == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", True, True)]
    assert torch.equal(loaded["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert torch.equal(loaded["bn1.running_mean"], state["bn1.running_mean"])


@pytest.mark.parametrize("name", BACKBONES)
def test_imagenet_from_torch_hubs_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the message of a failed download says to put the file; torch.hub itself reads it, without network.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / URLS[name].rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    imagenet_file(file, "mobilenet_v3")
    if name == "mobilenet_v3":
        create_backbone(name, weights="imagenet")
    else:
        with pytest.raises(ValueError, match=f"{URLS[name]} does not fit {name}"):
            on_meta(name, weights="imagenet")


def test_damaged_file_in_torch_hubs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half a download")
    with pytest.raises((RuntimeError, ValueError), match=r"resnet18-f37072fd\.pth"):
        on_meta("resnet18", weights="imagenet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("resnet34",), r"name: expected one of \('resnet18', .* got 'resnet34'", id="unknown name"),
        pytest.param((None,), "name: expected one of .* got None", id="no name"),
        pytest.param(("resnet18", 8), r"stride: expected one of \(16, 32, 64, 128\), got 8", id="stride 8"),
        pytest.param(("resnet18", "32"), "stride: expected one of .* got '32'", id="stride as text"),
        pytest.param(("resnet18", 32, 0), "expected 0 < width <= 4, got 0", id="width 0"),
        pytest.param(("resnet18", 32, -1.0), "expected 0 < width <= 4, got -1.0", id="negative width"),
        pytest.param(("resnet18", 32, 4.5), "expected 0 < width <= 4, got 4.5", id="too wide"),
        pytest.param(("resnet18", 32, float("nan")), "expected 0 < width <= 4, got nan", id="width nan"),
        pytest.param(("resnet18", 32, "1"), "expected 0 < width <= 4, got '1'", id="width as text"),
        pytest.param(("mobilenet_v2", 32, 0.5), "mobilenet_v2 has width 1 only, got 0.5", id="thin mobilenet_v2"),
        pytest.param(("mobilenet_v3", 32, 2.0), "mobilenet_v3 has width 1 only, got 2.0", id="wide mobilenet_v3"),
        pytest.param(
            ("resnet18", 32, 0.5, "imagenet"), "ImageNet weights are of width 1, got width 0.5", id="thin with weights"
        ),
    ],
)
def test_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"create_backbone: .*{message}"):
        create_backbone(*arguments)


def test_hard_swish_rounds_as_the_official_network() -> None:
    x = torch.linspace(-5, 5, 10001)
    official = x * (torch.nn.functional.relu6(x + 3) / 6)
    assert torch.equal(HardSwish()(x), official)
    # What would be faster is not the same: this is what the class is for.
    assert not torch.equal(torch.nn.functional.hardswish(x), official)


@pytest.mark.parametrize("channels", [4, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_thin_shortcut_is_the_strided_convolution(channels: int, stride: int) -> None:
    shortcut = ThinShortcut(channels, 6, 1, stride=stride, bias=False)
    x = torch.randn(2, channels, 7, 9).to(memory_format=torch.channels_last)
    torch.testing.assert_close(shortcut(x), torch.nn.functional.conv2d(x, shortcut.weight, stride=stride))


def test_thinnest_network_learns_in_channels_last() -> None:
    """Where its shortcut is a strided convolution, this ends the process on CPUs without AVX-512."""
    network = create_backbone("resnet18", 32, 0.0625).to(memory_format=torch.channels_last)
    for _ in range(20):
        network(torch.randn(8, 3, 64, 64).to(memory_format=torch.channels_last)).sum().backward()
    assert network.get_parameter("layer2.0.downsample.0.weight").grad is not None
