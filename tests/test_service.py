"""The service of docs/service.md, as it stands there, asked without a network."""

import asyncio
import importlib.util
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import pipnet_fast as pf
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.pipeline.images import read_rgb
from tests.documents import ROOT, blocks

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

PATIENCE_S = 120


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's code as a module, with a tiny model."""
    model = pf.PIPNet("resnet18", 68, 5, input_size=64, width=0.0625, mean_shape="300w68")
    pf.save(model, tmp_path / "model.safetensors")
    monkeypatch.setenv("MODEL", str(tmp_path / "model.safetensors"))
    # Long enough for requests that are sent together, on a busy machine too.
    monkeypatch.setenv("WINDOW_MS", "300")
    source = tmp_path / "service.py"
    source.write_text(blocks(ROOT / "docs" / "service.md", "python")[0].code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("service", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photo() -> bytes:
    """A face, as a file."""
    return encoded(read_rgb(astronaut())[:240, 100:340, ::-1])


def encoded(image: Any) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


BLACK = encoded(np.zeros((64, 64, 3), np.uint8))


@asynccontextmanager
async def running(service: Any) -> AsyncIterator[Any]:
    """A client of the service, from its start to its end."""
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    async with (
        service.app.router.lifespan_context(service.app),
        httpx.AsyncClient(transport=transport, base_url="http://service", timeout=PATIENCE_S) as client,
    ):
        yield client


def hold(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Computing waits: an event that says that it has begun, and one that lets it go on."""
    begun, held = threading.Event(), threading.Event()
    predict = pf.FaceLandmarker.predict_batch

    def slow(self: pf.FaceLandmarker, images: Any, boxes: Any = None) -> Any:
        begun.set()
        assert held.wait(PATIENCE_S)
        return predict(self, images, boxes)

    monkeypatch.setattr(pf.FaceLandmarker, "predict_batch", slow)
    return begun, held


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches, as they are computed."""
    sizes: list[int] = []
    predict = pf.FaceLandmarker.predict_batch

    def counted(self: pf.FaceLandmarker, images: Any, boxes: Any = None) -> Any:
        sizes.append(len(images))
        return predict(self, images, boxes)

    monkeypatch.setattr(pf.FaceLandmarker, "predict_batch", counted)
    return sizes


def test_the_answer_is_the_landmarkers(service: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo())
    expected = pf.FaceLandmarker(tmp_path / "model.safetensors")(tmp_path / "photo.png").to_dict()
    assert len(expected) == 1

    async def test() -> None:
        async with running(service) as client:
            response = await client.post("/faces", content=photo())
            assert response.status_code == 200
            assert response.json() == {"faces": expected}
            assert (await client.get("/health")).json() == {"engine": "torch", "waiting": 0}

    run(test)


def test_two_requests_of_a_moment_are_one_batch(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counting(monkeypatch)

    async def test() -> None:
        async with running(service) as client:
            await asyncio.gather(*(client.post("/faces", content=BLACK) for _ in range(2)))

    run(test)
    assert sizes == [2]


def test_what_waits_is_the_next_batch_and_a_bad_picture_harms_nobody(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counting(monkeypatch)
    begun, held = hold(monkeypatch)
    sent = [photo(), b"no image", BLACK, b"", photo()]

    async def test() -> None:
        async with running(service) as client:
            first = asyncio.create_task(client.post("/faces", content=BLACK))
            await asyncio.to_thread(begun.wait, PATIENCE_S)
            tasks = [asyncio.create_task(client.post("/faces", content=data)) for data in sent]
            while (await client.get("/health")).json()["waiting"] < len(sent):
                await asyncio.sleep(0.01)
            held.set()
            responses = [await task for task in (first, *tasks)]
        assert [r.status_code for r in responses] == [200, 200, 422, 200, 422, 200]
        assert [len(responses[i].json()["faces"]) for i in (1, 3, 5)] == [1, 0, 1]
        assert "not an image" in responses[2].json()["detail"]

    run(test)
    assert sizes == [1, 3]


def test_batches_are_no_larger_than_they_may_be(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counting(monkeypatch)
    monkeypatch.setattr(service, "MAX_BATCH", 3)

    async def test() -> None:
        async with running(service) as client:
            await asyncio.gather(*(client.post("/faces", content=BLACK) for _ in range(7)))

    run(test)
    assert sum(sizes) == 7
    assert max(sizes) == 3


def test_bodies_and_pictures_have_limits(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_PIXELS", 64 * 64)
    monkeypatch.setattr(service, "MAX_BYTES", 1000)

    async def test() -> None:
        async with running(service) as client:
            large = await client.post("/faces", content=bytes(1001))
            wide = await client.post("/faces", content=encoded(np.zeros((64, 65, 3), np.uint8)))
            fitting = await client.post("/faces", content=BLACK)
        assert (large.status_code, wide.status_code, fitting.status_code) == (413, 422, 200)
        assert "1000 bytes" in large.json()["detail"]
        assert "65x64 is more than 4096 pixels" in wide.json()["detail"]

    run(test)


def test_a_full_queue_says_so_and_those_in_it_are_answered_but_one_who_has_gone(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_WAITING", 2)
    monkeypatch.setattr(service, "MAX_BATCH", 1)
    begun, held = hold(monkeypatch)

    async def test() -> None:
        async with running(service) as client:
            first = asyncio.create_task(client.post("/faces", content=BLACK))
            await asyncio.to_thread(begun.wait, PATIENCE_S)
            others = [asyncio.create_task(client.post("/faces", content=BLACK)) for _ in range(3)]
            done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
            (refused,) = (task.result() for task in done)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await client.get("/health")).json()["waiting"] == 2
            gone, waiting = (task for task in others if task not in done)
            gone.cancel()
            held.set()
            assert [(await task).status_code for task in (first, waiting)] == [200, 200]

    run(test)


def test_a_failure_ends_its_batch_only_and_no_thread_stays(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    predict = pf.FaceLandmarker.predict_batch
    failures = iter([True])

    def failing(self: pf.FaceLandmarker, images: Any, boxes: Any = None) -> Any:
        if next(failures, False):
            raise MemoryError
        return predict(self, images, boxes)

    monkeypatch.setattr(pf.FaceLandmarker, "predict_batch", failing)

    async def test() -> None:
        async with running(service) as client:
            assert (await client.post("/faces", content=BLACK)).status_code == 500
            assert (await client.post("/faces", content=BLACK)).status_code == 200

    run(test)
    assert set(threading.enumerate()) <= before
