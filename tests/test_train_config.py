"""Settings of training: one description for TOML and flags, and contradictions that are told with their way out."""

import argparse
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipnet_fast.cli import main
from pipnet_fast.cli import train as command
from pipnet_fast.cli._config import config_names, read_config
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.data.readers import READERS
from pipnet_fast.models._assembly import KINDS
from pipnet_fast.train import TrainConfig, _toml
from pipnet_fast.train._fields import fields_of
from pipnet_fast.train.config import STRIDES, ModelConfig, OptimizationConfig
from tests.commands import parsed

CONFIGS = Path(command.__file__).parents[1] / "train" / "configs"


def parse(*words: str) -> argparse.Namespace:
    return parsed(command, *words)


def config_of(*words: str) -> TrainConfig:
    return read_config(parse(*words), TrainConfig)


def test_defaults_are_the_papers() -> None:
    config = TrainConfig()
    assert config == TrainConfig.from_dict({})
    options = config.optimization
    assert (options.epochs, options.batch_size, options.learning_rate) == (60, 16, 1e-4)
    assert (options.schedule, options.decay_epochs, options.decay_factor) == ("step", (30, 50), 0.1)
    assert (config.model.backbone, config.model.num_neighbors, config.model.input_size) == ("resnet18", 10, 256)
    assert set(STRIDES) < set(KINDS)


CHANGED = {
    "model": {"kind": "mapnet", "width": 0.5, "stride": 4, "mean_shape": "wflw98"},
    "data": {
        "root": 'a "quoted" \\ folder\twith tab \x7f and ü 😀',
        "val_split": "val",
        "options": {"boxes": "tight", "eyes": [0, 1], "odd key": 1.5, "quick": True},
        "augmentation": {"rotation_deg": 20},
        "augment": True,
    },
    "optimization": {"decay_epochs": [1, 2], "weight_decay": 0.0, "learning_rate": 1e-05, "epochs": 7},
    "system": {"seed": 2**32 - 1, "deterministic": False},
}


def test_toml_and_back(tmp_path: Path) -> None:
    config = TrainConfig.from_dict(CHANGED)
    assert config.optimization.decay_epochs == (1, 2)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.from_toml(path) == config
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_every_field_has_a_flag_of_its_own() -> None:
    groups = TrainConfig.groups()
    names = [field.name for group in groups.values() for field in fields_of(group)]
    assert len(set(names)) == len(names)
    # None is what says that a flag was not given.
    given = {name: value for name, value in vars(parse()).items() if "." in name}
    assert set(given) == {f"{name}.{field.name}" for name, group in groups.items() for field in fields_of(group)}
    assert set(given.values()) == {None}
    assert all(field.help for group in groups.values() for field in fields_of(group))


