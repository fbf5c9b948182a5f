"""Every engine against ``predict``, and everything around them: doors, batches, threads, copies."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import pipnet_fast as pf
from pipnet_fast.engines import onnxruntime, openvino
from pipnet_fast.engines._onnx import to_onnx
from pipnet_fast.models.pipnet import HEAD_LAYERS
from pipnet_fast.pipeline.images import normalize
from tests import slow
from tests.engine_cases import MODELS, N, assert_same, crops_for, require, tiny
from tests.inputs import second_best_gap
from tests.tolerances import ENGINE

CPU_ENGINES = ("torch", "cpp", "inductor", "onnxruntime", "openvino")
# Compiling these with inductor takes up to a minute each.
SLOW = [("inductor", name) for name in MODELS if name != "resnet18"]


Exports = dict[tuple[Any, ...], bytes]


@pytest.fixture(scope="module", autouse=True)
def exports() -> Iterator[Exports]:
    """Of one trunk both engines that read ONNX get the same bytes: torch takes seconds to write them."""
    known: Exports = {}

    def export(trunk: fx.GraphModule, batch: int, size: int) -> bytes:
        state = b"".join(tensor.numpy().tobytes() for tensor in trunk.state_dict().values())
        key = batch, size, trunk.code, state
        if key not in known:
            known[key] = to_onnx(trunk, batch, size)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        for engine in (onnxruntime, openvino):
            patch.setattr(engine, "to_onnx", export)
        yield known


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
        if (engine, name) in SLOW and slow.SKIPPED:
            pytest.skip(slow.reason("compiles for up to a minute"))
        if (engine, name) not in runtimes:
            # Two sizes are compiled twice, so only where that is quick.
            batch_size = 2 if name == "resnet18" and engine != "inductor" else 1
            runtimes[engine, name] = pf.compile(tiny(name), engine, batch_size)
        return runtimes[engine, name]

    return get


def test_the_head_is_stored_as_asked() -> None:
    model, rounded = tiny(), tiny()
    for name in HEAD_LAYERS:
        layer = rounded.get_submodule(name)
        layer.weight.data = layer.weight.data.half().float()  # type: ignore[union-attr, operator]
    x = crops_for(model, 3)
    exact, half, quarter = (
        pf.compile(model, "torch", head_storage=storage)(x).points_frac for storage in (None, "float16", "int8")
    )
    assert torch.equal(half, pf.compile(rounded.eval(), "torch")(x).points_frac)
    assert not torch.equal(half, exact)
    # A changed winner moves a point far: the median is what rounding moves.
    assert 0 < float((quarter - exact).abs().median()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
@pytest.mark.parametrize("engine", ["torch", "cpp", "onnxruntime", "openvino"])
def test_defaults_of_torch_change_nothing(
    engine: str, default: torch.dtype, model: pf.PIPNet, compiled: Compiled
) -> None:
    runtime, crops = compiled(engine), crops_for(model, 3)
    expected = runtime(crops)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        got, none = runtime(crops), runtime(crops[:0])
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(got.points_frac, expected.points_frac)
    assert torch.equal(got.scores, expected.scores)
    assert none.points_frac.dtype == torch.float32


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


@pytest.mark.parametrize("engine", ["torch", "cpp", "onnxruntime"])
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


@pytest.mark.parametrize("engine", ["cpp", "onnxruntime", "openvino"])
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


def test_signals_are_survived_after_openvino(compiled: Compiled, exports: Exports, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    # Of the same trunk with other weights, so that the process need not write them.
    compiled("openvino")
    for batch in (1, 2):
        data = next(data for key, data in exports.items() if key[0] == batch)
        (tmp_path / str(batch)).write_bytes(data)
    code = """
import gc, os, pathlib, signal, sys, numpy, torch, pipnet_fast as pf
from pipnet_fast.engines import openvino
openvino.to_onnx = lambda trunk, batch, size: pathlib.Path(sys.argv[1], str(batch)).read_bytes()
model = pf.PIPNet("resnet18", 3, 1, 32, 64, numpy.eye(3, 2), width=0.125).eval()
pf.compile(model, engine="openvino", batch_size=2)(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("survived"))
os.kill(os.getpid(), signal.SIGINT)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr
