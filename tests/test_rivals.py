"""CoordNet, MapNet and G-RMI: their size, their maps, decoding that inverts perfect maps, one interface with PIPNet."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pipnet_fast as pf
from pipnet_fast.backbones import create_backbone
from pipnet_fast.models import CoordNetConfig, GRMIConfig, MapNetConfig
from pipnet_fast.models import grmi as grmi_module
from pipnet_fast.models.grmi import VotingMaps, hough_votes, upsample
from pipnet_fast.models.mapnet import decode_heatmaps
from tests.commands import RunBench

N = 5
RIVALS = (pf.CoordNet, pf.MapNet, pf.GRMI)
MODELS = (*RIVALS, pf.PIPNet)
# From paths that differ in the order of float32 sums.
ROUNDING = 1e-5


def small(cls: Callable[..., Any], **config: Any) -> Any:
    """A thin model in eval mode for crops of 64 px, whose head is not close to zero."""
    if cls is pf.PIPNet:
        config = {"num_neighbors": 2, "mean_shape": np.random.rand(N, 2), **config}
    backbone = "resnet50" if cls is pf.GRMI else "resnet18"
    model = cls(backbone, num_landmarks=N, input_size=64, width=0.125, **config).eval()
    for layer in model.children():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            nn.init.normal_(layer.weight, std=layer.in_channels**-0.5)
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 3, 64, 64)


def assert_same(got: pf.Landmarks, expected: pf.Landmarks) -> None:
    torch.testing.assert_close(got.points_frac, expected.points_frac, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(got.scores, expected.scores, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("cls", "backbone", "landmarks", "count", "millions"),
    [
        (pf.CoordNet, "resnet18", 98, 28_317_444, 28.3),
        (pf.CoordNet, "resnet50", 98, 90_980_612, 91.0),
        (pf.CoordNet, "resnet101", 98, 109_972_740, 110.0),
        (pf.MapNet, "resnet18", 98, 28_008_098, 28.0),
        (pf.MapNet, "resnet50", 98, 52_922_530, 52.9),
        (pf.MapNet, "resnet101", 98, 71_914_658, 71.9),
        (pf.MapNet, "resnet18", 68, 27_992_708, 28.0),
        (pf.MapNet, "resnet50", 68, 52_907_140, 52.9),
        (pf.MapNet, "resnet101", 68, 71_899_268, 71.9),
        (pf.GRMI, "resnet50", 68, 23_926_028, 23.9),
        (pf.GRMI, "resnet101", 68, 42_918_156, 42.9),
    ],
)
def test_parameter_counts_of_table_9(
    cls: Callable[..., nn.Module], backbone: str, landmarks: int, count: int, millions: float
) -> None:
    with torch.device("meta"):
        model = cls(backbone, landmarks)
    assert sum(p.numel() for p in model.parameters()) == count
    assert round(count / 1e6, 1) == millions


def test_defaults() -> None:
    with torch.device("meta"):
        coordnet, mapnet, grmi = (cls() for cls in RIVALS)
    assert coordnet.config == CoordNetConfig("resnet18", 98, 256, 1.0)
    assert mapnet.config == MapNetConfig("resnet18", 98, 2, 256, 1.0)
    assert grmi.config == GRMIConfig("resnet50", 68, 15.0, 256, 1.0)


@pytest.mark.parametrize("cls", RIVALS)
def test_configuration_rebuilds_the_model(cls: Callable[..., Any]) -> None:
    rule = pf.CropRule(scale=1.4)
    model = small(cls, crop=rule)
    again = cls(**json.loads(json.dumps(model.config.to_dict())), crop=rule)
    assert (again.config, again.crop) == (model.config, rule)
    assert str(again.load_state_dict(model.state_dict(), strict=True)) == "<All keys matched successfully>"
    assert small(cls).crop == pf.CropRule()


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_predict_is_landmarks_of_features(cls: Callable[..., Any], batch: int, x: Tensor) -> None:
    model = small(cls)
    got = model.predict(x[:batch])
    assert isinstance(got, pf.Landmarks)
    assert (got.points_frac.shape, got.scores.shape) == ((batch, N, 2), (batch, N))
    assert (got.points_frac.dtype, got.scores.dtype) == (torch.float32, torch.float32)
    with torch.no_grad():
        features = model.forward_features(x[:batch])
    assert_same(model.landmarks(features), got)
    # As an engine would give them.
    assert_same(model.landmarks(features.contiguous(memory_format=torch.channels_last)), got)


@pytest.mark.parametrize("cls", MODELS)
def test_images_of_a_batch_are_independent(cls: Callable[..., Any], x: Tensor) -> None:
    model = small(cls)
    together = model.predict(x)
    assert len(together.points_frac.unique(dim=0)) == 3
    for i in range(3):
        assert_same(model.predict(x[i : i + 1]), pf.Landmarks(*(t[i : i + 1] for t in together)))


@pytest.mark.parametrize("cls", MODELS)
def test_features_are_the_backbone_alone(cls: Callable[..., Any], x: Tensor) -> None:
    model = small(cls)
    backbone = create_backbone(model.config.backbone, width=0.125, dilated=cls is pf.GRMI).eval()
    state = model.state_dict()
    backbone.load_state_dict({key: state[key] for key in backbone.state_dict()})
    with torch.no_grad():
        assert torch.equal(model.forward_features(x), backbone(x))


@pytest.mark.parametrize("cls", MODELS)
def test_gradients_reach_every_parameter_and_no_prediction(cls: Callable[..., Any], x: Tensor) -> None:
    model = small(cls).train()
    sum(maps.square().mean() for maps in model(x)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    assert not any(t.requires_grad for t in model.predict(x))
    assert not any(t.requires_grad for t in model.landmarks(model.forward_features(x)))


@pytest.mark.parametrize(
    ("cls", "head"),
    [
        (pf.CoordNet, ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight", "fc3.bias", "fc3.weight"]),
        (pf.GRMI, ["final_layer.bias", "final_layer.weight"]),
    ],
)
def test_names_of_parameters(cls: Callable[..., Any], head: list[str]) -> None:
    with torch.device("meta"):
        model = cls("resnet50")
        expected = [*create_backbone("resnet50").state_dict(), *head]
    assert sorted(model.state_dict()) == sorted(expected)


def test_names_of_xiao_et_al() -> None:
    with torch.device("meta"):
        keys = {key for key in pf.MapNet(stride=4).state_dict() if key.startswith(("deconv", "final"))}
    deconvolutions = {f"deconv_layers.{i}.weight" for i in (0, 3, 6)}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert keys == deconvolutions | {f"deconv_layers.{i}.{k}" for i in (1, 4, 7) for k in norm} | {
        "final_layer.weight",
        "final_layer.bias",
    }


@pytest.mark.parametrize("cls", RIVALS)
@pytest.mark.parametrize(
    "duplicate",
    [
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda m: pickle.loads(pickle.dumps(m)), id="pickle"),
    ],
)
def test_copies(cls: Callable[..., Any], duplicate: Callable[[Any], Any], x: Tensor) -> None:
    model = small(cls)
    other = duplicate(model)
    assert (other.config, other.crop) == (model.config, model.crop)
    assert torch.equal(other.predict(x).points_frac, model.predict(x).points_frac)


@pytest.mark.parametrize("cls", RIVALS)
def test_half_precision_gives_float32(cls: Callable[..., Any], x: Tensor) -> None:
    model = small(cls)
    features = model.forward_features(x).detach()
    got = model.bfloat16().predict(x.bfloat16())
    assert (got.points_frac.dtype, got.scores.dtype) == (torch.float32, torch.float32)
    assert got.points_frac.isfinite().all()
    # Features of another precision, as engines give, take the weights'.
    assert_same(model.landmarks(features), model.landmarks(features.bfloat16()))


@pytest.mark.parametrize("cls", RIVALS)
def test_autocast(cls: Callable[..., Any], x: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        got = small(cls).predict(x)
    assert got.points_frac.dtype == torch.float32


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("cls", RIVALS)
def test_compile_without_graph_breaks(cls: Callable[..., Any], x: Tensor) -> None:
    model = small(cls)
    with torch.no_grad():
        features = model.forward_features(x)
    compiled = torch.compile(model.landmarks, fullgraph=True, backend="aot_eager")
    assert_same(compiled(features), model.landmarks(features))


@pytest.mark.parametrize(
    ("cls", "config", "message"),
    [
        *(
            pytest.param(
                cls, {"num_landmarks": 0}, "num_landmarks: expected an integer from 1 to 4096, got 0", id=cls.__name__
            )
            for cls in RIVALS
        ),
        pytest.param(pf.MapNet, {"stride": 8}, r"MapNet: stride: expected one of \(1, 2, 4\), got 8", id="stride 8"),
        pytest.param(pf.MapNet, {"stride": 2.0}, r"MapNet: stride: expected .* got 2\.0", id="float stride"),
        pytest.param(pf.GRMI, {"radius_px": 0}, "GRMI: radius_px: expected a number > 0, got 0", id="no radius"),
        pytest.param(pf.GRMI, {"radius_px": "15"}, "GRMI: radius_px: expected a number > 0, got '15'", id="text"),
        pytest.param(pf.GRMI, {"radius_px": float("nan")}, "GRMI: radius_px: .* got nan", id="nan radius"),
        pytest.param(
            pf.GRMI,
            {"backbone": "mobilenet_v2"},
            r"dilated: expected one of \('resnet18', .*\) with stride 32, got mobilenet_v2 with 32",
            id="dilated mobilenet",
        ),
        pytest.param(pf.GRMI, {"input_size": 100}, "GRMI: input_size: expected a multiple of the stride 8", id="100"),
        pytest.param(pf.CoordNet, {"input_size": 100}, "CoordNet: input_size: .* stride 32 .* got 100", id="100 px"),
        pytest.param(pf.MapNet, {"input_size": 1 << 20}, "MapNet: input_size: .* up to 4096, got 1048576", id="huge"),
        pytest.param(pf.CoordNet, {"backbone": "vgg16"}, "name: expected one of .* got 'vgg16'", id="backbone"),
    ],
)
def test_refused_configurations(cls: Callable[..., Any], config: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        cls(**config)


@pytest.mark.parametrize("cls", RIVALS)
@pytest.mark.parametrize("call", ["__call__", "predict"])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        pytest.param(torch.zeros(1, 3, 60, 64), ValueError, r"multiples of the stride \d+ .* got 60x64", id="height"),
        pytest.param(torch.zeros(1, 1, 64, 64), ValueError, r"\(B, 3, H, W\), got \(1, 1, 64, 64\)", id="gray"),
        pytest.param(torch.zeros(1, 3, 64, 64).byte(), ValueError, "floating-point .* torch.uint8", id="uint8"),
        pytest.param(torch.zeros(1, 3, 64, 64).half(), TypeError, "expected torch.float32 as the weights", id="half"),
        pytest.param(np.zeros((1, 3, 64, 64)), TypeError, "expected a tensor, got ndarray", id="numpy"),
    ],
)
def test_refused_inputs(cls: Callable[..., Any], call: str, bad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"{cls.__name__}: x: .*{message}"):
        getattr(small(cls), call)(bad)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 7, 2, 2), r"expected floating-point \(B, \d+, H, W\), got \(1, 7, 2, 2\)"),
        ((7, 2, 2), r"expected floating-point .* got \(7, 2, 2\)"),
        ((1, None, 0, 2), "expected a grid of at least one cell, got 0x2"),
    ],
    ids=str,
)
def test_refused_features(cls: Callable[..., Any], shape: tuple[int | None, ...], message: str) -> None:
    model = small(cls)
    channels = create_backbone(model.config.backbone, width=0.125).out_channels
    with pytest.raises(ValueError, match=f"{cls.__name__}: features: {message}"):
        model.landmarks(torch.zeros([channels if size is None else size for size in shape]))
    with pytest.raises(TypeError, match=f"{cls.__name__}: features: expected a tensor, got list"):
        model.landmarks([0.0])


def test_coordnet_points_are_the_last_layer(x: Tensor) -> None:
    model = small(pf.CoordNet)
    nn.init.zeros_(model.fc3.weight)
    with torch.no_grad():
        model.fc3.bias.copy_(torch.arange(2.0 * N))
    expected = torch.arange(2.0 * N).view(1, N, 2).expand(3, N, 2)
    assert torch.equal(model(x).points_frac, expected)
    got = model.predict(x)
    assert torch.equal(got.points_frac, expected)
    assert torch.equal(got.scores, torch.ones(3, N))


@pytest.mark.parametrize("call", ["__call__", "predict"])
def test_coordnet_takes_one_size_only(call: str) -> None:
    with pytest.raises(ValueError, match="CoordNet: x: expected crops of 64x64, .* got 64x96"):
        getattr(small(pf.CoordNet), call)(torch.zeros(1, 3, 64, 96))


def test_coordnet_takes_one_grid_only() -> None:
    message = "CoordNet: features: expected a grid of 2x2 for input_size 64, got 4x1"
    with pytest.raises(ValueError, match=message):
        small(pf.CoordNet).landmarks(torch.zeros(1, 64, 4, 1))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_mapnet_maps(stride: int) -> None:
    with torch.device("meta"):
        model = pf.MapNet(num_landmarks=N, stride=stride)
        maps = model(torch.empty(2, 3, 64, 96))
    assert maps.heatmaps.shape == (2, N, 64 // stride, 96 // stride)
    deconvolutions = [m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(deconvolutions) == {4: 3, 2: 4, 1: 5}[stride]
    assert {(m.out_channels, m.kernel_size, m.stride) for m in deconvolutions} == {(512, (4, 4), (2, 2))}


@pytest.mark.parametrize("stride", [2, 4])
def test_mapnet_decodes_its_maps(stride: int) -> None:
    model, x = small(pf.MapNet, stride=stride), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        heatmaps = model(x).heatmaps
    assert_same(model.predict(x), decode_heatmaps(heatmaps, quarter_offset=True))
    assert not torch.equal(model.predict(x).points_frac, decode_heatmaps(heatmaps, quarter_offset=False).points_frac)


def test_mapnet_of_stride_1_has_no_offset() -> None:
    model = small(pf.MapNet, stride=1)
    with torch.no_grad():
        cells = model.predict(torch.randn(1, 3, 64, 64)).points_frac * 64 - 0.5
    assert torch.equal(cells, cells.round())


def gaussians(points: Tensor, height: int, width: int, sigma: float = 2.0) -> Tensor:
    """Perfect heatmaps (B, N, H, W) of points (B, N, 2) in cells."""
    x = torch.arange(width, dtype=points.dtype) + 0.5 - points[..., 0, None]
    y = torch.arange(height, dtype=points.dtype) + 0.5 - points[..., 1, None]
    return torch.exp(-(x[..., None, :] ** 2 + y[..., :, None] ** 2) / (2 * sigma**2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoding_recovers_the_points_of_heatmaps(dtype: torch.dtype) -> None:
    size = torch.tensor([40, 24], dtype=dtype)
    points = torch.rand(3, 50, 2, dtype=dtype) * size
    maps = gaussians(points, 24, 40)
    centers = decode_heatmaps(maps, quarter_offset=False)
    moved = decode_heatmaps(maps, quarter_offset=True)
    assert moved.points_frac.dtype == moved.scores.dtype == dtype
    assert torch.equal(moved.scores, maps.flatten(2).amax(2))
    assert torch.equal(centers.points_frac * size, points.floor() + 0.5)
    # Away from the border, where the second highest may lie on the wrong side.
    inner = ((points > 1) & (points < size - 1)).all(2)
    error = (moved.points_frac * size - points).abs()[inner]
    assert error.max() <= 0.5
    # The axis with the larger fraction is the one that is moved along.
    assert error.min(dim=1).values.max() <= 0.25 + 1e-5
    before = (points.floor() + 0.5 - points).norm(dim=2)[inner].mean()
    assert error.norm(dim=1).mean() < 0.65 * before


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        pytest.param({(4, 2): 1.0, (5, 2): 0.5}, (4.75, 2.5), id="right"),
        pytest.param({(4, 2): 1.0, (4, 1): 0.5}, (4.5, 2.25), id="up"),
        pytest.param({(4, 2): 1.0, (3, 3): 0.5}, (4.5 - 0.125 * 2**0.5, 2.5 + 0.125 * 2**0.5), id="diagonal"),
        pytest.param({(4, 2): 1.0, (0, 5): 0.5, (5, 2): 0.4}, (4.5 - 0.2, 2.5 + 0.15), id="far second"),
        pytest.param({(6, 0): 1.0, (5, 0): 0.5}, (6.25, 0.5), id="corner"),
        pytest.param({(4, 2): 1.0, (6, 5): 1.0}, (4.5 + 0.25 * 2 / 13**0.5, 2.5 + 0.75 / 13**0.5), id="tie"),
        pytest.param({(4, 2): 1.0, (3, 2): float("nan"), (5, 2): 0.5}, (4.75, 2.5), id="nan"),
        pytest.param({(4, 2): float("inf"), (4, 3): 0.5}, (4.5, 2.75), id="inf"),
    ],
)
def test_quarter_offset(cells: dict[tuple[int, int], float], expected: tuple[float, float]) -> None:
    maps = torch.zeros(1, 1, 6, 7)
    for (column, row), value in cells.items():
        maps[0, 0, row, column] = value
    got = decode_heatmaps(maps, quarter_offset=True).points_frac * torch.tensor([7, 6])
    torch.testing.assert_close(got, torch.tensor([[expected]]))


@pytest.mark.parametrize("value", [0.0, float("-inf"), float("nan")])
def test_quarter_offset_of_one_cell(value: float) -> None:
    assert decode_heatmaps(torch.full((1, 1, 1, 1), value), True).points_frac.tolist() == [[[0.5, 0.5]]]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_dilation_computes_what_strides_do_and_more(name: str) -> None:
    strided = create_backbone(name, width=0.125).double().eval()
    dilated = create_backbone(name, width=0.125, dilated=True).double().eval()
    assert (dilated.stride, dilated.out_channels) == (8, strided.out_channels)
    dilated.load_state_dict(strided.state_dict(), strict=True)
    x = torch.randn(1, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        fine, coarse = dilated(x), strided(x)
    assert fine.shape[2:] == (12, 8)
    torch.testing.assert_close(fine[:, :, ::4, ::4], coarse)


def test_dilation_replaces_the_strides_of_32_only() -> None:
    with pytest.raises(ValueError, match="create_backbone: dilated: .* got resnet18 with 16"):
        create_backbone("resnet18", 16, dilated=True)


def test_grmi_maps() -> None:
    with torch.device("meta"):
        maps = pf.GRMI(num_landmarks=N)(torch.empty(2, 3, 64, 96))
    assert maps._fields == ("logits", "offset_x", "offset_y")
    assert [tuple(m.shape) for m in maps] == [(2, N, 8, 12)] * 3


def test_grmi_order_of_maps(x: Tensor) -> None:
    model = small(pf.GRMI)
    nn.init.zeros_(model.final_layer.weight)
    with torch.no_grad():
        model.final_layer.bias.copy_(torch.arange(3.0 * N))
        for number, values in enumerate(model(x)):
            assert torch.equal(values, (torch.arange(N) + N * number).view(1, N, 1, 1).expand(3, N, 8, 8).float())


def test_grmi_decodes_its_maps(x: Tensor) -> None:
    model = small(pf.GRMI, radius_px=4)
    with torch.no_grad():
        votes = hough_votes(upsample(model(x), 8), 4)
    assert votes.shape == (3, N, 64, 64)
    assert_same(model.predict(x), decode_heatmaps(votes, quarter_offset=False))


def perfect_maps(points: Tensor, height: int, width: int, radius_px: float, stride: int) -> VotingMaps:
    """Disks, soft at the rim, and offsets of points (B, N, 2) in px."""
    x = points[..., 0, None, None] - stride * (torch.arange(width) + 0.5)
    y = points[..., 1, None, None] - stride * (torch.arange(height) + 0.5).unsqueeze(1)
    return VotingMaps(2 * (radius_px - (x**2 + y**2).sqrt()), *torch.broadcast_tensors(x, y))


@pytest.mark.parametrize("stride", [1, 8])
def test_votes_recover_the_points_of_perfect_maps(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Through the network's own decoding, its maps replaced.
    model = small(pf.GRMI)
    size = torch.tensor([128.0, 96.0])
    points = 20 + torch.rand(3, N, 2) * (size - 40)
    maps = perfect_maps(points, 96 // stride, 128 // stride, 15.0, stride)
    monkeypatch.setattr(model, "_stride", stride)
    monkeypatch.setattr(model, "_maps", lambda features: maps)
    got = model.landmarks(torch.zeros(3, model._channels, 12, 16))
    # The landmark's own pixel wins, or its neighbor where the landmark is between the two: half a pixel.
    assert (got.points_frac * size - points).abs().max() <= 0.5 + 1e-3
    # Split among up to four pixels: a quarter at least, all of them at most, but for the rim of the disk.
    assert got.scores.min() > 0.2
    assert got.scores.max() < 1.1
    votes = hough_votes(upsample(maps, stride), 15.0)
    torch.testing.assert_close(votes.sum((2, 3)), torch.ones(3, N), rtol=0, atol=0.1 if stride == 8 else 0.01)


def votes_one_by_one(maps: VotingMaps, radius_px: float) -> np.ndarray:
    """The formula of ``hough_votes`` as it reads."""
    logits, offset_x, offset_y = (m.numpy() for m in maps)
    total = np.zeros_like(logits)
    height, width = logits.shape[2:]
    for b, n, row, column in np.ndindex(*logits.shape):
        x = column + offset_x[b, n, row, column]
        y = row + offset_y[b, n, row, column]
        if not np.isfinite([x, y]).all():
            continue
        kernel_x = np.clip(1 - np.abs(np.arange(width) - x), 0, None)
        kernel_y = np.clip(1 - np.abs(np.arange(height) - y), 0, None)
        total[b, n] += kernel_y[:, None] * kernel_x / (1 + np.exp(-logits[b, n, row, column]))
    return total / (np.pi * radius_px**2)


@pytest.mark.parametrize(("height", "width"), [(7, 4), (1, 9), (1, 1)])
def test_votes_are_the_formula(height: int, width: int) -> None:
    # Wide enough for many to fall beside the map.
    maps = VotingMaps(*(torch.randn(2, 3, height, width).double() * scale for scale in (2, 4, 1)))
    # Whole and half pixels, the borders, and what is no place at all.
    special = [0.0, 0.5, -0.5, -1.0, 1.0, -1.5, width, -width, 1e30, -1e30, np.inf, -np.inf, np.nan]
    flat = maps.offset_x.view(-1)
    flat[: min(len(special), len(flat))] = torch.tensor(special[: len(flat)], dtype=torch.float64)
    got = hough_votes(maps, 3.0)
    np.testing.assert_allclose(got.numpy(), votes_one_by_one(maps, 3.0), rtol=1e-12, atol=1e-15)
    assert got.any()


def test_no_votes_at_all() -> None:
    maps = VotingMaps(torch.zeros(1, 2, 4, 4), torch.full((1, 2, 4, 4), 99.0), torch.zeros(1, 2, 4, 4))
    assert not hough_votes(maps, 15.0).any()


def test_upsampling_keeps_offsets_exact() -> None:
    points = torch.tensor([[[30.3, 41.9]]])
    got = upsample(perfect_maps(points, 8, 10, 15.0, 8), 8)
    expected = perfect_maps(points, 64, 80, 15.0, 1)
    for name in ("offset_x", "offset_y"):
        # Beyond the outermost cells' centers there is nothing to interpolate towards.
        inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
        torch.testing.assert_close(getattr(got, name)[inner], getattr(expected, name)[inner], rtol=0, atol=1e-4)


@pytest.mark.parametrize("votes", [1, N * 64 * 64, 2 * N * 64 * 64])
def test_votes_in_parts(votes: int, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(pf.GRMI)
    expected = model.predict(x)
    monkeypatch.setattr(grmi_module, "MAX_VOTES", votes)
    assert_same(model.predict(x), expected)
    assert model.predict(x[:0]).points_frac.shape == (0, N, 2)


def test_params_case_agrees_with_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, dict[str, float]] = {}
    for record in RunBench(monkeypatch, tmp_path / "params.json")("params"):
        found.setdefault(record["subject"], {})[record["metric"]] = record["median"]
    assert len(found) == 13
    for subject, counts in found.items():
        # Four digits are recorded.
        assert counts["parameters"] == pytest.approx(counts["parameters, paper"], abs=0.0501), subject
        own = counts.get("multiply-accumulates without deconvolutions", counts["multiply-accumulates"])
        # One percent for what the paper's tool counted besides, and its rounding.
        paper = counts["multiply-accumulates, paper"]
        assert own == pytest.approx(paper, abs=0.01 * paper + 0.05), subject
    assert found["MapNet resnet18"]["multiply-accumulates"] == pytest.approx(25.76)
    # 64 cells and 22 rows of votes at one of them, in place of 23 rows at 64.
    pipnet = found["PIPNet resnet18"]
    dense, fused = (pipnet[f"multiply-accumulates of {head} head"] for head in ("dense", "fused"))
    assert dense / fused == pytest.approx(64 * 23 / (64 + 22), rel=1e-3)
