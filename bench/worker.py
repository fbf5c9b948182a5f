"""One subject in a process of its own: requests come as lines of JSON on stdin, replies go to stdout.

    {"build": {"factory": "module:function", "task": {...}, "options": {...}}} -> {"note", "versions"}
    {"compare": true}                                                          -> {"landmarks_px": [[[x, y], ...], ...]}
    {"time": calls}                                                            -> {"ms": [...]}

What goes wrong is the reply {"error": "..."}; the end of stdin is the end of the process.
"""

import gc
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bench.networks import Crops
from bench.record import installed
from bench.task import Built, Task


class Worker:
    """The subject, once it is built."""

    def __init__(self, factory: str, task: dict[str, Any], options: dict[str, Any]) -> None:
        """Build it; ``factory`` names a function of the task and the options."""
        self._task = Task(**task)
        torch.set_num_threads(self._task.threads)
        # TF32 would flip winners: all sides compute in float32.
        torch.backends.cudnn.allow_tf32 = False
        module, _, function = factory.partition(":")
        self._built: Built = getattr(importlib.import_module(module), function)(self._task, **options)
        self._batches = self._task.batches()
        self._endless: Iterator[Crops] = itertools.cycle(self._batches)

    def describe(self) -> dict[str, Any]:
        """What its records say about it."""
        return {"note": self._built.note, "versions": installed(*self._built.packages)}

    def compare(self) -> dict[str, Any]:
        """Its landmarks on all crops."""
        # Copied, for an engine may give the same memory again.
        points = [np.array(self._built.run(crops)) for crops in self._batches]
        return {"landmarks_px": np.concatenate(points).tolist()}

    def time(self, calls: int) -> dict[str, Any]:
        """Milliseconds of each of ``calls`` calls; one more before them meets the cold caches."""
        run = self._built.run
        gc.collect()
        gc.disable()
        try:
            run(next(self._endless))
            milliseconds = []
            for crops in itertools.islice(self._endless, calls):
                start = time.perf_counter()
                run(crops)
                milliseconds.append((time.perf_counter() - start) * 1e3)
        finally:
            gc.enable()
        return {"ms": milliseconds}


def main() -> None:
    # What libraries print to stdout must not come between the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                worker = Worker(**request["build"])
                reply = worker.describe()
            else:
                assert worker is not None
                reply = worker.compare() if "compare" in request else worker.time(request["time"])
        except Exception as error:  # whatever an engine raises is the reason why it was not measured
            first = str(error).strip().partition("\n")[0]
            reply = {"error": f"{type(error).__name__}: {first}" if first else type(error).__name__}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
