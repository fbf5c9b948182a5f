"""Every engine against ``predict``, and everything around them: doors, batches, threads, copies."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import pipnet_fast as pf
from pipnet_fast.engines import cudagraph, inductor
from pipnet_fast.engines._compile import ENGINES
from pipnet_fast.engines._onnx import package_missing
from pipnet_fast.engines.batching import one_and, powers_of_two, smallest, split
from pipnet_fast.pipeline.images import normalize
from tests.inputs import randomized, second_best_gap
from tests.tolerances import ENGINE, ENGINE_CUDA, assert_landmarks_close

MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {"backbone": "resnet18", "width": 0.125},
    "resnet18-stride16": {"backbone": "resnet18", "width": 0.125, "stride": 16},
    "resnet50": {"backbone": "resnet50", "width": 0.25},
    "mobilenet_v2-stride64": {"backbone": "mobilenet_v2", "stride": 64, "input_size": 128},
    "mobilenet_v3": {"backbone": "mobilenet_v3"},
}
CPU_ENGINES = ("torch", "inductor", "onnxruntime", "openvino")
# Compiling these with inductor takes up to a minute each.
SLOW = [("inductor", name) for name in MODELS if name != "resnet18"]
N = 17


def tiny(name: str = "resnet18", **options: Any) -> pf.PIPNet:
    torch.manual_seed(1)
    mean_shape = np.random.RandomState(0).rand(N, 2)
    defaults = {"num_landmarks": N, "num_neighbors": 3, "input_size": 64, "mean_shape": mean_shape}
    return randomized(**{**defaults, **MODELS[name], **options})


def crops_for(model: pf.PIPNet, batch: int) -> Tensor:
    size = model.config.input_size
    return torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)


def require(engine: str) -> None:
    if not pf.engines()[engine]:
        pytest.skip(f"{engine}: {pf.engines().reasons[engine]}")


def assert_same(got: pf.Landmarks, expected: pf.Landmarks, tolerance: float = ENGINE["resnet"]) -> None:
    assert_landmarks_close(got.points_frac, expected.points_frac, "points", tolerance)
    assert_landmarks_close(got.scores, expected.scores, "scores", tolerance)


@pytest.fixture(scope="module")
def model() -> pf.PIPNet:
    return tiny()


@pytest.fixture(scope="module")
def runtimes() -> dict[tuple[str, str], pf.Runtime]:
    """Compiled ones, by engine and model: compiling is what takes the time here."""
    return {}


Compiled = Callable[[str, str], pf.Runtime]


@pytest.fixture
def compiled(runtimes: dict[tuple[str, str], pf.Runtime]) -> Compiled:
    def get(engine: str, name: str = "resnet18") -> pf.Runtime:
        require(engine)
        if (engine, name) in SLOW and os.environ.get("PIPNET_SLOW") != "1":
            pytest.skip("compiles for up to a minute; PIPNET_SLOW=1 runs it")
        if (engine, name) not in runtimes:
            # Two sizes are compiled twice, so only where that is quick.
            batch_size = 2 if name == "resnet18" and engine != "inductor" else 1
            runtimes[engine, name] = pf.compile(tiny(name), engine, batch_size)
        return runtimes[engine, name]

    return get


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("crops", ["uint8", "float"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_engine_gives_what_predict_gives(engine: str, name: str, crops: str, batch: int, compiled: Compiled) -> None:
    model, x = tiny(name), crops_for(tiny(name), batch)
    expected = model.predict(normalize(x))
    tolerance = ENGINE["resnet" if name.startswith("resnet") else "mobilenet"]
    with torch.no_grad():
        score = model(normalize(x)).score
    # Else rounding might choose another winner.
    assert second_best_gap(score) > 2 * tolerance * float(score.abs().max() if batch else 1)
    assert_same(compiled(engine, name)(x if crops == "uint8" else normalize(x)), expected, tolerance)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_results_are_the_callers(engine: str, model: pf.PIPNet, compiled: Compiled) -> None:
    runtime = compiled(engine, "resnet18")
    first, second = crops_for(model, 2), crops_for(model, 2)
    result = runtime(first)
    kept = [tensor.clone() for tensor in result]
    assert not torch.equal(runtime(second).scores, result.scores)
    for tensor, copy in zip(result, kept, strict=True):
        torch.testing.assert_close(tensor, copy, rtol=0, atol=0)
        assert not tensor.requires_grad
        assert not tensor.is_inference()
        tensor.zero_()
    torch.testing.assert_close(runtime(first).points_frac, kept[0], rtol=0, atol=0)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_eight_threads_share_one_runtime(engine: str, model: pf.PIPNet, compiled: Compiled) -> None:
    runtime = compiled(engine, "resnet18")
    batches = [crops_for(model, 1 + i % 3) for i in range(8)]
    start = threading.Barrier(8)

    def call(batch: Tensor) -> list[pf.Landmarks]:
        start.wait(timeout=30)
        return [runtime(batch) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(call, batches))
    for batch, together in zip(batches, results, strict=True):
        alone = runtime(batch)
        for result in together:
            assert_same(result, alone, tolerance=0)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(torch.enable_grad, id="with-gradients"),
        pytest.param(torch.inference_mode, id="inference-mode"),
        pytest.param(lambda: torch.autocast("cpu", torch.bfloat16), id="autocast"),
    ],
)
@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_the_callers_modes_do_not_matter(
    engine: str, mode: Callable[[], AbstractContextManager[Any]], model: pf.PIPNet, compiled: Compiled
) -> None:
    runtime = compiled(engine, "resnet18")
    # Compiled for all modes at once: another one must not compile again.
    with torch.compiler.set_stance("fail_on_recompile"), mode():
        x = normalize(crops_for(model, 1))
        result = runtime(x)
    assert_same(result, model.predict(x.clone()))
    assert not result.points_frac.requires_grad
    assert not result.points_frac.is_inference()


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "array": lambda crops: crops.numpy(),
    "array-float64": lambda crops: normalize(crops, torch.float64).numpy(),
    "array-read-only": lambda crops: np.frombuffer(crops.numpy().tobytes(), np.uint8).reshape(crops.shape),
    "array-reversed": lambda crops: crops.flip(1).contiguous().numpy()[:, ::-1],
    "tensor-strided": lambda crops: crops.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "tensor-float-contiguous": lambda crops: normalize(crops).contiguous(),
    "tensor-requires-grad": lambda crops: normalize(crops).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_any_form_of_crops_is_taken(engine: str, form: str, model: pf.PIPNet, compiled: Compiled) -> None:
    crops = crops_for(model, 2)
    assert_same(compiled(engine, "resnet18")(FORMS[form](crops)), model.predict(normalize(crops)))


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
def test_crops_of_another_kind(x: Any, error: type[Exception], message: str, compiled: Compiled) -> None:
    with pytest.raises(error, match=message):
        compiled("torch", "resnet18")(x)


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
    assert set(pf.engines()) == {"torch", "inductor", "cudagraph", "onnxruntime", "openvino"}
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


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_a_runtime_is_a_snapshot(engine: str) -> None:
    require(engine)
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    runtime = pf.compile(model, engine)
    crops = crops_for(model, 1)
    expected = runtime(crops)

    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        for value in model.state_dict().values():
            value.fill_(7)
    model.with_mean_shape(np.random.RandomState(5).rand(N, 2), merge="official").train()
    assert_same(runtime(crops), expected, tolerance=0)


def test_a_model_without_neighbors(compiled: Compiled) -> None:
    model = tiny(num_neighbors=0, mean_shape=None)
    crops = crops_for(model, 2)
    assert_same(pf.compile(model, "torch")(crops), model.predict(normalize(crops)))


class Means(nn.Module):
    """Another kind of model: one landmark, at the means of two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.config = pf.PIPNet(num_landmarks=1, num_neighbors=0, input_size=32, width=0.125).config
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward_features(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))

    def landmarks(self, features: Tensor) -> pf.Landmarks:
        return pf.Landmarks(features.mean((2, 3)).unsqueeze(1), features.amax((1, 2, 3)).unsqueeze(1))


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_any_model_with_trunk_and_head_compiles(engine: str) -> None:
    require(engine)
    model = Means().eval()
    crops = crops_for(model, 3)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = model.landmarks(model.forward_features(normalize(crops)))
    runtime = pf.compile(model, engine)
    nn.init.zeros_(model.conv.weight)
    assert_same(runtime(crops), expected)


