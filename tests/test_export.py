"""Exported files in the runtimes that they are for, which know nothing of this package, against ``predict``."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.export import ExportError, export_aoti, export_onnx, export_program
from pipnet_fast.export._network import SCORE_WEIGHT, ExportNetwork
from pipnet_fast.export._verify import made_up_crops, require_agreement
from pipnet_fast.export.onnx import to_bytes
from pipnet_fast.export.program import traced
from pipnet_fast.layouts import load_layout
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.digest import model_digest
from pipnet_fast.pipeline.images import normalize
from tests import exported
from tests.engine_cases import require, tiny
from tests.exported import RUNTIMES, SIZE, noise
from tests.slow import slow
from tests.tolerances import ENGINE, assert_landmarks_close

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

MODELS: dict[str, Callable[[], LandmarkModel]] = {
    "resnet18": tiny,
    "no-neighbors": lambda: tiny(num_neighbors=0, mean_shape=None),
    "one-cell": lambda: tiny(input_size=32),
    "mobilenet_v3": lambda: tiny("mobilenet_v3"),
    "coordnet": lambda: rival(pf.CoordNet),
    "mapnet": lambda: rival(pf.MapNet, stride=4),
    "grmi": lambda: rival(pf.GRMI),
}


def rival(kind: Any, **options: Any) -> Any:
    torch.manual_seed(2)
    model = kind("resnet18", 5, input_size=SIZE, width=0.0625, **options).eval()
    # Fresh heads are close to zero, where all cells tie.
    for name, parameter in model.named_parameters():
        if name.startswith(("final_layer", "fc3")):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def assert_gives(found: Any, expected: pf.Landmarks, tolerance: float = ENGINE["resnet"]) -> None:
    """The two outputs, by name or in order."""
    outputs = [found[name] for name in ("landmarks", "scores")] if isinstance(found, dict) else found
    for name, got, wanted in zip(("landmarks", "scores"), outputs, expected, strict=True):
        assert_landmarks_close(torch.as_tensor(got), wanted, name, tolerance)


def tolerance_of(name: str) -> float:
    return ENGINE["mobilenet" if name.startswith("mobilenet") else "resnet"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_file_gives_what_predict_gives_for_any_batch(runtime: str) -> None:
    require(runtime)
    for batch in (1, 3, 32):
        crops = noise(batch)
        expected = exported.model().predict(normalize(torch.from_numpy(crops)))
        assert_gives(RUNTIMES[runtime](exported.onnx_file(), crops), expected)


@pytest.mark.parametrize("name", MODELS)
def test_graph_computes_what_predict_computes(name: str) -> None:
    model = MODELS[name]()
    network = ExportNetwork("test", model, "float32")
    size = model.config.input_size
    x = normalize(torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8))
    assert_gives(network(x), model.predict(x), tolerance_of(name))


@slow("takes minutes")
@pytest.mark.parametrize("name", MODELS)
def test_runtimes_run_every_model(name: str) -> None:
    model = MODELS[name]()
    data = to_bytes(traced(ExportNetwork("test", model, "float32")), {})
    size = model.config.input_size
    for batch in (1, 3, 32):
        x = normalize(torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)).contiguous()
        for run in RUNTIMES.values():
            assert_gives(run(data, x.numpy()), model.predict(x), tolerance_of(name))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_first_of_equal_cells_wins(runtime: str, tmp_path: Path) -> None:
    require(runtime)
    # The head alone, and each landmark's score is its features' first channel.
    proto = onnx.load_from_string(exported.onnx_file())
    (score,) = (node for node in proto.graph.node if SCORE_WEIGHT in node.input)
    weights = {weight.name: weight for weight in proto.graph.initializer}
    weight, bias = (weights[name] for name in score.input[1:])
    chosen = np.zeros(weight.dims, np.float32)
    chosen[:, 0] = 1
    for tensor, values in ((weight, chosen), (bias, np.zeros(bias.dims, np.float32))):
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    # Of the crops it asks how many there are.
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(proto))
    head = extractor.extract_model(["crops", score.input[0]], ["landmarks", "scores"])
    model = exported.model()
    layer = model.get_submodule("cls_layer")
    with torch.no_grad():
        layer.get_parameter("weight").copy_(torch.from_numpy(chosen))
        layer.get_parameter("bias").zero_()
    features = torch.randn(3, chosen.shape[1], SIZE // 16, SIZE // 16)
    # Of three values over sixteen cells many are equal.
    features[:, 0] = torch.randint(0, 3, features[:, 0].shape)
    found = RUNTIMES[runtime](head.SerializeToString(), noise(3), **{score.input[0]: features.numpy()})
    assert_gives(found, model.landmarks(features))


def test_file_tells_how_to_crop_and_what_the_landmarks_are() -> None:
    proto, model = onnx.load_from_string(exported.onnx_file()), exported.model()
    found = {entry.key: entry.value for entry in proto.metadata_props}
    texts = ("format", "version", "kind", "backbone", "input", "merge", "layout", "model_sha256")
    assert {key: found[key] for key in texts} == {
        "format": "pipnet_fast.export/1",
        "version": pf.__version__,
        "kind": "PIPNet",
        "backbone": "resnet18",
        "input": "uint8",
        "merge": "official",
        "layout": "300w68",
        "model_sha256": model_digest(model),
    }
    layout = load_layout("300w68")
    assert layout.outer_eyes is not None
    assert model.mean_shape is not None
    values = {
        "num_landmarks": 68,
        "num_neighbors": 4,
        "stride": 16,
        "input_size": SIZE,
        "crop": {"scale": 1.3, "top_shift": 0.1, "pixel_base": "center"},
        "flip": layout.flip.tolist(),
        "outer_eyes": list(layout.outer_eyes),
        "mean_shape": model.mean_shape.tolist(),
    }
    assert {key: json.loads(found[key]) for key in values} == values
    shapes = [[d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim] for value in proto.graph.input]
    assert shapes == [["batch", SIZE, SIZE, 3]]
    # Nothing of the machine that wrote it.
    assert b"site-packages" not in exported.onnx_file()
    assert str(Path(pf.__file__).parent).encode() not in exported.onnx_file()


@pytest.fixture
def not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting to ONNX gives the one file, whatever the model."""
    monkeypatch.setattr("pipnet_fast.export.onnx.traced", lambda network: None)
    monkeypatch.setattr("pipnet_fast.export.onnx.to_bytes", lambda program, entries: exported.onnx_file())


