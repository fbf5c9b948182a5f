"""How often the right grid cell wins, at a network's stride and on coarser grids."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.cli import main
from pipnet_fast.data import DataError, FaceData
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.evaluate.grids import grid_accuracy, grid_sides
from tests.pictures import data, face, numbered
from tests.training import MEAN, write_faces

SIZE = 256
NAN = float("nan")


def model_of(features: Any, channels: int = 2, **options: Any) -> pf.PIPNet:
    """A PIPNet for three landmarks whose backbone gives ``features`` (n, 3 * channels, 8, 8), face by face, and whose
    score for landmark n is the sum of channels n, n + 3 ... there."""
    torch.manual_seed(0)
    model = pf.PIPNet(
        num_landmarks=3, num_neighbors=0, width=0.0625, input_size=SIZE, crop=pf.CropRule(1.2), **options
    ).eval()
    width = model.get_parameter("cls_layer.weight").shape[1]
    with torch.no_grad():
        weight = torch.zeros(3, width, 1, 1)
        for channel in range(3 * channels):
            weight[channel % 3, channel] = 1
        model.get_parameter("cls_layer.weight").copy_(weight)
        model.get_parameter("cls_layer.bias").zero_()
    features = torch.as_tensor(features, dtype=torch.float32)
    padded = torch.cat((features, torch.zeros(len(features), width - 3 * channels, *features.shape[2:])), dim=1)
    seen = iter(padded)
    model.forward_features = lambda x: torch.stack([next(seen) for _ in x])  # type: ignore[method-assign]
    return model


def in_cells(*cells: tuple[float, float]) -> FaceData:
    """A face whose three landmarks lie at places of the 8 x 8 grid over its crop."""
    sample = face("a")
    (crop,) = pf.CropRule(1.2).apply(sample.box[None])
    points = crop[:2] + np.array(cells) / 8 * (crop[2:] - crop[:2])
    return data([replace(sample, landmarks=points)])


def test_pooled_scores_and_merged_winners() -> None:
    features = torch.zeros(1, 6, 8, 8)
    # Landmark 0: right everywhere.
    features[0, 0, 6, 5] = 1
    # Landmark 1 lies in cell (0, 0), where two channels speak for its pooled cell, but no cell of the finest grid wins
    # over (5, 5).
    features[0, 1, 5, 5] = 1.0
    features[0, 1, 0, 0] = 0.8
    features[0, 4, 1, 1] = 0.8
    # Landmark 2 lies in cell (1, 3): the winner is the cell beside it, in the same one of stride 128.
    features[0, 2, 3, 2] = 1
    found = grid_accuracy(model_of(features), in_cells((5.5, 6.5), (0.5, 0.5), (1.5, 3.5)))
    assert [(grid.stride, grid.cells) for grid in found.grids] == [(32, 8), (64, 4), (128, 2)]
    assert [grid.pooled for grid in found.grids] == pytest.approx([100 / 3, 200 / 3, 100])
    assert [grid.merged for grid in found.grids] == pytest.approx([100 / 3, 100 / 3, 200 / 3])
    assert (found.name, found.data, found.faces, found.landmarks) == ("PIPNet", "made/up", 1, 3)


def expected(features: Any, points_frac: Any) -> list[tuple[float, float]]:
    """The same cell by cell."""
    hits, count = [[0, 0] for _ in range(3)], 0
    for planes, points in zip(features, points_frac, strict=True):
        for n, point in enumerate(points):
            if np.isnan(point).any():
                continue
            count += 1
            for level in range(3):
                side, block = 8 >> level, 1 << level
                right = tuple(min(max(int(np.floor(v * side)), 0), side - 1) for v in point)
                pooled, winners = {}, {}
                for y in range(side):
                    for x in range(side):
                        parts = planes[n::3, y * block : (y + 1) * block, x * block : (x + 1) * block]
                        pooled[x, y] = parts.max(axis=(1, 2)).sum()
                        winners[x, y] = (
                            planes[n::3].sum(axis=0)[y * block : (y + 1) * block, x * block : (x + 1) * block].max()
                        )
                hits[level][0] += max(pooled, key=lambda cell: pooled[cell]) == right
                hits[level][1] += max(winners, key=lambda cell: winners[cell]) == right
    return [(100 * a / count, 100 * b / count) for a, b in hits]


def test_against_a_count_cell_by_cell() -> None:
    """Random scores with a bias to the right cells; missing labels, and labels outside of the crop."""
    random = np.random.default_rng(3)
    points = random.uniform(35, 165, (60, 3, 2))
    points[::7, 1] = NAN
    points[1::7, 2, 0] = NAN
    points[2::7, 0] = (-50, 400)
    faces = data([face(str(i), p, image=np.zeros((180, 200, 3), np.uint8)) for i, p in enumerate(points)])
    loader = CropLoader(faces, pf.CropRule(1.2), SIZE, 60, augmentation=None, shuffle=False)
    (batch,) = loader
    features = random.normal(0, 1, (60, 6, 8, 8)).astype(np.float32)
    places = (np.nan_to_num(batch.points_frac.numpy()) * 8).astype(int).clip(0, 7)
    for image in range(60):
        for n, (x, y) in enumerate(places[image]):
            features[image, n, y, x] += 2.5
    found = grid_accuracy(model_of(features), faces, batch_size=7)
    shares = [(grid.pooled, grid.merged) for grid in found.grids]
    np.testing.assert_allclose(shares, expected(features, batch.points_frac.numpy()))
    assert found.landmarks == 180 - 9 - 9
    pooled = [grid.pooled for grid in found.grids]
    assert pooled == sorted(pooled)
    assert 20 < pooled[0] < 90


@pytest.mark.parametrize(
    ("side", "sides"), [(8, [8, 4, 2]), (2, [2, 1]), (1, [1]), (3, [3]), (6, [6, 3]), (16, [16, 8, 4])], ids=str
)
def test_grids_that_there_are(side: int, sides: list[int]) -> None:
    assert grid_sides(side) == sides


def test_a_network_of_its_own_stride_and_mode() -> None:
    torch.manual_seed(0)
    model = pf.PIPNet(num_landmarks=3, num_neighbors=0, width=0.0625, input_size=192, stride=64).eval()
    (grid,) = grid_accuracy(model, numbered(2)).grids
    assert (grid.stride, grid.cells, grid.pooled == grid.merged) == (64, 3, True)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"grid_accuracy: mine: expected a model in eval mode; call eval\(\) first"):
        grid_accuracy(model.train(), numbered(2), name="mine")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_broken_faces() -> None:
    faces = numbered(4, broken=[2])
    with pytest.raises(DataError, match=r"2\.png: the disk is gone"):
        grid_accuracy(model_of(torch.rand(4, 6, 8, 8)), faces)
    found = grid_accuracy(model_of(torch.rand(4, 6, 8, 8)), faces, skip_bad=True)
    assert (found.faces, found.landmarks, [bad.where for bad in found.bad]) == (3, 9, ["2.png"])


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="grid_accuracy: PIPNet: expected a PIPNet, got CoordNet"):
        grid_accuracy(pf.CoordNet(num_landmarks=3, width=0.125), numbered(2))
    with pytest.raises(ValueError, match="expected a model of 3 landmarks for made/up, got one of 5"):
        grid_accuracy(pf.PIPNet(num_landmarks=5, num_neighbors=0, width=0.0625).eval(), numbered(2))
    with pytest.raises(ValueError, match=r"made/up: expected labelled landmarks, got none on 1 face\(s\)"):
        grid_accuracy(model_of(torch.rand(1, 6, 8, 8)), data([face("a", None)]))
    broken = torch.rand(1, 6, 8, 8)
    broken[0, 5, 4, 4] = NAN
    with pytest.raises(ValueError, match="grid_accuracy: expected scores without NaN, got one at image 0"):
        grid_accuracy(model_of(broken), numbered(1))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_faces(tmp_path, "test", 5)
    return tmp_path


def save(path: Path, **options: Any) -> str:
    torch.manual_seed(0)
    pf.save(pf.PIPNet(num_landmarks=5, num_neighbors=2, mean_shape=MEAN, width=0.0625, **options).eval(), path)
    return str(path)


def words(root: Path, *models: str) -> list[str]:
    return ["grids", *models, "--data", "table", str(root), "--option", "flip=[1,0,2,4,3]", "--option", "eyes=[0,1]"]


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [save(root / "a.safetensors", input_size=128), save(root / "b.safetensors", input_size=96)]
    assert main([*words(root, *models), "--out", str(root / "new" / "out")]) == 0
    result = capsys.readouterr()
    lines = [line.split() for line in result.out.splitlines()]
    assert result.out.splitlines()[0] == f"{root.name}/test, 5 face(s)"
    assert [line[:4] for line in lines[2:6]] == [
        ["a", "32", "4x4", "25"],
        ["a", "64", "2x2", "25"],
        ["a", "128", "1x1", "25"],
        ["b", "32", "3x3", "25"],
    ]
    assert lines[4][4:] == ["100.00", "100.00"]
    assert result.out.splitlines()[6].startswith("b: no grid coarser than stride 32, for 2 does not divide its 3 cell")
    out = root / "new" / "out"
    rows = json.loads((out / "grids.json").read_text())
    with open(out / "grids.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in row.items()} for row in rows] == table
    assert [row["stride"] for row in rows] == [32, 64, 128, 32]
    assert f"{rows[0]['pooled']:.2f}" == lines[2][4]
    picture = cv2.imread(str(out / "grids.png"))
    assert picture is not None
    assert picture.std() > 5


def test_the_command_leaves_out_broken_faces(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(root / "a.safetensors", input_size=64)
    (root / "images" / "test3.png").write_bytes(b"no image")
    assert main(words(root, model)) == 2
    assert "test3.png: not an image" in capsys.readouterr().err
    assert main([*words(root, model), "--skip-bad"]) == 1
    result = capsys.readouterr()
    assert " 20 " in result.out
    assert result.err.startswith("1 face(s) were left out:\n")


@pytest.mark.parametrize(
    ("models", "more", "message"),
    [
        pytest.param(["{a}", "{a}"], [], "every MODEL once", id="twice"),
        pytest.param(["{root}/a.csv"], [], "one of .safetensors, .pth, or", id="kind"),
        pytest.param(["box"], [], "a model of 5 landmarks", id="another N"),
        pytest.param(["{a}"], ["--split", "dev"], "expected one file", id="split"),
        pytest.param(["{a}"], ["--option", "scale"], "--option: expected KEY=VALUE", id="option"),
        pytest.param(["{a}"], ["--out", "{a}"], "--out: expected a folder", id="out"),
        pytest.param(["{a}"], ["--batch-size", "0"], "batch_size: expected >= 1", id="batch"),
        pytest.param(["{coordnet}"], [], "coordnet: expected a PIPNet, got CoordNet", id="head"),
    ],
)
def test_wrong_calls(
    root: Path, capsys: pytest.CaptureFixture[str], models: list[str], more: list[str], message: str
) -> None:
    places = {"root": str(root), "a": save(root / "a.safetensors", input_size=64)}
    places["coordnet"] = str(root / "coordnet.safetensors")
    pf.save(pf.CoordNet(num_landmarks=5, width=0.0625, input_size=64).eval(), places["coordnet"])
    given = [word.format(**places) for word in models]
    assert main([*words(root, *given), *(word.format(**places) for word in more)]) == 2
    result = capsys.readouterr()
    assert (result.out, result.err.count("\n")) == ("", 1)
    assert message in result.err


def test_without_matplotlib(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    model = save(root / "a.safetensors", input_size=64)
    assert main([*words(root, model), "--out", str(root / "out")]) == 2
    assert "pictures need matplotlib" in capsys.readouterr().err
    assert main(words(root, model)) == 0