def test_a_runtime_says_what_it_is(compiled: Compiled) -> None:
    runtime = compiled("torch", "resnet18")
    assert (runtime.engine, runtime.batch_size, runtime.dtype) == ("torch", 2, torch.float32)
    assert repr(runtime) == "Runtime(engine='torch', batch_size=2, dtype=torch.float32, device='cpu')"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_face_landmarker_runs_on_an_engine(engine: str) -> None:
    require(engine)
    image = np.random.RandomState(0).randint(0, 256, (100, 120, 3), np.uint8)
    boxes = [[10, 10, 60, 70], [50, 20, 110, 90]]
    by_torch = pf.FaceLandmarker(tiny(), detector=None, device="cpu", engine="torch")(image, boxes)
    landmarker = pf.FaceLandmarker(tiny(), detector=None, device="cpu", engine=engine)
    assert landmarker.engine == engine
    faces = landmarker(image, boxes)
    size = np.abs(by_torch.landmarks).max()
    np.testing.assert_allclose(faces.landmarks, by_torch.landmarks, rtol=0, atol=ENGINE["resnet"] * size)


def test_sizes() -> None:
    assert [powers_of_two(b) for b in (1, 2, 3, 8, 9)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 8), (1, 2, 4, 8, 9)]
    assert [one_and(b) for b in (1, 2, 7)] == [(1,), (1, 2), (1, 7)]
    assert [smallest((1, 2, 4, 9), count) for count in (1, 2, 3, 4, 5, 9)] == [1, 2, 4, 4, 9, 9]
    assert split(13, (1, 2, 4, 5), pads=True) == [5, 5, 3]
    assert split(13, (1, 2, 4, 5), pads=False) == [5, 5, 2, 1]
    assert split(13, (1, 5), pads=False) == [5, 5, 1, 1, 1]


