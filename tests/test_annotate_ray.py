"""Bulk annotation on a Ray cluster on this machine, with processes that are killed on the way."""

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.annotation import Finder, assert_same, make_model, run, write_picture


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", minversion="2")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Beside other tests on the same cores, polite processes would hardly run.
        patch.setenv("RAY_worker_niceness", "0")
        # Of files and processes that Ray leaves open, which shows when they are collected.
        warnings.simplefilter("ignore")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()
        gc.collect()


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_writes_the_table_of_one_process(tmp_path: Path) -> None:
    deaths, photos, model = tmp_path / "deaths", tmp_path / "in", make_model()
    deaths.mkdir()
    for number in range(12):
        write_picture(photos / f"{number:02d}.png", number, number % 3)
    run(photos, tmp_path / "whole", model=model)
    told: list[Any] = []
    run(
        photos,
        tmp_path / "out",
        model=model,
        on="ray",
        processes=None,
        detector=Finder((2, 9), 1, deaths),
        on_progress=told.append,
    )
    assert sorted(name.partition("-")[0] for name in os.listdir(deaths)) == ["2", "9"]
    assert told[0] == (0, 12)
    assert told[-1] == (12, 12)
    assert_same(tmp_path / "out", tmp_path / "whole")
    with pytest.raises(ValueError, match=r"annotate: .*\.png: FaceLandmarker: boxes: expected shape"):
        run(photos, tmp_path / "bad", model=model, on="ray", processes=1, detector=lambda image: [[1, 2, 3]])


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "0.png", 0, 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"annotate: on='ray' needs ray, .*pip install 'pipnet_fast\[ray\]'"):
        run(tmp_path, tmp_path / "out", on="ray", processes=1)
    assert os.listdir(tmp_path) == ["0.png"]