@pytest.mark.usefixtures("not_traced")
def test_file_is_kept_only_if_it_gives_what_the_model_gives(tmp_path: Path) -> None:
    require("onnxruntime")
    place = tmp_path / "model.onnx"
    checked = export_onnx(exported.model(), place, input="uint8")
    assert checked.by.startswith("ONNX Runtime")
    assert checked.crops > 4
    assert 0 < checked.deviation_frac < 1e-2
    before = place.read_bytes()
    assert before == exported.onnx_file()
    with pytest.raises(ExportError, match=r"landmarks, run by ONNX Runtime .*differ .* by .* \(allowed: .*\); nothing"):
        export_onnx(exported.model(seed=1), place, input="uint8", crops=exported.compared())
    assert place.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.usefixtures("not_traced")
def test_without_onnx_runtime_onnx_itself_runs_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    place = tmp_path / "model.onnx"
    checked = export_onnx(exported.model(), place, input="uint8", crops=exported.compared())
    assert checked.by.endswith("evaluator")
    assert checked.crops == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda p, s: (p[:, :, ::-1], s), "landmarks, run by test, differ", id="y-before-x"),
        pytest.param(lambda p, s: (p, s + 0.1), "scores, run by test, differ", id="scores"),
        pytest.param(lambda p, s: (p * np.nan, s), "landmarks, run by test, differ", id="nan"),
        pytest.param(lambda p, s: (p[:1], s), r"expected float32 \(\d, 68, 2\), got float32 \(1, 68, 2\)", id="shape"),
        pytest.param(lambda p, s: (p, s.astype(np.float64)), "expected float32 .* got float64", id="dtype"),
    ],
)
def test_every_difference_is_seen(change: Any, message: str) -> None:
    model = exported.model()

    def run(crops: Any) -> Any:
        points, scores = (tensor.numpy() for tensor in model.predict(torch.from_numpy(crops)))
        # Of one crop alone it is right.
        return change(points, scores) if len(crops) > 1 else (points, scores)

    with pytest.raises(ExportError, match=message):
        require_agreement("test", "test", run, model, exported.compared(), "float32")


