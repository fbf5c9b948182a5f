"""The benchmark runs, refuses wrong subjects, and writes what the report reads."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.data import FaceData, ImageFile, Sample
from pipnet_fast.evaluate import Evaluation, hold_against
from pipnet_fast.layouts import load_layout
from tests.commands import ROOT, RunBench, bench
from tests.miniature import write_noise_faces


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunBench:
    return RunBench(monkeypatch, tmp_path / "records.json")


def test_head_case_writes_records_that_the_report_reads(
    tmp_path: Path, records: RunBench, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run("bench", "floor", "--threads", "1", "--rounds", "2", "--json", str(tmp_path))
    assert done.returncode == 0, done.stderr
    options = ("--threads", "1", "--rounds", "2", "--sweep", "base", "stride")
    records.call("__main__", "head", *options, "--json", str(tmp_path))
    (out,) = tmp_path.iterdir()
    found = json.loads(out.read_text())
    assert {r["case"] for r in found} == {"floor", "head"}
    assert len({r["shape"] for r in found if r["case"] == "head"}) == 4
    needed = {"case", "subject", "metric", "unit", "median", "p20", "p80", "runs", "device", "threads", "dtype"}
    for record in found:
        assert needed | {"shape", "versions", "commit"} <= record.keys()
        assert record["p20"] <= record["median"] <= record["p80"]
    capsys.readouterr()
    records.call("report", str(out), "--table", "head-layouts")
    report = capsys.readouterr().out
    latencies = [r for r in found if r["unit"] == "ms" and r["shape"].startswith("B=1 C=512 8x8")]
    floors = 3
    assert report.count("\n| ") == len(latencies) + floors + 2
    assert f"| {latencies[0]['median']:.3g} (" in report
    records.call("report", str(out))
    assert "| B=1 C=512 2x2 N=98 K=10 | 1 |" in capsys.readouterr().out


def test_a_folder_keeps_the_records_of_a_case_once(tmp_path: Path, records: RunBench) -> None:
    for _ in range(2):
        records.call("__main__", "floor", "--threads", "1", "--rounds", "1", "--json", str(tmp_path))
    (out,) = tmp_path.iterdir()
    assert len(json.loads(out.read_text())) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_labelling_case_measures_few_and_many_faces(
    tmp_path: Path, records: RunBench, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    write_noise_faces(tmp_path, "train", 4)
    found = records("labelling", "--data", str(tmp_path), "--faces", "3", "9")
    medians = {(r["shape"].partition(" ")[0], r["metric"]): r["median"] for r in found}
    assert medians["3", "faces per second"] > 0
    assert 0 < medians["3", "the table on disk"] < medians["9", "the table on disk"]
    capsys.readouterr()
    records.call("report", str(records.out), "--table", "labelling")
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[-2:]] == ["3", "9"]


def test_train_case_compares_time_and_memory(records: RunBench) -> None:
    found = records("train", "--threads", "1", "--batch", "1", "--rounds", "1", "--network-rounds", "1")
    assert len({r["shape"] for r in found}) == 7
    for shape in {r["shape"] for r in found}:
        labels = [r["median"] for r in found if r["shape"] == shape and r["metric"] == "labels of a batch"]
        assert labels[0] > labels[1]
    assert {r["unit"] for r in found} == {"ms", "x", "MB"}


def test_losses_that_disagree_are_not_timed() -> None:
    check = bench("train").check
    leaf = torch.ones(3, requires_grad=True)
    check({"a": lambda: leaf.sum(), "b": lambda: leaf.sum()}, [leaf])
    with pytest.raises(RuntimeError, match="b differs from a by .* in a loss or gradient: not timed"):
        check({"a": lambda: leaf.sum(), "b": lambda: leaf.square().sum()}, [leaf])


def test_subjects_that_disagree_are_not_timed() -> None:
    check = bench("head").check
    good = pf.Landmarks(torch.ones(1, 2, 2), torch.ones(1, 2))
    bad = pf.Landmarks(good.points_frac + 0.1, good.scores)
    check("a", good, good, "float32")
    with pytest.raises(RuntimeError, match="b differs from the reference by .*: not timed"):
        check("b", bad, good, "float32")


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The case of that name, on two faces of random landmarks whose images are never read."""
    accuracy = bench("accuracy")

    def labelled_faces(table: Path, offset_px: tuple[float, float] = (0, 0)) -> FaceData:
        assert table == Path("ytf68/val.csv")
        truth = np.random.RandomState(0).rand(2, 68, 2) + offset_px
        faces = [Sample(ImageFile("no.jpg"), points, np.array([0.0, 0.0, 1.0, 1.0])) for points in truth]
        return FaceData("ytf68/val", load_layout("300w68"), faces, pf.CropRule(), tight=True)

    monkeypatch.setattr(accuracy, "labelled_faces", labelled_faces)
    return accuracy


