"""Models and files of predictions, held against labels."""

import csv
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pipnet_fast as pf
from pipnet_fast.data import DataError, FaceData, Sample
from pipnet_fast.evaluate import (
    Evaluation,
    detected_boxes,
    evaluate,
    figures,
    hold_against,
    label_boxes,
    read_predictions,
    unfused,
    write_predictions,
    write_summary,
)
from pipnet_fast.evaluate.regions import regions
from pipnet_fast.layouts import Layout, layout_names, load_layout, load_mean_shape
from pipnet_fast.pipeline.images import ImageError

N = 5
MINE = Layout("mine", np.array([1, 0, 2, 4, 3]), (0, 1))
SHAPE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Picture:
    """Noise, or a file that cannot be read."""

    name: str
    seed: int = 0
    broken: bool = False

    def read(self) -> Any:
        if self.broken:
            raise ImageError(f"{self.name}: not an image that OpenCV can read")
        return np.random.RandomState(self.seed).randint(0, 256, (90, 120, 3), dtype=np.uint8)

    def __str__(self) -> str:
        return self.name


def make_data(count: int = 5, *, broken: Sequence[int] = (), tight: bool = True) -> FaceData:
    samples = []
    for i in range(count):
        box = np.array([10.0 + i, 12.0, 80.0, 75.0 + i])
        points = box[:2] + SHAPE * (box[2:] - box[:2])
        picture = Picture(f"/faces/{i}.jpg", i, i in broken)
        samples.append(Sample(picture, points, box, ("even",) if i % 2 == 0 else ("odd", "late")[: 1 + (i > 2)]))
    return FaceData("mine/test", MINE, samples, pf.CropRule(scale=1.5, top_shift=0.1), tight=tight)


def make_model(kind: str = "PIPNet", **options: Any) -> Any:
    """Untrained, with landmarks that differ between images."""
    if kind == "PIPNet":
        options = {"num_neighbors": 2, "mean_shape": SHAPE, **options}
    torch.manual_seed(1)
    model = getattr(pf, kind)(num_landmarks=N, input_size=64, width=0.125, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def found_at(points_frac: torch.Tensor) -> Any:
    """What runs no model, but finds the landmarks at the same place of every crop."""
    return lambda crops: pf.Landmarks(points_frac.expand(len(crops), N, 2), torch.ones(len(crops), N))


@pytest.mark.parametrize("tight", [True, False], ids=["tight boxes, the model's crop", "the data set's crop"])
@pytest.mark.parametrize("pixel_base", ["continuous", "center"])
def test_points_come_back_to_the_images(tight: bool, pixel_base: Any) -> None:
    data = make_data(tight=tight)
    model = make_model(crop=pf.CropRule(scale=2.0, pixel_base=pixel_base))
    frac = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.25, 0.75], [-0.5, 1.5]])
    found = evaluate(model, data, run=found_at(frac), batch_size=2)
    rule = model.crop if tight else data.crop
    boxes = rule.apply(np.array([sample.box for sample in data.samples]))
    sides = boxes[:, None, 2:] - boxes[:, None, :2]
    np.testing.assert_allclose(found.points, boxes[:, None, :2] + frac.numpy() * sides, atol=1e-9)


@pytest.mark.parametrize("merge", ["mean", "official"])
@pytest.mark.parametrize("num_neighbors", [0, 3])
def test_fused_is_unfused(num_neighbors: int, merge: Any) -> None:
    data, model = make_data(), make_model(num_neighbors=num_neighbors, merge=merge)
    fused, dense = evaluate(model, data), evaluate(model, data, run=unfused(model))
    assert np.ptp(fused.points, axis=0).max() > 1
    np.testing.assert_allclose(fused.points, dense.points, atol=1e-3)
    np.testing.assert_allclose(fused.scores, dense.scores, atol=1e-4)
    assert fused.nme == pytest.approx(dense.nme, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("PIPNet", {}, id="PIPNet"),
        pytest.param("CoordNet", {}, id="CoordNet"),
        pytest.param("MapNet", {"stride": 4}, id="MapNet"),
        pytest.param("GRMI", {}, id="GRMI"),
    ],
)
def test_every_kind_of_model(kind: str, options: dict[str, Any]) -> None:
    data, model = make_data(3), make_model(kind, **options)
    found = evaluate(model, data)
    assert (found.name, found.points.shape, found.scores.shape) == (kind, (3, N, 2), (3, N))
    assert np.isfinite(found.nme)
    compiled = evaluate(model, data, run=pf.compile(model, "torch"))
    np.testing.assert_allclose(found.points, compiled.points, atol=1e-2)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 4}, {"workers": 2}], ids=str)
