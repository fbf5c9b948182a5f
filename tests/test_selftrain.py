"""Self-training through the command: what a run writes, what is kept when it is killed, and what is refused."""

import argparse
import csv
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.cli import main
from pipnet_fast.cli import selftrain as command
from pipnet_fast.selftrain import SelfTrainConfig, read_labels
from pipnet_fast.selftrain.faces import open_unlabelled
from pipnet_fast.train import TrainConfig
from pipnet_fast.train._fields import fields_of
from tests.commands import parsed
from tests.processes import killed, two_ranks
from tests.training import arguments, write_faces

pytest.importorskip("pyarrow")

# Grids of 4x4 cells, which can be pooled twice; two epochs a round.
CHANGES: dict[str, Any] = {"input_size": 128, "epochs": 2, "val_split": "val"}
SEQUENCE = ("--tasks", "task1", "task3", "--shard-faces", "8")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled set, and one whose table has boxes alone."""
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder, "train", 16)
    write_faces(folder, "val", 4, seed=1)
    write_faces(folder / "others", "train", 12, seed=2)
    hide_labels(folder / "others" / "train.csv")
    return folder


def hide_labels(table: Path) -> None:
    """Leave of a table's labels their tight boxes."""
    with open(table, newline="") as file:
        rows = list(csv.reader(file))
    lines = ["file,box_x0,box_y0,box_x1,box_y1"]
    for name, *values in rows[1:]:
        points = np.array(values, dtype=float).reshape(-1, 2)
        lines.append(",".join([name, *map(str, (*points.min(axis=0), *points.max(axis=0)))]))
    table.write_text("\n".join(lines) + "\n")


def words(root: Path, out: Path, *more: str, **changes: Any) -> list[str]:
    """Arguments of a small run; the set without labels is cropped as the labelled one is."""
    _, *common = arguments(root, out, **{**CHANGES, **changes})
    config = out.parent / f"{out.name}.toml"
    others = root / "others"
    config.write_text(f'[[unlabelled]]\ndataset = "table"\nroot = "{others}"\noptions = {{scale = 1.6}}\n')
    return ["selftrain", str(config), *common, *more]


def parse(*more: str) -> argparse.Namespace:
    return parsed(command, *more)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in pf.load(path).state_dict().items()}


