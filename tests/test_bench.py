"""The benchmark runs, refuses wrong subjects, and writes what the report reads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pipnet_fast as pf

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_head_case_writes_records_that_the_report_reads(tmp_path: Path) -> None:
    out = tmp_path / "records.json"
    done = run("bench", "head", "--threads", "1", "--rounds", "2", "--json", str(out))
    assert done.returncode == 0, done.stderr
    records = json.loads(out.read_text())
    assert len({r["shape"] for r in records}) == 3
    needed = {"case", "subject", "metric", "unit", "median", "p20", "p80", "runs", "device", "threads", "dtype"}
    for record in records:
        assert needed | {"shape", "versions", "commit"} <= record.keys()
        assert record["p20"] <= record["median"] <= record["p80"]
    report = run("bench.report", str(out))
    assert report.returncode == 0, report.stderr
    latencies = [r for r in records if r["unit"] == "ms" and r["shape"].startswith("B=1 C=512")]
    assert report.stdout.count("\n| ") == len(latencies) + 2
    assert f"| {latencies[0]['median']} (" in report.stdout


def test_subjects_that_disagree_are_not_timed() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from bench.head import check
    finally:
        sys.path.remove(str(ROOT))
    good = pf.Landmarks(torch.ones(1, 2, 2), torch.ones(1, 2))
    bad = pf.Landmarks(good.points_frac + 0.1, good.scores)
    check({"a": lambda: good, "b": lambda: good})
    with pytest.raises(RuntimeError, match="b differs from a by .*: not timed"):
        check({"a": lambda: good, "b": lambda: bad})


def test_readme_shows_the_committed_records() -> None:
    done = run("bench.report", "bench/results/amd-epyc.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
