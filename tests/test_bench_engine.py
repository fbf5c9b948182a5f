"""The cases about the C++ engine: work is counted as it is done, memory as it is taken, and differences are seen."""

import argparse
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.engines._lower import lower
from pipnet_fast.engines.fold import fold_trunk
from pipnet_fast.engines.plan_file import LayerKind, PlanLayer, PlanNetwork, serialize
from tests.commands import ROOT, RunBench
from tests.inputs import randomized
from tests.miniature import write_noise_faces

pytestmark = pytest.mark.skipif(not pf.engines()["cpp"], reason=str(pf.engines().reasons.get("cpp")))

SIZE = 64


@pytest.fixture(autouse=True)
def _bench_is_importable() -> Iterator[None]:
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunBench:
    return RunBench(monkeypatch, tmp_path / "records.json")


def network(**config: Any) -> tuple[pf.PIPNet, PlanNetwork]:
    """A model and its trunk, no head behind it."""
    model = randomized(**{"num_landmarks": 3, "num_neighbors": 0, "input_size": SIZE, **config})
    return model, PlanNetwork(SIZE, lower(fold_trunk(model), SIZE))


def plan_of(network: PlanNetwork) -> Any:
    from pipnet_fast import _C

    data = serialize(network)
    return _C.Plan(data.ctypes.data, data.size)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "mobilenet_v3"])
def test_steps_without_transforms_multiply_as_torch_does(backbone: str) -> None:
    from bench.layers import steps
    from bench.params import gmacs

    model, plain = network(backbone=backbone)
    found = steps(plain, plan_of(plain).steps)
    expected = gmacs(lambda: model.forward_features(torch.zeros(1, 3, SIZE, SIZE)))
    assert sum(step.multiplies for step in found) == pytest.approx(expected * 1e9)


@pytest.mark.parametrize(
    ("kind", "channels", "size", "window", "name", "result", "products", "weights"),
    [
        pytest.param(LayerKind.CONVOLUTION, 16, 32, (3, 1, 1), "3x3 F(4,3)", 8, 36 * 2 * 2, 36, id="F(4,3)"),
        pytest.param(LayerKind.CONVOLUTION, 64, 32, (3, 1, 1), "3x3 F(2,3)", 8, 16 * 4 * 4, 16, id="F(2,3)"),
        pytest.param(LayerKind.CONVOLUTION, 16, 128, (3, 2, 1), "3x3/2 F(4,3)", 16, 81 * 4 * 4, 36, id="F(4,3)/2"),
        pytest.param(LayerKind.CONVOLUTION, 16, 32, (3, 2, 1), "3x3/2 F(2,3)", 4, 25 * 2 * 2, 16, id="F(2,3)/2"),
        pytest.param(LayerKind.DECONVOLUTION, 16, 32, (4, 2, 1), "deconvolution", 16, 16 * 8 * 8, 16, id="doubled"),
    ],
)
def test_transforms_save_multiplications_and_take_memory(
    kind: LayerKind,
    channels: int,
    size: int,
    window: tuple[int, int, int],
    name: str,
    result: int,
    products: int,
    weights: int,
) -> None:
    from bench.layers import steps

    kernel, bias = window[0], torch.zeros(channels)
    layers = (
        PlanLayer(LayerKind.CONVOLUTION, 0, channels, (torch.zeros(channels, 3, 1, 1), bias), 1, 2, 0),
        PlanLayer(LayerKind.MAX_POOL, 1, channels, kernel=3, stride=2, padding=1),
        PlanLayer(kind, 2, channels, (torch.zeros(channels, channels, kernel, kernel), bias), *window),
    )
    small = PlanNetwork(size, layers)
    stem, step = steps(small, plan_of(small).steps)
    assert stem.name == "stem, max-pool"
    assert (step.name, step.shapes) == (name, f"{channels}x{size // 4}x{size // 4} to {channels}x{result}x{result}")
    assert (step.multiplies, step.weight_bytes) == (channels**2 * products, 4 * (channels**2 * weights + channels))


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("config", [{}, {"stride": 16}, {"stride": 64}], ids=lambda c: f"stride{c.get('stride', 32)}")
def test_steps_read_the_weights_that_the_plan_keeps(config: dict[str, Any], storage: Any) -> None:
    plain = network(backbone="resnet18", width=0.25, **config)[1]
    plan = plan_of(PlanNetwork(SIZE, plain.layers, weight_storage=storage))
    _, layers, _, weight_bytes = zip(*plan.steps, strict=True)
    assert sum(layers) == len(plain.layers)
    assert sum(weight_bytes) == plan.weight_bytes


def test_every_step_takes_time() -> None:
    plan, crop = plan_of(network(backbone="mobilenet_v3")[1]), np.zeros((SIZE, SIZE, 3), np.uint8)
    times = plan.step_times(crop.ctypes.data, 0, 1)
    assert len(times) == len(plan.steps)
    assert min(times) > 0


