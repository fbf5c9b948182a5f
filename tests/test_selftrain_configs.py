"""The paper's recipes of section 4.5, on a few faces written in the true formats of their data sets."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pipnet_fast as pf
from pipnet_fast.cli._config import config_names, read_config
from pipnet_fast.data import open_data
from pipnet_fast.selftrain import SelfTrainConfig, selftrain
from pipnet_fast.selftrain import config as config_module
from pipnet_fast.selftrain.faces import open_unlabelled
from tests.miniature import landmarks, write_face
from tests.test_readers_celeba import AUTHOR, write_image
from tests.test_readers_cofw import write_cofw
from tests.test_readers_wflw import write_wflw
from tests.test_selftrain import parse

pytest.importorskip("pyarrow")
pytest.importorskip("h5py")
CONFIGS = Path(config_module.__file__).parent / "configs"


def write_300w(root: Path) -> None:
    """Four faces to train on, and one each of the common and the challenging test set."""
    for number in range(4):
        write_face(root / "helen/trainset" / f"{number}", landmarks(seed=number))
    for folder in ("afw", "lfpw/trainset", "lfpw/testset", "helen/testset", "ibug"):
        write_face(root / folder / "1", landmarks(seed=9))


def write_celeba(root: Path) -> None:
    for name in ("000001.jpg", "000002.jpg"):
        write_image(root / "img_celeba" / name, 400, 400)
    (root / "celeba_bboxes.txt").write_text(AUTHOR)


@pytest.mark.parametrize(("name", "pictures"), [("300w-uda", 7), ("300w-gssl", 2)])
def test_recipes_run_as_they_are(name: str, pictures: int, tmp_path: Path) -> None:
    """All rounds; but for a small network without ImageNet's weights, small batches, and one epoch."""
    write_300w(tmp_path / "300w")
    write_cofw(tmp_path / "cofw68", "train")
    write_wflw(tmp_path / "wflw68", "train")
    write_celeba(tmp_path / "celeba")
    config = SelfTrainConfig.from_toml(CONFIGS / f"{name}.toml")
    # The paper's boxes are the readers' own.
    assert {entry.crop_scale for entry in config.unlabelled} == {None}
    changes: dict[str, Any] = {
        "model": replace(config.model, weights=None, width=0.0625),
        "data": replace(config.data, root=str(tmp_path / "300w"), workers=0),
        "optimization": replace(config.optimization, epochs=1, batch_size=2),
        "system": replace(config.system, out=str(tmp_path / "run"), device="cpu", threads=1),
        "unlabelled": tuple(replace(entry, root=str(tmp_path / entry.dataset)) for entry in config.unlabelled),
    }
    result = selftrain(replace(config, **changes))
    assert [row["task"] for row in result.rounds] == ["supervised", "task1", "task2", "task3", "task3", "task3"]
    assert {row["unlabelled"] for row in result.rounds[1:]} == {pictures}
    model = pf.load(result.final)
    assert isinstance(model, pf.PIPNet)
    # 300W's boxes are tight, grown by 1.3.
    assert model.crop.scale == 1.3


def test_boxes_are_in_one_style(tmp_path: Path) -> None:
    """Section 3.4: WFLW's crops lose a fifth of the box at the top."""
    write_wflw(tmp_path / "wflw68", "train")
    config = SelfTrainConfig.from_toml(CONFIGS / "300w-uda.toml").unlabelled[1]
    data = open_unlabelled(
        replace(config, root=str(tmp_path / "wflw68")), pf.layouts.load_layout("300w68"), skip_bad=False
    )
    given = open_data("wflw68", tmp_path / "wflw68", "train")
    assert data.crop_boxes().tolist() == given.crop_boxes().tolist()
    x0, y0, x1, y1 = given.samples[0].box
    assert data.crop_boxes()[0] == pytest.approx(
        [x0 - 0.1 * (x1 - x0), y0 + 0.1 * (y1 - y0), x1 + 0.1 * (x1 - x0), y1 + 0.1 * (y1 - y0)]
    )
    assert all(sample.landmarks is None for sample in data.samples)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_configurations_in_the_box(path: Path) -> None:
    """The first line is the command that runs it, and changes nothing but where things are."""
    program, subcommand, *words = shlex.split(path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "))
    assert (program, subcommand, words[0]) == ("pipnet-fast", "selftrain", path.stem)
    assert path.stem in config_names(SelfTrainConfig)
    assert read_config(parse(*words), SelfTrainConfig) == SelfTrainConfig.from_toml(path)
