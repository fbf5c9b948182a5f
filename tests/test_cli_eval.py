"""The commands eval and neighbors, in process."""

import csv
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.cli._models import model_names
from pipnet_fast.data import DataError, FaceData, ImageFile, Sample
from pipnet_fast.evaluate import evaluate, label_boxes
from pipnet_fast.layouts import Layout, load_layout, load_mean_shape
from pipnet_fast.pipeline.images import read_rgb
from tests.commands import Run

SHAPE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
N = len(SHAPE)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaceData:
    """Four faces of noise, which the command reads under the name of a data set."""
    samples = []
    for i in range(4):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.random.RandomState(i).randint(0, 256, (80, 90, 3), dtype=np.uint8))
        box = np.array([10.0, 10.0, 70.0, 60.0 + i])
        samples.append(Sample(ImageFile(path), box[:2] + SHAPE * (box[2:] - box[:2]), box, ("blur",) if i % 2 else ()))
    faces = FaceData("mine/test", Layout("mine", np.array([1, 0, 2, 4, 3]), (0, 1)), samples, pf.CropRule(), tight=True)

    def open_data(name: str, root: str, split: str, *, skip_bad: bool, **options: Any) -> FaceData:
        if options.get("boxes", "given") != "given":
            raise ValueError(f"open_data: {name}: boxes: expected 'given', got {options['boxes']!r}")
        if options.get("scale", 1.5) != 1.5:
            raise ValueError(f"open_data: {name}: scale: expected 1.5, got {options['scale']!r}")
        if split != "test":
            raise DataError(f"{root}: no split {split}")
        return faces

    monkeypatch.setattr("pipnet_fast.cli._faces.open_data", open_data)
    return faces


def save_model(path: Path, **options: Any) -> Path:
    torch.manual_seed(0)
    model = pf.PIPNet(num_landmarks=N, width=0.125, input_size=64, mean_shape=SHAPE, **{"num_neighbors": 2, **options})
    pf.save(model.eval(), path)
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("data")
def test_a_model_and_its_own_predictions_measure_the_same(run: Run, tmp_path: Path) -> None:
    model = save_model(tmp_path / "net.safetensors")
    first = run("eval", model, "--data", "table", tmp_path, "--out", tmp_path / "made" / "a", "--flip-average")
    assert (first.status, first.err) == (0, "")
    names = sorted(path.name for path in (tmp_path / "made" / "a").iterdir())
    assert names == sorted(
        ["summary.csv", "summary.json", "ced.png", "landmarks.png"]
        + [f"{name}.{end}" for name in ("net", "net_flip_average") for end in ("predictions.csv", "worst.png")]
    )
    rows = read_rows(tmp_path / "made" / "a" / "summary.csv")
    assert [(row["model"], row["subset"], row["faces"]) for row in rows] == [
        ("net", "all", "4"),
        ("net", "blur", "2"),
        ("net, flip average", "all", "4"),
        ("net, flip average", "blur", "2"),
    ]
    again = run("eval", tmp_path / "made/a/net.predictions.csv", "--data", "table", tmp_path, "--out", tmp_path / "b")
    assert again.status == 0
    for ours, theirs in zip(rows[:2], read_rows(tmp_path / "b" / "summary.csv"), strict=True):
        for key in ("nme", "failure_rate", "auc", "point_var"):
            assert float(ours[key]) == pytest.approx(float(theirs[key]), rel=1e-3)
    printed = re.search(r"^net +all +4 +0 +([\d.]+) ", first.out, re.MULTILINE)
    assert printed is not None
    assert float(printed[1]) == pytest.approx(float(rows[0]["nme"]), abs=0.006)
    record = json.loads((tmp_path / "made" / "a" / "summary.json").read_text(encoding="utf-8"))
    assert record[0]["parts"][0]["nme"] == pytest.approx(float(rows[0]["nme"]))


