"""What compiling and calling refuse, and what absent engines say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pipnet_fast as pf
from pipnet_fast.engines import cudagraph, inductor
from pipnet_fast.engines._compile import ENGINES
from pipnet_fast.engines._onnx import package_missing
from tests.engine_cases import require, tiny


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        pytest.param([1, 2], TypeError, r"runtime: x: expected a tensor or an array, .* got list", id="list"),
        pytest.param(torch.zeros(1, 64, 64, 3).long(), TypeError, r"uint8 crops .* got torch.int64", id="int64"),
        pytest.param(np.zeros((1, 64, 64, 3), np.int32), TypeError, r"uint8 crops .* array of int32", id="int32"),
        pytest.param(np.zeros(1, object), TypeError, r"got an array of object", id="object"),
        pytest.param(torch.zeros(64, 64, 3).byte(), ValueError, r"\(B, 64, 64, 3\) .* got \(64, 64, 3\)", id="3-axes"),
        pytest.param(
            torch.zeros(1, 3, 64, 64).byte(), ValueError, r"got \(1, 3, 64, 64\) torch.uint8", id="uint8-first"
        ),
        pytest.param(torch.zeros(1, 64, 64, 3), ValueError, r"got \(1, 64, 64, 3\) torch.float32", id="float-last"),
        pytest.param(torch.zeros(1, 3, 64, 96), ValueError, r"\(B, 3, 64, 64\), got \(1, 3, 64, 96\)", id="size"),
        pytest.param(np.zeros((0, 4)), ValueError, r"got \(0, 4\)", id="2-axes"),
    ],
)
def test_crops_of_another_kind(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pf.compile(tiny(), "torch")(x)


class Untraceable(pf.PIPNet):
    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward_features(x if x.sum() > 0 else -x)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        pytest.param(nn.Linear(2, 2), {}, TypeError, "model: expected a PIPNet, .* got Linear", id="other-module"),
        pytest.param("r18", {}, TypeError, "model: expected a PIPNet, .* got str", id="no-module"),
        pytest.param(tiny().train(), {}, ValueError, "model: .* eval mode .* training", id="training"),
        pytest.param(tiny(mean_shape=None), {}, ValueError, "mean_shape", id="no-mean-shape"),
        pytest.param(
            tiny(), {"engine": "tpu"}, ValueError, r'engine: expected "auto" .*openvino.* got \'tpu\'', id="engine"
        ),
        pytest.param(
            tiny(), {"batch_size": 0}, ValueError, "batch_size: expected an integer >= 1, got 0", id="batch-0"
        ),
        pytest.param(tiny(), {"batch_size": 1.0}, ValueError, "batch_size: .* got 1.0", id="batch-float"),
        pytest.param(tiny(), {"batch_size": True}, ValueError, "batch_size: .* got True", id="batch-bool"),
        pytest.param(tiny(), {"dtype": "int8"}, ValueError, r"dtype: expected .*'float16'.* got 'int8'", id="dtype"),
        pytest.param(
            tiny(), {"head_storage": "int4"}, ValueError, "head_storage: expected None or .* got 'int4'", id="storage"
        ),
        pytest.param(
            tiny(),
            {"engine": "cpp", "weight_storage": "int8"},
            ValueError,
            r"weight_storage: expected None or one of \['float32', 'float16'\], got 'int8'",
            id="weight-storage",
        ),
        pytest.param(
            tiny(),
            {"weight_storage": "float16"},
            ValueError,
            "weight_storage: expected engine='cpp' with 'float16', got 'torch'",
            id="weight-storage-of-another-engine",
        ),
        pytest.param(
            pf.CoordNet("resnet18", 5, 64).eval(),
            {"head_storage": "int8"},
            ValueError,
            "head_storage: expected None for a CoordNet, got 'int8'",
            id="storage-of-coordnet",
        ),
        pytest.param(
            tiny(), {"dtype": "float16"}, ValueError, "dtype: 'float16' .* on cpu expected 'float32'", id="half"
        ),
    ],
)
def test_compile_refuses(model: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        pf.compile(model, **{"engine": "torch", **options})


def test_compile_refuses_what_cannot_be_traced() -> None:
    model = Untraceable(num_landmarks=5, num_neighbors=0, width=0.125, input_size=64).eval()
    with pytest.raises(ValueError, match=r"model: its forward_features cannot be traced by torch\.fx"):
        pf.compile(model, "torch")


def test_an_absent_engine_raises_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "openvino", replace(ENGINES["openvino"], missing=lambda: "not today"))
    assert pf.engines()["openvino"] is False
    assert pf.engines().reasons["openvino"] == "not today"
    with pytest.raises(
        RuntimeError, match="compile: engine 'openvino' is not available here: not today; present: torch"
    ):
        pf.compile(tiny(), "openvino")


def test_an_engine_on_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "cudagraph", replace(ENGINES["cudagraph"], missing=lambda: None))
    with pytest.raises(ValueError, match="engine: 'cudagraph' expects a model on cuda, got one on cpu"):
        pf.compile(tiny(), "cudagraph")


def test_an_engine_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(network: Any, spec: Any) -> Any:
        raise OSError("out of pencils\nand a long traceback")

    monkeypatch.setitem(ENGINES, "torch", replace(ENGINES["torch"], prepare=prepare))
    with pytest.raises(RuntimeError, match="^compile: engine 'torch' failed: out of pencils$"):
        pf.compile(tiny(), "torch")


def test_reasons_of_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(pf.engines()) == {"torch", "cpp", "inductor", "cudagraph", "onnxruntime", "openvino"}
    assert package_missing("nosuch") == "not installed: nosuch; pip install 'pipnet_fast[nosuch]'"
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    assert inductor.missing() == "no C++ compiler: /nonexistent/c++ not found; install it or set CXX"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cudagraph.missing() == "no CUDA device"


def test_a_broken_package_is_a_reason(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    require("onnxruntime")
    (tmp_path / "splintered.py").write_text("raise OSError('libsplinter.so not found')")
    monkeypatch.syspath_prepend(tmp_path)
    assert package_missing("splintered") == "splintered does not work here (OSError: libsplinter.so not found)"
