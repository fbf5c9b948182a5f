"""What threads of a new process do, for ``tests.processes.Process``; each prints what it finds."""

import os

import torch

import pipnet_fast as pf
from pipnet_fast.engines.cpp import Plan
from pipnet_fast.engines.plan_file import serialize
from tests.engine_cases import crops_for, network_of, tiny


def print_threads_of_plans() -> int:
    """How many threads it takes to make a plan with one and with three."""
    for threads in (1, 3):
        data = serialize(network_of(tiny()))
        before = len(_threads())
        Plan(data, threads)
        print(len(_threads()) - before)
    return 0


def print_pinned() -> int:
    """Whether all threads of the engine are pinned, and then free again."""
    torch.set_num_threads(2)
    model = tiny()
    pf.compile(model, engine="torch")(crops_for(model, 8))
    before = _threads()
    core = max(os.sched_getaffinity(0))
    pf.pin_threads([core])
    pf.compile(model, engine="cpp")(crops_for(model, 8))
    new = _threads() - before
    assert new, "no thread of its own"
    print(sorted({os.sched_getaffinity(thread) == {core} for thread in new}))
    pf.pin_threads([])
    print(sorted({os.sched_getaffinity(thread) == os.sched_getaffinity(0) for thread in new}))
    return 0


def _threads() -> set[int]:
    return set(map(int, os.listdir("/proc/self/task")))