@pytest.mark.parametrize("command", ["eval", "grids"])
def test_boxes_of_the_labels(
    run: Run, data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A set whose boxes are others than the model's: a warning with numbers, and none once they are tight."""
    wide = [replace(s, box=s.box + np.array([-20.0, -10.0, 20.0, 30.0])) for s in data.samples]
    monkeypatch.setattr(
        "pipnet_fast.cli._faces.open_data", lambda *_, **__: replace(data, samples=wide, norm="box", tight=False)
    )
    net = save_model(tmp_path / "net.safetensors")
    call = (command, net, "--data", "wflw", tmp_path, "--out", tmp_path / "o")
    given = run(*call)
    assert given.status == 0
    assert re.fullmatch(
        r"warning: net: mine/test: against the model's own crops of the labels' tight boxes \(scale 1\.2, top_shift "
        r"0\) the mean face is shifted by [+-]0\.\d{3}, [+-]0\.\d{3} of the crop .*; --boxes tight .*\n",
        given.err,
    ), given.err
    tight = run(*call, "--boxes", "tight")
    assert (tight.status, tight.err) == (0, "")
    assert tight.out != given.out
    if command == "eval":
        (row, _) = read_rows(tmp_path / "o" / "summary.csv")
        faces = replace(data, samples=wide, norm="box", tight=False)
        assert float(row["nme"]) == pytest.approx(evaluate(pf.load(net), faces, boxes=label_boxes(faces)).nme, rel=1e-5)


@pytest.mark.usefixtures("data")
def test_a_sweep(run: Run, tmp_path: Path) -> None:
    models = [save_model(tmp_path / f"k{k}.safetensors", num_neighbors=k) for k in (0, 2)]
    result = run("eval", *models, "--data", "table", tmp_path, "--out", tmp_path / "o", "--sweep", "num_neighbors")
    assert result.status == 0
    assert read_rgb(tmp_path / "o" / "sweep.png").std() > 5


def test_official_checkpoint(run: Run, data: FaceData, tmp_path: Path) -> None:
    model = pf.PIPNet(num_landmarks=N, num_neighbors=2, mean_shape=SHAPE)
    torch.save(model.state_dict(), tmp_path / "epoch59.pth")
    np.savetxt(tmp_path / "meanface.txt", SHAPE.reshape(1, -1))
    call = ("eval", tmp_path / "epoch59.pth", "--data", "table", tmp_path)
    assert run(*call, "--mean-shape", tmp_path / "meanface.txt").status == 0
    result = run(*call)
    assert (result.status, "an official checkpoint needs --mean-shape" in result.err) == (2, True)


def test_the_box_and_a_detector(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one photo, labelled with what the model in the box finds from the detector's box, but given another one."""
    skimage = pytest.importorskip("skimage.data")
    path = Path(skimage.__file__).with_name("astronaut.png")
    found = pf.FaceLandmarker(device="cpu")(str(path))
    points, box = found.landmarks[0].astype(np.float64), found.boxes[0, :4].astype(np.float64)
    face = Sample(ImageFile(path), points, box + 10)
    faces = FaceData("one/test", load_layout("300w68"), [face], pf.CropRule(), tight=True)
    monkeypatch.setattr("pipnet_fast.cli._faces.open_data", lambda *args, **kwargs: faces)
    nmes = []
    for options in ([], ["--detector", "haar"]):
        assert run("eval", "box", "--data", "table", tmp_path, "--out", tmp_path / "o", *options).status == 0
        nmes.append(float(read_rows(tmp_path / "o" / "summary.csv")[0]["nme"]))
    assert nmes[0] > 0.5
    assert nmes[1] == pytest.approx(0, abs=0.01)


def test_bad_faces_are_counted(run: Run, data: FaceData, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    call = ("eval", save_model(tmp_path / "net.safetensors"), "--data", "table", tmp_path)
    ended = run(*call)
    assert (ended.status, ended.out) == (2, "")
    assert "1.png: not an image" in ended.err
    skipped = run(*call, "--skip-bad")
    assert skipped.status == 1
    assert "1 face(s) were left out:" in skipped.err
    assert re.search(r"^net +all +3 ", skipped.out, re.MULTILINE)


USAGE = [
    pytest.param("", "MODEL", id="no model"),
    pytest.param("{net}", "--data", id="no data"),
    pytest.param("{net} --data table", "--data", id="no root"),
    pytest.param("net.onnx {data}", "got 'net.onnx'", id="unknown kind of file"),
    pytest.param("no.safetensors {data}", "no such model file", id="no such model"),
    pytest.param("no.csv {data}", "no.csv: No such file", id="no such predictions"),
    pytest.param("{net} {net} {data}", "every MODEL once", id="twice"),
    pytest.param("box {data}", "one of 5 landmarks", id="another N"),
    pytest.param("{net} {data} --split dev", "no split dev", id="split"),
    pytest.param("{net} {data} --boxes big", "got 'big'", id="boxes"),
    pytest.param("{net} {data} --option boxes=big", "got 'big'", id="option, a word"),
    pytest.param("{net} {data} --option scale=2.5", "got 2.5", id="option, a number"),
    pytest.param("{net} {data} --option scale", "--option: expected KEY=VALUE, got 'scale'", id="option, no value"),
    pytest.param("{net} {data} --norm eyes", "invalid choice: 'eyes'", id="norm"),
    pytest.param("{net} {data} --threshold 0", "--threshold: expected", id="threshold"),
    pytest.param("{net} {data} --detector none", "got 'none'", id="detector"),
    pytest.param("{net} {data} --engine none", "'none'", id="engine"),
    pytest.param("{net} {data} --device none", "none", id="device"),
    pytest.param("{net} {data} --device hpu", "--device 'hpu' is not available", id="a device that is not there"),
    pytest.param("{net} {data} --device meta", "--device: expected one that computes", id="a device without numbers"),
    pytest.param("{net} {data} --sweep merge", "--sweep: expected a number", id="sweep"),
    pytest.param("{net} {data} --out {net}", "--out: expected a folder", id="out is a file"),
]


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_wrong_calls_are_one_line(run: Run, tmp_path: Path, arguments: str, message: str) -> None:
    net = save_model(tmp_path / "net.safetensors")
    result = run("eval", *arguments.format(net=net, data=f"--data table {tmp_path}").split())
    assert (result.status, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("pipnet-fast eval: ")
    assert message in result.err


@pytest.mark.usefixtures("data")
def test_pictures_without_matplotlib_are_refused_at_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    call = ("eval", save_model(tmp_path / "net.safetensors"), "--data", "table", tmp_path)
    assert run(*call).status == 0
    result = run(*call, "--out", tmp_path / "o")
    assert (result.status, result.out) == (2, "")
    assert result.err == "pipnet-fast eval: pictures need matplotlib: pip install 'pipnet_fast[train]'\n"


def test_unknown_data_set(run: Run, tmp_path: Path) -> None:
    result = run("eval", "box", "--data", "nosuch", tmp_path)
    assert result.status == 2
    assert re.fullmatch(r"pipnet-fast eval: open_data: name: expected one of .*, got 'nosuch'\n", result.err)


@pytest.mark.parametrize("layout", ["wflw98", "file"])
def test_neighbors(run: Run, tmp_path: Path, layout: str) -> None:
    if layout == "file":
        layout = str(tmp_path / "meanface.txt")
        np.savetxt(layout, load_mean_shape("wflw98").reshape(1, -1))
    result = run("neighbors", layout, "--out", tmp_path / "n.png", "--landmarks", 0, 97)
    assert (result.status, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[1] == ["0", "6", "0.143", "1", "2", "33", "3", "60", "41", "4", "34", "61", "67"]
    assert lines[98] == ["97", "15", "0.062", "70", "74", "71", "73", "75", "69", "48", "72", "49", "68"]
    assert read_rgb(tmp_path / "n.png").std() > 5


def test_neighbors_by_the_official_merge(run: Run) -> None:
    result = run("neighbors", "wflw98", "--merge", "official")
    assert result.out.splitlines()[1].split()[:3] == ["0", "6", "0.056"]


def test_no_neighbors(run: Run) -> None:
    assert run("neighbors", "cofw29", "--count", 0).out.splitlines()[1].split() == ["0", "0", "1.000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["wflw99"], "mean_shape: expected one of", id="layout"),
        pytest.param(["cofw29", "--count", "29"], "--count: expected 0 to 28", id="count"),
        pytest.param(["cofw29", "--count", "-1"], "--count: expected 0 to 28", id="negative"),
        pytest.param(["cofw29", "--landmarks", "29"], "--landmarks: expected landmarks of 0..28", id="landmark"),
        pytest.param(["cofw29", "--out", "/nosuch/n.png"], "nosuch", id="out"),
    ],
)
def test_wrong_calls_of_neighbors(run: Run, arguments: list[str], message: str) -> None:
    result = run("neighbors", *arguments)
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert message in result.err


def test_names_of_models_differ() -> None:
    assert model_names(["a/m.pth", "n.csv"]) == ["m", "n"]
    assert model_names(["a/m.pth", "b/m.pth"]) == ["a_m", "b_m"]
    assert model_names(["a/m.pth", "b/m.pth", "x/a_m.pth"]) == ["a_m.pth", "b_m.pth", "x_a_m.pth"]
    assert model_names(["m.pth", "m.csv"]) == ["m.pth", "m.csv"]
    with pytest.raises(ValueError, match=r"expected every MODEL once, got x/m\.pth twice"):
        model_names(["x/m.pth", "./x/m.pth"])
