"""engine="auto": the fastest one measured, remembered; with made-up times, so that nothing is waited for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.engines import auto, fastest_known, measure
from pipnet_fast.engines._compile import ENGINES, _spec
from tests.inputs import randomized

TIMES = {"torch": 3.0, "cpp": 2.5, "inductor": 2.0, "onnxruntime": 1.0, "openvino": 1.5}


def tiny(**options: Any) -> pf.PIPNet:
    return randomized(**{"num_landmarks": 5, "num_neighbors": 0, "input_size": 32, "width": 0.125, **options})


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What measuring finds; every CPU engine is there, and is torch in fact."""
    times: dict[str, Any] = dict(TIMES)
    for name in TIMES:
        monkeypatch.setitem(ENGINES, name, ENGINES["torch"])
    monkeypatch.setattr(auto, "measure", lambda engine, model, spec: measured(engine))
    calls: list[str] = []

    def measured(engine: str) -> float:
        calls.append(engine)
        if isinstance(times[engine], Exception):
            raise times[engine]
        return float(times[engine])

    times["calls"] = calls
    return times


def cache() -> Path:
    file = auto.cache_file()
    assert file is not None
    return file


def test_the_fastest_is_taken_and_remembered(times: dict[str, Any]) -> None:
    model = tiny()
    runtime = pf.compile(model)
    assert runtime.engine == "onnxruntime"
    assert runtime.milliseconds == TIMES
    assert times["calls"] == list(TIMES)
    times["torch"] = 0.1
    again = pf.compile(tiny())
    assert (again.engine, again.milliseconds) == ("onnxruntime", TIMES)
    assert times["calls"] == list(TIMES)
    assert [file.name for file in cache().parent.iterdir()] == ["engines.json"]


@pytest.mark.parametrize("what", ["batch_size", "config", "threads", "version"])
def test_what_decides_about_speed_is_measured_again(
    what: str, times: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pf.compile(tiny())
    times["torch"] = 0.1
    if what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    if what == "version":
        monkeypatch.setattr(auto, "_version", lambda package: "99")
    model = tiny(width=0.25) if what == "config" else tiny()
    assert pf.compile(model, batch_size=2 if what == "batch_size" else 1).engine == "torch"
    assert len(json.loads(cache().read_text())) == 2


@pytest.mark.parametrize(
    "spoiled",
    ["", "{", "[]", '{"%s": 1}', '{"%s": {"engine": 5}}', '{"%s": {"engine": "gone", "milliseconds": {}}}', "\x00"],
)
def test_a_spoiled_cache_is_written_anew(spoiled: str, times: dict[str, Any]) -> None:
    pf.compile(tiny())
    (key,) = json.loads(cache().read_text())
    cache().write_text(spoiled.replace("%s", key))
    assert fastest_known(tiny()) == "torch"
    assert pf.compile(tiny()).engine == "onnxruntime"
    assert json.loads(cache().read_text())[key]["engine"] == "onnxruntime"


def test_other_entries_stay(times: dict[str, Any]) -> None:
    cache().parent.mkdir(parents=True)
    cache().write_text('{"of someone else": 1}')
    pf.compile(tiny())
    assert json.loads(cache().read_text())["of someone else"] == 1


def test_a_remembered_engine_that_is_gone_is_measured_again(
    times: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pf.compile(tiny())
    monkeypatch.setitem(ENGINES, "onnxruntime", replace(ENGINES["onnxruntime"], missing=lambda: "uninstalled"))
    assert fastest_known(tiny()) == "torch"
    assert pf.compile(tiny()).engine == "openvino"


def test_an_engine_that_came_later_is_measured(times: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "onnxruntime", replace(ENGINES["onnxruntime"], missing=lambda: "not installed"))
        assert pf.compile(tiny()).engine == "openvino"
    assert fastest_known(tiny()) == "torch"
    assert pf.compile(tiny()).engine == "onnxruntime"


@pytest.mark.parametrize("place", ["file-in-the-way", "no-home"])
def test_without_a_place_to_write_it_measures_every_time(
    place: str, times: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "file-in-the-way":
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", no_home)
        assert auto.cache_file() is None
    assert [pf.compile(tiny()).engine for _ in range(2)] == ["onnxruntime"] * 2
    assert times["calls"] == list(TIMES) * 2


def test_an_engine_that_cannot_be_measured_is_out(times: dict[str, Any]) -> None:
    times["onnxruntime"] = RuntimeError("broke down")
    with pytest.warns(UserWarning, match="compile: engine 'onnxruntime' could not be measured: broke down"):
        runtime = pf.compile(tiny())
    assert runtime.engine == "openvino"
    assert "onnxruntime" not in runtime.milliseconds


@pytest.mark.filterwarnings("ignore:compile. engine .* could not be measured")
def test_torch_where_none_can_be_measured(times: dict[str, Any]) -> None:
    times.update({name: RuntimeError("no") for name in TIMES})
    assert pf.compile(tiny()).engine == "torch"
    assert not cache().exists()


def test_face_landmarker_takes_what_is_known_and_measures_nothing(times: dict[str, Any]) -> None:
    assert pf.FaceLandmarker(tiny(), detector=None, device="cpu").engine == "torch"
    assert times["calls"] == []
    pf.compile(tiny())
    landmarker = pf.FaceLandmarker(tiny(), detector=None, device="cpu")
    assert landmarker.engine == "onnxruntime"
    assert landmarker(np.zeros((9, 9, 3), np.uint8), [[1, 1, 8, 8]]).landmarks.shape == (1, 5, 2)


def test_the_median_of_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Counted:
        batch_size, device = 3, torch.device("cpu")

        def __call__(self, crops: torch.Tensor) -> pf.Landmarks:
            assert crops.shape == (3, 32, 32, 3)
            calls.append(crops)
            return pf.Landmarks(torch.zeros(3, 1, 2), torch.zeros(3, 1))

    monkeypatch.setattr(measure, "SECONDS", 0.0)
    assert 0 < measure.median_milliseconds(Counted(), 32) < 1000  # type: ignore[arg-type]
    assert len(calls) == measure.LEAST_RUNS


def test_measured_in_a_process_of_its_own() -> None:
    model = tiny()
    assert 0 < auto.measure("torch", model, _spec(model, 2, "float32")) < 10_000


def test_why_a_process_failed_is_told() -> None:
    model = tiny()
    with pytest.raises(RuntimeError, match=r"^ValueError: compile: engine: expected .* got 'nosuch'$"):
        auto.measure("nosuch", model, _spec(model, 1, "float32"))