def accuracy_records(accuracy: Any, *options: str) -> list[Any]:
    parser = argparse.ArgumentParser()
    accuracy.add_arguments(parser)
    records: list[Any] = accuracy.measure(parser.parse_args(["--data", "ytf68", *options]))
    return records


def test_accuracy_runs_the_merge_and_the_storage_that_it_is_asked_for(
    accuracy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    found: list[torch.Tensor] = []

    def spy(model: pf.PIPNet, data: FaceData, run: pf.Runtime, **options: Any) -> Evaluation:
        found.append(run(crops).points_frac)
        return hold_against("spied", data, np.zeros((2, 68, 2)), np.zeros((2, 68)))

    monkeypatch.setattr(accuracy, "evaluate", spy)
    for options in ([], ["--merge", "official"], ["--head-storage", "int8"]):
        accuracy_records(accuracy, *options)
    plain, merged, stored = found
    assert not torch.equal(merged, plain)
    assert not torch.equal(stored, plain)


def test_accuracy_measures_every_model_by_the_labels_it_is_asked_for(
    accuracy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def spy(model: pf.PIPNet, data: FaceData, flip_average: bool, **options: Any) -> Evaluation:
        """The second face is missed, the first one found a px to the left of where its labels were, or two below."""
        points = np.random.RandomState(0).rand(2, 68, 2) + ((0, 2) if flip_average else (-1, 0))
        points[1] = np.nan
        return hold_against("spied", data, points, np.zeros((2, 68)))

    monkeypatch.setattr(accuracy, "evaluate", spy)
    other = tmp_path / "other.safetensors"
    other.write_bytes(pf.weights.default_model().read_bytes())
    options = ("--model", "box", str(other), "--flip-average", "--option", "offset_px=[3,0]")
    records = accuracy_records(accuracy, *options)
    assert {r.shape for r in records} == {"ytf68/val, 2 faces, offset_px=[3,0]"}
    subjects = [f"{model}, boxes from labels, merge mean" for model in ("model in the box", "other")]
    subjects = [subject + end for subject in subjects for end in ("", ", flip average")]
    assert list(dict.fromkeys(r.subject for r in records)) == subjects
    medians = {(r.subject, r.metric): r.median for r in records}
    expected = {"faces not detected": 50, "faces above 10%": 100, "faces not detected or above 10%": 100}
    for subject, (x, y) in zip(subjects, [(-4, 0), (-3, 2)] * 2, strict=True):
        offs = {"mean error along x": x, "mean error along y": y}
        for metric, median in (expected | offs).items():
            assert medians[subject, metric] == pytest.approx(median, abs=1e-9), metric


def test_figures_hold_what_the_records_say() -> None:
    figures, committed = bench("figures"), bench("record").read(ROOT / "bench/results/amd-epyc-avx512.json")
    (axes,) = figures.speed_accuracy(committed).axes
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()}
    assert drawn.keys() == figures.PUBLISHED_NME.keys()
    rates = {r.subject: r.median for r in committed if r.case == "fps" and r.metric.startswith("FPS, engine")}
    for head, points in drawn.items():
        expected = {
            (rates[f"{head} {b}"], nme) for b, nme in figures.PUBLISHED_NME[head].items() if f"{head} {b}" in rates
        }
        assert set(points) == expected
        assert points
    (axes,) = figures.latency_floor(committed).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    shape = bench("tables").BASE_TEXT
    latencies = {
        r.subject: r.median
        for r in committed
        if (r.case, r.shape, r.threads, r.metric) == ("head", shape, 1, "latency")
    }
    assert [bar.get_width() for bar in axes.patches] == [latencies[name] for name in names]


def test_each_exported_file_is_held_against_the_dense_maps_of_its_runtime() -> None:
    export = bench("export")
    baselines = {key: export.baseline(subject).name for key, subject in export.SUBJECTS.items()}
    for runtime, name in (("ort", "ONNX Runtime, dense maps"), ("openvino", "OpenVINO, dense maps")):
        assert all(found.startswith(name) for key, found in baselines.items() if key.partition("-")[0] == runtime)


@pytest.mark.parametrize("page", ["README.md", "bench/README.md", "bench/PRODUCTION.md", "bench/SELFTRAIN.md"])
def test_pages_show_the_committed_records(page: str, tmp_path: Path, records: RunBench) -> None:
    committed = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- table: " in committed
    copy = tmp_path / "page.md"
    copy.write_text(committed, encoding="utf-8")
    files = sorted(map(str, (ROOT / "bench/results").glob("*.json")))
    records.call("report", *files, "--into", str(copy))
    assert copy.read_text(encoding="utf-8") == committed