def test_crops_that_rounding_decides_are_not_compared() -> None:
    model = tiny()
    with torch.no_grad():
        for parameter in model.get_submodule("cls_layer").parameters():
            parameter.zero_()
    with pytest.raises(ValueError, match="test: crops: expected one in which rounding cannot change .*, got 2 in"):
        require_agreement("test", "test", model.predict, model, exported.compared(), "float32")  # type: ignore[arg-type]


def test_program_runs_on_torch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipnet_fast.export.program.traced", lambda network: exported.program())
    place, model = tmp_path / "model.pt2", exported.model()
    assert export_program(model, place, input="uint8", crops=exported.compared()).by == "torch.export"
    extra = {"metadata.json": ""}
    program = torch.export.load(place, extra_files=extra)
    assert json.loads(extra["metadata.json"])["layout"] == "300w68"
    operations = {node.target for node in program.graph.nodes if node.op == "call_function"}
    assert {getattr(operation, "namespace", "python") for operation in operations} <= {"aten", "python"}
    for batch in (1, 3, 32):
        crops = torch.from_numpy(noise(batch))
        assert_gives(program.module()(crops), model.predict(normalize(crops)))


def test_aoti_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"export_aoti: no C\+\+ compiler: no-such-compiler not found"):
        export_aoti(tiny(), tmp_path / "model.pt2")


@slow("takes minutes")
def test_aoti_package_runs_any_batch(tmp_path: Path) -> None:
    place, model = tmp_path / "model.pt2", exported.model()
    assert export_aoti(model, place).by == "aoti"
    package: Any = torch._inductor.aoti_load_package(str(place))
    assert package.get_metadata()["layout"] == "300w68"
    for batch in (1, 3, 32):
        x = normalize(torch.from_numpy(noise(batch))).contiguous()
        assert_gives(package(x), model.predict(x))


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    place, model = tmp_path / "model.pt2", tiny(width=0.0625)
    for error, message, arguments, options in (
        (
            TypeError,
            "model: expected a PIPNet, CoordNet, MapNet or GRMI, got Linear",
            (torch.nn.Linear(1, 1), place),
            {},
        ),
        (ValueError, "model: expected one in eval mode", (rival(pf.CoordNet).train(), place), {}),
        (ValueError, "mean_shape: the neighbors' votes", (tiny(width=0.0625, mean_shape=None), place), {}),
        (ValueError, "path: expected a name that ends in .pt2, got .*x.bin", (model, tmp_path / "x.bin"), {}),
        (ValueError, "path: expected a file, got the folder", (model, tmp_path), {}),
        (ValueError, "path: expected a folder that is there, got .*none", (model, tmp_path / "none/x.pt2"), {}),
        (ValueError, "input: expected one of .*'uint8'.*, got 'int8'", (model, place), {"input": "int8"}),
        (ValueError, "layout: expected one of .*300w68", (model, place), {"layout": "none"}),
        (ValueError, "layout: expected one of 17 landmarks", (model, place), {"layout": "wflw98"}),
        (TypeError, "layout: expected a name or a Layout, got int", (model, place), {"layout": 3}),
        (TypeError, "crops: expected uint8 .*, got float64", (model, place), {"crops": np.zeros((1, SIZE, SIZE, 3))}),
        (ValueError, r"crops: expected .*, got \(0, 64", (model, place), {"crops": made_up_crops(SIZE)[:0]}),
        (ValueError, r"crops: expected .*, got \(8, 32", (model, place), {"crops": made_up_crops(32)}),
    ):
        with pytest.raises(error, match=message):
            export_program(*arguments, **options)
    for export, suffix in ((export_onnx, ".onnx"), (export_aoti, ".pt2")):
        with pytest.raises(ValueError, match=f"{export.__name__}: path: expected a name that ends in {suffix}, got"):
            export(model, tmp_path / "x.bin")
    assert not list(tmp_path.iterdir())
