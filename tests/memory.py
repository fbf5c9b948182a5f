"""How much memory a call takes at its peak."""

from collections.abc import Callable
from pathlib import Path

import pytest

PROCESS = Path("/proc/self")


def peak_growth(call: Callable[[], object]) -> int:
    """Bytes by which the process' resident memory grows at most while it runs."""
    _require_proc()
    # Sets the high-water mark to what is resident now.
    (PROCESS / "clear_refs").write_text("5")
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(entry: str = "VmRSS") -> int:
    """Bytes, of Linux' /proc/self/status."""
    _require_proc()
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{entry}:"))


def _require_proc() -> None:
    if not (PROCESS / "clear_refs").exists():
        pytest.skip("memory is read from Linux' /proc")
