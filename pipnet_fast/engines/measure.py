"""One engine's time, in a process of its own: ``python -m pipnet_fast.engines.measure FOLDER``.

FOLDER holds ``model.pt`` and ``request.json``; ``result.json`` is written beside them.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from pipnet_fast.engines import Runtime, compile

SECONDS = 1.0
LEAST_RUNS = 5


def main(folder: Path) -> None:
    """Compile and time what ``folder`` asks for."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    torch.set_num_threads(request.pop("threads"))
    # Our own caller wrote it a moment ago.
    model = torch.load(folder / "model.pt", weights_only=False)
    runtime = compile(model, **request)
    (folder / "result.json").write_text(json.dumps(median_milliseconds(runtime, model.config.input_size)))


def median_milliseconds(runtime: Runtime, input_size: int) -> float:
    """Of one batch of uint8 crops, until the landmarks are there; for ``SECONDS``, at least ``LEAST_RUNS`` times."""
    crops = torch.randint(0, 256, (runtime.batch_size, input_size, input_size, 3), dtype=torch.uint8)
    crops = crops.to(runtime.device)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < LEAST_RUNS:
        start = time.perf_counter()
        runtime(crops).scores.sum().item()  # waits for the device
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    main(Path(sys.argv[1]))
