"""What models see in pictures without a face."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.cli import main
from pipnet_fast.data import DataError
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.data.samples import blackened
from pipnet_fast.data.sources import BlackImage
from pipnet_fast.evaluate.prior import Prior, faceless, implicit_prior
from pipnet_fast.pipeline.images import ImageError, read_rgb
from tests.pictures import Picture, data, face, numbered
from tests.test_sources import write_video
from tests.training import MEAN

SIZE = 32


def prior_of(points: Any, mean_shape: Any = None) -> Prior:
    points = np.asarray(points, dtype=np.float64)
    return Prior("a", "noise", np.zeros((len(points), SIZE, SIZE, 3), np.uint8), points, mean_shape)


def test_the_numbers() -> None:
    mean_shape = np.array([[0.2, 0.3], [0.6, 0.7]])
    # Off by 5, 10 and 0, 5 hundredths of the crop.
    shifts = np.array([[[0.03, 0.04], [0.06, 0.08]], [[0.0, 0.0], [0.03, 0.04]]])
    found = prior_of(mean_shape + shifts, mean_shape)
    assert found.distance == pytest.approx(0.05)
    assert found.spread == pytest.approx(0.025)
    assert found.row() == {"model": "a", "pictures": "noise", "count": 2, "distance": 0.05, "spread": 0.025}
    same = prior_of([mean_shape, mean_shape], mean_shape)
    assert (same.distance, same.spread) == (0, 0)


def test_what_is_not_known() -> None:
    points = np.full((1, 2, 2), 0.5)
    assert (prior_of(points).distance, prior_of(points).spread) == (None, None)
    assert prior_of(points).row()["distance"] is None


@pytest.mark.parametrize(("kind", "value"), [("black", 0), ("gray", 128)])
def test_plain_pictures(kind: str, value: int) -> None:
    crops = faceless(kind, SIZE)
    assert (crops.shape, str(crops.dtype), np.unique(crops).tolist()) == ((1, SIZE, SIZE, 3), "uint8", [value])


def test_noise() -> None:
    crops = faceless("noise", 64, 5)
    assert (crops.shape, str(crops.dtype)) == ((5, 64, 64, 3), "uint8")
    assert np.array_equal(crops, faceless("noise", 64, 5))
    assert (faceless("noise", 64, 5, seed=1) != crops).mean() > 0.9
    assert (crops.min(), crops.max()) == (0, 255)
    assert crops.mean() == pytest.approx(127.5, abs=2)


def write(path: Path, value: int, height: int = 20, width: int = 50) -> None:
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), (value, 0, 255 - value), np.uint8))


@pytest.mark.parametrize("size", [8, 32, 100], ids=["shrunk", "mixed", "enlarged"])
def test_pictures_of_a_folder_fill_the_crop(tmp_path: Path, size: int) -> None:
    for number in range(9):
        write(tmp_path / "sub" / f"{number}.png", 10 * number)
    crops = faceless(tmp_path, size, count=3)
    assert crops.shape == (3, size, size, 3)
    # Red, green, blue; no frame, and pictures from all over the folder.
    for crop, value in zip(crops, (0, 40, 80), strict=True):
        assert np.unique(crop.reshape(-1, 3), axis=0).tolist() == [[255 - value, 0, value]]
    assert len(faceless(tmp_path, size, count=99)) == 9


def test_a_folder_with_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 11)
    assert len(faceless(tmp_path, SIZE)) == 3


def test_pictures_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="faceless: pictures: expected black, gray, noise or a folder, got 'white'"):
        faceless("white", SIZE)
    with pytest.raises(DataError, match="found none"):
        faceless(tmp_path, SIZE)
    with pytest.raises(ValueError, match="faceless: expected size and count >= 1, got 32 and 0"):
        faceless("noise", SIZE, 0)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png: not an image"):
        faceless(tmp_path, SIZE)


def test_predictions_come_picture_by_picture() -> None:
    """More of them than a batch; their first pixel says where the landmarks are."""
    crops = np.zeros((70, SIZE, SIZE, 3), np.uint8)
    crops[:, 0, 0, 0] = np.arange(70)
    seen = []

    def run(batch: Tensor) -> pf.Landmarks:
        seen.append(len(batch))
        points = batch[:, 0, 0, :1, None].float().expand(-1, 4, 2) / 100
        return pf.Landmarks(points, points[..., 0])

    found = implicit_prior("net", run, "mine", crops)
    assert max(seen) < 70
    assert sum(seen) == 70
    np.testing.assert_allclose(found.points_frac, np.arange(70)[:, None, None] / 100 * np.ones((1, 4, 2)), atol=1e-6)
    with pytest.raises(ValueError, match=r"mean_shape: expected \(4, 2\) as net has, got \(5, 2\)"):
        implicit_prior("net", run, "mine", crops, MEAN)
    with pytest.raises(ValueError, match="crops: expected P >= 1 pictures, got none"):
        implicit_prior("net", run, "mine", crops[:0])


def test_blackened_faces() -> None:
    faces = numbered(3)
    black = blackened(faces)
    arguments: dict[str, Any] = {"augmentation": None, "shuffle": False}
    (plain,), (dark,) = (CropLoader(d, d.crop, SIZE, 3, **arguments) for d in (faces, black))
    assert torch.equal(plain.points_frac, dark.points_frac)
    assert plain.crops.any()
    assert not dark.crops.any()
    assert (black.name, str(black.samples[1].image)) == ("made/up, blackened", "1.png, blackened")


def test_a_black_image_has_the_size_of_its_picture() -> None:
    black = BlackImage(Picture("a.png", np.full((5, 7, 3), 9, np.uint8))).read()
    assert (black.shape, str(black.dtype), bool(black.any())) == ((5, 7, 3), "uint8", False)
    with pytest.raises(OSError, match="the disk is gone"):
        BlackImage(Picture("a.png", None)).read()
    faces = blackened(data([face("a.png", readable=False)]))
    loader = CropLoader(faces, faces.crop, SIZE, 1, augmentation=None, shuffle=False)
    with pytest.raises(DataError, match=r"a\.png, blackened: the disk is gone"):
        next(iter(loader))


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """A PIPNet, and a CoordNet of another input size, which carries no mean shape."""
    torch.manual_seed(0)
    made = {
        "pip": pf.PIPNet(num_landmarks=5, num_neighbors=2, mean_shape=MEAN, width=0.0625, input_size=64),
        "coord": pf.CoordNet(num_landmarks=5, width=0.0625, input_size=96),
    }
    for name, model in made.items():
        pf.save(model.eval(), tmp_path / f"{name}.safetensors")
    np.savetxt(tmp_path / "mean.txt", MEAN.reshape(1, -1))
    return [str(tmp_path / f"{name}.safetensors") for name in made]


def test_the_command(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "photos" / "a.jpg", 100)
    out = tmp_path / "new" / "out"
    words = ["prior", *models, "--pictures", "black", "noise", str(tmp_path / "photos"), "--count", "8"]
    assert main([*words, "--out", str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:7]] == [
        [model, kind, count]
        for model in ("pip", "coord")
        for kind, count in (("black", "1"), ("noise", "8"), (str(tmp_path / "photos"), "1"))
    ]
    assert [line[3] == "-" for line in lines[1:7]] == [False] * 3 + [True] * 3
    assert [line[4] == "-" for line in lines[1:7]] == [True, False, True] * 2
    rows = json.loads((out / "prior.json").read_text())
    with open(out / "prior.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == table
    assert float(lines[2][3]) == pytest.approx(100 * rows[1]["distance"], abs=0.01)
    # Two columns; a row of black, six of the noise, one of the photo.
    height, width = read_rgb(out / "prior.png").shape[:2]
    assert height / width == pytest.approx(4, abs=0.1)


def test_what_the_command_measures(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prior", *models, "--mean-shape", str(tmp_path / "mean.txt"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    capsys.readouterr()
    rows = json.loads((tmp_path / "out" / "prior.json").read_text())
    for row, path, size in zip(rows, models, (64, 96), strict=True):
        model = pf.load(path)
        black = torch.zeros(1, size, size, 3, dtype=torch.uint8)
        points = pf.compile(model, "torch")(black).points_frac[0].numpy()
        assert row["distance"] == pytest.approx(np.linalg.norm(points - MEAN, axis=1).mean(), abs=1e-4)
    # The model's own mean shape goes first.
    shifted = tmp_path / "shifted.txt"
    np.savetxt(shifted, (MEAN + np.array([0.3, 0.4])).reshape(1, -1))
    assert main(["prior", *models, "--mean-shape", str(shifted), "--out", str(tmp_path / "out")]) == 0
    again = json.loads((tmp_path / "out" / "prior.json").read_text())
    assert again[0] == rows[0]
    assert again[1]["distance"] != rows[1]["distance"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param(["--pictures", "white"], "expected black, gray, noise or a folder, got 'white'", id="kind"),
        pytest.param(["--pictures", "noise", "--count", "0"], "expected size and count >= 1", id="count"),
        pytest.param(["--mean-shape", "wflw98"], "expected (5, 2) as coord has, got (98, 2)", id="mean shape"),
        pytest.param(["--mean-shape", "nosuch"], "mean_shape: expected one of", id="no mean shape"),
        pytest.param(["--device", "none"], "none", id="device"),
    ],
)
def test_wrong_calls(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(["prior", *models, "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_without_matplotlib(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["prior", *models, "--out", str(tmp_path / "out")]) == 2
    assert "pictures need matplotlib" in capsys.readouterr().err
