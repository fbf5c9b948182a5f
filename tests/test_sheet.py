"""The sheet of crops and the command pipnet-fast data, on data that the tests make up."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from pipnet_fast.cli import main
from pipnet_fast.data import BadSample, FaceData
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.data.errors import BadSamples
from pipnet_fast.data.loader import Batch, CropLoader
from pipnet_fast.data.sheet import GAP_PX, LEFT, MIDDLE, RIGHT, draw_sheet, numbered, sides
from pipnet_fast.pipeline.images import read_rgb
from tests.pictures import data, face
from tests.pictures import numbered as noise

SIZE, TILE = 160, 320
NAN = float("nan")


def black(count: int, **arguments: Any) -> tuple[Batch, FaceData]:
    """Crops in which only labels are seen."""
    faces = data([face(str(i), image=np.zeros((180, 200, 3), np.uint8)) for i in range(count)])
    chosen: dict[str, Any] = {"augmentation": None, "shuffle": False, **arguments}
    (batch,) = CropLoader(faces, faces.crop, SIZE, count, **chosen)
    return batch, faces


def near(color: tuple[int, int, int], sheet: Any) -> Any:
    """(n, 2) x and y of the pixels of a color."""
    ys, xs = np.nonzero((sheet == np.array(color)).all(axis=2))
    return np.stack((xs, ys), axis=1)


def test_landmarks_are_drawn_where_they_are_in_the_color_of_their_side() -> None:
    batch, faces = black(1)
    sheet = draw_sheet(batch, faces, faces.crop)
    assert sheet.shape == (TILE, TILE, 3)
    for color, (x, y) in zip((LEFT, RIGHT, MIDDLE), batch.points_frac[0].numpy() * TILE, strict=True):
        pixels = near(color, sheet)
        dot = pixels[np.abs(pixels + 0.5 - (x, y)).max(axis=1) < 4]
        assert len(dot) >= 10
        np.testing.assert_allclose(dot.mean(axis=0) + 0.5, (x, y), atol=0.6)


@pytest.mark.parametrize("flip_p", [0.0, 1.0], ids=["straight", "mirrored"])
def test_blue_stays_on_the_left(flip_p: float) -> None:
    only_flip = replace(Augmentation(), translation_p=0, occlusion_p=0, rotation_p=0, blur_p=0, flip_p=flip_p)
    batch, faces = black(1, augmentation=only_flip)
    sheet = draw_sheet(batch, faces, faces.crop)
    assert near(LEFT, sheet)[:, 0].max() < near(MIDDLE, sheet)[:, 0].min()
    assert near(MIDDLE, sheet)[:, 0].min() < near(RIGHT, sheet)[:, 0].max()


def test_sides_come_from_most_of_the_labels() -> None:
    straight, missing = ((10, 5), (90, 5), (50, 9)), ((10, 5), (NAN, NAN), (50, 9))
    turned_away = ((90, 5), (10, 5), (50, 9))
    faces = data([face(str(i), points) for i, points in enumerate([straight, missing, straight, turned_away, None])])
    assert sides(faces).tolist() == [-1, 1, 0]
    assert sides(data([face("a", None)])).tolist() == [0, 0, 0]
    assert sorted(numbered(faces)) == [0, 1, 2]


def test_missing_and_far_away_landmarks_are_no_trouble() -> None:
    faces = data(
        [face("a", ((1e7, -1e7), (NAN, 3), (80, 90)), image=np.zeros((180, 200, 3), np.uint8)), face("b", None)]
    )
    (batch,) = CropLoader(faces, faces.crop, SIZE, 2, augmentation=None, shuffle=False)
    sheet = draw_sheet(batch, faces, faces.crop)
    assert len(near(MIDDLE, sheet)) > 10
    assert len(near(LEFT, sheet)) == len(near(RIGHT, sheet)) == 0


@pytest.mark.parametrize(
    ("count", "columns", "rows_and_columns"),
    [(1, None, (1, 1)), (5, None, (2, 3)), (5, 2, (3, 2)), (3, 8, (1, 3))],
    ids=str,
)
def test_grid(count: int, columns: int | None, rows_and_columns: tuple[int, int]) -> None:
    batch, faces = black(count)
    rows, across = rows_and_columns
    pitch = TILE + GAP_PX
    assert draw_sheet(batch, faces, faces.crop, columns).shape == (rows * pitch - GAP_PX, across * pitch - GAP_PX, 3)


def test_no_crops_and_no_columns_are_refused() -> None:
    batch, faces = black(1)
    with pytest.raises(ValueError, match="draw_sheet: expected at least one crop and one column, got 1 and 0"):
        draw_sheet(batch, faces, faces.crop, 0)
    with pytest.raises(ValueError, match="got 0 and 1"):
        draw_sheet(Batch(*(part[:0] for part in batch)), faces, faces.crop, 1)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A data set in the place of one that is read from disk; what its reader was asked for."""
    asked: dict[str, Any] = {}
    reader = ModuleType("reader")

    def read(root: Path, split: str, bad: BadSamples, **options: Any) -> FaceData:
        asked.update(options, split=split, skip_bad=bad.skip)
        faces = noise(6, broken=[2] if split == "broken" else [])
        samples = [replace(s, subsets=("even",) if i % 2 == 0 else ()) for i, s in enumerate(faces.samples)]
        unlabelled = [replace(samples[0], landmarks=None)] if split == "broken" else []
        missing = [BadSample("7.png", "7.png: gone")] if split == "broken" else []
        return replace(faces, samples=[*samples, *unlabelled], bad=missing)

    reader.SPLITS, reader.read = ("train", "broken"), read  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipnet_fast.data.readers.table", reader)
    return asked


