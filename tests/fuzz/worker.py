"""The process that the readers run in: it may crash or hang."""

import faulthandler
import resource
import sys
import time
import traceback
from itertools import chain
from pathlib import Path

from tests.fuzz.round import MOST_BYTES, Round
from tests.memory import resident

# A reader that takes longer hangs.
HANGS_S = 60
# Files of one reader in turn.
TURN = 50


def work(folder: Path, out: Path, names: list[str], seed: int, seconds: float) -> None:
    """Rounds of all readers in turn, until the time is up."""
    end = time.monotonic() + seconds
    rounds = {name: Round(name, folder / name) for name in names}
    everything = list(chain.from_iterable(round.good for round in rounds.values()))
    files = {name: round.files(f"{seed} {name}", everything) for name, round in rounds.items()}
    # Whoever asks for more than this is refused it, and the machine goes on.
    limit = resident("VmSize") + 4 * MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    failed = 0
    while time.monotonic() < end:
        for name, round in rounds.items():
            (folder / "reading").write_text(name)
            for _, data in zip(range(TURN), files[name], strict=False):
                faulthandler.dump_traceback_later(HANGS_S, exit=True)
                try:
                    round.read(data)
                except Exception:
                    traceback.print_exc()
                    sys.stderr.flush()
                    failed += 1
                    (out / f"{name}-{seed}-{failed}").write_bytes(data)
    faulthandler.cancel_dump_traceback_later()
    for name, round in rounds.items():
        print(f"{name}: {round.outcomes['read']} read, {round.outcomes['refused']} refused", flush=True)
