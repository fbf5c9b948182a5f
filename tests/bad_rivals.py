"""Subjects that fail in every way, for the processes of ``bench.isolated``; built inside a worker."""

import os
import subprocess
import sys
import time

import numpy as np

from bench.rivals import official
from bench.task import Built, Task


def chatty(task: Task) -> Built:
    """A good one whose library writes where the replies go."""
    os.write(1, b"{ no JSON\n")
    print("nor this")
    built = official.build(task)
    return Built(built.run, packages=("torch", "not-installed"), note="talks")


def wrong(task: Task) -> Built:
    built = official.build(task)
    return Built(lambda crops: built.run(crops) + 0.5)


def absent(task: Task) -> Built:
    import no_such_engine  # type: ignore[import-not-found]

    return Built(no_such_engine.run)


def dies(task: Task) -> Built:
    print("out of cheese", file=sys.stderr, flush=True)
    os.abort()


def dies_later(task: Task) -> Built:
    built, calls = official.build(task), iter(range(10))

    def run(crops: np.ndarray) -> np.ndarray:
        if next(calls, None) is None:
            os._exit(3)
        return built.run(crops)

    return Built(run)


def hangs(task: Task) -> Built:
    """Starts a process of its own, as compilers do, and then never returns from a call."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    task.file("child.pid").write_text(str(child.pid))

    def run(crops: np.ndarray) -> np.ndarray:
        time.sleep(600)
        return crops

    return Built(run)
