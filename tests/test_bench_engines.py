"""Whole engines: processes that fail are records, wrong subjects are not timed, and the rivals find the landmarks."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from tests.commands import ROOT, RunBench, bench

SIZE = 64
NETWORK = ("--backbone", "resnet18", "--width", "0.25", "--size", str(SIZE), "--rounds", "2", "--threads", "1")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("network")
    return bench("task").prepare(folder, "resnet18", SIZE, width=0.25)


@pytest.fixture
def task(network):
    return bench("task").Task(network.folder, SIZE, batch=1, threads=1)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunBench:
    return RunBench(monkeypatch, tmp_path / "records.json")


@pytest.fixture(scope="module")
def outcomes(network):
    """One run of a good subject among bad ones."""
    isolated, task = bench("isolated"), bench("task").Task(network.folder, SIZE, batch=1, threads=1)
    names = ("chatty", "wrong", "absent", "dies", "dies_later")
    subjects = [isolated.Subject(name, f"tests.bad_rivals:{name}") for name in names]
    subjects.append(isolated.Subject("inexact", "tests.bad_rivals:wrong", exact=False))
    schedule = isolated.Schedule(rounds=3, block_ms=1, pause_s=0.01, timeout_s=120)
    return isolated.measure(subjects, task, network.landmarks_px, schedule)


def test_good_subject_is_measured_among_bad_ones(outcomes) -> None:
    good = outcomes["chatty"]
    assert good.reason is None
    assert len(good.rounds) == 3
    assert min(good.calls()) > 0
    assert good.note == "talks"
    assert good.versions == {"torch": metadata.version("torch")}
    assert np.median(good.deviation_px) < 0.01


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong", r"differ from those in float64 by 0\.707 px .*not timed"),
        ("absent", "ModuleNotFoundError: No module named 'no_such_engine'"),
        ("dies", "the process died of SIGABRT while building: .*cheese"),
        ("dies_later", "the process died with exit status 3 while being timed"),
    ],
)
def test_bad_subject_has_its_reason_and_no_speed_up(outcomes, name: str, reason: str) -> None:
    bad = outcomes[name]
    assert bad.reason is not None
    assert re.search(reason, bad.reason)
    assert bad.speed_up_over(outcomes["chatty"]) == []
    assert outcomes["chatty"].speed_up_over(bad) == []


def test_inexact_subject_is_timed_and_its_deviation_kept(outcomes) -> None:
    inexact = outcomes["inexact"]
    assert inexact.reason is None
    assert np.median(inexact.deviation_px) == pytest.approx(0.5**0.5, abs=0.01)
    ratios = inexact.speed_up_over(outcomes["chatty"])
    expected = np.median(outcomes["chatty"].rounds[1]) / np.median(inexact.rounds[1])
    assert len(ratios) == 3
    assert ratios[1] == pytest.approx(expected)


def test_hanging_worker_is_ended_with_all_it_started(task) -> None:
    isolated = bench("isolated")
    with isolated.WorkerProcess(task, timeout_s=120) as worker:
        worker.build(isolated.Subject("hangs", "tests.bad_rivals:hangs"), task)
        worker.timeout_s = 0.2
        with pytest.raises(isolated.WorkerError, match=r"no answer within 0\.2 s of being timed"):
            worker.time(1)
    child = int(task.file("child.pid").read_text())
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        # One that ended but was not waited for yet is a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_tolerance_allows_few_other_winners_and_no_shift() -> None:
    isolated = bench("isolated")
    tolerance = isolated.TOLERANCES["float32"]
    few = np.zeros(1000)
    few[:20] = 40.0
    isolated._require_close(few, tolerance)
    few[:40] = 40.0
    with pytest.raises(isolated.WorkerError, match=r"4\.0% of them by more than 1 px"):
        isolated._require_close(few, tolerance)
    with pytest.raises(isolated.WorkerError, match=r"by 0\.1 px in the median"):
        isolated._require_close(np.full(1000, 0.1), tolerance)
    with pytest.raises(isolated.WorkerError, match=r"by nan px in the median, 0\.1% of them"):
        isolated._require_close(np.where(np.arange(1000) == 7, np.nan, 0.0), tolerance)
    with pytest.raises(isolated.WorkerError, match=r"shape \(8, 97, 2\), expected \(8, 98, 2\): not timed"):
        isolated._deviation(np.zeros((8, 97, 2)), np.zeros((4, 98, 2)))


RIVALS = [
    pytest.param("official:build", {}, (), id="official"),
    pytest.param("official:build_batched", {}, (), id="official-batched"),
    pytest.param("torch_compile:build", {}, (), id="torch.compile"),
    pytest.param("onnxruntime:build", {}, ("onnxruntime", "onnx", "onnxscript"), id="onnxruntime"),
    pytest.param("openvino:build", {}, ("openvino", "onnx", "onnxscript"), id="openvino"),
    pytest.param("openvino:build", {"hint": "THROUGHPUT"}, ("openvino", "onnx", "onnxscript"), id="openvino-streams"),
    pytest.param("ncnn:build", {}, ("ncnn", "pnnx"), id="ncnn"),
    pytest.param("mnn:build", {}, ("MNN", "onnx", "onnxscript"), id="mnn"),
    pytest.param("ours:build", {"engine": "torch"}, (), id="ours-torch"),
    pytest.param("ours:build", {"engine": "torch", "dense": True}, (), id="dense-torch"),
]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("factory", "options", "packages"), RIVALS)
def test_rival_finds_the_landmarks(
    network,
    batch: int,
    factory: str,
    options: dict[str, Any],
    packages: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in packages:
        pytest.importorskip(package)
    # It takes a minute, and what is tested here stands around it.
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    task = bench("task").Task(network.folder, SIZE, batch, threads=1)
    module, _, function = factory.partition(":")
    build: Callable = getattr(bench(f"rivals.{module}"), function)
    run = build(task, **options).run
    batches = task.batches()
    assert sum(map(len, batches)) >= len(network.landmarks_px)
    points = np.concatenate([np.array(run(crops)) for crops in batches])
    expected = np.resize(network.landmarks_px, points.shape)
    np.testing.assert_allclose(points, expected, atol=0.01)


def test_int8_is_near_the_landmarks_and_says_that_it_is_not_equal(network) -> None:
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    task = bench("task").Task(network.folder, SIZE, batch=1, threads=1)
    built = bench("rivals.openvino").build(task, int8=True)
    points = np.concatenate([np.array(built.run(crops)) for crops in task.batches()])
    assert built.note is not None
    # Random networks lose more winners than trained ones; chance would be about a third of the crop.
    assert 0 < np.median(np.abs(points - network.landmarks_px)) < SIZE / 8


def test_networks_are_seeded_and_their_winners_are_clear(network) -> None:
    networks = bench("networks")
    one, other = networks.pipnet("resnet18", SIZE, 0.25), networks.pipnet("resnet18", SIZE, 0.25)
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key], rtol=1e-4, atol=1e-5, msg=key)
    crops = torch.from_numpy(np.load(Path(network.folder, "crops.npy")))
    from pipnet_fast.pipeline.images import normalize

    with torch.no_grad():
        features = one.forward_features(normalize(crops))
        score = one(normalize(crops)).score.flatten(2)
    # Activations of the size that trained networks have, and scores that differ from cell to cell.
    assert 0.1 < float(features.std()) < 10
    assert float(score.std(dim=2).median()) > 0.05
    assert len(torch.unique(score.argmax(dim=2))) == score.shape[2]


def test_face_crops_show_the_labelled_faces(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "images").mkdir()
    image = np.zeros((80, 100, 3), np.uint8)
    image[20:60, 30:70] = (0, 0, 200)  # BGR
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image)
    points = np.random.default_rng(0).uniform((30, 20), (69, 59), (68, 2))
    points[:2] = (30, 20), (69, 59)
    names = ",".join(f"x{n},y{n}" for n in range(68))
    (tmp_path / "labels.csv").write_text(f"file,{names}\na.png,{','.join(map(str, points.ravel()))}\n")
    crops = bench("networks").face_crops(tmp_path / "labels.csv", 3, 32, pf.CropRule(scale=1.0))
    assert crops.shape == (3, 32, 32, 3)
    assert (crops[:, 4:28, 4:28] == (200, 0, 0)).all()


def test_e2e_writes_latencies_ratios_and_deviations(records: RunBench) -> None:
    found = records("e2e", *NETWORK, "--engines", "ours-torch", "dense-torch", "--block-ms", "5")
    official = "official, eager network and decode"
    assert {s: {r["metric"] for r in found if r["subject"] == s} for s in _subjects(found)} == {
        official: {"latency", "deviation from float64"},
        "pipnet_fast torch": {
            "latency",
            f"speed-up over {official}",
            "speed-up over pipnet_fast torch, dense head",
            "deviation from float64",
        },
        "pipnet_fast torch, dense head": {"latency", f"speed-up over {official}", "deviation from float64"},
    }
    assert {r["shape"] for r in found} == {f"resnet18 B=1 {SIZE}x{SIZE} N=98 K=10"}
    assert all("median" in r and "reason" not in r for r in found)


def _subjects(records: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(r["subject"] for r in records))


def test_throughput_counts_images_of_every_batch(records: RunBench) -> None:
    (record,) = records("throughput", *NETWORK, "--engines", "official", "--batch", "3", "--block-ms", "5")
    assert record["unit"] == "images/s"
    assert record["shape"].startswith("resnet18 B=3 ")


def test_unknown_key_names_those_there_are(records: RunBench) -> None:
    with pytest.raises(SystemExit, match="expected some of official, torch.compile, onnxruntime.*got onnx$"):
        records("e2e", "--engines", "onnx")


def test_fps_has_all_rows_of_the_table() -> None:
    fps, params = bench("fps"), bench("params")
    assert [fps.name_of(row) for row in params.TABLE_9] == list(fps.PAPER_FPS)


def test_fps_compares_heads_of_a_backbone(records: RunBench) -> None:
    found = records("fps", *NETWORK)
    assert _subjects(found) == ["CoordNet resnet18", "MapNet resnet18", "PIPNet resnet18"]
    paper = {r["subject"]: r["median"] for r in found if r["metric"] == "FPS, paper"}
    assert paper == {"CoordNet resnet18": 37.5, "MapNet resnet18": 3.5, "PIPNet resnet18": 35.7}
    ratios = [r["subject"] for r in found if r["metric"] == "speed-up over CoordNet resnet18"]
    assert ratios == ["MapNet resnet18", "PIPNet resnet18"]


def test_engines_are_those_of_compile() -> None:
    listed = {engine for engines in bench("rivals.ours").ENGINES.values() for engine in engines}
    assert listed == set(pf.engines())


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in Linux' /proc")
def test_interrupt_ends_the_workers() -> None:
    command = [sys.executable, "-m", "bench", "e2e", *NETWORK, "--engines", "official"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    worker = None
    deadline = time.monotonic() + 60
    while worker is None and time.monotonic() < deadline:
        time.sleep(0.1)
        worker = next(iter(_children(process.pid)), None)
    assert worker is not None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert not _runs(worker)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()] if tasks.exists() else []
