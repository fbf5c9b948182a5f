"""The C++ engine: every backbone on every instruction set, what its plans hold, and what it refuses."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pipnet_fast as pf
from pipnet_fast.backbones import BACKBONES
from pipnet_fast.engines.cpp import Plan
from pipnet_fast.engines.fold import fold_trunk
from pipnet_fast.engines.plan_file import serialize
from pipnet_fast.ops import BoundHead
from pipnet_fast.pipeline.images import normalize
from tests.engine_cases import MODELS, assert_same, crops_for, network_of, tiny
from tests.inputs import randomized
from tests.processes import Process
from tests.threads import print_pinned, print_threads_of_plans
from tests.tolerances import ENGINE, assert_landmarks_close

pytestmark = pytest.mark.skipif(not pf.engines()["cpp"], reason=str(pf.engines().reasons.get("cpp")))

if pf.engines()["cpp"]:
    from pipnet_fast import _C

ISAS = _C.isas() if pf.engines()["cpp"] else []
WIDTHS = {"resnet18": 0.25, "resnet50": 0.125, "resnet101": 0.0625}
NETWORKS: list[dict[str, Any]] = [
    *({"backbone": name, "stride": stride} for name in BACKBONES for stride in (16, 32, 64, 128)),
    # Channels that fill no block, odd grids, one cell.
    {"backbone": "resnet18", "stride": 16, "input_size": 96, "width": 0.07},
    {"backbone": "resnet50", "input_size": 224, "width": 0.3},
    {"backbone": "resnet18", "input_size": 32, "width": 0.01},
    {"backbone": "mobilenet_v2", "input_size": 160},
    {"backbone": "mobilenet_v3", "input_size": 96},
]


def network_id(config: dict[str, Any]) -> str:
    return "-".join(f"{key}{value}" if key != "backbone" else value for key, value in config.items())


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _C.isa()
    _C.use_isa(request.param)
    yield request.param
    _C.use_isa(before)


def tolerance_of(backbone: str) -> float:
    return ENGINE["resnet" if backbone.startswith("resnet") else "mobilenet"]


@pytest.mark.parametrize("isa", ISAS, indirect=True)
@pytest.mark.parametrize("config", NETWORKS, ids=network_id)
def test_features_are_those_of_the_model(config: dict[str, Any], isa: str) -> None:
    defaults = {"num_landmarks": 3, "num_neighbors": 0, "input_size": max(64, config.get("stride", 32))}
    model = randomized(**{**defaults, "width": WIDTHS.get(config["backbone"], 1.0), **config})
    plan = Plan(serialize(network_of(model)), threads=1)
    crops = normalize(crops_for(model, 2)).contiguous()
    with torch.no_grad():
        expected = model.double().forward_features(crops.double()).float()
    features = plan.features(crops)
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert_landmarks_close(features, expected, "features", tolerance_of(config["backbone"]))


@pytest.mark.parametrize("isa", ISAS, indirect=True)
@pytest.mark.parametrize("name", MODELS)
def test_landmarks_are_those_of_the_model(name: str, isa: str) -> None:
    model = tiny(name)
    crops = crops_for(model, 3)
    expected, tolerance = model.predict(normalize(crops)), tolerance_of(name)
    plan = Plan(serialize(network_of(model)), threads=1)
    assert_same(plan.landmarks(crops), expected, tolerance)
    assert_same(plan.landmarks(normalize(crops).contiguous()), expected, tolerance)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_landmarks": 1, "num_neighbors": 0, "mean_shape": np.zeros((1, 2))}, id="N1-K0"),
        pytest.param({"num_landmarks": 16, "num_neighbors": 0, "mean_shape": None}, id="N16-K0"),
        pytest.param({"num_landmarks": 106, "mean_shape": np.random.RandomState(0).rand(106, 2)}, id="N106-K3"),
        pytest.param({"num_neighbors": 16, "merge": "official"}, id="N17-K16"),
    ],
)
def test_any_number_of_landmarks(options: dict[str, Any]) -> None:
    model = tiny(**options)
    crops = crops_for(model, 2)
    assert_same(pf.compile(model, "cpp")(crops), model.predict(normalize(crops)))


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_a_head_stored_smaller_is_that_head(storage: str) -> None:
    model = tiny()
    crops = crops_for(model, 3)
    head = BoundHead(model.head.stored_as(storage), model.table)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = head(model.forward_features(normalize(crops)))
    assert_same(pf.compile(model, "cpp", head_storage=storage)(crops), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", ISAS, indirect=True)
@pytest.mark.parametrize("name", MODELS)
def test_weights_in_float16_move_features_a_little(name: str, isa: str) -> None:
    network, crops = network_of(tiny(name)), crops_for(tiny(name), 2)
    exact = Plan(serialize(network), threads=1)
    half = Plan(serialize(replace(network, weight_storage="float16")), threads=1)
    expected = exact.features(crops)
    error = (half.features(crops) - expected).abs() / expected.abs().max()
    # Rounding is 2^-11; a random MobileNet makes a hundred times of any difference, as its tolerance says.
    assert 0 < float(error.max()) < (2e-3 if name.startswith("resnet") else 0.3)
    assert float(error.median()) < (2e-4 if name.startswith("resnet") else 3e-2)
    # Gates and biases stay float32.
    assert half._plan.weight_bytes < 0.8 * exact._plan.weight_bytes


@pytest.mark.parametrize("name", MODELS)
def test_threads_and_batches_change_rounding_only(name: str) -> None:
    model = tiny(name)
    network, crops = network_of(model), crops_for(model, 17)
    alone = Plan(serialize(network), threads=1)
    parts = [alone.landmarks(crop.unsqueeze(0)) for crop in crops]
    expected = pf.Landmarks(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
    for threads in (1, 2, 3):
        plan = Plan(serialize(network), threads)
        found = plan.landmarks(crops)
        assert_same(found, expected, tolerance_of(name))
        assert_same(plan.landmarks(crops), found, tolerance=0)


def test_a_plan_says_what_it_is() -> None:
    model = tiny("resnet18-stride16")
    data = serialize(network_of(model))
    plan = _C.Plan(data.ctypes.data, data.size)
    assert (plan.input_size, plan.landmarks, tuple(plan.features)) == (64, 17, (512, 4, 4))
    trunk = sum(value.numel() for name, value in fold_trunk(model).state_dict().items())
    # Some are kept transformed, for Winograd's convolutions, which takes up to four times as much.
    assert 4 * trunk <= plan.weight_bytes < 24 * trunk
    assert 0 < plan.scratch_bytes < 64 << 20


def test_a_plan_keeps_nothing_of_the_file() -> None:
    model = tiny()
    data = serialize(network_of(model)).copy()
    plan = _C.Plan(data.ctypes.data, data.size)
    crops = crops_for(model, 1)

    def run() -> Tensor:
        points, scores = torch.full((1, 17, 2), torch.nan), torch.full((1, 17), torch.nan)
        plan.run(crops.data_ptr(), 0, 1, points.data_ptr(), scores.data_ptr(), 1)
        return points

    before = run()
    data[:] = 255
    assert torch.equal(run(), before)
    assert before.isfinite().all()


@pytest.mark.parametrize("offset", [0, 1, 63])
def test_a_file_may_lie_anywhere(offset: int, tmp_path: Path) -> None:
    pf.save_plan(tiny(), tmp_path / "model.plan")
    data = np.concatenate((np.zeros(offset, np.uint8), np.fromfile(tmp_path / "model.plan", np.uint8)))
    assert _C.Plan(data.ctypes.data + offset, data.size - offset).landmarks == 17


# Of the wider one, pages of the file are given back while others are packed.
@pytest.mark.parametrize("width", [0.125, 1.0])
def test_a_file_that_is_read_gives_the_same(width: float, tmp_path: Path) -> None:
    model = tiny(width=width)
    pf.save_plan(model, tmp_path / "größe.plan")
    plan = _C.Plan.load(str(tmp_path / "größe.plan"))
    crops, points, scores = crops_for(model, 1), torch.empty(1, 17, 2), torch.empty(1, 17)
    plan.run(crops.data_ptr(), 0, 1, points.data_ptr(), scores.data_ptr(), 1)
    expected = Plan(serialize(network_of(model)), threads=1).landmarks(crops)
    assert_same(pf.Landmarks(points, scores), expected, tolerance=0)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{tmp_path}: "):
        _C.Plan.load(str(tmp_path))
    with pytest.raises(ValueError, match=f"^{tmp_path}/none: No such file"):
        _C.Plan.load(f"{tmp_path}/none")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match=f"^{tmp_path}/empty: expected a plan file, got another"):
        _C.Plan.load(f"{tmp_path}/empty")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda data: data[:40], "plan file: size", id="short"),
        pytest.param(lambda data: data[:-1], "plan file: size", id="cut"),
        pytest.param(lambda data: data[:0], "plan file: size", id="empty"),
        pytest.param(lambda data: np.concatenate((data[:-9], data[-9:] ^ 1)), "plan file: checksum", id="other-bits"),
        pytest.param(lambda data: data[::-1].copy(), "plan file", id="reversed"),
    ],
)
def test_a_damaged_file_is_a_value_error(damage: Any, message: str) -> None:
    data = damage(serialize(network_of(tiny())))
    with pytest.raises(ValueError, match=message):
        _C.Plan(data.ctypes.data, data.size)


@pytest.mark.parametrize("kind", [pf.CoordNet, pf.MapNet])
def test_another_head_gets_the_features(kind: Any) -> None:
    model = kind("resnet18", 5, input_size=64, width=0.125).eval()
    crops = crops_for(model, 3)
    assert_same(pf.compile(model, "cpp")(crops), model.predict(normalize(crops)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(
            pf.GRMI("resnet18", 5, input_size=64, width=0.125).eval(),
            r"layer3\.0\.conv2: expected dilation 1, got \(2, 2\)",
            id="dilation",
        ),
        pytest.param(
            tiny("resnet18-stride16", input_size=48), "input_size: expected a multiple of 32, got 48", id="input-size"
        ),
    ],
)
def test_a_network_without_code_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"^compile: engine 'cpp' failed: .*{message}"):
        pf.compile(model, "cpp")


def test_it_keeps_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    run = _C.Plan.run
    monkeypatch.setattr(_C.Plan, "run", lambda plan, *args: (asked.append(args[-1]), run(plan, *args))[1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    model = tiny()
    runtime = pf.compile(model, "cpp")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    runtime(crops_for(model, 2))
    assert asked == [3, 3]


def test_weights_in_float16_are_asked_for_at_the_door() -> None:
    model = tiny()
    crops = crops_for(model, 2)
    exact, half = pf.compile(model, "cpp"), pf.compile(model, "cpp", weight_storage="float16")
    assert_same(pf.compile(model, "cpp", weight_storage="float32")(crops), exact(crops), tolerance=0)
    assert not torch.equal(half(crops).scores, exact(crops).scores)
    torch.testing.assert_close(half(crops).scores, exact(crops).scores, rtol=0.05, atol=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="threads can be pinned on Linux only")
def test_threads_are_pinned_to_cores_and_set_free() -> None:
    found = Process(print_pinned).end()
    assert found.stdout.split() == ["[True]", "[True]"], found.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="threads can be pinned on Linux only")
@pytest.mark.parametrize("number", [-1, 1023, 1 << 20])
def test_numbers_that_are_no_cores_are_refused(number: int) -> None:
    allowed = os.sched_getaffinity(0)
    with pytest.raises(ValueError, match=f"cores: expected numbers of cores that this process may use, got {number}"):
        pf.pin_threads([min(allowed), number])
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_plan_is_made_with_as_many_threads_as_asked_for() -> None:
    found = Process(print_threads_of_plans).end()
    assert found.stdout.split() == ["0", "2"], found.stderr
