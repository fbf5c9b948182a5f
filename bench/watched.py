"""A program that may begin processes of its own, and the memory of all of them together."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from bench.isolated import ROOT

# How often memory is looked at; a look takes milliseconds.
SAMPLE_S = 0.1


def in_processes(module: str, *words: str) -> dict[str, float]:
    """What ``python -m module`` prints last, a JSON object, and as ``peak`` the most bytes that it took meanwhile.

    Pages that several of its processes share are counted once. One thread of OpenMP in each.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", module, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # A session of its own, by which its processes are found.
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        peak, watching = [0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, watching))
        watcher.start()
        out, _ = process.communicate()
        watching.set()
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"bench: {module} {' '.join(words)} ended with {process.returncode}")
    said: dict[str, float] = json.loads(out.splitlines()[-1])
    return {**said, "peak": peak[0]}


def _watch(session: int, peak: list[int], watching: threading.Event) -> None:
    while not watching.wait(SAMPLE_S):
        peak[0] = max(peak[0], sum(map(memory, _members(session))))


def _members(session: int) -> Sequence[int]:
    """The processes of a session."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # state, parent, group, session
        if int(fields[3]) == session:
            found.append(int(name))
    return found


def memory(process: int) -> int:
    """Bytes that a process takes, of pages that several processes have its share; 0 if it has ended."""
    try:
        lines = Path("/proc", str(process), "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