@given(count=st.integers(1, 600), batch_size=st.integers(1, 64), sizes=st.sampled_from([powers_of_two, one_and]))
def test_runs_cover_the_batch(count: int, batch_size: int, sizes: Callable[[int], tuple[int, ...]]) -> None:
    prepared = sizes(batch_size)
    exact, padded = split(count, prepared, pads=False), split(count, prepared, pads=True)
    assert sum(exact) == sum(padded) == count
    assert set(exact) <= set(prepared)
    assert all(1 <= run <= batch_size for run in padded)
    assert len(padded) == -(-count // batch_size)


class ReplayedByHand:
    """Stands for a CUDA graph: computes into the memory that it computed into the first time."""

    def __init__(self, compute: Callable[[], pf.Landmarks]) -> None:
        self.compute, self.result = compute, compute()
        self.graph = self

    def replay(self) -> None:
        for static, new in zip(self.result, self.compute(), strict=True):
            static.copy_(new)


class NoStream:
    def wait_stream(self, other: object) -> None:
        """In order anyway."""


@pytest.mark.parametrize("crops", ["uint8", "float"])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 6, 11])
def test_graphs_copy_in_pad_and_copy_out(
    batch: int, crops: str, model: pf.PIPNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the cudagraph engine but CUDA."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: NoStream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: NoStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(cudagraph, "_capture", lambda compute, stream, pool: ReplayedByHand(compute))
    monkeypatch.setitem(ENGINES, "cudagraph", replace(ENGINES["cudagraph"], devices=("cpu",), missing=lambda: None))
    runtime = pf.compile(model, "cudagraph", batch_size=5)
    x = crops_for(model, batch)
    runtime(crops_for(model, 5))  # leaves other crops behind in the buffers
    result = runtime(x if crops == "uint8" else normalize(x))
    kept = result.points_frac.clone()
    runtime(crops_for(model, 5))
    assert torch.equal(result.points_frac, kept)
    assert_same(result, model.predict(normalize(x)))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("engine", ["torch", "inductor", "cudagraph"])
def test_engines_on_cuda(engine: str, dtype: str) -> None:
    require(engine)
    model = tiny("resnet18-stride16")
    crops = crops_for(model, 11)
    with torch.no_grad():
        score = model(normalize(crops)).score
    top = score.flatten(2).topk(2, dim=2).values
    clear = top[..., 0] - top[..., 1] > 2 * ENGINE_CUDA[dtype] * score.abs().max()
    assert clear.float().mean() > 0.1
    expected = model.predict(normalize(crops))
    runtime = pf.compile(model.cuda(), engine, batch_size=4, dtype=dtype)
    for x in (crops, crops.cuda(), normalize(crops).cuda(), crops.numpy()):
        result = runtime(x)
        assert result.points_frac.is_cuda
        assert_landmarks_close(result.scores, expected.scores, "scores", ENGINE_CUDA[dtype])
    assert len(runtime(crops[:0]).scores) == 0


@pytest.mark.cuda
def test_graphs_replayed_from_many_threads_and_streams() -> None:
    model = tiny("resnet18-stride16").cuda()
    runtime = pf.compile(model, "cudagraph", batch_size=4)
    batches = [crops_for(model, 1 + i % 6).cuda() for i in range(8)]
    alone = [runtime(batch) for batch in batches]
    torch.cuda.synchronize()

    def call(batch: Tensor) -> list[pf.Landmarks]:
        with torch.cuda.stream(torch.cuda.Stream()):
            results = [runtime(batch) for _ in range(20)]
            torch.cuda.current_stream().synchronize()
        return results

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(call, batches))
    for results, expected in zip(together, alone, strict=True):
        for result in results:
            assert_same(result, pf.Landmarks(*(tensor.cpu() for tensor in expected)), tolerance=0)


@pytest.mark.cuda
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_cpu_engines_refuse_a_model_on_cuda(engine: str) -> None:
    require(engine)
    with pytest.raises(ValueError, match=f"engine: '{engine}' expects a model on cpu, got one on cuda"):
        pf.compile(tiny().cuda(), engine)
