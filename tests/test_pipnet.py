"""The network: its size, its maps, the fused prediction, and the packed head that follows the weights."""

import copy
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pipnet_fast as pf
from pipnet_fast.models import pipnet as pipnet_module
from tests.inputs import randomized

BACKBONES = ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "mobilenet_v3")
# Where points and scores may differ from those of the dense maps: the order of float32 sums.
ROUNDING = 1e-5


def small(num_neighbors: int = 4, **config: Any) -> pf.PIPNet:
    return randomized(width=0.25, num_landmarks=19, num_neighbors=num_neighbors, mean_shape="aflw19", **config)


@pytest.fixture
def model() -> pf.PIPNet:
    return small()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 64, 64)


def assert_same(got: pf.Landmarks, expected: pf.Landmarks, tolerance: float = ROUNDING) -> None:
    for name, a, b in zip(("points", "scores"), got, expected, strict=True):
        atol = tolerance * float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=0, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


def decoded(model: pf.PIPNet, x: Tensor) -> pf.Landmarks:
    """What predict must give, by way of the dense maps."""
    with torch.no_grad():
        return pf.ops.decode(model(x), model.table, backend="reference")


@pytest.mark.parametrize(
    ("backbone", "count", "millions"),
    [
        ("resnet18", 11_978_844, 12.0),
        ("resnet50", 26_712_668, 26.7),
        ("resnet101", 45_704_796, 45.7),
        ("mobilenet_v2", 4_227_356, 4.2),
        ("mobilenet_v3", 4_474_956, 4.5),
    ],
)
def test_parameter_counts_of_table_9(backbone: str, count: int, millions: float) -> None:
    with torch.device("meta"):
        model = pf.PIPNet(backbone, num_landmarks=68, num_neighbors=10)
    assert sum(p.numel() for p in model.parameters()) == count
    assert round(count / 1e6, 1) == millions


def test_defaults() -> None:
    with torch.device("meta"):
        model = pf.PIPNet()
    assert model.config == pipnet_module.PIPNetConfig("resnet18", 98, 10, 32, 256, 1.0, "mean")
    assert model.crop == pf.CropRule(scale=1.2)
    assert model.mean_shape is None
    assert sum(p.numel() for p in model.parameters()) == 12_332_814


def test_initialization_of_the_head() -> None:
    model = pf.PIPNet(width=0.25, num_landmarks=68, num_neighbors=10)
    for name in pipnet_module.HEAD_LAYERS:
        layer = getattr(model, name)
        assert float(layer.weight.detach().std()) == pytest.approx(0.001, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize("num_neighbors", [0, 1, 4, 18])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 160), (96, 64)])
