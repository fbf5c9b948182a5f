"""Mean faces, and how far the crops of data sets disagree."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipnet_fast.cli import main
from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, FaceData, Sample
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.data.mean_face import disagreement, draw_mean_faces, mean_face, warn_of_disagreement
from pipnet_fast.data.readers import wflw68
from pipnet_fast.layouts import Layout, load_layout, load_mean_shape, wflw98_to_300w68
from pipnet_fast.pipeline.draw import COLORS
from pipnet_fast.pipeline.images import read_rgb
from tests.pictures import Picture, data, face, numbered
from tests.training import write_faces

SIZE = 64


def without_boxes(count: int) -> FaceData:
    samples = [replace(sample, landmarks=None, box=np.full(4, np.nan)) for sample in numbered(count).samples]
    return data(samples)


def test_it_is_the_average_of_the_crops() -> None:
    faces = numbered(40)
    (batch,) = CropLoader(faces, faces.crop, SIZE, 40, augmentation=None, shuffle=False)
    found = mean_face(faces, size=SIZE)
    expected = batch.crops.numpy().astype(np.float64).mean(axis=0)
    assert (found.picture.shape, str(found.picture.dtype), found.count) == ((SIZE, SIZE, 3), "uint8", 40)
    np.testing.assert_allclose(found.picture, expected, atol=0.5)
    assert found.shape_frac is not None
    np.testing.assert_allclose(found.shape_frac, faces.mean_shape())


def test_a_limit_takes_faces_from_all_over_the_set() -> None:
    faces = numbered(9)
    some = replace(faces, samples=[faces.samples[i] for i in (0, 4, 8)])
    limited = mean_face(faces, size=SIZE, limit=3)
    assert limited.count == 3
    assert np.array_equal(limited.picture, mean_face(some, size=SIZE).picture)
    assert mean_face(faces, size=SIZE, limit=1).count == 1


def test_broken_pictures() -> None:
    faces = numbered(5, broken=[1, 3])
    with pytest.raises(DataError, match=r"1\.png: the disk is gone"):
        mean_face(faces, size=SIZE)
    found = mean_face(faces, size=SIZE, skip_bad=True)
    assert (found.count, [bad.where for bad in found.bad]) == (3, ["1.png", "3.png"])
    with pytest.raises(ValueError, match="made/up: expected a face that can be read, got none of 2"):
        mean_face(numbered(2, broken=[0, 1]), size=SIZE, skip_bad=True)


@pytest.mark.parametrize("limit", [0, -1])
def test_wrong_limits(limit: int) -> None:
    with pytest.raises(ValueError, match=f"mean_face: limit: expected pictures >= 1, got {limit}"):
        mean_face(numbered(2), limit=limit)


def test_pictures_without_boxes_need_a_detector() -> None:
    faces = without_boxes(3)
    with pytest.raises(ValueError, match=r"made/up: detector: 3 of 3 picture\(s\) have no box"):
        mean_face(faces, size=SIZE)
    boxes = [[10, 10, 60, 60, 0.9], [20, 30, 90, 110, 0.8]]
    found = mean_face(faces, size=SIZE, detector=lambda image: boxes)
    there = [replace(sample, box=np.array(box[:4], float)) for sample in faces.samples for box in boxes]
    assert (found.count, found.shape_frac) == (6, None)
    assert np.array_equal(found.picture, mean_face(data(there), size=SIZE).picture)
    with pytest.raises(ValueError, match=r"expected at least 1 usable face\(s\), got 0"):
        mean_face(faces, size=SIZE, detector=lambda image: np.zeros((0, 5)))


def test_a_detector_leaves_boxes_alone_and_meets_broken_pictures() -> None:
    faces = numbered(2)
    missing = replace(without_boxes(1).samples[0], image=Picture("gone.png", None))
    both = data([*faces.samples, missing])
    with pytest.raises(DataError, match="the disk is gone"):
        mean_face(both, size=SIZE, detector=lambda image: pytest.fail("searched"))
    found = mean_face(both, size=SIZE, detector=lambda image: pytest.fail("searched"), skip_bad=True)
    assert np.array_equal(found.picture, mean_face(faces, size=SIZE).picture)
    assert [bad.where for bad in found.bad] == ["gone.png"]


def test_the_drawing() -> None:
    black = data([face("a", image=np.zeros((180, 200, 3), np.uint8))])
    labelled = mean_face(black, size=128)
    drawn = draw_mean_faces([labelled, replace(labelled, shape_frac=None)])
    assert drawn.shape == (148, 260, 3)
    green = np.argwhere((drawn == COLORS[0]).all(axis=2)) + 0.5
    assert labelled.shape_frac is not None
    for x, y in labelled.shape_frac * 128 + np.array([0, 20]):
        assert np.abs(green - [y, x]).max(axis=1).min() <= 1
    assert green[:, 1].max() < 128


def with_shape(shape: Any, layout: Layout, name: str = "other", rule: CropRule | None = None) -> FaceData:
    """A face in the box 0, 0, 100, 100 whose landmarks lie at fractions ``shape`` of it."""
    box = np.array([0.0, 0.0, 100.0, 100.0])
    sample = Sample(Picture(name, np.zeros((9, 9, 3), np.uint8)), 100 * np.asarray(shape), box)
    return FaceData(name, layout, [sample], rule or CropRule(1.0))


def assert_step(a: FaceData, b: FaceData, expected: tuple[float, float, float], atol: float = 1e-12) -> None:
    step = disagreement(a, b)
    assert step is not None
    assert tuple(step) == pytest.approx(expected, abs=atol)


FIVE = Layout("five", np.array([1, 0, 2, 4, 3]), (0, 1))
SHAPE = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def test_disagreement_is_a_shift_and_a_scale_about_the_center() -> None:
    first = with_shape(SHAPE, FIVE)
    moved = with_shape(0.5 + 1.2 * (SHAPE - 0.5) + [0.04, -0.1], FIVE)
    assert_step(first, moved, (0.04, -0.1, 1.2))
    assert_step(moved, first, (-0.04 / 1.2, 0.1 / 1.2, 1 / 1.2))
    assert_step(first, first, (0, 0, 1), atol=1e-12)
    # Larger crops of the same boxes show smaller faces, and are shifted nowhere.
    assert_step(first, replace(first, crop=CropRule(1.25)), (0, 0, 0.8), atol=1e-12)


def test_least_squares() -> None:
    """No other shift and scale is better."""
    a, b = SHAPE, SHAPE + np.random.default_rng(0).normal(0, 0.05, SHAPE.shape)
    step = disagreement(with_shape(a, FIVE), with_shape(b, FIVE))
    assert step is not None

    def error(dx: float, dy: float, scale: float) -> float:
        return float(((0.5 + scale * (a - 0.5) + [dx, dy] - b) ** 2).sum())

    for change in np.eye(3) * 1e-3:
        assert error(*step) < min(error(*(np.array(step) + change)), error(*(np.array(step) - change)))


def test_what_cannot_be_compared() -> None:
    labelled, one = with_shape(SHAPE, FIVE), Layout("one", np.array([0]))
    unlabelled = replace(labelled, samples=[replace(labelled.samples[0], landmarks=None)])
    other = Layout("other", np.array([1, 0, 2, 3, 4]))
    assert disagreement(labelled, unlabelled) is None
    assert disagreement(unlabelled, labelled) is None
    assert disagreement(labelled, with_shape(SHAPE, other)) is None
    assert disagreement(labelled, with_shape(load_mean_shape("wflw98"), load_layout("wflw98"))) is None
    # Another name is no other layout, and a single landmark has no extent.
    assert disagreement(labelled, with_shape(SHAPE, Layout("mine", FIVE.flip))) is not None
    assert_step(with_shape([[0.5, 0.5]], one), with_shape([[0.6, 0.5]], one), (0.1, 0, 1))
    assert warn_of_disagreement([]) == warn_of_disagreement([unlabelled]) == []


def crops_of_the_paper() -> tuple[FaceData, FaceData, FaceData]:
    """300W, WFLW with its boxes, and WFLW-68 with reduced tops: each one face, the mean face of the official code."""
    w300 = with_shape(0.5 + 1.3 * (load_mean_shape("300w68_gssl") - 0.5), load_layout("300w68"), "300w", CropRule(1.3))
    in_box = 0.5 + 1.2 * (load_mean_shape("wflw98") - 0.5)
    wflw = with_shape(in_box, load_layout("wflw98"), "wflw", CropRule(1.2))
    reduced = with_shape(wflw98_to_300w68(in_box), load_layout("300w68"), "wflw68", wflw68.CROP)
    return w300, wflw, reduced


def test_wflw_disagrees_with_300w_until_its_boxes_are_reduced() -> None:
    """Figure 10."""
    w300, wflw, reduced = crops_of_the_paper()
    assert_step(w300, wflw, (0.000, 0.095, 0.922), atol=5e-4)
    assert_step(w300, reduced, (0.000, 0.011, 1.014), atol=6e-4)
    assert_step(wflw, w300, (0.000, -0.101, 1.056), atol=5e-4)
    (message,) = warn_of_disagreement([w300, wflw, reduced])
    assert message.startswith("wflw: against 300w the mean face is shifted by -0.000, +0.095 of the crop")
    assert "0.922 times as large" in message
    assert "crop_scale and top_shift" in message


@pytest.mark.parametrize(
    ("shift", "scale", "warns"),
    [
        ((0.029, 0), 1, False),
        ((0.031, 0), 1, True),
        ((0, -0.029), 1, False),
        ((0, -0.031), 1, True),
        ((0, 0), 1.049, False),
        ((0, 0), 1.051, True),
        ((0, 0), 0.949, True),
    ],
    ids=str,
)
def test_what_is_warned_of(shift: tuple[float, float], scale: float, warns: bool) -> None:
    first = with_shape(SHAPE, FIVE)
    unlabelled = replace(first, samples=[replace(first.samples[0], landmarks=None)])
    other = with_shape(0.5 + scale * (SHAPE - 0.5) + shift, FIVE)
    assert len(warn_of_disagreement([unlabelled, first, other])) == warns


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    write_faces(tmp_path, "train", 6)
    write_faces(tmp_path, "val", 3, seed=1)
    (tmp_path / "unlabelled.txt").write_text("train0.png\n")
    return tmp_path


FLIP = ("flip=[1,0,2,4,3]", "eyes=[0,1]")


def test_the_command(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, root = tables / "mean.png", str(tables)
    words = ["--data", "table", root, *FLIP, "--data", "table", root, "val", *FLIP, "scale=1.2", "--input-size", "96"]
    assert main(["data", "mean-face", *words, "--out", str(out)]) == 0
    result = capsys.readouterr()
    lines = result.out.splitlines()
    assert lines[0] == f"{tables.name}/train: 6 face(s) from 6"
    assert lines[1].startswith(f"{tables.name}/val: 3 face(s) from 3; against {tables.name}/train: dx ")
    assert lines[2:] == [f"written to {out}"]
    assert result.err == ""
    assert read_rgb(out).shape == (96 + 20, 2 * 96 + 4, 3)


def test_the_command_warns(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "table", str(tables), *FLIP, "--data", "table", str(tables), *FLIP, "scale=1.5"]
    assert main(["data", "mean-face", *words, "--limit", "2", "--out", str(tables / "mean.png")]) == 0
    result = capsys.readouterr()
    assert "2 face(s) from 6; against" in result.out
    assert "scale 0.800" in result.out
    assert result.err.startswith(f"warning: {tables.name}/train: against {tables.name}/train the mean face")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table"], "--data: expected NAME ROOT [SPLIT] [OPTION=VALUE ...], got table"),
        (["table", "{root}", "train", "val"], "--data: expected NAME ROOT"),
        (["nosuch", "{root}"], "open_data: name: expected one of"),
        (["table", "{root}", "unlabelled", "layout=300w68"], "1 of 1 picture(s) have no box; name a detector"),
    ],
    ids=str,
)
def test_wrong_calls(tables: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    given = [word.format(root=tables) for word in words]
    assert main(["data", "mean-face", "--data", *given, "--out", str(tables / "mean.png")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("pipnet-fast data: ")
    assert message in error
