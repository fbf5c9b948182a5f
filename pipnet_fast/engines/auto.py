"""Which engine is the fastest: measured once, each in a process of its own, and remembered."""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pipnet_fast._files import write_whole
from pipnet_fast.engines._types import Spec

# An engine that takes longer than this to compile and measure is out, s.
TIME_LIMIT = 300
# Their versions decide about speed.
PACKAGES = ("pipnet_fast", "torch", "triton", "onnxruntime", "openvino")


class Choice(NamedTuple):
    """The chosen engine, and what each one took."""

    engine: str
    milliseconds: Mapping[str, float]


def choose(model: nn.Module, spec: Spec, candidates: Sequence[str]) -> Choice:
    """The fastest of ``candidates`` for this model, from the cache or by measuring them all.

    One that cannot be measured is out, with a warning. If none can be, it is "torch", and nothing is kept.
    """
    known = cached(model, spec, candidates)
    if known is not None:
        return known
    milliseconds = {}
    for name in candidates:
        try:
            milliseconds[name] = measure(name, model, spec)
        except Exception as error:  # whatever it is, the others may run
            warnings.warn(f"compile: engine {name!r} could not be measured: {error}", stacklevel=3)
    if not milliseconds:
        return Choice("torch", {})
    choice = Choice(min(milliseconds, key=lambda name: milliseconds[name]), milliseconds)
    _remember(_key(model, spec, candidates), choice)
    return choice


def cached(model: nn.Module, spec: Spec, candidates: Sequence[str]) -> Choice | None:
    """What ``choose`` found among these candidates before, with the same versions and hardware, for such a model."""
    entry = _entries().get(_key(model, spec, candidates))
    match entry:
        case {"engine": str(engine), "milliseconds": dict(milliseconds)} if engine in candidates:
            return Choice(engine, milliseconds)
    return None


def measure(engine: str, model: nn.Module, spec: Spec) -> float:
    """Milliseconds of one batch, the median over about a second, in a process of its own.

    Of its own, because threads of one engine that still spin slow the next one, and what a compiler has
    loaded stays.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model, Path(folder, "model.pt"))
        request = {
            "engine": engine,
            "batch_size": spec.batch_size,
            "dtype": str(spec.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }
        Path(folder, "request.json").write_text(json.dumps(request), encoding="utf-8")
        child = subprocess.run(
            [sys.executable, "-m", "pipnet_fast.engines.measure", folder],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        )
        if child.returncode:
            raise RuntimeError((child.stderr.strip() or f"exit status {child.returncode}").splitlines()[-1])
        return float(json.loads(Path(folder, "result.json").read_text(encoding="utf-8")))


def cache_file() -> Path | None:
    """Where choices are kept; None without a home."""
    folder = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(folder or Path.home() / ".cache") / "pipnet_fast" / "engines.json"
    except RuntimeError:
        return None


def _entries() -> dict[str, Any]:
    file = cache_file()
    # Missing, unreadable or spoiled: as if nothing had been measured.
    with contextlib.suppress(OSError, ValueError):
        entries = json.loads(file.read_text(encoding="utf-8")) if file else {}
        if isinstance(entries, dict):
            return entries
    return {}


def _remember(key: str, choice: Choice) -> None:
    file = cache_file()
    if file is None:
        return
    entries = {**_entries(), key: choice._asdict()}
    with contextlib.suppress(OSError):  # a read-only home: the next process measures again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda whole: whole.write(json.dumps(entries, indent=1).encode()))


def _key(model: Any, spec: Spec, candidates: Sequence[str]) -> str:
    facts = {
        "candidates": sorted(candidates),
        "model": [type(model).__name__, model.config.to_dict()],
        "spec": {name: str(value) for name, value in asdict(spec).items()},
        "threads": torch.get_num_threads(),
        "hardware": torch.cuda.get_device_name(spec.device) if spec.device.type == "cuda" else cpu_name(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def cpu_name() -> str:
    """What the processor calls itself, or its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
