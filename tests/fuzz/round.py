"""One damaged file after another through one reader."""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

from tests.fuzz.damage import damaged
from tests.fuzz.targets import TARGETS
from tests.memory import peak_growth

# Of one file, which has some kilobytes.
MOST_BYTES, MOST_SECONDS = 256 << 20, 5.0


class Round:
    """The files of one reader in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        """Make the good files, and see that they are read."""
        self.target = TARGETS[name]
        self.path = folder / self.target.file
        folder.mkdir(parents=True)
        self.good = self.target.good(folder)
        self.outcomes: Counter[str] = Counter()
        for data in self.good:
            assert self.read(data) == "read", f"{name}: a good file was refused"

    def read(self, data: bytes) -> str:
        """Read one file: "read" or "refused".

        Raises:
            Exception: any but the documented one; AssertionError if the answer cannot be, or takes too much.
        """
        self.path.write_bytes(data)
        message: str | None = None

        def call() -> None:
            nonlocal message
            try:
                self.target.read(self.path)
            except self.target.refuses as error:
                message = str(error)

        start = time.process_time()
        growth = peak_growth(call)
        seconds = time.process_time() - start
        assert growth < MOST_BYTES, f"{growth >> 20} MB for a file of {len(data)} bytes"
        assert seconds < MOST_SECONDS, f"{seconds:.1f} s for a file of {len(data)} bytes"
        assert message != "", "an error without a word"
        outcome = "read" if message is None else "refused"
        self.outcomes[outcome] += 1
        return outcome

    def files(self, seed: str, others: list[bytes]) -> Iterable[bytes]:
        """Damaged files without end, always the same of one seed."""
        random = Random(seed)
        while True:
            yield damaged(random.choice(self.good), random, others)
