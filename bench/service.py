"""The HTTP service of docs/service.md under load: latency and throughput against the number of clients.

Every subject is the page's code under uvicorn, in processes of its own. Clients are in this process and share the cores
with the service; each has one connection, and sends the next picture when it has the answer to the last one.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.isolated import ROOT
from bench.record import Record, device_name, installed, measured, versions

PAGE = ROOT / "docs" / "service.md"
START_S = 120.0
# Before a block is timed, for connections and caches, and for a process that is still starting beside another.
WARM_S, FIRST_WARM_S = 0.5, 5.0


@dataclass(frozen=True)
class Subject:
    """A way to run the service."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    processes: int = 1


SUBJECTS = (
    Subject("up to 8 together, window of 3 ms", {"MAX_BATCH": "8", "WINDOW_MS": "3"}),
    Subject("one by one", {"MAX_BATCH": "1"}),
    Subject(
        "one by one, a process a core", {"MAX_BATCH": "1", "OMP_NUM_THREADS": "1"}, processes=torch.get_num_threads()
    ),
)


@dataclass
class Load:
    """What clients saw in a block."""

    milliseconds: list[float] = field(default_factory=list)
    """Of each answer."""
    seconds: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with images/")
    parser.add_argument("--pictures", type=int, default=100, help="that clients send (default: %(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--engine", default="cpp")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a block (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Latency with its tail, and answers per second, of every subject and number of clients."""
    images = sorted((arguments.data / "images").iterdir())
    bodies = [images[i * len(images) // arguments.pictures].read_bytes() for i in range(arguments.pictures)]
    loads: dict[tuple[str, int], list[Load]] = {(s.name, n): [] for s in SUBJECTS for n in arguments.clients}
    with contextlib.ExitStack() as stack:
        ports = {subject.name: stack.enter_context(served(subject, arguments.engine)) for subject in SUBJECTS}
        for port in ports.values():
            asyncio.run(load(port, 8, bodies, FIRST_WARM_S))
        for number in range(arguments.rounds):
            # In another order every time, so that nobody always follows the same one.
            for subject, clients in random.Random(number).sample(list(loads), len(loads)):
                block = load(ports[subject], clients, bodies, arguments.seconds)
                loads[subject, clients].append(asyncio.run(block))
    return [
        record
        for (subject, clients), blocks in loads.items()
        for record in _records(arguments, subject, clients, blocks)
    ]


def _records(arguments: argparse.Namespace, subject: str, clients: int, blocks: Sequence[Load]) -> list[Record]:
    pictures = f"{arguments.pictures} pictures of {arguments.data.name}, Haar, the model in the box, {arguments.engine}"
    shared: dict[str, Any] = {"case": "service", "subject": subject, "device": device_name("cpu")}
    shared |= {"threads": torch.get_num_threads(), "dtype": "float32"}
    shared |= {"shape": f"{clients} client{'s' * (clients > 1)}; {pictures}"}
    shared["versions"] = {**versions(), **installed("fastapi", "uvicorn", "opencv-python-headless")}
    tails = {percent: [float(np.percentile(b.milliseconds, percent)) for b in blocks] for percent in (95, 99)}
    return [
        measured(shared, "latency", "ms", [ms for block in blocks for ms in block.milliseconds]),
        *(measured(shared, f"{p}th percentile of a block's latencies", "ms", values) for p, values in tails.items()),
        measured(shared, "throughput", "1/s", [len(block.milliseconds) / block.seconds for block in blocks]),
    ]


@contextlib.contextmanager
def served(subject: Subject, engine: str) -> Iterator[int]:
    """The port at which the service answers; it is stopped in the end.

    Raises:
        RuntimeError: it does not start, or does not end when it is told to.
    """
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "service.py").write_text(code(), encoding="utf-8")
        command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)]
        command += ["--workers", str(subject.processes), "--log-level", "warning", "--no-access-log"]
        environment = {**os.environ, "ENGINE": engine, **subject.settings}
        with subprocess.Popen(command, cwd=folder, env=environment) as process:
            try:
                _wait(process, port)
                yield port
            finally:
                process.send_signal(signal.SIGTERM)
        if process.returncode not in (0, -signal.SIGTERM):
            raise RuntimeError(f"bench: service: {subject.name} ended with {process.returncode}")


def code() -> str:
    """The service, as its page has it."""
    found = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=START_S):
            return
        time.sleep(0.1)
    raise RuntimeError(f"bench: service: expected an answer within {START_S:g} s, got none")


async def load(port: int, clients: int, bodies: Sequence[bytes], seconds: float) -> Load:
    """So many clients at once for so long."""
    found = Load()
    start = time.perf_counter() + WARM_S
    await asyncio.gather(*(_client(port, number, clients, bodies, start, seconds, found) for number in range(clients)))
    if not found.milliseconds:
        raise RuntimeError(f"bench: service: expected answers within {seconds:g} s, got none; take longer --seconds")
    return found


async def _client(
    port: int, number: int, clients: int, bodies: Sequence[bytes], start: float, seconds: float, found: Load
) -> None:
    """Add what one client sees between ``start`` and ``seconds`` later."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        place = number * len(bodies) // clients
        before = time.perf_counter()
        while before < start + seconds:
            await _ask(reader, writer, bodies[place % len(bodies)])
            now = time.perf_counter()
            if before >= start:
                found.milliseconds.append((now - before) * 1e3)
                found.seconds = max(found.seconds, now - start)
            place, before = place + 1, now
    await writer.wait_closed()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> dict[str, Any]:
    """Send a picture and take the answer."""
    writer.write(b"POST /faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    if not head.startswith(b"HTTP/1.1 200 ") or not length:
        raise RuntimeError(f"bench: service: expected status 200, got {head.splitlines()[0].decode()}")
    answer: dict[str, Any] = json.loads(await reader.readexactly(int(length[1])))
    return answer
