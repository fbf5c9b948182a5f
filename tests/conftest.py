"""Fixtures of all tests. Triton runs in its interpreter unless there is a CUDA device."""

import os

import torch

if not torch.cuda.is_available():
    # Read when the kernels are first imported.
    os.environ["TRITON_INTERPRET"] = "1"

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import pipnet_fast as pf

# torch's threads wait for each other, and beside another busy process that takes five times as long.
torch.set_num_threads(1)

# The same examples in every run, or one that was not looked for fails it: `make fuzz` looks, with the other profile.
settings.register_profile("search", print_blob=True)
# However busy the machine is.
settings.register_profile("same", derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

REQUIRE_CUDA = os.environ.get("PIPNET_REQUIRE_CUDA") == "1"


def pytest_report_header() -> str:
    return f"torch {torch.__version__}, backends {pf.ops.backends()}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        if REQUIRE_CUDA:
            pytest.fail("PIPNET_REQUIRE_CUDA=1, but torch finds no CUDA device")
        pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test starts from the same random state and leaves the session's as it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    yield
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What engines were found the fastest for whoever runs the tests must not choose them here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """torch.compile's caches are the process's: empty before and after."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class BackendCase(NamedTuple):
    """A backend to hold against the reference: its name, where it runs, and its instruction set."""

    name: str
    device: str = "cpu"
    isa: str | None = None


def _backend_cases() -> list[object]:
    cases: list[object] = []
    if pf.ops.backends()["cpp"]:
        from pipnet_fast import _C

        cases += [pytest.param(BackendCase("cpp", isa=isa), id=f"cpp-{isa}") for isa in _C.isas()]
    if not torch.cuda.is_available() and pf.ops.backends()["triton"]:
        cases.append(pytest.param(BackendCase("triton"), id="triton-interpreted"))
    cases.append(pytest.param(BackendCase("triton", device="cuda"), id="triton-cuda", marks=pytest.mark.cuda))
    return cases


@pytest.fixture(params=_backend_cases())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendCase]:
    """Each compiled backend in turn, its outputs and scratch filled with NaN before it runs."""
    case: BackendCase = request.param
    modules = ["pipnet_fast.ops.decode", "pipnet_fast.ops.head_decode"]
    for module in map(sys.modules.__getitem__, modules):
        monkeypatch.setattr(module, "_empty_result", _nan_filled(module))
    if case.name == "triton":
        import pipnet_fast.kernels  # noqa: F401

        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *a, **k: poisoned(empty(*a, **k)))
    if case.isa is None:
        yield case
        return
    from pipnet_fast import _C

    before = _C.isa()
    _C.use_isa(case.isa)
    yield case
    _C.use_isa(before)


def poisoned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor filled with what no result can be built upon: NaN, or an index far outside of everything."""
    return tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min)


def _nan_filled(module: ModuleType) -> object:
    allocate = module._empty_result
    return lambda *args: tuple(tensor.fill_(torch.nan) for tensor in allocate(*args))
