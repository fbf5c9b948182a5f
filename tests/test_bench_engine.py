"""The cases about the C++ engine: work is counted as it is done, memory as it is taken, and differences are seen."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.engines._lower import lower
from pipnet_fast.engines.fold import fold_trunk
from pipnet_fast.engines.plan_file import PlanNetwork, serialize
from tests.inputs import randomized

pytestmark = pytest.mark.skipif(not pf.engines()["cpp"], reason=str(pf.engines().reasons.get("cpp")))

ROOT = Path(__file__).parents[1]
SIZE = 64


@pytest.fixture(autouse=True)
def _bench_is_importable() -> Iterator[None]:
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The command line, in this process; returns what it wrote."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        from bench.__main__ import main

        out = tmp_path / "records.json"
        monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--json", str(out)])
        main()
        return json.loads(out.read_text())

    return run


def network(**config: Any) -> tuple[pf.PIPNet, PlanNetwork]:
    """A model and its trunk, no head behind it."""
    model = randomized(**{"num_landmarks": 3, "num_neighbors": 0, "input_size": SIZE, **config})
    return model, PlanNetwork(SIZE, lower(fold_trunk(model), SIZE))


def plan_of(network: PlanNetwork) -> Any:
    from pipnet_fast import _C

    data = serialize(network)
    return _C.Plan(data.ctypes.data, data.size)


def names_of(plan: Any) -> list[str]:
    crop = np.zeros((SIZE, SIZE, 3), np.uint8)
    times = plan.step_times(crop.ctypes.data, 0, 1)
    assert all(milliseconds > 0 for _, milliseconds in times)
    return [name for name, _ in times]


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "mobilenet_v3"])
def test_steps_without_transforms_multiply_as_torch_does(backbone: str) -> None:
    from bench.layers import steps
    from bench.params import gmacs

    model, plain = network(backbone=backbone)
    found = steps(plain, names_of(plan_of(plain)))
    expected = gmacs(lambda: model.forward_features(torch.zeros(1, 3, SIZE, SIZE)))
    assert sum(step.multiplies for step in found) == pytest.approx(expected * 1e9)


@pytest.mark.parametrize(
    ("name", "multiplies", "weights"),
    [
        pytest.param("3x3 F(4,3)", 16 * 16 * 36 * 2 * 2, 16 * 16 * 36, id="F(4,3)"),
        pytest.param("3x3 F(2,3)", 16 * 16 * 16 * 4 * 4, 16 * 16 * 16, id="F(2,3)"),
    ],
)
def test_transforms_save_multiplications_and_take_memory(name: str, multiplies: int, weights: int) -> None:
    from bench.layers import steps

    layers = network(backbone="resnet18", width=0.25)[1].layers
    # A crop of 32x32 becomes 16x16, pooled 8x8.
    small = PlanNetwork(32, layers[:3])
    step = steps(small, ["stem, max-pool", name])[1]
    assert step.shapes == "16x8x8 to 16x8x8"
    assert (step.multiplies, step.weight_bytes) == (multiplies, 4 * weights)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("config", [{}, {"stride": 16}, {"stride": 64}], ids=lambda c: f"stride{c.get('stride', 32)}")
def test_steps_read_the_weights_that_the_plan_keeps(config: dict[str, Any], storage: Any) -> None:
    from bench.layers import steps

    # All channels fill whole blocks, so that no weight is there for nothing.
    plain = network(backbone="resnet18", width=0.25, **config)[1]
    plain = PlanNetwork(SIZE, plain.layers, weight_storage=storage)
    plan = plan_of(plain)
    weights = sum(step.weight_bytes for step in steps(plain, names_of(plan)))
    biases = 4 * sum(layer.channels for layer in plain.layers if layer.arrays)
    assert weights + biases == plan.weight_bytes


def test_steps_of_another_network_are_refused() -> None:
    from bench.layers import steps

    plain = network(backbone="resnet18", width=0.25)[1]
    names = names_of(plan_of(plain))
    with pytest.raises(ValueError, match=f"expected steps of {len(plain.layers)} layers, got some of"):
        steps(plain, names[:-1])
    with pytest.raises(ValueError, match=r"names among .*, got 'lookup' at layer 2"):
        steps(plain, [names[0], "lookup", *names[2:]])


def test_layers_case_adds_equal_steps_and_the_report_shows_them(records: Callable[..., list[dict[str, Any]]]) -> None:
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
    held = np.ones(size, np.uint8)
    del held
    assert memory.peak_memory() - before == pytest.approx(size, rel=0.1)
    before = memory.reset_peak()
    assert memory.peak_memory() - before < size / 8


def test_memory_case_measures_engines_and_keeps_reasons(records: Callable[..., list[dict[str, Any]]]) -> None:
    from bench import memory, report
    from bench.record import Record

    if not memory.CLEAR.exists():
        pytest.skip("needs Linux's /proc/self/clear_refs")
    options = ("--backbone", "resnet18", "--width", "0.25", "--size", str(SIZE), "--threads", "1", "--rounds", "1")
    found = records("memory", *options, "--engines", "plan")
    units = {"peak memory": "MB", "memory kept": "MB", "time until ready": "ms"}
    assert {r["metric"]: r["unit"] for r in found} == units
    peak, kept, ready = (r["median"] for r in found)
    # Weights of 0.7 M parameters, and what Winograd's transforms make of them.
    assert 2 < kept <= peak < 40
    (late,) = records("memory", *options, "--engines", "plan", "--timeout", "0.01")
    assert late["reason"] == "no answer within 0.01 s"
    table = report.render("memory", [Record(**r) for r in (*found, {**late, "subject": "slow"})])
    assert f"| pipnet_fast cpp, plan file | {peak:.3g} | {kept:.3g} | {ready:.0f} |" in table
    assert "| slow | no answer within 0.01 s |  |  |" in table


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Three faces in the form of ytf68: random landmarks on noise."""
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    rows = ["file," + ",".join(f"x{n},y{n}" for n in range(68))]
    for number in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), random.integers(0, 256, (120, 140, 3), np.uint8))
        rows.append(f"{number}.png," + ",".join(f"{v:.1f}" for v in random.uniform(20, 110, 136)))
    (tmp_path / "val.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def test_agreement_case_sees_a_network_that_is_another(
    faces: Path, records: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
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