def test_flags_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nroot = "a"\noptions = {boxes = "tight", scale = 1.2}\n[optimization]\nepochs = 5\n')
    config = config_of(
        str(path),
        *shlex.split("--epochs 7 --decay-epochs 2 4 --no-augment --options scale=1.3 --options eyes=[0,1]"),
        *shlex.split("--val-split val --kind coordnet --width 1 --precision bfloat16"),
    )
    assert config.optimization.epochs == 7
    assert config.optimization.decay_epochs == (2, 4)
    assert (config.data.root, config.data.augment, config.data.val_split) == ("a", False, "val")
    assert config.data.options == {"boxes": "tight", "scale": 1.3, "eyes": [0, 1]}
    assert (config.model.kind, config.model.width, config.optimization.precision) == ("coordnet", 1.0, "bfloat16")
    assert config_of("--options", "layout=300w68").data.options == {"layout": "300w68"}
    assert config_of("--options", "text=a\nb = 1").data.options == {"text": "a\nb = 1"}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_configurations_in_the_box(path: Path) -> None:
    config = TrainConfig.from_toml(path)
    assert config.data.dataset in READERS
    Augmentation(**config.data.augmentation)
    # The first line is the command that runs it, and changes nothing but where things are.
    program, subcommand, *words = shlex.split(path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "))
    assert (program, subcommand, words[0]) == ("pipnet-fast", "train", path.stem)
    assert path.stem in config_names(TrainConfig)
    assert config_of(*words) == config


def test_there_are_configurations_for_the_papers_data_sets() -> None:
    assert config_names(TrainConfig) == ["300w", "aflw19", "cofw", "wflw", "ytf68"]
    for name in ("300w", "aflw19", "cofw", "wflw"):
        config = config_of(name)
        assert replace(config.optimization) == OptimizationConfig()
        assert config.model == replace(ModelConfig(), weights="imagenet")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        pytest.param({"modle": {}}, r"\[modle\]: expected the tables model, data, optimization, system", id="table"),
        pytest.param({"model": 3}, "model: expected a table, got 3", id="no table"),
        pytest.param({"model": {"stirde": 1}}, r"model.stirde: unknown; \[model\] has kind, backbone", id="entry"),
        pytest.param(
            {"model": {"kind": "vgg"}}, "model.kind: expected one of pipnet, coordnet, .* got 'vgg'", id="kind"
        ),
        pytest.param({"model": {"backbone": "vgg"}}, "model.backbone: expected one of resnet18", id="backbone"),
        pytest.param(
            {"model": {"stride": 8}}, r"model.stride: expected one of \[16, 32, 64, 128\] for pipnet", id="stride"
        ),
        pytest.param({"model": {"kind": "grmi", "stride": 8}}, "model.stride: expected none for grmi", id="no stride"),
        pytest.param({"model": {"width": "1"}}, "model.width: expected a number, got '1'", id="text as number"),
        pytest.param({"model": {"input_size": 64.0}}, "model.input_size: expected an integer, got 64.0", id="float"),
        pytest.param({"model": {"num_neighbors": True}}, "num_neighbors: expected an integer, got True", id="bool"),
        pytest.param({"model": {"num_neighbors": -1}}, "num_neighbors: expected 0 or more, got -1", id="K"),
        pytest.param(
            {"model": {"weights": "imagenet", "width": 0.5}}, "leave weights out, or set width = 1.0", id="weights"
        ),
        pytest.param({"data": {"augment": 1}}, "data.augment: expected true or false, got 1", id="number as bool"),
        pytest.param({"data": {"options": [1]}}, r"data.options: expected a table, got \[1\]", id="list as table"),
        pytest.param({"data": {"workers": -1}}, "data.workers: expected 0 or more, got -1", id="workers"),
        pytest.param({"data": {"top_shift": 0.1}}, "data.top_shift: .* set crop_scale too", id="top shift"),
        pytest.param(
            {"data": {"augment": False, "augmentation": {"blur_p": 1}}}, "set augment = true", id="no augmentation"
        ),
        pytest.param(
            {"data": {"augmentation": {"rotation": 20}}},
            "data.augmentation: expected names of .*rotation_deg.*, got 'rotation'",
            id="augmentation",
        ),
        pytest.param(
            {"data": {"augmentation": {"blur_p": 7.0}}}, "data.augmentation: .*blur_p: expected 0 to 1, got 7", id="7"
        ),
        pytest.param({"optimization": {"epochs": 0}}, "optimization.epochs: expected 1 or more, got 0", id="epochs"),
        pytest.param({"optimization": {"decay_epochs": [30.5]}}, "decay_epochs: expected an integer", id="half epoch"),
        pytest.param({"optimization": {"decay_epochs": 3}}, "decay_epochs: expected a list", id="number as list"),
        pytest.param({"optimization": {"decay_epochs": [5, 3]}}, "expected increasing epochs, got", id="order"),
        pytest.param({"optimization": {"ema": 1.0}}, "optimization.ema: expected 0 <= ema < 1, got 1.0", id="ema"),
        pytest.param({"optimization": {"learning_rate": 0.0}}, "learning_rate: expected a number > 0", id="no rate"),
        pytest.param({"optimization": {"alpha": -1.0}}, "optimization.alpha: expected a number >= 0", id="alpha"),
        pytest.param({"optimization": {"clip_norm": float("nan")}}, "clip_norm: expected a number >= 0", id="nan"),
        pytest.param({"optimization": {"decay_factor": 2}}, "expected 0 < decay_factor <= 1, got 2.0", id="factor"),
        pytest.param({"optimization": {"accumulate": 3}}, "3 parts do not divide batch_size = 16", id="accumulate"),
        pytest.param(
            {"optimization": {"schedule": "onecycle", "epochs": 20}}, "warmup_epochs: .* usually to 6", id="one cycle"
        ),
        pytest.param(
            {"optimization": {"warmup_epochs": 60}}, "expected 0 or more and below epochs = 60, got 60.0", id="warm-up"
        ),
        pytest.param(
            {"model": {"kind": "mapnet"}, "optimization": {"beta": 0.1}}, "leave them out for mapnet", id="beta"
        ),
        pytest.param({"system": {"seed": 2**32}}, r"system.seed: expected 0 <= seed < 2\^32", id="seed"),
        pytest.param({"system": {"eval_every": 0}}, "system.eval_every: expected 1 or more", id="eval every"),
        pytest.param({"system": {"threads": -1}}, "system.threads: expected 0 or more", id="threads"),
    ],
)
def test_refused(tables: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(tables)
    if all(isinstance(table, dict) for table in tables.values()):
        path = tmp_path / "config.toml"
        path.write_text(_toml.write(tables), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"config\.toml: .*{message}"):
            TrainConfig.from_toml(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param("nowhere.toml", "CONFIG: expected a TOML file, or one of 300w, .* got 'nowhere.toml'", id="file"),
        pytest.param("--epochs many", "argument --epochs: invalid int value: 'many'", id="type"),
        pytest.param("--kind vgg", "argument --kind: invalid choice: 'vgg'", id="choice"),
        pytest.param("--options boxes", "argument --options: expected NAME=VALUE, got 'boxes'", id="pair"),
        pytest.param("--ema 2", "optimization.ema: expected 0 <= ema < 1, got 2.0", id="range"),
        pytest.param("wflw --seed -1", "system.seed: expected 0 <= seed", id="with a file"),
        pytest.param("--root nowhere", "system.out: expected a folder for what is written, got none; set it", id="out"),
        pytest.param("--root nowhere --out {out}", "nowhere: expected the folder of table, found nothing", id="root"),
    ],
)
def test_wrong_calls_are_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["train", *shlex.split(words.format(out=tmp_path / "out"))]
    try:
        status: Any = main(arguments)
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    assert status == 2
    assert re.search(message, captured.err)
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_broken_toml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[model]\nkind = pipnet\n")
    with pytest.raises(ValueError, match=r"config\.toml: not TOML: .*line 2"):
        TrainConfig.from_toml(path)


def test_what_may_differ_when_a_run_is_resumed() -> None:
    config = TrainConfig.from_dict(CHANGED)
    assert config.differences(config) == []
    moved = {**CHANGED, "data": {**CHANGED["data"], "root": "elsewhere", "workers": 7}, "system": CHANGED["system"]}
    assert config.differences(TrainConfig.from_dict(moved)) == []
    other = {**CHANGED, "optimization": {**CHANGED["optimization"], "epochs": 8}, "system": {"seed": 5}}
    assert config.differences(TrainConfig.from_dict(other)) == [
        "optimization.epochs: 8, not 7",
        "system.seed: 5, not 4294967295",
    ]