def test_layers_case_adds_equal_steps_and_the_report_shows_them(records: RunBench) -> None:
    from bench import report, tables
    from bench.record import Record

    options = ("--backbone", "resnet18", "--width", "0.25", "--size", str(SIZE), "--threads", "1", "--rounds", "2")
    found = records("layers", *options)
    subjects = {r["subject"]: r["note"] for r in found}
    assert subjects["3x3 F(4,3), 16x16x16 to 16x16x16"].startswith("4 of them; ")
    assert {r["metric"] for r in found} == {
        "time",
        "multiply-accumulates",
        "floor of arithmetic",
        "floor of reading weights",
    }
    rows = report.render("layers-each", [Record(**r) for r in found]).splitlines()
    assert sum(row.startswith("| ") for row in rows) == len(subjects) + 3
    times = [r["median"] for r in found if r["metric"] == "time"]
    together = next(row for row in rows if row.startswith("| all steps"))
    assert f"| {sum(times):.3g} |" in together
    kinds = list(tables.layers([Record(**r) for r in found]))
    assert any(row.startswith("| stem, max-pool |") for row in kinds)
    assert len(kinds) < len(rows)


def test_networks_stay_in_a_folder_that_is_given_and_no_other(tmp_path: Path) -> None:
    from bench import engine_case

    options = {"model": None, "data": None, "backbone": ["resnet18"], "size": SIZE, "width": 0.1}
    for folder in (tmp_path, None):
        with engine_case.networks(argparse.Namespace(folder=folder, **options)) as networks:
            (made,) = networks
            file = Path(made.folder, "model.safetensors")
            assert file.exists()
        assert file.exists() == file.is_relative_to(tmp_path) == (folder is not None)


def test_peak_is_the_largest_memory_since_it_was_reset() -> None:
    memory = pytest.importorskip("bench.memory")
    if not memory.CLEAR.exists():
        pytest.skip("needs Linux's /proc/self/clear_refs")
    size = 64 << 20
    before = memory.reset_peak()
    # Pages of its own: the heap may have as much left free by earlier tests.
    with mmap.mmap(-1, size) as held:
        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1
    assert memory.peak_memory() - before == pytest.approx(size, rel=0.1)
    before = memory.reset_peak()
    assert memory.peak_memory() - before < size / 8


def test_memory_case_measures_engines_and_keeps_reasons(records: RunBench) -> None:
    from bench import memory, report
    from bench.record import Record

    if not memory.CLEAR.exists():
        pytest.skip("needs Linux's /proc/self/clear_refs")
    options = ("--backbone", "resnet18", "--width", "0.5", "--size", str(SIZE), "--threads", "1", "--rounds", "1")
    found = records("memory", *options, "--engines", "plan")
    units = {"peak memory": "MB", "memory kept": "MB", "time until ready": "ms"}
    assert {r["metric"]: r["unit"] for r in found} == units
    peak, kept, ready = (r["median"] for r in found)
    # Weights of 2.8 M parameters, and what Winograd's transforms make of them; of the file's 11 MB little is there
    # at the same time.
    assert 11 < kept <= peak < 40
    assert peak < kept + 6
    (late,) = records("memory", *options, "--engines", "plan", "--timeout", "0.01")
    assert late["reason"] == "no answer within 0.01 s"
    table = report.render("memory", [Record(**r) for r in (*found, {**late, "subject": "slow"})])
    assert f"| pipnet_fast cpp, plan file | {peak:.3g} | {kept:.3g} | {ready:.0f} |" in table
    assert "| slow | no answer within 0.01 s |  |  |" in table


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    write_noise_faces(tmp_path, "val", 3)
    return tmp_path


def test_agreement_case_sees_a_network_that_is_another(
    faces: Path, records: RunBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import agreement

    options = ("agreement", "--data", str(faces), "--faces", "2", "--random", "--weight-storage", "float32")
    cells, near, nme = "winning cells as in torch", "landmarks within 0.001 of the crop", "NME, difference from torch"
    found = {r["metric"]: r["median"] for r in records(*options, "--isa", "scalar")}
    assert (found[cells], found[near]) == (100, 100)
    assert found[nme] < 1e-3
    plan = agreement._plan

    def blurred(model: pf.PIPNet, storage: Any) -> Any:
        other = pf.load(agreement.default_model())
        with torch.no_grad():
            next(other.parameters()).mul_(0.9)
        return plan(other.eval(), storage)

    monkeypatch.setattr(agreement, "_plan", blurred)
    found = {r["metric"]: r["median"] for r in records(*options, "--isa", "scalar")}
    assert found[cells] < 100
    assert found[near] < 99
    assert found[nme] > 0.01
