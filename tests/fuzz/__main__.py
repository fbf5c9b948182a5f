"""Damaged files for all readers, for so many seconds: ``python -m tests.fuzz --seconds 600``.

A file that a reader fails on stays in the folder of ``--out``, named after its reader, and ``--replay FILE`` reads it
again. Readers run in a process of their own, so that one that crashes or hangs ends that process alone.
"""

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.round import Round
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import work


def main() -> int:
    """Exit status 1 if a reader failed on a file."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the damage; by default the time")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where files go that a reader fails on")
    parser.add_argument("--replay", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.replay:
        with tempfile.TemporaryDirectory() as folder:
            print(Round(options.replay.name.partition("-")[0], Path(folder, "round")).read(options.replay.read_bytes()))
        return 0

    print(f"seed {options.seed}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    before, seed, end = len(list(options.out.iterdir())), options.seed, time.monotonic() + options.seconds
    spawn = multiprocessing.get_context("spawn")
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            arguments = (Path(folder), options.out, options.targets, seed, end - time.monotonic())
            worker = spawn.Process(target=work, args=arguments)
            worker.start()
            worker.join()
            if worker.exitcode:
                name = Path(folder, "reading").read_text()
                print(f"{name}: the process ended with {worker.exitcode}", flush=True)
                shutil.copy(Path(folder, name) / TARGETS[name].file, options.out / f"{name}-{seed}-crash")
        seed += 1
    failed = len(list(options.out.iterdir())) - before
    print(f"{failed} file(s) that a reader failed on, in {options.out}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
