"""The command export, in process."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import pipnet_fast as pf
from pipnet_fast.cli import export
from pipnet_fast.export import Checked
from tests import exported
from tests.commands import Run, RunOne
from tests.miniature import write_noise_faces

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return RunOne(capsys, export)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    place = tmp_path / "model.safetensors"
    pf.save(exported.model(), place)
    return place


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of twelve pictures in each of which a face is found, and a file that is no picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        image = np.random.RandomState(i).randint(0, 256, (80, 90, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"face{i}.png"), image)
    (folder / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr(export, "COMPARED", 3)
    monkeypatch.setattr(export, "create_detector", lambda name: lambda image: np.array([[10.0, 10, 70, 60, 1]]))
    return folder


@pytest.fixture(autouse=True)
def _made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting to ONNX gives the one file, and quantizing its one int8 file."""
    monkeypatch.setattr("pipnet_fast.export.onnx.traced", lambda network: None)
    monkeypatch.setattr("pipnet_fast.export.onnx.to_bytes", lambda program, entries: exported.onnx_file())
    monkeypatch.setattr("pipnet_fast.export.onnx.quantized", lambda data, crops, input: exported.int8_file())


def test_file_is_verified_on_faces_and_says_so(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "out.onnx"
    done = run(model, "--out", place, "--input", "uint8", "--verify-on", photos)
    assert done.status == 0
    assert re.search(r"gives the model's landmarks on \d+ crop\(s\), one by one and together: the largest", done.out)
    assert done.out.endswith(f"written to {place}\n")
    assert "--verify-on: left out: " in done.err
    assert "broken.png" in done.err
    assert place.read_bytes() == exported.onnx_file()


def test_formats_are_chosen(run: Run, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def export_other(*arguments: Any, **options: Any) -> Checked:
        calls.append((arguments[1], options["input"], options["layout"]))
        return Checked("torch.export", 2, 1e-7)

    monkeypatch.setitem(export.FORMATS, "torch-export", export_other)
    words = ("--format", "torch-export", "--out", "x.pt2", "--layout", "300w68", "--verify-on", photos)
    assert run(model, *words).out.startswith("torch.export gives the model's landmarks on 2 crop(s)")
    assert calls == [("x.pt2", "float32", "300w68")]


def test_int8_is_calibrated_on_a_folder_and_guarded(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "out.onnx"
    words = (model, "--out", place, "--input", "uint8", "--verify-on", photos, "--int8", "--calibration", photos)
    assert "int8: landmarks move by" in run(*words, "--max-shift", "1e6").out
    with pytest.raises(RuntimeError, match="to move by at most 0 % of the crop in the mean, got"):
        run(*words, "--max-shift", "0")
    assert place.read_bytes() == exported.int8_file()


def test_int8_is_measured_on_labelled_faces(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    write_noise_faces(faces, "val", 2)
    header, *rows = (faces / "val.csv").read_text().splitlines()
    (faces / "train.csv").write_text("\n".join([header, *rows * 6]))
    data = ("--data", "table", faces, "--split", "val", "--calibration-split", "train", "--option", "layout=300w68")
    words = ("--out", tmp_path / "out.onnx", "--input", "uint8", "--verify-on", photos, "--int8", *data)
    assert re.search(
        r"int8: NME [\d.]+ % on 2 faces, float32 [\d.]+ %", run(model, *words, "--max-nme-rise", "1e6").out
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--int8"], "--int8: expected --calibration FOLDER or --calibration-split NAME", id="no-crops"),
        pytest.param(["--calibration", "x"], "--calibration: expected --int8 beside it", id="no-int8"),
        pytest.param(["--data", "table", "x"], "--data: expected --int8 beside it", id="data-without-int8"),
        pytest.param(
            ["--int8", "--calibration", "x", "--format", "aoti"],
            "--int8: expected --format onnx, got aoti",
            id="format",
        ),
        pytest.param(["--int8", "--calibration-split", "train"], "expected --data NAME ROOT beside it", id="no-data"),
        pytest.param(
            ["--int8", "--calibration-split", "test", "--data", "table", "x"],
            "expected another part than --split, got 'test' for both",
            id="one-split",
        ),
        pytest.param(["--verify-on", "missing"], "missing", id="no-folder"),
        pytest.param(["--detector", "mine"], "detector: expected", id="detector"),
    ],
)
def test_flags_that_do_not_fit_are_named(run: Run, model: Path, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(model, "--out", tmp_path / "out.onnx", *words)
    assert not (tmp_path / "out.onnx").exists()


def test_unknown_formats_are_refused_in_a_line(run: Run, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(model, "--out", "x", "--format", "tflite")
    assert "--format: invalid choice: 'tflite'" in capsys.readouterr().err