@pytest.fixture(scope="module")
def uninterrupted(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert main(words(faces, out, *SEQUENCE)) == 0
    return out


def test_what_a_run_writes(uninterrupted: Path, faces: Path) -> None:
    assert sorted(path.name for path in uninterrupted.iterdir()) == [
        *("0-supervised", "1-labels", "1-task1", "2-labels", "2-task3"),
        *("config.toml", "final.safetensors", "rounds.csv"),
    ]
    assert sorted(p.name for p in (uninterrupted / "1-labels" / "0").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    rows = table(uninterrupted / "rounds.csv")
    assert [(row["round"], row["task"], row["labelled"], row["kept"]) for row in rows] == [
        ("0", "supervised", "16", ""),
        ("1", "task1", "16", "12"),
        ("2", "task3", "16", "12"),
    ]
    assert all(0 < float(row["mean_score"]) < 1 for row in rows[1:])
    for row, folder in zip(rows, ("0-supervised", "1-task1", "2-task3"), strict=True):
        assert float(row["val_nme"]) == float(table(uninterrupted / folder / "log.csv")[-1]["val_nme"])
    assert weights(uninterrupted / "final.safetensors") == weights(uninterrupted / "2-task3" / "final.safetensors")
    config = SelfTrainConfig.from_toml(uninterrupted / "config.toml")
    assert config.unlabelled[0].options == {"scale": 1.6}
    assert TrainConfig.from_toml(uninterrupted / "1-task1" / "config.toml") == config.round_config(
        1, str(uninterrupted / "1-task1")
    )


def test_pseudo_labels_are_the_last_rounds_predictions(uninterrupted: Path, faces: Path) -> None:
    config = SelfTrainConfig.from_toml(uninterrupted / "config.toml")
    layout = pf.data.open_data("table", faces, "train", flip=[1, 0, 2, 4, 3], eyes=[0, 1]).layout
    pictures = open_unlabelled(config.unlabelled[0], layout, skip_bad=False)
    for round_, before in ((1, "0-supervised"), (2, "1-task1")):
        labels = read_labels(pictures, uninterrupted / f"{round_}-labels" / "0")
        model = pf.load(uninterrupted / before / "final.safetensors")
        sample, box = labels.samples[5], pictures.crop_boxes()[5:6]
        affine = model.crop.affine(box, 128)
        crop = pf.crop.warp(sample.image.read(), affine[0], 128)
        x = pf.pipeline.images.normalize(torch.from_numpy(crop)[None], torch.float32)
        expected = model.crop.to_image(model.predict(x).points_frac.double().numpy(), affine, 128)[0]
        assert sample.landmarks is not None
        np.testing.assert_allclose(sample.landmarks, expected, atol=1e-3)


def test_run_that_is_killed_in_every_phase_ends_as_the_uninterrupted_one(
    uninterrupted: Path, faces: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    deaths = [
        ("0-supervised/last.pt", 2),
        ("1-labels/0/part-00001.parquet", 1),
        ("1-task1/final.safetensors", 1),
        ("2-task3/last.pt", 1),
    ]
    for ending, count in deaths:
        killed("os.replace", count, words(faces, out, *SEQUENCE, "--resume"), ending)
    assert main(words(faces, out, *SEQUENCE, "--resume")) == 0
    assert weights(out / "final.safetensors") == weights(uninterrupted / "final.safetensors")
    assert table(out / "rounds.csv") == table(uninterrupted / "rounds.csv")
    for part in ("1-labels/0/part-00000.parquet", "2-labels/0/part-00001.parquet"):
        assert (out / part).read_bytes() == (uninterrupted / part).read_bytes()


def test_nothing_is_computed_twice(uninterrupted: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError

    times = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*.parquet")}
    monkeypatch.setattr("pipnet_fast.train.learner.Learner.step", fail)
    monkeypatch.setattr("pipnet_fast.models.PIPNet.predict", fail)
    assert main(words(faces, uninterrupted, *SEQUENCE, "--resume")) == 0
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*.parquet")} == times


def test_data_may_be_moved_and_renamed(uninterrupted: Path, faces: Path, tmp_path: Path) -> None:
    out = shutil.copytree(uninterrupted, tmp_path / "run")
    renamed = shutil.copytree(faces, tmp_path / "renamed")
    (out / "2-task3" / "final.safetensors").unlink()
    assert main(words(renamed, out, *SEQUENCE, "--resume")) == 0
    assert weights(out / "final.safetensors") == weights(uninterrupted / "final.safetensors")


def test_rounds_begin_anew_or_go_on(faces: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """With a rate next to nothing the weights stay what they were at a round's beginning."""
    given = uninterrupted / "0-supervised" / "final.safetensors"
    common = ("--tasks", "task3", "--supervised", str(given))
    for flag, goes_on in (("--no-restart", True), ("--restart", False)):
        out = tmp_path / flag
        assert main(words(faces, out, *common, flag, learning_rate=1e-9, epochs=1, decay_epochs=[1])) == 0
        assert not (out / "0-supervised").exists()
        found, before = (pf.load(path).state_dict()["conv1.weight"] for path in (out / "final.safetensors", given))
        assert torch.allclose(found, before, atol=1e-6) == goes_on


def test_dann(faces: Path, uninterrupted: Path, tmp_path: Path) -> None:
    given = ("--supervised", str(uninterrupted / "0-supervised" / "final.safetensors"))
    assert main(words(faces, tmp_path / "run", "--method", "dann", *given, "--domain-weight", "0.5")) == 0
    rows = table(tmp_path / "run" / "1-dann" / "log.csv")
    for row in rows:
        terms = [float(row[f"loss_{name}"]) for name in ("score", "offset", "neighbor", "domain")]
        assert float(row["loss"]) == pytest.approx(sum(w * t for w, t in zip((1, 0.2, 0.2, 0.5), terms, strict=True)))
    assert not (tmp_path / "run" / "1-labels").exists()
    # The classifier stays behind: the model is a plain one.
    assert isinstance(pf.load(tmp_path / "run" / "final.safetensors"), pf.PIPNet)


def test_dann_leaves_out_pictures_that_cannot_be_read(
    faces: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = shutil.copytree(faces, tmp_path / "faces")
    next(iter(sorted((damaged / "others" / "images").iterdir()))).write_bytes(b"no image")
    given = ("--supervised", str(uninterrupted / "0-supervised" / "final.safetensors"))
    assert main(words(damaged, tmp_path / "run", "--method", "dann", *given)) == 0
    assert re.search(r"warning: 1 face\(s\) left out, .*not an image", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            "", r"expected faces to learn from, found none by detector 'haar' in 12 picture\(s\), 1 of", id="faces"
        ),
        pytest.param("options = {scale = 1.5}", r"unlabelled\[0\]\.options: scale: expected none where", id="options"),
    ],
)
def test_pictures_that_cannot_be_learned_from(
    options: str, message: str, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = shutil.copytree(faces / "others" / "images", tmp_path / "pictures")
    next(iter(sorted(pictures.iterdir()))).write_bytes(b"no image")
    config = tmp_path / "pictures.toml"
    config.write_text(f'[[unlabelled]]\ndataset = "images"\nroot = "{pictures}"\ndetector = "haar"\n{options}\n')
    _, *common = arguments(faces, tmp_path / "run", **CHANGES)
    assert main(["selftrain", str(config), *common, "--tasks", "task3"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run" / "0-supervised").exists()


def test_pictures_are_looked_for_before_the_first_training(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, *common = arguments(faces, tmp_path / "run", **CHANGES)
    assert main(["selftrain", *common, "--tasks", "task3", "--unlabelled", f"images:{tmp_path / 'nowhere'}"]) == 2
    assert "nowhere: expected the folder of images" in capsys.readouterr().err
    assert not (tmp_path / "run" / "0-supervised").exists()


def test_predictions_that_are_not_finite(
    faces: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = pf.load(uninterrupted / "0-supervised" / "final.safetensors")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    pf.save(model, tmp_path / "nan.safetensors")
    given = ("--supervised", str(tmp_path / "nan.safetensors"), "--tasks", "task3")
    assert main(words(faces, tmp_path / "run", *given)) == 2
    assert "round 1: write_labels: model: expected finite" in capsys.readouterr().err


def test_gsl_is_supervised_training(faces: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert main(words(faces, tmp_path / "run", "--method", "gsl")) == 0
    assert [row["task"] for row in table(tmp_path / "run" / "rounds.csv")] == ["supervised"]
    assert weights(tmp_path / "run" / "final.safetensors") == weights(
        uninterrupted / "0-supervised" / "final.safetensors"
    )


def test_faces_of_pictures_are_found_by_a_detector(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every face of a folder of pictures; the crops follow as those of the labelled set."""
    pictures = tmp_path / "pictures"
    shutil.copytree(faces / "others" / "images", pictures)
    monkeypatch.setattr(
        "pipnet_fast.selftrain.detect.create_detector",
        lambda name: lambda image: np.array([[12.0, 12, 52, 52, 1], [10, 10, 50, 50, 1]], np.float32),
    )
    _, *common = arguments(faces, tmp_path / "run", **CHANGES)
    given = ("--tasks", "task3", "--unlabelled", f"images:{pictures}")
    assert main(["selftrain", *common, *given]) == 0
    assert table(tmp_path / "run" / "rounds.csv")[1]["unlabelled"] == "24"
    # A run tells what it needs to go on.
    assert main(["selftrain", "--resume", "--out", str(tmp_path / "run")]) == 0


def test_sets_in_other_boxes_are_told(faces: Path, uninterrupted: Path, tmp_path: Path, capsys: Any) -> None:
    given = ("--supervised", str(uninterrupted / "0-supervised" / "final.safetensors"), "--tasks", "task3")
    command = words(faces, tmp_path / "run", *given)
    config = tmp_path / "run.toml"
    config.write_text(config.read_text().replace("scale = 1.6", "scale = 2.6"))
    assert main(command) == 0
    assert re.search(r"warning: .*others/train.*scale", capsys.readouterr().err)


def test_two_processes_are_as_one(faces: Path, uninterrupted: Path, tmp_path: Path) -> None:
    for done in two_ranks(words(faces, tmp_path / "two", *SEQUENCE)):
        assert done.returncode == 0, done.stderr
    two, one = (table(folder / "rounds.csv") for folder in (tmp_path / "two", uninterrupted))
    assert float(two[0]["loss"]) == pytest.approx(float(one[0]["loss"]), rel=1e-3)
    # From here on rounding decides: what hardly trained networks find jumps from cell to cell.
    assert float(two[1]["mean_score"]) == pytest.approx(float(one[1]["mean_score"]), rel=1e-2)
    assert [(row["task"], row["kept"]) for row in two] == [(row["task"], row["kept"]) for row in one]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param(["--tasks", "task4"], "selftrain.tasks: expected tasks of task1, .*got 'task4'", id="task"),
        pytest.param(["--kind", "coordnet"], "model.kind: expected pipnet, .*got 'coordnet'", id="kind"),
        pytest.param(["--min-score", "2"], "selftrain.min_score: expected a number from 0 to 1, got 2.0", id="score"),
        pytest.param(["--min-score", "1"], "none of 12 faces is kept", id="none kept"),
        pytest.param(["--supervised", "none.safetensors"], "no such model file: none.safetensors", id="no model"),
        pytest.param(["--input-size", "96", "--tasks", "task1"], "got 3 cells of input_size = 96", id="grid"),
        pytest.param(["--unlabelled", "table"], "expected DATASET:ROOT.*got 'table'", id="set"),
        pytest.param(["--unlabelled", "table:nowhere"], "nowhere: expected the folder of table", id="folder"),
    ],
)
def test_refused(more: list[str], message: str, faces: Path, tmp_path: Path, capsys: Any) -> None:
    command = words(faces, tmp_path / "run", "--tasks", "task3", *more, epochs=1, decay_epochs=[1])
    status: object
    try:
        status = main(command)
    except SystemExit as end:
        status = end.code
    error = capsys.readouterr().err
    assert status == 2
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) == 1


def test_other_run_in_the_folder(uninterrupted: Path, faces: Path, capsys: Any) -> None:
    assert main(words(faces, uninterrupted, *SEQUENCE)) == 2
    assert "holds a run already; resume it" in capsys.readouterr().err
    assert main(words(faces, uninterrupted, *SEQUENCE, "--resume", "--score-mean", "faces")) == 2
    assert "selftrain.score_mean: 'faces', not 'cells'" in capsys.readouterr().err


def test_needs_unlabelled_faces(faces: Path, tmp_path: Path, capsys: Any) -> None:
    _, *common = arguments(faces, tmp_path / "run", **CHANGES)
    assert main(["selftrain", *common]) == 2
    assert "unlabelled: expected at least one set of faces without labels" in capsys.readouterr().err


def test_without_pyarrow(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(words(faces, tmp_path / "run")) == 2
    assert re.search(r"needs pyarrow.*pip install 'pipnet_fast\[", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_every_field_has_a_flag_of_its_own() -> None:
    groups = SelfTrainConfig.groups()
    given = [name for name in vars(parse()) if "." in name]
    assert set(given) == {f"{name}.{field.name}" for name, group in groups.items() for field in fields_of(group)}
    flags = [name.partition(".")[2] for name in given]
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("images:a/b", {"dataset": "images", "root": "a/b"}),
        ("table:a:val", {"dataset": "table", "root": "a", "split": "val"}),
        ("images:C:/photos", {"dataset": "images", "root": "C:/photos"}),
    ],
)
def test_sets_on_the_command_line(text: str, expected: dict[str, str]) -> None:
    assert parse("--unlabelled", text).unlabelled == [expected]


def test_configuration_to_toml_and_back(tmp_path: Path) -> None:
    sets = [{"dataset": "celeba", "root": "c", "options": {"boxes": "given"}}, {"root": "photos", "detector": "haar"}]
    config = SelfTrainConfig.from_dict({"selftrain": {"tasks": ["task2"]}, "unlabelled": sets})
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert SelfTrainConfig.from_toml(path) == config
    assert [values.chosen_split() for values in config.unlabelled] == ["all", "all"]
    changed = SelfTrainConfig.from_dict({"selftrain": {"tasks": ["task2"]}, "unlabelled": [sets[0], {"root": "other"}]})
    assert config.differences(changed) == ["unlabelled[1].detector: 'auto', not 'haar'"]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"unlabelled": {}}, r"unlabelled: expected a list of tables"),
        ({"unlabelled": [{"folder": "a"}]}, r"unlabelled.folder: unknown; \[unlabelled\] has dataset, root"),
        ({"unlabelled": [{"top_shift": 0.1}]}, r"unlabelled.top_shift: shifts the crops of crop_scale"),
        (
            {"unlabelled": [{}], "rounds": {}},
            r"\[rounds\]: expected the tables model, data, optimization, system, self",
        ),
    ],
)
def test_configurations_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfTrainConfig.from_dict(tables)
