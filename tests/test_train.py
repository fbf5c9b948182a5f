"""Training through the command: pinned losses, resuming to the bit, what ends a run, overfitting."""

import csv
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.cli import main
from pipnet_fast.data import Batch, open_data
from pipnet_fast.evaluate import evaluate
from pipnet_fast.pipeline.images import read_rgb
from pipnet_fast.train import TrainConfig, TrainError, train
from pipnet_fast.train.checkpoint import read_checkpoint
from pipnet_fast.train.learner import Learner
from pipnet_fast.train.loop import Run
from tests.processes import killed
from tests.slow import slow
from tests.training import arguments, run, write_faces

# What depends on the clock.
SPEED = ("samples_per_second", "seconds")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder, "train", 16)
    write_faces(folder, "val", 4, seed=1)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    write_faces(folder, "train", 8)
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def curve(folder: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in SPEED} for row in table(folder)]


def assert_same_run(folder: Path, expected: Path) -> None:
    """To the bit: curve, weights, and what the next epoch would start from."""
    assert curve(folder) == curve(expected)
    for name in ("best.safetensors", "final.safetensors"):
        assert_same_model(folder / name, expected / name)
    got, want = (read_checkpoint(f / "last.pt") for f in (folder, expected))
    assert list(leaves(got["objective"])) == list(leaves(want["objective"]))
    assert list(leaves(got["optimizer"])) == list(leaves(want["optimizer"]))
    assert list(leaves(got["average"])) == list(leaves(want["average"]))


