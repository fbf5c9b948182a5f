"""Quantized files: what is int8 in them, and that they are refused where they cost too much."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.data import FaceData
from pipnet_fast.evaluate import evaluate
from pipnet_fast.export import ExportError, Int8, export_onnx
from pipnet_fast.export._network import SCORE_WEIGHT
from pipnet_fast.export._verify import made_up_crops
from pipnet_fast.layouts import load_layout
from tests import exported, pictures
from tests.engine_cases import require, tiny
from tests.exported import RUNTIMES, SIZE, noise

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CROPS = noise(12)


@pytest.fixture(autouse=True)
def _made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting to ONNX gives the one file, and quantizing its one int8 file."""
    monkeypatch.setattr("pipnet_fast.export.onnx.traced", lambda network: None)
    monkeypatch.setattr("pipnet_fast.export.onnx.to_bytes", lambda program, entries: exported.onnx_file())
    monkeypatch.setattr("pipnet_fast.export.onnx.quantized", lambda data, crops, input: exported.int8_file())


def test_trunk_is_int8_and_head_is_not() -> None:
    graph = onnx.load_from_string(exported.int8_file()).graph
    makers = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    (score,) = (node for node in convolutions if SCORE_WEIGHT in node.input)
    trunk = [node for node in convolutions if node is not score]
    assert len(trunk) > 15
    weights = {weight.name: weight for weight in graph.initializer}
    for node in trunk:
        assert {makers[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}
        # One scale a channel.
        stored, scale = (weights[name] for name in makers[node.input[1]].input[:2])
        assert stored.data_type == onnx.TensorProto.INT8
        assert list(scale.dims) == list(stored.dims[:1])
    reached = set(score.output)
    for node in graph.node:
        if reached & set(node.input):
            reached |= set(node.output)
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    plain, small = (
        {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
        for data in (exported.onnx_file(), exported.int8_file())
    )
    assert small == {**plain, "trunk": "int8"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_any_batch_runs_and_is_close(runtime: str) -> None:
    require(runtime)
    expected = RUNTIMES["onnxruntime"](exported.onnx_file(), CROPS)["landmarks"]
    for crops in (CROPS[:1], CROPS):
        found = RUNTIMES[runtime](exported.int8_file(), crops)["landmarks"]
        assert found.shape == (len(crops), exported.N, 2)
        # A changed winner moves a point far: the median is what rounding moves.
        assert 0 < np.median(np.abs(found - expected[: len(crops)])) < 0.1 * np.abs(expected).max()


def test_shift_is_the_measure_without_labels(tmp_path: Path) -> None:
    place = tmp_path / "model.onnx"
    checked = export_onnx(
        exported.model(), place, input="uint8", crops=exported.compared(), int8=Int8(CROPS, max_shift=1e6)
    )
    assert checked.int8 is not None
    plain, small = (
        RUNTIMES["onnxruntime"](d(), CROPS[::5])["landmarks"] for d in (exported.onnx_file, exported.int8_file)
    )
    shift = 100 * np.linalg.norm(small - plain, axis=2).mean()
    assert checked.int8 == ("shift", 3, 0.0, pytest.approx(shift, rel=1e-3))
    assert place.read_bytes() == exported.int8_file()

    place.write_bytes(b"older")
    message = r"int8: expected landmarks of 3 crops to move by at most 0 % .*, got [\d.]+ %; nothing was written"
    int8 = Int8(torch.from_numpy(CROPS), max_shift=0)
    with pytest.raises(ExportError, match=message):
        export_onnx(exported.model(), place, input="uint8", crops=exported.compared(), int8=int8)
    assert place.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_nme_is_the_measure_with_labels(tmp_path: Path) -> None:
    layout = load_layout("300w68")
    points = 40 + 100 * np.random.RandomState(0).rand(exported.N, 2)
    image = np.random.RandomState(1).randint(0, 256, (180, 200, 3), np.uint8)
    sample = pictures.face("face", points, image)
    faces = FaceData("made/up", layout, [sample], pf.CropRule())
    place = tmp_path / "model.onnx"
    checked = export_onnx(
        exported.model(), place, input="uint8", crops=exported.compared(), int8=Int8(CROPS, faces, max_nme_rise=1e6)
    )
    assert checked.int8 is not None
    cost = checked.int8
    assert cost[:2] == ("NME", 1)
    assert cost.float32 == pytest.approx(evaluate(exported.model(), faces).nme, rel=1e-3)
    assert cost.int8 != cost.float32


def test_nme_may_rise_by_so_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nmes = iter((4.0, 4.2, 4.0, 4.2))
    monkeypatch.setattr("pipnet_fast.evaluate.evaluate", lambda *a, **k: SimpleNamespace(nme=next(nmes)))
    faces, place = pictures.data([pictures.face("face")]), tmp_path / "model.onnx"
    message = r"NME on the 1 faces of made/up to rise by at most 0.1 %, got 4.200 % instead of 4.000 %; nothing"
    with pytest.raises(ExportError, match=message):
        export_onnx(exported.model(), place, input="uint8", crops=exported.compared(), int8=Int8(CROPS, faces))
    assert not list(tmp_path.iterdir())
    assert (
        export_onnx(
            exported.model(), place, input="uint8", crops=exported.compared(), int8=Int8(CROPS, faces, 0.3)
        ).int8
        is not None
    )


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    place = tmp_path / "model.onnx"
    for name in ("max_nme_rise", "max_shift"):
        with pytest.raises(ValueError, match=rf"Int8: {name}: expected percent >= 0, got -1"):
            Int8(CROPS, **{name: -1})
    with pytest.raises(ValueError, match=r"int8.calibration: expected at least 10 crops, got 8"):
        export_onnx(tiny(), place, int8=Int8(made_up_crops(SIZE)))
    with pytest.raises(TypeError, match=r"int8.calibration: expected uint8 .*, got str"):
        export_onnx(tiny(), place, int8=Int8("folder"))
    with pytest.raises(TypeError, match="int8: expected a PIPNet, got a CoordNet"):
        export_onnx(pf.CoordNet(num_landmarks=3, input_size=SIZE, width=0.0625).eval(), place, int8=Int8(CROPS))
    assert not list(tmp_path.iterdir())