def test_shapes_of_maps(num_neighbors: int, height: int, width: int) -> None:
    with torch.no_grad():
        maps = small(num_neighbors)(torch.randn(2, 3, height, width))
    assert isinstance(maps, pf.HeadMaps)
    assert maps._fields == ("score", "offset_x", "offset_y", "neighbor_x", "neighbor_y")
    channels = (19, 19, 19, 19 * num_neighbors, 19 * num_neighbors)
    assert [tuple(m.shape) for m in maps] == [(2, c, height // 32, width // 32) for c in channels]


def test_order_of_maps(model: pf.PIPNet, x: Tensor) -> None:
    state = model.state_dict()
    for number, name in enumerate(("cls_layer", "x_layer", "y_layer", "nb_x_layer", "nb_y_layer")):
        state[f"{name}.weight"].zero_()
        bias = state[f"{name}.bias"]
        bias.copy_(1000 * number + torch.arange(len(bias)))
    with torch.no_grad():
        maps = model(x)
    for number, values in enumerate(maps):
        expected = 1000.0 * number + torch.arange(values.shape[1])
        assert torch.equal(values, expected.view(1, -1, 1, 1).expand_as(values))


@pytest.mark.parametrize("stride", [16, 32, 64, 128])
def test_strides(stride: int) -> None:
    model, x = small(stride=stride), torch.randn(1, 3, 128, 256)
    with torch.no_grad():
        assert model(x).score.shape == (1, 19, 128 // stride, 256 // stride)
    assert_same(model.predict(x), decoded(model, x))


def test_maps_have_gradients_and_predictions_do_not(model: pf.PIPNet, x: Tensor) -> None:
    sum(m.square().mean() for m in model(x)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not any(t.requires_grad for t in model.predict(x))


@pytest.mark.parametrize("merge", ["mean", "official"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_predict_is_decoded_forward(backbone: str, merge: Any) -> None:
    model = randomized(
        backbone=backbone, num_landmarks=29, num_neighbors=6, input_size=64, mean_shape="cofw29", merge=merge
    )
    x = torch.randn(2, 3, 64, 64)
    got = model.predict(x)
    assert isinstance(got, pf.Landmarks)
    assert (got.points_frac.shape, got.scores.shape) == ((2, 29, 2), (2, 29))
    assert (got.points_frac.dtype, got.scores.dtype) == (torch.float32, torch.float32)
    assert_same(got, decoded(model, x))


@pytest.mark.parametrize("num_neighbors", [0, 1, 18])
@pytest.mark.parametrize("size", [(32, 32), (64, 160), (128, 96)], ids=str)
def test_predict_at_other_sizes(num_neighbors: int, size: tuple[int, int]) -> None:
    model, x = small(num_neighbors), torch.randn(3, 3, *size)
    assert_same(model.predict(x), decoded(model, x))


@pytest.mark.parametrize("layout", ["channels_last", "sliced"])
def test_predict_in_other_layouts(model: pf.PIPNet, x: Tensor, layout: str) -> None:
    expected = model.predict(x)
    if layout == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    else:
        x = torch.cat((x, x), dim=3)[..., :64]
    assert_same(model.predict(x), expected)


@pytest.mark.parametrize("num_neighbors", [0, 4])
def test_empty_batch(num_neighbors: int) -> None:
    got = small(num_neighbors).predict(torch.zeros(0, 3, 64, 64))
    assert (got.points_frac.shape, got.scores.shape) == ((0, 19, 2), (0, 19))


def test_a_face_does_not_depend_on_its_batch(model: pf.PIPNet) -> None:
    x = torch.randn(5, 3, 64, 64)
    together = model.predict(x)
    for i in range(5):
        assert_same(model.predict(x[i : i + 1]), pf.Landmarks(*(t[i : i + 1] for t in together)))


def test_double(model: pf.PIPNet, x: Tensor) -> None:
    model, x = model.double(), x.double()
    got = model.predict(x)
    assert (got.points_frac.dtype, got.scores.dtype) == (torch.float64, torch.float64)
    assert_same(got, decoded(model, x), tolerance=1e-12)


def test_bfloat16(model: pf.PIPNet, x: Tensor) -> None:
    # Points come in float32, from features in half precision.
    got = model.bfloat16().predict(x.bfloat16())
    assert got.points_frac.dtype == torch.float32
    with torch.no_grad():
        features = model.forward_features(x.bfloat16())
    expected = pf.ops.head_decode(features, model.head, model.table, backend="reference")
    assert_same(got, expected)


def test_no_neighbors_need_no_mean_shape(x: Tensor) -> None:
    model = randomized(width=0.25, num_landmarks=7, num_neighbors=0)
    assert not [key for key in model.state_dict() if key.startswith("nb_")]
    assert_same(model.predict(x), decoded(model, x))


def test_one_landmark(x: Tensor) -> None:
    model = randomized(width=0.25, num_landmarks=1, num_neighbors=0)
    assert_same(model.predict(x), decoded(model, x))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_grad_modes(mode: Callable[[], Any], model: pf.PIPNet, x: Tensor) -> None:
    expected = decoded(model, x)
    with mode():
        assert_same(model.predict(x), expected)
    # What was packed inside serves outside too, and can be packed anew after a step.
    assert_same(model.predict(x), expected)
    with torch.no_grad():
        model.cls_layer.weight.neg_()
    assert_same(model.predict(x), decoded(model, x))


def test_built_under_inference_mode(x: Tensor) -> None:
    with torch.inference_mode():
        model = small()
        assert_same(model.predict(x), decoded(model, x))
        model.x_layer.bias.add_(1)
        assert_same(model.predict(x), decoded(model, x))


def test_batchnorm_follows_the_mode(model: pf.PIPNet) -> None:
    x = torch.randn(4, 3, 64, 64) * 3 + 1
    evaluated = model.predict(x)
    trained = model.train().predict(x)
    assert not torch.allclose(trained.points_frac, evaluated.points_frac)
    assert_same(model.predict(x), decoded(model, x))
    assert model.eval() is model
    assert not any(module.training for module in model.modules())


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one whenever a head is packed."""
    calls: list[Any] = []
    pack_head = pipnet_module.pack_head

    def counted(*args: Any) -> Any:
        calls.append(args)
        return pack_head(*args)

    monkeypatch.setattr(pipnet_module, "pack_head", counted)
    return calls


def test_packed_once(model: pf.PIPNet, x: Tensor, packs: list[Any]) -> None:
    model.predict(x)
    head = model.head
    model.predict(x)
    model.predict(x[:1])
    assert model.head is head
    assert len(packs) == 1


def test_never_kept_while_training(model: pf.PIPNet, x: Tensor, packs: list[Any]) -> None:
    model.train().predict(x)
    model.predict(x)
    assert len(packs) == 2
    assert model.head is not model.head


def sgd(model: pf.PIPNet) -> None:
    optimizer_step(model, torch.optim.SGD(model.parameters(), lr=0.1))


def fused_adam(model: pf.PIPNet) -> None:
    optimizer_step(model, torch.optim.Adam(model.parameters(), lr=0.1, fused=True))


def foreach_adam(model: pf.PIPNet) -> None:
    optimizer_step(model, torch.optim.Adam(model.parameters(), lr=0.1, foreach=True))


def optimizer_step(model: pf.PIPNet, optimizer: torch.optim.Optimizer) -> None:
    # In eval mode, as one who tunes the head alone would.
    sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
    for p in model.parameters():
        p.grad.div_(p.grad.norm() + 1e-12)
    optimizer.step()


def load_state_dict(model: pf.PIPNet) -> None:
    model.load_state_dict(small().state_dict())


def load_by_assignment(model: pf.PIPNet) -> None:
    model.load_state_dict(small().state_dict(), assign=True)


def half_and_back(model: pf.PIPNet) -> None:
    model.half().float()


def in_place(model: pf.PIPNet) -> None:
    with torch.no_grad():
        model.cls_layer.weight.mul_(-1)


def in_place_in_inference_mode(model: pf.PIPNet) -> None:
    with torch.inference_mode():
        model.nb_y_layer.bias[3] += 1


def other_layer(model: pf.PIPNet) -> None:
    layer = nn.Conv2d(model.x_layer.in_channels, 19, 1)
    model.x_layer = layer


def other_parameter(model: pf.PIPNet) -> None:
    model.y_layer.bias = nn.Parameter(torch.randn(19))


def from_vector(model: pf.PIPNet) -> None:
    nn.utils.vector_to_parameters(torch.randn(19 * 2), [model.x_layer.bias, model.y_layer.bias])


@pytest.mark.parametrize(
    "change",
    [
        sgd,
        fused_adam,
        foreach_adam,
        load_state_dict,
        load_by_assignment,
        half_and_back,
        in_place,
        in_place_in_inference_mode,
        other_layer,
        other_parameter,
        from_vector,
    ],
    ids=lambda change: change.__name__.replace("_", " "),
)
def test_packed_anew_after_a_change(
    change: Callable[[pf.PIPNet], None], model: pf.PIPNet, x: Tensor, packs: list[Any]
) -> None:
    before = model.predict(x)
    change(model)
    after = model.predict(x)
    assert len(packs) == 2
    assert_same(after, decoded(model, x))
    assert not (torch.equal(after.points_frac, before.points_frac) and torch.equal(after.scores, before.scores))


def test_writes_through_data_need_a_switch_of_mode(model: pf.PIPNet, x: Tensor) -> None:
    model.predict(x)
    model.cls_layer.bias.data.copy_(torch.randn(19))
    model.train().eval()
    assert_same(model.predict(x), decoded(model, x))


def test_freed_weights_are_not_taken_for_new_ones(model: pf.PIPNet, x: Tensor) -> None:
    # Memory of freed parameters is given out again; an address alone would not tell.
    for _ in range(10):
        model.predict(x)
        model.cls_layer = nn.Conv2d(model.cls_layer.in_channels, 19, 1)
        assert_same(model.predict(x), decoded(model, x))


@pytest.mark.parametrize(
    "duplicate",
    [
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda m: pickle.loads(pickle.dumps(m)), id="pickle"),
    ],
)
def test_copies(duplicate: Callable[[pf.PIPNet], pf.PIPNet], model: pf.PIPNet, x: Tensor) -> None:
    expected = model.predict(x)
    other = duplicate(model)
    assert (other.config, other.crop, other.training) == (model.config, model.crop, False)
    assert np.array_equal(other.mean_shape, model.mean_shape)
    assert_same(other.predict(x), expected)
    with torch.no_grad():
        other.cls_layer.weight.neg_()
        other.conv1.weight.neg_()
    assert_same(other.predict(x), decoded(other, x))
    assert not torch.equal(other.predict(x).scores, expected.scores)
    assert_same(model.predict(x), expected)


def test_copy_of_a_training_model(model: pf.PIPNet) -> None:
    assert copy.deepcopy(model.train()).training


def test_average_of_models(model: pf.PIPNet, x: Tensor) -> None:
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    in_place(model)
    model.predict(x), average.module.predict(x)
    average.update_parameters(model)
    assert_same(average.module.predict(x), decoded(average.module, x))


def test_state_dict_round_trip(x: Tensor) -> None:
    one, other = small(), small()
    assert not torch.equal(one.predict(x).scores, other.predict(x).scores)
    assert str(other.load_state_dict(one.state_dict(), strict=True)) == "<All keys matched successfully>"
    assert str(one.load_state_dict(other.state_dict(), strict=True)) == "<All keys matched successfully>"
    assert torch.equal(one.predict(x).points_frac, other.predict(x).points_frac)


@pytest.mark.parametrize("threads_each", [1, 2])
def test_threads(threads_each: int, model: pf.PIPNet, monkeypatch: pytest.MonkeyPatch) -> None:
    # How many threads of ours one call may use.
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads_each)
    inputs = [torch.randn(1 + i % 3, 3, 64, 64) for i in range(24)]
    expected = [model.predict(x) for x in inputs]
    model.train().eval()  # so that all threads find the head unpacked
    with ThreadPoolExecutor(8) as pool:
        for got, want in zip(pool.map(model.predict, inputs), expected, strict=True):
            assert_same(got, want)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("num_neighbors", [0, 4])
def test_compile_without_graph_breaks(num_neighbors: int, x: Tensor) -> None:
    model = small(num_neighbors)
    compiled = torch.compile(model.predict, fullgraph=True, backend="aot_eager")
    assert_same(compiled(x), model.predict(x))
    in_place(model)
    assert_same(compiled(x), decoded(model, x))


class Predictor(nn.Module):
    def __init__(self, model: pf.PIPNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.predict(x)


@pytest.mark.usefixtures("fresh_compiler")
def test_export_with_any_batch(model: pf.PIPNet, x: Tensor) -> None:
    program = torch.export.export(Predictor(model), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (1, 5):
        other = torch.randn(batch, 3, 64, 64)
        assert_same(pf.Landmarks(*program(other)), model.predict(other))


def test_mean_shape_can_be_set_later(x: Tensor) -> None:
    model = randomized(width=0.25, num_landmarks=19, num_neighbors=4)
    with pytest.raises(ValueError, match="mean_shape: the neighbors' votes cannot be merged without it"):
        model.predict(x)
    assert model.with_mean_shape("aflw19") is model
    assert model.mean_shape.shape == (19, 2)
    mean = model.predict(x)
    assert_same(mean, decoded(model, x))
    assert model.with_mean_shape("aflw19", merge="official").config.merge == "official"
    official = model.predict(x)
    assert_same(official, decoded(model, x))
    assert not torch.allclose(mean.points_frac, official.points_frac)
    assert torch.equal(mean.scores, official.scores)


def test_refused_mean_shape_changes_nothing(model: pf.PIPNet) -> None:
    table, config, shape = model.table, model.config, model.mean_shape
    with pytest.raises(ValueError, match="expected 19 landmarks, got 98"):
        model.with_mean_shape("wflw98")
    with pytest.raises(ValueError, match="merge: expected one of .* got 'median'"):
        model.with_mean_shape(np.random.rand(19, 2), merge="median")  # type: ignore[arg-type]
    assert model.table is table
    assert model.config == config
    assert model.mean_shape is shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param(
            {"num_landmarks": 0}, "num_landmarks: expected an integer from 1 to 4096, got 0", id="no landmarks"
        ),
        pytest.param({"num_landmarks": 9.0}, r"num_landmarks: expected .* from 1 to 4096, got 9\.0", id="float N"),
        pytest.param({"num_landmarks": True}, "num_landmarks: expected .* got True", id="bool N"),
        pytest.param({"num_neighbors": -1}, "num_neighbors: expected an integer >= 0, got -1", id="negative K"),
        pytest.param({"num_neighbors": 1.5}, r"num_neighbors: expected .* got 1\.5", id="float K"),
        pytest.param({"backbone": "vgg16"}, "name: expected one of .* got 'vgg16'", id="unknown backbone"),
        pytest.param({"stride": 8}, r"stride: expected one of \(16, 32, 64, 128\), got 8", id="stride 8"),
        pytest.param({"input_size": 0}, "input_size: expected an integer >= 32, got 0", id="no input"),
        pytest.param({"input_size": 250}, "input_size: expected a multiple of the stride 32 .* got 250", id="250 px"),
        pytest.param({"input_size": 256.0}, r"input_size: expected an integer >= 32, got 256\.0", id="float size"),
        pytest.param({"input_size": 1 << 20}, "input_size: .* up to 4096, got 1048576", id="huge input"),
        pytest.param({"input_size": 64, "stride": 128}, "input_size: expected an integer >= 128, got 64", id="no cell"),
        pytest.param({"width": 0}, "width: expected 0 < width <= 4, got 0", id="no width"),
        pytest.param({"mean_shape": "aflw19"}, "mean_shape: expected 98 landmarks, got 19", id="other N"),
        pytest.param({"mean_shape": [[0, 0, 0]]}, r"mean_shape: expected shape \(N, 2\)", id="three coordinates"),
        pytest.param({"mean_shape": "wflw98", "merge": "max"}, "merge: expected one of .* got 'max'", id="merge"),
        pytest.param({"merge": "max"}, "merge: expected one of .* got 'max'", id="merge, no mean shape"),
    ],
)
def test_refused_configurations(config: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        pf.PIPNet(**config)


def test_more_neighbors_than_there_are() -> None:
    message = "num_neighbors=10 is more than the 4 neighbors that 5 landmarks have; using 4"
    with torch.device("meta"), pytest.warns(UserWarning, match=message) as caught:
        model = pf.PIPNet(num_landmarks=5, num_neighbors=10, mean_shape=np.eye(5, 2))
    assert len(caught) == 1
    assert caught[0].filename == __file__, "the warning points at the caller"
    assert model.config.num_neighbors == 4
    assert model.table.num_neighbors == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.with_mean_shape(np.eye(5, 2))


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        pytest.param(torch.zeros(1, 3, 100, 64), ValueError, "multiples of the stride 32 .* got 100x64", id="height"),
        pytest.param(torch.zeros(1, 3, 64, 33), ValueError, "multiples of the stride 32 .* got 64x33", id="width"),
        pytest.param(torch.zeros(1, 3, 0, 64), ValueError, "got 0x64", id="no rows"),
        pytest.param(torch.zeros(1, 1, 64, 64), ValueError, r"\(B, 3, H, W\), got \(1, 1, 64, 64\)", id="gray"),
        pytest.param(torch.zeros(1, 4, 64, 64), ValueError, r"got \(1, 4, 64, 64\)", id="four channels"),
        pytest.param(torch.zeros(1, 64, 64, 3), ValueError, r"got \(1, 64, 64, 3\)", id="channels last"),
        pytest.param(torch.zeros(3, 64, 64), ValueError, r"got \(3, 64, 64\)", id="no batch"),
        pytest.param(
            torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ValueError, "floating-point .* torch.uint8", id="uint8"
        ),
        pytest.param(np.zeros((1, 3, 64, 64), np.float32), TypeError, "expected a tensor, got ndarray", id="numpy"),
    ],
)
@pytest.mark.parametrize("call", ["__call__", "predict"])
def test_refused_inputs(call: str, bad: Any, error: type[Exception], message: str, model: pf.PIPNet) -> None:
    with pytest.raises(error, match=f"PIPNet: x: .*{message}"):
        getattr(model, call)(bad)


def test_heads_are_refused_by_other_tables(model: pf.PIPNet, x: Tensor) -> None:
    with torch.no_grad():
        features = model.forward_features(x)
    with pytest.raises(ValueError, match="head_decode: table: expected starts"):
        pf.ops.head_decode(features, model.head, pf.neighbor_table("cofw29", 4))