def run(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


def test_show_writes_the_sheet(made_up: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    options = ("--count", 4, "--columns", 4, "--input-size", 64, "--boxes", "given", "--option", "every=3", "mode=a")
    assert run("show", "table", tmp_path, "--out", out, *options) == 0
    assert made_up == {"boxes": "given", "every": 3, "mode": "a", "split": "train", "skip_bad": False}
    assert capsys.readouterr().out == f"4 of 6 face(s) of made/up, written to {out}\n"
    first = read_rgb(out)
    assert first.shape == (TILE, 4 * (TILE + GAP_PX) - GAP_PX, 3)

    def differs(*more: object) -> bool:
        assert run("show", "table", tmp_path, "--out", out, *options, *more) == 0
        return bool((read_rgb(out) != first).any())

    assert not differs()
    assert differs("--seed", 1)
    assert differs("--no-augment")
    assert differs("--crop-scale", 2.0)
    assert differs("--augment", "rotation_p=1", "border=black")


def test_show_lists_what_is_broken(made_up: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert run("show", "table", tmp_path, "--split", "broken", "--skip-bad", "--out", out) == 1
    assert cv2.imread(str(out)) is not None
    assert capsys.readouterr().err == "2 bad face(s):\n  7.png: gone\n  2.png: the disk is gone\n"
    assert run("show", "table", tmp_path, "--split", "broken", "--out", out) == 2
    assert capsys.readouterr().err == "pipnet-fast data: 2.png: the disk is gone\n"


def test_info(made_up: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "table", tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "made/up: 6 face(s), layout three, 3 landmarks",
        "labelled: 6, with missing landmarks: 0, unlabelled: 0",
        "images: 6",
        "subset even: 3",
        "mean box: 120.2 x 99.8 px, given; crop: CropRule(scale=1.2, top_shift=0.0, pixel_base='continuous'); "
        "norm: inter_ocular",
    ]
    assert run("info", "table", tmp_path, "--split", "broken") == 1
    result = capsys.readouterr()
    assert "labelled: 6, with missing landmarks: 0, unlabelled: 1" in result.out
    assert result.err == "1 bad face(s):\n  7.png: gone\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("--augment", "flip_p"), "--augment: expected NAME=VALUE, got 'flip_p'", id="no-value"),
        pytest.param(("--augment", "twist_p=1"), "twist_p", id="unknown"),
        pytest.param(("--augment", "flip_p=2"), "flip_p: expected 0 to 1, got 2", id="range"),
        pytest.param(("--count", "0"), "batch_size: expected >= 1, got 0", id="count"),
        pytest.param(("--crop-scale", "0"), "scale: expected 0 < scale <= 10, got 0.0", id="scale"),
        pytest.param(("--split", "dev"), "split: expected one of", id="split"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    made_up: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("show", "table", tmp_path, "--out", tmp_path / "a.png", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