def test_batches_and_workers_change_nothing(options: dict[str, Any]) -> None:
    data, model = make_data(), make_model()
    expected = evaluate(model, data, batch_size=32)
    np.testing.assert_allclose(evaluate(model, data, **options).points, expected.points, atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back(training: bool) -> None:
    data, model = make_data(2), make_model()
    expected = evaluate(model, data).points
    model.train(training)
    np.testing.assert_array_equal(evaluate(model, data).points, expected)
    assert model.training is training


def test_frozen_batchnorms_stay_frozen() -> None:
    model = make_model().train()
    model.bn1.eval()
    evaluate(model, make_data(2))
    assert (model.training, model.bn1.training, model.layer1.training) == (True, False, True)


@pytest.mark.parametrize("pixel_base", ["continuous", "center"])
def test_flip_average_of_a_finder_that_sees_no_sides(pixel_base: Any) -> None:
    """It finds the center of brightness, and calls it every landmark: mirrored or not, that is one place."""
    data, model = make_data(), make_model(crop=pf.CropRule(pixel_base=pixel_base))

    def run(crops: torch.Tensor) -> pf.Landmarks:
        light = crops.double().sum(dim=3)
        ramp = torch.arange(64.0, dtype=torch.float64) + (0.5 if pixel_base == "continuous" else 0.0)
        center = torch.stack(((light * ramp).sum((1, 2)), (light * ramp[:, None]).sum((1, 2))), dim=1)
        center = center / light.sum((1, 2))[:, None] / 64
        return pf.Landmarks(center[:, None].expand(-1, N, 2), torch.ones(len(crops), N))

    plain, averaged = (evaluate(model, data, run=run, flip_average=flip) for flip in (False, True))
    np.testing.assert_allclose(averaged.points, plain.points, atol=1e-9)


def test_flip_average_swaps_the_landmarks() -> None:
    # A finder of the mean shape finds the mirrored one in the mirror, with left and right swapped: their mean.
    data, model = make_data(), make_model()
    lopsided = torch.from_numpy(SHAPE) + torch.tensor([[0.1, 0.0], [0, 0], [0, 0], [0, 0.2], [0, 0]])
    found = evaluate(model, data, run=found_at(lopsided), flip_average=True)
    expected = SHAPE + np.array([[0.05, 0], [-0.05, 0], [0, 0], [0, 0.1], [0, 0.1]])
    np.testing.assert_allclose(found.points, evaluate(model, data, run=found_at(torch.from_numpy(expected))).points)


def test_boxes_in_place_of_the_data_sets() -> None:
    data, model = make_data(3, tight=False), make_model()
    boxes = np.array([sample.box for sample in data.samples]) + np.arange(4)
    boxes[1] = NAN
    found = evaluate(model, data, run=found_at(torch.from_numpy(SHAPE)), boxes=boxes)
    assert found.missed.tolist() == [False, True, False]
    assert np.isinf(found.face_errors).tolist() == [False, True, False]
    crop = model.crop.apply(boxes[2:])[0]
    np.testing.assert_allclose(found.points[2], crop[:2] + SHAPE * (crop[2:] - crop[:2]))
    assert found.failure_rate(1000) == pytest.approx(100 / 3)
    assert np.isfinite(found.nme)


def test_detected_boxes() -> None:
    data = make_data(3)
    first, other = data.with_tight_boxes(pf.CropRule()).samples[0].box + 1, np.array([0.0, 0.0, 5.0, 5.0])
    seen = iter([np.stack((other, first))[:, [0, 1, 2, 3, 3]], np.stack((other,)), []])
    boxes = detected_boxes(data, lambda image: next(seen))
    np.testing.assert_array_equal(boxes, [first, [NAN] * 4, [NAN] * 4])


def test_broken_image_ends_it_or_is_left_out() -> None:
    data, model = make_data(broken=[1, 2]), make_model()
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"/faces/1\.jpg: not an image"):
            evaluate(model, data, workers=workers, batch_size=2)
        found = evaluate(model, data, workers=workers, batch_size=2, skip_bad=True)
        assert found.index.tolist() == [0, 3, 4]
        assert [bad.where for bad in found.bad] == ["/faces/1.jpg", "/faces/2.jpg"]
        assert found.images == ("/faces/0.jpg", "/faces/3.jpg", "/faces/4.jpg")


