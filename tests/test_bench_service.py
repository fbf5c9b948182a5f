"""The load on the HTTP service, against a server that counts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.commands import bench
from tests.documents import ROOT, blocks

BODIES = [b"one", b"two", b"three"]


class Counting:
    """A server for tests: what it was sent, and the most requests at once."""

    def __init__(self, status: str = "200 OK", wait_s: float = 0.01) -> None:
        self.status, self.wait_s = status, wait_s
        self.bodies: list[bytes] = []
        self.now = self.most = self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"POST /faces HTTP/1.1\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.bodies.append(await reader.readexactly(length))
                self.now += 1
                self.most = max(self.most, self.now)
                await asyncio.sleep(self.wait_s)
                self.now -= 1
                writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())


@contextlib.asynccontextmanager
async def running(server: Counting) -> AsyncIterator[int]:
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


def run(server: Counting, clients: int, seconds: float):
    async def block():
        async with running(server) as port:
            return await bench("service").load(port, clients, BODIES, seconds)

    return asyncio.run(asyncio.wait_for(block(), 60))


def test_clients_are_as_many_as_asked_for_and_wait_for_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench("service"), "WARM_S", 0.1)
    server = Counting(wait_s=0.02)
    load = run(server, clients=3, seconds=0.5)
    assert server.most == server.connections == 3
    assert set(server.bodies) == set(BODIES)
    assert min(load.milliseconds) >= 20
    # What was sent before the clock ran is not counted.
    assert 0 < len(load.milliseconds) < len(server.bodies)
    # Three answers in each of its waits, or fewer: a busy machine is slower.
    assert len(load.milliseconds) / load.seconds <= 3 / 0.02 * 1.1


def test_another_status_ends_the_case() -> None:
    with pytest.raises(RuntimeError, match="expected status 200, got HTTP/1.1 503 Busy"):
        run(Counting("503 Busy"), clients=1, seconds=0.5)


def test_no_answer_in_time_ends_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench("service"), "WARM_S", 0.1)
    # The one answer was asked for before the clock ran.
    with pytest.raises(RuntimeError, match=r"expected answers within 0\.1 s, got none; take longer --seconds"):
        run(Counting(wait_s=1.0), clients=1, seconds=0.1)


def test_what_is_served_is_the_page() -> None:
    assert bench("service").code() == blocks(ROOT / "docs" / "service.md", "python")[0].code
