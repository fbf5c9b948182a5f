"""The cudagraph engine: all but CUDA on the CPU, and what only a CUDA device can show."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.engines import cudagraph
from pipnet_fast.engines._compile import ENGINES
from pipnet_fast.pipeline.images import normalize
from tests.engine_cases import assert_same, crops_for, require, tiny
from tests.tolerances import ENGINE_CUDA, assert_landmarks_close


@pytest.fixture(scope="module")
def model() -> pf.PIPNet:
    return tiny()


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
    # Without neighbors' votes, so that another winner moves its own landmark only.
    model = tiny("resnet18-stride16", num_neighbors=0)
    crops = crops_for(model, 11)
    with torch.no_grad():
        score = model(normalize(crops)).score
    top = score.flatten(2).topk(2, dim=2).values
    clear = top[..., 0] - top[..., 1] > 2 * ENGINE_CUDA[dtype] * score.abs().max()
    assert clear.float().mean() > 0.25
    expected = model.predict(normalize(crops))
    runtime = pf.compile(model.cuda(), engine, batch_size=4, dtype=dtype)
    for x in (crops, crops.cuda(), normalize(crops).cuda(), crops.numpy()):
        result = runtime(x)
        assert result.points_frac.is_cuda
        assert_landmarks_close(result.scores, expected.scores, "scores", ENGINE_CUDA[dtype])
        points = result.points_frac.cpu()[clear]
        assert_landmarks_close(points, expected.points_frac[clear], "points", ENGINE_CUDA[dtype])
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