def test_broken_image_with_a_detector() -> None:
    data, model = make_data(broken=[1]), make_model()

    def none(image: Any) -> Any:
        return np.zeros((0, 4))

    with pytest.raises(DataError, match="/faces/1"):
        detected_boxes(data, none)
    boxes = detected_boxes(data, none, skip_bad=True)
    np.testing.assert_array_equal(boxes[1], label_boxes(data)[1])
    assert np.isnan(boxes[[0, 2, 3, 4]]).all()
    found = evaluate(model, data, boxes=boxes, skip_bad=True)
    assert (found.index.tolist(), found.missed.tolist()) == ([0, 2, 3, 4], [True] * 4)
    assert [bad.where for bad in found.bad] == ["/faces/1.jpg"]


def test_label_boxes() -> None:
    data = make_data(3, tight=False)
    first, second, third = data.samples
    half = np.array(second.landmarks)
    half[0] = NAN
    samples = [first, dataclasses.replace(second, landmarks=half), dataclasses.replace(third, landmarks=None)]
    boxes = label_boxes(dataclasses.replace(data, samples=samples))
    assert first.landmarks is not None
    np.testing.assert_array_equal(boxes[0], [*first.landmarks.min(0), *first.landmarks.max(0)])
    np.testing.assert_array_equal(boxes[1], [*half[1:].min(0), *half[1:].max(0)])
    assert np.isnan(boxes[2]).all()
    single = np.full((N, 2), NAN)
    single[0] = 3
    with pytest.raises(ValueError, match="expected landmarks that span an area"):
        label_boxes(dataclasses.replace(data, samples=[dataclasses.replace(first, landmarks=single)]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(lambda: evaluate(len, make_data()), TypeError, "model: expected a landmark model", id="model"),  # type: ignore[arg-type]
        pytest.param(
            lambda: evaluate(pf.CoordNet(num_landmarks=4, width=0.125), make_data()),
            ValueError,
            "model: expected one of 5 landmarks for mine/test, got one of 4",
            id="N",
        ),
        pytest.param(
            lambda: evaluate(make_model(), make_data(), batch_size=0), ValueError, "batch_size: expected", id="batch"
        ),
        pytest.param(
            lambda: evaluate(make_model(), make_data(), boxes=np.zeros((4, 4))), ValueError, r"boxes: .* \(4, 4\)",
            id="boxes",
        ),
        pytest.param(
            lambda: evaluate(make_model(), dataclasses.replace(make_data(), norm="eyes")), ValueError, "got 'eyes'",  # type: ignore[arg-type]
            id="norm",
        ),
        pytest.param(
            lambda: evaluate(make_model(), dataclasses.replace(make_data(), samples=[])), ValueError,
            "mine/test: expected a face with labels and a inter_ocular distance, got none", id="no faces",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def off_by(data: FaceData, shifts: Sequence[float], name: str = "mine") -> Evaluation:
    """Predictions that are off by so many percent of the inter-ocular distance; NaN: not found."""
    truth = np.array([sample.landmarks for sample in data.samples])
    distances = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1)
    steps = (np.array(shifts) * distances / 100)[:, None] * [0.6, 0.8]
    return hold_against(name, data, truth + steps[:, None], np.full(truth.shape[:2], 0.5))


def test_measures_and_subsets() -> None:
    found = off_by(make_data(), [2, 4, 12, 20, NAN])
    np.testing.assert_allclose(found.errors[:4], np.repeat([[2], [4], [12], [20]], N, axis=1))
    assert found.nme == pytest.approx(9.5)
    assert found.failure_rate() == pytest.approx(60)
    assert found.failure_rate(3) == pytest.approx(80)
    assert found.auc() == pytest.approx(100 * (8 + 6) / 50)
    assert found.point_var == pytest.approx(0, abs=1e-18)
    assert found.subset_names() == ("even", "odd", "late")
    odd = found.subset("odd")
    assert (len(odd), odd.data, odd.nme, odd.index.tolist()) == (2, "mine/test/odd", pytest.approx(12), [1, 3])
    rows = {row["subset"]: row for row in found.summary(3)}
    assert list(rows) == ["all", "even", "odd", "late"]
    assert [rows[name]["faces"] for name in rows] == [5, 3, 2, 1]
    assert [rows[name]["missed"] for name in rows] == [1, 1, 0, 0]
    assert rows["late"]["nme"] == pytest.approx(20)
    with pytest.raises(ValueError, match="subset: expected one of .*, got 'dark'"):
        found.subset("dark")


def test_a_subset_of_missed_faces_has_no_mean() -> None:
    rows = off_by(make_data(4), [1, 1, 1, NAN]).summary()
    assert rows[-1]["subset"] == "late"
    assert (rows[-1]["nme"], rows[-1]["point_var"], rows[-1]["failure_rate"]) == (None, None, 100)


def test_partly_labelled_faces() -> None:
    data = make_data(4)
    points = [np.array(sample.landmarks) for sample in data.samples]
    points[0][3:] = NAN
    points[1][0] = NAN
    samples = [dataclasses.replace(s, landmarks=p) for s, p in zip(data.samples, points, strict=True)]
    samples[2] = dataclasses.replace(samples[2], landmarks=None)
    predicted = np.array([s.landmarks for s in data.samples])
    distance = np.linalg.norm(predicted[0, 0] - predicted[0, 1])
    predicted[0, 2] += [0.3 * distance, 0]
    found = hold_against("mine", dataclasses.replace(data, samples=samples), predicted, predicted[..., 0])
    # A third of the labelled landmarks of the first is off by 30%; two faces have no norm or no label.
    np.testing.assert_allclose(found.face_errors, [10, NAN, NAN, 0])
    assert found.nme == pytest.approx(5)
    assert np.isnan(found.errors[0]).tolist() == [False, False, False, True, True]
    assert found.summary()[0]["faces"] == 2


@pytest.mark.parametrize("norm", ["inter_ocular", "box", "diagonal"])
def test_norms(norm: Any) -> None:
    data = make_data()
    points = np.array([sample.landmarks for sample in data.samples]) + np.array([1.0, 0.0])
    found = hold_against("mine", data, points, points[..., 0], norm=norm)
    assert (found.norm, hold_against("mine", data, points, points[..., 0]).norm) == (norm, "inter_ocular")
    box = data.samples[0].box
    sides = box[2:] - box[:2]
    spans = {"inter_ocular": 0.4 * sides[0], "box": np.sqrt(sides.prod()), "diagonal": np.hypot(*(0.4 * sides))}
    assert found.face_errors[0] == pytest.approx(100 / spans[norm])


def test_shapes_are_checked() -> None:
    found = off_by(make_data(), [1] * 5)
    with pytest.raises(ValueError, match=r"Evaluation: scores: expected shape \(5, 5\), got \(5, 4\)"):
        dataclasses.replace(found, scores=found.scores[:, :4])
    with pytest.raises(ValueError, match=r"evaluate: x: expected points of shape \(5, 5, 2\) .* got \(5, 4, 2\)"):
        hold_against("x", make_data(), found.points[:, :4], found.scores)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_predictions_come_back(suffix: str, tmp_path: Path) -> None:
    data = make_data()
    written = off_by(data, [1, 2, NAN, 3, 4])
    path = tmp_path / f"net.{suffix}"
    write_predictions(written, path)
    read = read_predictions(path, data)
    assert read.name == "net"
    np.testing.assert_allclose(read.points, written.points, atol=1e-4)
    np.testing.assert_allclose(read.scores, np.where(written.missed[:, None], NAN, written.scores), atol=1e-5)
    np.testing.assert_allclose(read.face_errors, written.face_errors, atol=1e-3)
    assert read.subsets == written.subsets


def test_somebody_elses_table(tmp_path: Path) -> None:
    """Points only, in any order."""
    data = make_data(2)
    with open(tmp_path / "theirs.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*(f"y{n}" for n in range(N)), *(f"x{n}" for n in range(N)), "index"])
        for index in (1, 0):
            points = data.samples[index].landmarks
            assert points is not None
            table.writerow([*points[:, 1], *points[:, 0], index])
    found = read_predictions(tmp_path / "theirs.csv", data)
    np.testing.assert_allclose(found.face_errors, 0, atol=1e-12)
    assert np.isnan(found.scores).all()


HEADER = "index,image," + ",".join(f"x{n},y{n}" for n in range(N))
ROW = ",".join("1" for _ in range(2 * N))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("a.csv", "index,x0,y0\n", "predictions of 5 landmarks, got no column 'x1'", id="too few"),
        pytest.param("a.csv", f"{HEADER},x5,y5\n", "got a column 'x5'", id="too many"),
        pytest.param("a.csv", "", "got no column 'index'", id="empty"),
        pytest.param("a.csv", f"{HEADER}\n0,,{ROW}\n0,,{ROW}\n", "line 3: index: .* got 0 a second time", id="twice"),
        pytest.param("a.csv", f"{HEADER}\n9,,{ROW}\n", "line 2: index: .* got 9 of 5 faces", id="beyond"),
        pytest.param("a.csv", f"{HEADER}\n-1,,{ROW}\n", "got -1 of 5 faces", id="negative"),
        pytest.param("a.csv", f"{HEADER}\n0,x/3.jpg,{ROW}\n", r"image: expected /faces/0\.jpg, got x/3", id="image"),
        pytest.param("a.csv", f"{HEADER}\n0,,{ROW[:-1]}a\n", "line 2: could not convert .* 'a'", id="no number"),
        pytest.param("a.csv", f"{HEADER}\n0,,{ROW[:-2]}\n", "line 2: ", id="short row"),
        pytest.param("a.csv", f"{HEADER}\n0,,{ROW[:-1]}nan\n", "line 2: expected 5 points of finite", id="nan"),
        pytest.param("a.json", "[", "not JSON", id="not json"),
        pytest.param("a.json", "{}", "expected a list of predictions, got dict", id="json, no list"),
        pytest.param("a.json", '[{"index": 0}]', "entry 0: KeyError: 'points'", id="json, no points"),
        pytest.param("a.json", "[3]", "entry 0: TypeError", id="json, number"),
        pytest.param("a.json", '[{"index": 0, "points": [[1, 2]]}]', r"got shape \(1, 2\)", id="json, too few"),
        pytest.param(
            "a.json",
            json.dumps([{"index": 0, "points": [[1, 2]] * N, "scores": [1]}]),
            "scores: expected 5",
            id="scores",
        ),
    ],
)
def test_damaged_predictions(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path, make_data())
    assert str(caught.value).startswith(str(path))


def test_missing_predictions_and_other_endings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.csv: No such file"):
        read_predictions(tmp_path / "none.csv", make_data())
    with pytest.raises(ValueError, match=r"a\.txt: expected a name that ends in one of \.csv, \.json"):
        write_predictions(off_by(make_data(), [1] * 5), tmp_path / "a.txt")
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_predictions_of_names_that_are_not_text_come_back(suffix: str, tmp_path: Path) -> None:
    data = make_data(1)
    named = dataclasses.replace(data.samples[0], image=Picture("/faces/a\udcff.jpg", 0, False))
    data = dataclasses.replace(data, samples=[named])
    path = tmp_path / f"mine.{suffix}"
    write_predictions(off_by(data, [1.0]), path)
    assert read_predictions(path, data).nme == pytest.approx(off_by(data, [1.0]).nme, abs=1e-3)


def test_predictions_that_a_spreadsheet_has_saved(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    write_predictions(off_by(make_data(), [1] * 5), path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert not read_predictions(path, make_data()).missed.any()


def test_summary_files(tmp_path: Path) -> None:
    found = [off_by(make_data(), [1, 2, 3, 4, NAN], "a"), off_by(make_data(), [NAN] * 5, "b")]
    for suffix in ("csv", "json"):
        write_summary(found, tmp_path / f"s.{suffix}", 8)
    with open(tmp_path / "s.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["subset"]) for row in rows] == [
        (m, s) for m in "ab" for s in ("all", "even", "odd", "late")
    ]
    assert float(rows[0]["nme"]) == pytest.approx(2.5)
    assert rows[4]["nme"] == ""
    first, second = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert first["parts"][0]["nme"] == pytest.approx(2.5)
    assert first["landmark_errors"] == pytest.approx([2.5] * N)
    assert (second["parts"][0]["nme"], second["landmark_errors"]) == (None, [None] * N)


def picture(path: Path) -> Any:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def test_pictures(tmp_path: Path) -> None:
    data = make_data()
    found = [off_by(data, [1, 2, 3, 4, NAN], "a"), off_by(data, [5] * 5, "b")]
    figures.draw_ced(found, tmp_path / "ced.png")
    figures.draw_landmark_errors(found, data.layout, tmp_path / "bars.png")
    figures.draw_landmark_errors(found, data.layout, tmp_path / "face.png", face=1)
    figures.draw_worst_faces(found[0], data, tmp_path / "worst.png", count=3, columns=2)
    figures.draw_sweep(found, [5, 10], "num_neighbors", tmp_path / "sweep.png")
    shape = load_mean_shape("wflw98")
    figures.draw_neighbors(shape, pf.neighbor_table(shape, 10), tmp_path / "neighbors.png", [0, 50, 97])
    for name in ("ced", "bars", "face", "sweep", "neighbors"):
        drawn = picture(tmp_path / f"{name}.png")
        assert min(drawn.shape[:2]) > 200
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20
    worst = picture(tmp_path / "worst.png")
    assert worst.shape == (2 * figures.TILE, 2 * figures.TILE, 3)
    # The face that was not found comes first, without predictions; a fourth place stays black.
    tiles = [worst[y : y + 320, x : x + 320] for y in (0, 320) for x in (0, 320)]
    for color, counts in ((figures.TRUTH, [5, 5, 5, 0]), (figures.PREDICTED, [0, 5, 5, 0])):
        for tile, expected in zip(tiles, counts, strict=True):
            dots = (tile == color).all(axis=2).sum()
            assert (dots > 0) == (expected > 0)
    assert not tiles[3].any()


def test_pictures_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'pipnet_fast\[train\]'"):
        figures.draw_ced([off_by(make_data(), [1] * 5)], tmp_path / "ced.png")


@pytest.mark.parametrize("name", layout_names())
def test_regions_hold_every_landmark_once_and_mirror(name: str) -> None:
    layout = load_layout(name)
    groups = regions(layout)
    assert sorted(n for members in groups.values() for n in members) == list(range(layout.num_landmarks))
    for side, members in groups.items():
        if side.startswith("left") and "cheek" not in side:
            assert sorted(layout.flip[members]) == sorted(groups[side.replace("left", "right")])
    assert list(regions(MINE)) == ["all"]


COFW68 = os.environ.get("PIPNET_COFW68", "")


@pytest.mark.skipif(not COFW68, reason="PIPNET_COFW68 does not name a copy of golnazghiasi/cofw68-benchmark")
@pytest.mark.parametrize(
    ("name", "nme"),
    [
        ("SAPM_COFW68", 6.64),
        ("TCDCN_CFOW68", 7.66),
        ("CFSS_CFOW68", 6.28),
        ("HPM_HelenLfpw_COFW68test", 6.72),
        ("RCPR-occ_300w", 8.76),
    ],
)
def test_published_predictions_on_cofw68(name: str, nme: float) -> None:
    """Five methods' predictions and the labels as they lie in the public repository: facts of 2014 to 2016."""
    from scipy.io import loadmat

    labels = [loadmat(f"{COFW68}/COFW68_Data/test_annotations/{k}_points.mat")["Points"] for k in range(1, 508)]
    samples = [Sample(Picture(f"{k}.png"), np.array(p, float), np.zeros(4)) for k, p in enumerate(labels)]
    data = FaceData("cofw68/test", load_layout("300w68"), samples, pf.CropRule())
    lines = Path(COFW68, "Results", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    points = np.full((507, 68, 2), NAN)
    for start in range(0, len(lines), 4):
        points[int(lines[start]) - 1] = np.array([lines[start + 1].split(), lines[start + 2].split()], float).T
    assert hold_against(name, data, points, points[..., 0]).nme == pytest.approx(nme, abs=0.005)
