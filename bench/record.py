"""One JSON record a measurement, with everything needed to judge it beside the number."""

import contextlib
import functools
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipnet_fast.engines.auto import cpu_name


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what a measurement depends upon."""
    return {"python": platform.python_version(), **installed("pipnet_fast", "torch", "triton", "numpy")}


def installed(*packages: str) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@functools.cache
def commit() -> str:
    """The commit that was measured, with a plus where the tree differs from it; "" without git or a repository."""
    root = Path(__file__).parent

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return done.stdout.strip()

    # Results are written into the tree; they do not change what is measured.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/bench/results")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


@dataclass(frozen=True)
class Record:
    """A measurement, or, with ``reason`` and no numbers, why there is none; ``note`` says what a reader must know."""

    case: str
    subject: str
    metric: str
    unit: str
    device: str
    threads: int
    dtype: str
    shape: str
    median: float | None = None
    p20: float | None = None
    p80: float | None = None
    runs: int = 0
    reason: str | None = None
    note: str | None = None
    versions: dict[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)


def percentiles(values: Sequence[float]) -> dict[str, float | int]:
    """The numbers of a record."""
    p20, median, p80 = np.percentile(values, [20, 50, 80])
    return {"median": _digits(median), "p20": _digits(p20), "p80": _digits(p80), "runs": len(values)}


def measured(shared: Mapping[str, Any], metric: str, unit: str, values: Sequence[float]) -> Record:
    """A record of ``values``, with the fields that it shares with others."""
    numbers: dict[str, Any] = percentiles(values)
    return Record(metric=metric, unit=unit, **shared, **numbers)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def device_name(device: str) -> str:
    """The GPU's or the CPU's own name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cores = f"{len(_affinity())} cores"
    return f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, {cores}"


def _affinity() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def write(records: Sequence[Record], path: Path) -> Path:
    """Write records as JSON; in a folder to a file named after the device, where they replace those of the same."""
    if path.is_dir():
        # Without the number of cores: CPUs of one name differ in what they can do.
        name = "".join(c if c.isalnum() else "-" for c in " ".join(records[0].device.split(",")[:2]).lower())
        path = path / f"{'-'.join(filter(None, name.split('-')))}.json"
        measured = {_what(r) for r in records}
        others = [r for r in read(path) if _what(r) not in measured] if path.exists() else []
        records = sorted([*others, *records], key=lambda r: r.case)
    lines = ",\n".join(f"  {json.dumps({k: v for k, v in asdict(r).items() if v is not None})}" for r in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return path


def _what(record: Record) -> tuple[object, ...]:
    """What was measured, whoever the subjects are; of whole engines, int8 stands beside float32."""
    return record.case, record.dtype.replace("int8", "float32"), record.shape, record.threads


def read(path: Path) -> list[Record]:
    """Read what ``write`` wrote."""
    return [Record(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
