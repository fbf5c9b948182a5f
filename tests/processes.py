"""Processes forked from one that has imported torch, for which a new one takes four seconds of a core."""

import multiprocessing
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipnet_fast.cli import main

# And what training loads when it begins: torch's optimizers its compiler, the curves matplotlib.
PRELOADED = [__name__, "pipnet_fast.selftrain", "torch._dynamo", "matplotlib.backends.backend_agg", "pyarrow.parquet"]


class Process:
    """A call in a process of its own, whose output is read when it has ended; it returns its exit status."""

    def __init__(self, function: Callable[..., int], *arguments: Any, **environment: str) -> None:
        self._output = tempfile.TemporaryDirectory()
        where = {**os.environ, **environment}
        self._process = _context().Process(target=_call, args=(self._output.name, where, function, *arguments))
        self._process.start()

    def end(self, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """Wait for its end, and kill it where that takes too long."""
        self._process.join(timeout)
        status = self._process.exitcode
        self._process.kill()
        self._process.join()
        with self._output as folder:
            out, err = (Path(folder, name).read_text() for name in ("out", "err"))
        assert status is not None, f"not ended after {timeout} s: {out}{err}"
        return subprocess.CompletedProcess([], status, out, err)


def killed(where: str, count: int, words: Sequence[str], ending: str = "") -> "subprocess.CompletedProcess[str]":
    """``pipnet-fast`` that is killed when it calls a function, ``where``, for the ``count``-th time.

    Calls are counted whose last argument, as text, has an ``ending``.
    """
    done = Process(_call_until_killed, where, count, words, ending).end()
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done


def two_ranks(words: Sequence[str]) -> "list[subprocess.CompletedProcess[str]]":
    """``pipnet-fast`` in two processes, which are told of each other as torchrun does it."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    group = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [Process(main, words, RANK=rank, LOCAL_RANK=rank, **group) for rank in "01"]
    return [process.end() for process in ranks]


def _context() -> Any:
    known = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
    if "forkserver" in known:
        context.set_forkserver_preload(PRELOADED)
    return context


def _call(output: str, environment: dict[str, str], function: Callable[..., int], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(output, name), os.O_WRONLY | os.O_CREAT), stream)
    sys.exit(function(*arguments))


def _call_until_killed(where: str, count: int, words: Sequence[str], ending: str) -> int:
    owner, _, name = where.rpartition(".")
    namespace, calls = pkgutil.resolve_name(owner), 0
    original = getattr(namespace, name)

    def dying(*arguments: Any) -> Any:
        nonlocal calls
        calls += str(arguments[-1]).endswith(ending)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(namespace, name, dying)
    return main(list(words))
