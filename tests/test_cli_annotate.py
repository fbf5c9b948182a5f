"""The command ``pipnet-fast annotate``."""

from pathlib import Path
from typing import Any

import pytest

import pipnet_fast as pf
from pipnet_fast.annotate import Annotations, Progress
from pipnet_fast.cli import annotate as command
from tests.annotation import errors_of, faces_of, images_of, make_model, write_picture, write_video
from tests.commands import parsed


def call(*words: Any) -> int:
    arguments = parsed(command, *words)
    status: int = arguments.run(arguments)
    return status


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "in" / "a.png", 1, 1)
    write_video(tmp_path / "in" / "v.avi", [0, 0, 0])
    pf.save(make_model(), tmp_path / "model.safetensors")
    out = tmp_path / "out.parquet"
    words = ["--out", out, "--model", tmp_path / "model.safetensors", "--device", "cpu", "--engine", "torch"]
    words += ["--processes", 0, "--every", 2, "--batch-size", 4, "--shard-size", 9, "--detector", "haar"]
    assert call(tmp_path / "in", *words) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"0 face(s) in 3 picture(s), 3 without a face, written to {out}\n", "")
    assert [row[1:] for row in images_of(out)] == [(None, 0, None), (0, 0, None), (2, 0, None)]
    assert faces_of(out) == errors_of(out) == []


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        (tmp_path / f"{number:02d}.jpg").touch()
    (tmp_path / "list.txt").write_text("\n".join(map(str, sorted(tmp_path.glob("*.jpg")))))
    out = tmp_path / "out"
    assert call(f"@{tmp_path}/list.txt", "--out", out, "--processes", 0, "--device", "cpu") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "12 file(s) or frame(s) could not be read:"
    assert lines[1:11] == [f"  {error}" for *_, error in errors_of(out)[:10]]
    assert lines[11:] == [f"  and others, all in {out}/_errors.parquet"]


@pytest.mark.parametrize(
    ("words", "engine", "on"),
    [
        ([], "auto", "processes"),
        (["--engine", "cpp"], "cpp", "processes"),
        (["--engine", "ray"], "auto", "ray"),
        (["--on", "ray", "--engine", "torch"], "torch", "ray"),
    ],
    ids=str,
)
def test_where_it_is_done(words: list[str], engine: str, on: str, tmp_path: Path, monkeypatch: Any) -> None:
    given: dict[str, Any] = {}

    def annotate(sources: Any, out: Any, **options: Any) -> Annotations:
        given.update(options, sources=sources, out=out)
        options["on_progress"](Progress(3, 9))
        options["on_progress"](Progress(9, 9))
        return Annotations(tmp_path, 9, 0, 9, 0, ())

    monkeypatch.setattr(command, "annotate", annotate)
    assert call("a", "b/*", "--out", "c", *words) == 0
    assert (given["engine"], given["on"], given["sources"], given["out"]) == (engine, on, ["a", "b/*"], "c")
    assert (given["processes"], given["shard_size"]) == (None, None)
