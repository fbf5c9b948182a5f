"""The guide docs/custom-landmarks.md: what it says to run is run, on a handful of pictures of one face."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import pipnet_fast as pf
from pipnet_fast.cli import main
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.pipeline.images import read_rgb
from pipnet_fast.train import TrainConfig, _toml
from tests import documents

GUIDE = Path(__file__).parent.parent / "docs" / "custom-landmarks.md"
# In place of the guide's settings: the smallest network, and no more than seconds.
TINY: dict[str, dict[str, Any]] = {
    "model": {"width": 0.0625, "input_size": 64},
    "data": {"workers": 0},
    "optimization": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "schedule": "constant"},
    "system": {"device": "cpu", "threads": 1},
}
# Of the photo: corners of the eyes from left to right, tip of the nose, corners of the mouth; px from pixel centers.
SEVEN = np.array([[192.5, 102], [214.5, 103], [234.5, 104], [257, 103], [225, 128], [203, 140], [244, 142]])
SIDE = 220


def blocks(language: str) -> list[str]:
    """The guide's code in one language."""
    return [block.code for block in documents.blocks(GUIDE, language)]


def commands() -> list[list[str]]:
    """The arguments of the guide's ``pipnet-fast``, without installations."""
    lines = [shlex.split(line) for code in blocks("sh") for line in documents.lines(code)]
    assert {words[0] for words in lines} == {"pip", "pipnet-fast"}
    return [words[1:] for words in lines if words[0] == "pipnet-fast"]


def window(random: np.random.RandomState) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """A part of the photo with the face in it, BGR, and its seven points."""
    x, y = random.randint(90, 150), random.randint(10, 60)
    image = read_rgb(astronaut())[y : y + SIDE, x : x + SIDE, ::-1]
    return np.ascontiguousarray(image), SEVEN - (x, y)


def write_table(folder: Path, split: str, count: int) -> None:
    random = np.random.RandomState(count)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = ["file," + ",".join(f"x{n},y{n}" for n in range(7))]
    for number in range(count):
        image, points = window(random)
        if number % 2:
            # One person who always turns the same way has no symmetric mean.
            image, points = image[:, ::-1], points[[3, 2, 1, 0, 4, 6, 5]] * (-1, 1) + (SIDE - 1, 0)
        assert cv2.imwrite(str(folder / "images" / f"{split}{number}.png"), image)
        rows.append(f"{split}{number}.png," + ",".join(f"{v:.1f}" for v in points.ravel()))
    (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the guide's reader stands: a table, a photo, a clip."""
    monkeypatch.chdir(tmp_path)
    write_table(Path("my-faces"), "train", 8)
    write_table(Path("my-faces"), "val", 3)
    random = np.random.RandomState(0)
    cv2.imwrite("photo.jpg", window(random)[0])
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 25, (SIDE, SIDE))
    assert writer.isOpened()
    image, _ = window(random)
    for _ in range(4):
        writer.write(image)
    writer.release()
    return tmp_path


def write_settings() -> None:
    """The guide's mine.toml, made small."""
    (text,) = blocks("toml")
    Path("mine.toml").write_text(text, encoding="utf-8")
    values = TrainConfig.from_toml("mine.toml").to_dict()
    for group, entries in TINY.items():
        values[group] |= entries
    Path("mine.toml").write_text(_toml.write(values), encoding="utf-8")


def test_the_tables_in_the_guide_are_tables(folder: Path) -> None:
    table = next(block for block in blocks("text") if block.startswith("file,"))
    rows = list(csv.reader(table.splitlines()))
    assert {len(row) for row in rows} == {15}
    assert rows[0][1:] == [f"{axis}{n}" for n in range(7) for axis in "xy"]


def test_the_guide_from_table_to_video(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_settings()
    run = commands()
    assert [words[0] for words in run] == ["data", "data", "train", "eval", "data", "eval", "detect", "video", "export"]
    for words in run:
        assert main(words) == 0, f"pipnet-fast {' '.join(words)}: {capsys.readouterr().err}"

    model = pf.load("runs/mine/best.safetensors")
    assert model.config.num_landmarks == 7
    assert model.crop.scale == 1.8
    out = capsys.readouterr().out
    assert "8 of 8 face(s) found" in out
    # Fitted, the detector's boxes are those of the labels; as they are they are much larger.
    after, before = map(float, re.findall(r"overlap with the landmarks' boxes ([\d.]+), ([\d.]+) without", out)[0])
    assert before < 0.5 < 0.7 < after
    with open("found/landmarks.csv", newline="") as file:
        header, row = csv.reader(file)
    assert header[-2:] == ["x6", "y6"]
    assert np.isfinite([float(value) for value in row[2:]]).all()
    assert json.loads(Path("found/photo.json").read_text())["faces"][0]["landmarks"]
    clip = cv2.VideoCapture("overlay.mp4")
    assert (clip.get(cv2.CAP_PROP_FRAME_COUNT), clip.get(cv2.CAP_PROP_FRAME_WIDTH)) == (4, SIDE)
    for name in ("sheet.png", "report/ced.png", "runs/mine/log.csv", "mine.onnx"):
        assert Path(name).stat().st_size

    for code in blocks("python"):
        names: dict[str, Any] = {}
        exec(compile(code, str(GUIDE), "exec"), names)
        if "landmarker" in names:
            assert names["faces"].landmarks.shape[1:] == (7, 2)
        else:
            assert (names["layout"].flip[0], names["layout"].outer_eyes) == (9, (0, 9))
            assert names["mean_shape"].shape == (32, 2)
