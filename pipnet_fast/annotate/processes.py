"""Shares of the work in this process, or in processes of this machine, any of which may die."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from pipnet_fast.annotate.work import Job, Worker, use_one_thread

# A share may take so many processes with it: files that kill are given up after a few deaths each, but where every
# file kills, the fault is not theirs.
DEATHS = 30


def annotate_here(job: Job, shards: Sequence[int]) -> Iterator[int]:
    """Annotate shares in this process, and give each when it is done."""
    here = Worker(job)
    for shard in shards:
        here.annotate(shard)
        yield shard


def annotate_by_processes(job: Job, shards: Sequence[int], processes: int) -> Iterator[int]:
    """Annotate shares by processes with a thread each, and give each when it is done, in any order.

    Raises:
        RuntimeError: processes do not start, or die again and again.
        Exception: what a worker raises.
    """
    left, deaths = list(reversed(shards)), Counter[int]()
    with _Crew(job) as crew:
        for _ in range(min(processes, len(shards))):
            crew.hire(left.pop())
        while crew.members:
            for member in crew.heard():
                news, shard = member.news(), member.shard
                if news == "done":
                    yield shard
                    if left:
                        member.give(left.pop())
                    else:
                        crew.dismiss(member)
                elif news == "died":
                    deaths[shard] += 1
                    if deaths[shard] > DEATHS:
                        raise RuntimeError(
                            f"annotate: {deaths[shard]} processes died at one share of the files; is there too little "
                            "memory for so many processes?"
                        )
                    crew.dismiss(member)
                    crew.hire(shard)


class _Crew:
    """The processes that are there; all are ended with it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.members: list[_Member] = []
        # Not fork, which would copy torch's threads in whatever state they are.
        known = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
        if "forkserver" in known:
            # Then a process need not import torch to begin.
            self._context.set_forkserver_preload([_serve.__module__])

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for member in list(self.members):
            self.dismiss(member)

    def hire(self, shard: int) -> None:
        """Begin a process for a share."""
        self.members.append(_Member(self._context, self._job, shard))

    def dismiss(self, member: "_Member") -> None:
        """End a process, which may be dead."""
        self.members.remove(member)
        member.end()

    def heard(self) -> "list[_Member]":
        """Wait for news; whose there are."""
        ready = wait([member.connection for member in self.members])
        return [member for member in self.members if member.connection in ready]


class _Member:
    """A process with a share to do."""

    def __init__(self, context: Any, job: Job, shard: int) -> None:
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        self._process.start()
        theirs.close()
        self._has_started = False
        self.give(shard)

    def give(self, shard: int) -> None:
        """Let it do a share."""
        self.shard = shard
        with suppress(OSError):  # it is dead, which the next news are
            self.connection.send(shard)

    def news(self) -> str:
        """What it says: it has "started", its share is "done", or it has "died".

        Raises:
            RuntimeError: it died before it had started.
            Exception: what it raised.
        """
        try:
            said = self.connection.recv()
        except (EOFError, OSError):
            if self._has_started:
                return "died"
            self._process.join()
            raise RuntimeError(
                f"annotate: a worker process ended with {self._process.exitcode} before it had begun; a script that "
                'calls annotate does so under if __name__ == "__main__"'
            ) from None
        if isinstance(said, Exception):
            raise said
        news = "done" if self._has_started else "started"
        self._has_started = True
        return news

    def end(self) -> None:
        """End it at once: what it has not written is not there."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, job: Job) -> None:
    """What a worker process does: shares, until it is ended."""
    # Ctrl-C goes to all processes, but it is the parent that ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()
    connection.send(None)
    try:
        here = Worker(job)
        while True:
            here.annotate(connection.recv())
            connection.send(None)
    except (EOFError, BrokenPipeError):  # the parent has gone
        pass
    except Exception as error:
        connection.send(_portable(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, or its words where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