def assert_same_model(file: Path, expected: Path) -> None:
    got, want = pf.load(file), pf.load(expected)
    assert got.config == want.config
    assert list(leaves(got.state_dict())) == list(leaves(want.state_dict()))


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key in value:
            yield key
            yield from leaves(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield value.numpy().tobytes() if isinstance(value, Tensor) else value


# Everything that a checkpoint has to hold.
RICH: dict[str, Any] = {
    "val_split": "val",
    "epochs": 4,
    "schedule": "onecycle",
    "warmup_epochs": 1,
    "ema": 0.9,
    "accumulate": 2,
    "clip_norm": 5.0,
}


@pytest.fixture(scope="module")
def uninterrupted(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(faces, folder, **RICH) == 0
    return folder


def test_what_a_run_writes(uninterrupted: Path, faces: Path) -> None:
    assert sorted(os.listdir(uninterrupted)) == [
        "best.safetensors", "config.toml", "curves.png", "final.safetensors", "last.pt", "log.csv"
    ]  # fmt: skip
    rows = table(uninterrupted)
    assert list(rows[0]) == [
        "epoch", "learning_rate", "loss", "loss_score", "loss_offset", "loss_neighbor", "samples_per_second", "val_nme",
        "seconds",
    ]  # fmt: skip
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    config = TrainConfig.from_toml(uninterrupted / "config.toml")
    assert (config.optimization.ema, config.data.val_split) == (0.9, "val")
    assert TrainConfig.from_dict(read_checkpoint(uninterrupted / "last.pt")["config"]) == config


def test_the_model_runs_in_the_landmarker(uninterrupted: Path, faces: Path) -> None:
    model = pf.load(uninterrupted / "final.safetensors")
    assert isinstance(model, pf.PIPNet)
    data = open_data("table", faces, "train", flip=[1, 0, 2, 4, 3], eyes=[0, 1]).with_tight_boxes(pf.CropRule(1.6))
    np.testing.assert_allclose(model.mean_shape, data.mean_shape())
    assert model.crop == pf.CropRule(1.6)
    landmarker = pf.FaceLandmarker(uninterrupted / "best.safetensors", detector=None, device="cpu", engine="torch")
    found = landmarker(read_rgb(faces / "images" / "val0.png"), boxes=[[16, 16, 48, 48]])
    assert found.landmarks.shape == (1, 5, 2)


def test_best_is_the_epoch_with_the_smallest_error(uninterrupted: Path, faces: Path) -> None:
    data = open_data("table", faces, "val", flip=[1, 0, 2, 4, 3], eyes=[0, 1]).with_tight_boxes(pf.CropRule(1.6))
    errors = [float(row["val_nme"]) for row in table(uninterrupted)]
    for name, expected in (("best", min(errors)), ("final", errors[-1])):
        assert evaluate(pf.load(uninterrupted / f"{name}.safetensors"), data).nme == pytest.approx(expected, rel=1e-9)


# Mean losses of the epochs, of this code on an x86-64 CPU.
PINNED = {
    "pipnet": [0.489596, 0.443452],
    "coordnet": [0.422117, 0.220751],
    "mapnet": [0.0502310, 0.0312303],
    "grmi": [7.91648, 7.74813],
}


@pytest.mark.parametrize("kind", PINNED)
def test_pinned_losses(kind: str, few: Path, tmp_path: Path) -> None:
    # Smaller crops, for its deconvolutions take their time.
    changes = {"stride": 4, "input_size": 32} if kind == "mapnet" else {}
    assert run(few, tmp_path / "run", kind=kind, epochs=2, batch_size=4, **changes) == 0
    losses = [float(row["loss"]) for row in table(tmp_path / "run")]
    assert losses == pytest.approx(PINNED[kind], rel=2e-3)
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert type(pf.load(tmp_path / "run" / "final.safetensors")).__name__.lower() == kind


def test_same_seed_same_bits_and_another_seed_others(faces: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(faces, tmp_path / name, seed=seed, epochs=1, val_split="val", workers=int(name == "b")) == 0
    assert_same_run(tmp_path / "b", tmp_path / "a")
    assert curve(tmp_path / "c") != curve(tmp_path / "a")


def test_the_process_is_left_as_it_was(few: Path, tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert run(few, tmp_path / "run", epochs=1, threads=2) == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_resumed_run_is_the_uninterrupted_one(
    faces: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_epoch = Run.train_epoch

    def interrupted(self: Run) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(self)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_epoch", interrupted)
        assert run(faces, out, **RICH) == 130
    assert len(table(out)) == 1
    assert not (out / "final.safetensors").exists()
    assert run(faces, out, "--resume", **RICH) == 0
    assert_same_run(out, uninterrupted)


@pytest.mark.parametrize(
    ("where", "count", "epochs"),
    [
        pytest.param("pipnet_fast.train.learner.Learner.step", 6, 2, id="in the middle of an epoch"),
        # One of the file and one of the folder an epoch.
        pytest.param("os.fsync", 5, 2, id="while a checkpoint is written"),
    ],
)
def test_killed_run_resumes_to_the_same_curve(
    where: str, count: int, epochs: int, faces: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killed(where, count, arguments(faces, out, **RICH))
    assert read_checkpoint(out / "last.pt")["epoch"] == epochs
    assert run(faces, out, "--resume", **RICH) == 0
    assert_same_run(out, uninterrupted)
    assert not [name for name in os.listdir(out) if name.endswith(".tmp")]


def test_resume_needs_no_more_than_the_folder(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # There is nothing to resume yet: a first call and all later ones can be the same.
    assert run(faces, out, "--resume", epochs=1) == 0
    first = (out / "final.safetensors").rename(tmp_path / "first.safetensors")
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert_same_model(out / "final.safetensors", first)


def test_data_may_be_renamed_but_not_changed(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(few, tmp_path / "faces")
    assert run(tmp_path / "faces", tmp_path / "run", epochs=1) == 0
    moved = (tmp_path / "faces").rename(tmp_path / "others")
    assert run(moved, tmp_path / "run", "--resume", epochs=1) == 0
    header, row, *rows = (moved / "train.csv").read_text().splitlines()
    *values, last = row.split(",")
    (moved / "train.csv").write_text("\n".join([header, ",".join([*values, str(float(last) + 1)]), *rows]) + "\n")
    assert run(moved, tmp_path / "run", "--resume", epochs=1) == 2
    assert re.search(r"is of another run: data: .*others.*'digest': .*, not .*faces", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("resume", "changes", "message"),
    [
        pytest.param([], {}, r"system.out: .*whole holds a run already; resume it \(--resume\), or take", id="again"),
        pytest.param(
            ["--resume"],
            {"batch_size": 16, "width": 0.125},
            r"whole.last\.pt is of another run: model.width: 0.125, not 0.0625; optimization.batch_size: 16, not 8",
            id="other settings",
        ),
        pytest.param(
            ["--resume"],
            {"root": "val only"},
            r"is of another run: data: .*'faces': 6.*, not .*'faces': 16",
            id="other data",
        ),
    ],
)
def test_runs_are_not_mixed_up(
    resume: list[str],
    changes: dict[str, Any],
    message: str,
    faces: Path,
    uninterrupted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path.name: path.read_bytes() for path in uninterrupted.iterdir()}
    root = faces
    if changes.pop("root", None):
        root = tmp_path / faces.name
        write_faces(root, "train", 6)
        write_faces(root, "val", 6)
    assert run(root, uninterrupted, *resume, **{**RICH, **changes}) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in uninterrupted.iterdir()} == before


def test_a_folder_with_another_run_is_left_as_it_is(
    faces: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, rounds = tmp_path / "models", tmp_path / "rounds"
    for folder, name, content in (
        (models, "final.safetensors", (uninterrupted / "final.safetensors").read_bytes()),
        (rounds, "config.toml", (uninterrupted / "config.toml").read_bytes() + b"[selftrain]\n"),
    ):
        folder.mkdir()
        (folder / name).write_bytes(content)
        assert run(faces, folder, epochs=1) == 2
        assert "; take another folder" in capsys.readouterr().err
        assert run(faces, folder, "--resume", epochs=1) == 2
        assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(name, content)]


def test_faces_that_are_left_out_are_told(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(faces, tmp_path / "faces")
    (tmp_path / "faces" / "images" / "train3.png").write_bytes(b"no image")
    assert run(tmp_path / "faces", tmp_path / "run", epochs=2) == 2
    assert "train3.png: not an image" in capsys.readouterr().err
    # The run that stopped goes on with it.
    assert run(tmp_path / "faces", tmp_path / "run", "--skip-bad", "--resume", epochs=2) == 0
    error = capsys.readouterr().err
    assert re.search(r"^warning: 1 face\(s\) left out, the last one .*train3\.png: not an image", error), error
    assert error.count("left out") == 1


def test_labels_to_validate_on_are_needed_at_once(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(few, tmp_path / "faces")
    header, row, *_ = (few / "train.csv").read_text().splitlines()
    unlabelled = row.split(",")[0] + "," * row.count(",") + ",10,10,50,50"
    (tmp_path / "faces" / "val.csv").write_text(f"{header},box_x0,box_y0,box_x1,box_y1\n{unlabelled}\n")
    assert run(tmp_path / "faces", tmp_path / "run", val_split="val") == 2
    assert "expected labelled faces to validate on, got none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def assert_ends(status: int, out: Path, message: str, capsys: pytest.CaptureFixture[str], epoch: int = 1) -> None:
    """In one line that names the checkpoint of that epoch, which is there."""
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1
    assert re.search(message, error), error
    if epoch:
        assert f"; the last good checkpoint is {out / 'last.pt'}, of epoch {epoch}; --resume goes on from" in error
        assert read_checkpoint(out / "last.pt")["epoch"] == epoch
    else:
        assert "; no checkpoint was written yet" in error


@pytest.mark.parametrize(("value", "epoch"), [(float("nan"), 1), (float("inf"), 0)])
def test_loss_that_is_not_finite(
    value: float,
    epoch: int,
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = Learner.step

    def diverging(self: Learner, batch: Batch, moment: float) -> dict[str, Tensor]:
        terms = step(self, batch, moment)
        return {name: term * value for name, term in terms.items()} if moment >= epoch + 0.5 else terms

    monkeypatch.setattr(Learner, "step", diverging)
    status = run(faces, tmp_path / "run")
    message = f"the loss is {value} in epoch {epoch + 1}, step 2 of 2; a lower learning_rate, a clip_norm or"
    assert_ends(status, tmp_path / "run", message, capsys, epoch)


def test_full_disk(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsync, calls = os.fsync, iter(range(99))

    def full(descriptor: int) -> None:
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    status = run(faces, tmp_path / "run")
    assert_ends(status, tmp_path / "run", r"No space left on device: '.*last\.pt'", capsys)
    assert not (tmp_path / "run" / "last.pt.tmp").exists()


@pytest.mark.parametrize(("split", "workers"), [("train", 1), ("val", 0)])
def test_broken_image(split: str, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_faces(tmp_path, "train", 8)
    write_faces(tmp_path, "val", 2)
    assert run(tmp_path, tmp_path / "run", epochs=1, val_split="val") == 0
    broken = tmp_path / "images" / f"{split}1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    capsys.readouterr()
    status = run(tmp_path, tmp_path / "new", val_split="val", workers=workers)
    assert_ends(status, tmp_path / "new", rf"{split}1\.png: not an image that OpenCV can read", capsys, 0)


def test_errors_keep_their_cause(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Learner, "step", fail)
    config = TrainConfig.from_dict({
        "data": {"root": str(faces), "options": {"flip": [1, 0, 2, 4, 3]}, "workers": 0},
        "model": {"width": 0.0625, "input_size": 64, "num_neighbors": 1},
        "system": {"out": str(tmp_path / "run"), "device": "cpu"},
    })  # fmt: skip
    with pytest.raises(TrainError, match="out of memory; no checkpoint was written yet") as caught:
        train(config)
    assert str(caught.value.__cause__) == "out of memory"


def test_without_matplotlib(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(faces, tmp_path / "run") == 2
    assert "curves.png needs matplotlib: pip install 'pipnet_fast[train]'" in capsys.readouterr().err


PLAIN: dict[str, Any] = {"epochs": 1, "schedule": "constant"}


@pytest.fixture(scope="module")
def plain(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The row of a run without options."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    assert run(faces, folder, **PLAIN) == 0
    (row,) = table(folder)
    return row


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"precision": "bfloat16"}, id="bfloat16"),
        pytest.param({"precision": "float16"}, id="float16"),
        pytest.param({"channels_last": False}, id="contiguous"),
        pytest.param({"accumulate": 2}, id="two parts"),
        pytest.param({"optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 0.5}, id="adamw and cosine"),
        pytest.param({"deterministic": False}, id="not deterministic"),
        pytest.param({"alpha": 0.1, "beta": 0.1}, id="the paper's weights"),
    ],
)
def test_options_change_little(changes: dict[str, Any], plain: dict[str, str], faces: Path, tmp_path: Path) -> None:
    assert run(faces, tmp_path / "run", **{**PLAIN, **changes}) == 0
    (row,) = table(tmp_path / "run")
    assert float(row["loss_offset"]) == pytest.approx(float(plain["loss_offset"]), rel=0.1)
    if "channels_last" not in changes:
        assert (row["loss"] == plain["loss"]) == ("deterministic" in changes)


def test_validation_every_other_epoch_and_the_last(few: Path, tmp_path: Path) -> None:
    assert run(few, tmp_path / "run", epochs=3, eval_every=2, val_split="train") == 0
    assert [bool(row["val_nme"]) for row in table(tmp_path / "run")] == [False, True, True]


def test_partial_labels(tmp_path: Path) -> None:
    write_faces(tmp_path, "train", 8)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    for number in range(1, 5):
        cells = lines[number].split(",")
        cells[1 + 2 * number], cells[2 + 2 * number] = "", ""
        lines[number] = ",".join(cells)
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    assert run(tmp_path, tmp_path / "run", epochs=1) == 0
    assert float(table(tmp_path / "run")[0]["loss"]) > 0


OVERFIT: dict[str, Any] = {
    "val_split": "train",
    "augment": False,
    "batch_size": 32,
    "width": 0.125,
    "schedule": "onecycle",
    "learning_rate": 5e-3,
    "weight_decay": 0.0,
    "eval_every": 1000,
}


@pytest.mark.parametrize(
    ("epochs", "input_size", "error"),
    [
        pytest.param(40, 64, 12.0, id="a little"),
        pytest.param(
            200, 96, 0.5, id="to half a percent",
            marks=slow("trains for half a minute"),
        ),
    ],
)  # fmt: skip
def test_overfit_on_32_faces(epochs: int, input_size: int, error: float, tmp_path: Path) -> None:
    write_faces(tmp_path, "train", 32)
    options = {**OVERFIT, "epochs": epochs, "warmup_epochs": epochs / 5, "input_size": input_size}
    assert run(tmp_path, tmp_path / "run", **options) == 0
    assert float(table(tmp_path / "run")[-1]["val_nme"]) < error
