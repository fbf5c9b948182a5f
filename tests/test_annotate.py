"""Bulk annotation in one process: every face in the table once, every file accounted for, whatever happens."""

import os
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import dataset, parquet

import pipnet_fast as pf
from pipnet_fast.annotate import Progress, annotate, parts, work
from pipnet_fast.models.digest import model_digest
from pipnet_fast.pipeline.detectors import BoxStyle
from pipnet_fast.pipeline.fitted_detector import FittedDetector
from pipnet_fast.pipeline.video import VideoReader
from tests.annotation import (
    Finder,
    assert_same,
    assert_same_faces,
    boxes_of,
    color,
    errors_of,
    faces_of,
    images_of,
    make_model,
    run,
    write_picture,
    write_video,
)

# Faces in each of the photos.
COUNTS = (1, 0, 2, 1, 3, 0, 1, 1, 2, 0)


@pytest.fixture(scope="module")
def model() -> pf.PIPNet:
    torch.manual_seed(1)
    return make_model()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, count in enumerate(COUNTS):
        write_picture(folder / f"{number // 4}" / f"{number}.png", number, count)
    return folder


@pytest.fixture(scope="module")
def expected(model: pf.PIPNet, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run writes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out.parquet"
    run(photos, out, model=model)
    return out


def test_a_row_for_every_face(model: pf.PIPNet, photos: Path, expected: Path) -> None:
    landmarker = pf.FaceLandmarker(model, Finder(), "cpu", "torch")
    rows: list[dict[str, Any]] = []
    for number, count in enumerate(COUNTS):
        path = str(photos / f"{number // 4}" / f"{number}.png")
        faces = landmarker(path)
        np.testing.assert_array_equal(faces.boxes, boxes_of(number, count))
        for index in range(count):
            row = {"box": faces.boxes[index], "landmarks": faces.landmarks[index], "scores": faces.scores[index]}
            row = {name: values.ravel().tolist() for name, values in row.items()}
            rows.append({"path": path, "frame": None, "face": index, **row, "model": model_digest(model)})
    assert np.ptp([row["landmarks"] for row in rows], axis=0).min() > 1
    assert_same_faces(faces_of(expected), rows)
    assert images_of(expected) == [
        (str(photos / f"{number // 4}" / f"{number}.png"), None, count, None) for number, count in enumerate(COUNTS)
    ]
    assert errors_of(expected) == []


def test_readers_see_one_table(expected: Path) -> None:
    faces = faces_of(expected)
    assert len(list(expected.glob("*.parquet"))) == 4, "three parts and the errors"
    for table in (parquet.read_table(expected), dataset.dataset(expected).to_table()):
        assert sorted(table.to_pylist(), key=lambda row: (row["path"], row["face"])) == faces
    images = parquet.read_table(expected / "_images")
    assert sorted(images["faces"].to_pylist()) == sorted(COUNTS)
    pandas = pytest.importorskip("pandas")
    assert pandas.read_parquet(expected)["path"].tolist() == [row["path"] for row in faces]


def test_what_is_returned_and_told(photos: Path, model: pf.PIPNet, tmp_path: Path) -> None:
    told: list[Progress] = []
    found = run(photos, tmp_path / "out", model=model, on_progress=told.append)
    assert found == (tmp_path / "out", 10, 3, 11, 0, ())
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)]
    told.clear()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")}
    assert run(photos, tmp_path / "out", model=model, on_progress=told.append) == found
    assert told == [(10, 10)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")} == before


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 3}, {"shard_size": 1}, {"shard_size": None}], ids=str
)
def test_batches_and_shares_change_nothing(
    options: dict[str, Any], photos: Path, model: pf.PIPNet, expected: Path, tmp_path: Path
) -> None:
    run(photos, tmp_path, model=model, **options)
    assert_same(tmp_path, expected)


@pytest.mark.parametrize("limits", [{"PICTURES": 3}, {"FACES": 2}, {"PIXELS": 1}], ids=str)
def test_parts_and_pixels_change_nothing(
    limits: dict[str, int],
    photos: Path,
    model: pf.PIPNet,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(work if name == "PIXELS" else parts, name, value)
    run(photos, tmp_path, model=model, shard_size=8)
    assert_same(tmp_path, expected)
    count = {"PICTURES": 2 + 1 + 1, "FACES": 6, "PIXELS": 2}[next(iter(limits))]
    assert len(list(tmp_path.glob("part-*"))) == count


def test_frames_of_videos(model: pf.PIPNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = [1, 0, 2, 1, 0, 0, 3, 1, 1, 2, 0]
    write_video(tmp_path / "v.avi", faces)
    landmarker = pf.FaceLandmarker(model, Finder(), "cpu", "torch", color="rgb")
    for every in (1, 4, 99):
        out = tmp_path / f"out{every}"
        monkeypatch.setattr(parts, "PICTURES", 2)
        run(tmp_path / "v.avi", out, model=model, every=every)
        path = str(tmp_path / "v.avi")
        numbers = range(0, len(faces), every)
        assert images_of(out) == [(path, number, faces[number], None) for number in numbers]
        rows = faces_of(out)
        assert [row["frame"] for row in rows] == [number for number in numbers for _ in range(faces[number])]
        frames = {frame.number: frame.image for frame in VideoReader(path)}
        for row in rows:
            direct = landmarker(frames[row["frame"]])
            np.testing.assert_allclose(row["landmarks"], direct.landmarks[row["face"]].ravel(), rtol=1e-4, atol=1e-2)


class Killed(BaseException):
    """Ends a run as no handler expects."""


def test_a_run_that_is_ended_at_any_move_goes_on(
    model: pf.PIPNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are moved into their places; at each move a run is ended, and made again."""
    source = tmp_path / "v.avi"
    write_video(source, [1, 0, 2])
    monkeypatch.setattr(parts, "PICTURES", 2)
    run(source, tmp_path / "whole", model=model, every=1)
    # Not built anew each time.
    landmarker = pf.FaceLandmarker(model, Finder(), "cpu", "torch", color="rgb")
    monkeypatch.setattr(work, "FaceLandmarker", lambda *arguments, **options: landmarker)
    replace, allowed, left = os.replace, 0, 0

    def counted(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", counted)
    while True:
        out = tmp_path / f"ended{allowed}"
        left = allowed
        try:
            run(source, out, model=model, every=1)
            break
        except Killed:
            left = 1000
            run(source, out, model=model, every=1)
        assert_same(out, tmp_path / "whole")
        allowed += 1
    # The list, the model, the identity, two files of each of two parts, twice, a note and the errors.
    assert allowed == 3 + 2 * 2 * 2 + 1 + 1


def test_damaged_parts_are_made_anew(model: pf.PIPNet, photos: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("part-000001-0000.parquet", "_images/part-000001-0000.parquet"):
        shutil.copytree(expected, out)
        (out / name).write_bytes((out / name).read_bytes()[:-7])
        # One too many, as where a file has become shorter since.
        shutil.copy(out / "part-000000-0000.parquet", out / "part-000001-0003.parquet")
        run(photos, out, model=model)
        assert_same(out, expected)
        shutil.rmtree(out)


def write_bad_files(folder: Path) -> dict[str, str]:
    """Names of files that cannot be read, and what is said about them."""
    write_picture(folder / "whole.jpg", 3, 1)
    data = (folder / "whole.jpg").read_bytes()
    os.remove(folder / "whole.jpg")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("This is no picture.\n" * 50)
    (folder / "cut.jpg").write_bytes(data[: len(data) // 20])
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "empty.mp4").touch()
    (folder / "text.avi").write_text("no video either")
    write_video(folder / "whole.avi", [1] * 20)
    data = (folder / "whole.avi").read_bytes()
    os.remove(folder / "whole.avi")
    (folder / "cut.avi").write_bytes(data[: len(data) * 6 // 10])
    no_image, no_video = "not an image that OpenCV can read", "not a video that OpenCV can read"
    return {
        "cut.avi": r"breaks off after \d+ of 20 frames",
        "cut.jpg": no_image,
        "empty.jpg": no_image,
        "empty.mp4": no_video,
        "itself.png": "Too many levels of symbolic links",
        "nowhere.png": "No such file or directory",
        "text.avi": no_video,
        "text.jpg": no_image,
    }


def test_files_that_cannot_be_read(model: pf.PIPNet, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_picture(folder / "a" / "good.png", 2, 1)
    bad = write_bad_files(folder)
    found = run(folder, out, model=model, every=5)
    errors = {os.path.basename(path): (frame, error) for path, frame, error in errors_of(out)}
    assert sorted(errors) == sorted(bad)
    for name, words in bad.items():
        assert re.search(f"/in/{name}: .*{words}", errors[name][1]), errors[name]
    # Frames before the break are there.
    read = [frame for path, frame, faces, error in images_of(out) if path.endswith("cut.avi") and faces == 1]
    assert read == [0, 5, 10][: len(read)]
    assert len(read) > 1
    assert errors["cut.avi"][0] > read[-1]
    assert errors["text.jpg"][0] is None
    assert (found.images, found.faces, found.errors) == (1 + len(read), 1 + len(read), len(bad))
    assert sorted(found.messages) == sorted(error for _, error in errors.values())
    assert len(images_of(out)) == found.images + found.errors


def test_files_that_are_no_files(model: pf.PIPNet, tmp_path: Path) -> None:
    write_picture(tmp_path / "folder.jpg" / "good.png", 2, 1)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "list").write_text(f"{tmp_path}/pipe.jpg\n{tmp_path}/folder.jpg\n/dev/zero\n{tmp_path}/gone.jpg\n")
    run([f"@{tmp_path / 'list'}", tmp_path / "folder.jpg"], tmp_path / "out", model=model)
    special = "expected a file, got a device, a pipe or a socket"
    assert images_of(tmp_path / "out") == [
        (f"{tmp_path}/pipe.jpg", None, None, f"{tmp_path}/pipe.jpg: {special}"),
        (f"{tmp_path}/folder.jpg", None, None, f"{tmp_path}/folder.jpg: expected a file, got a folder"),
        ("/dev/zero", None, None, f"/dev/zero: {special}"),
        (f"{tmp_path}/gone.jpg", None, None, f"{tmp_path}/gone.jpg: No such file or directory"),
        (f"{tmp_path}/folder.jpg/good.png", None, 1, None),
    ]


def test_files_that_may_not_be_read(model: pf.PIPNet, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png", 2, 1)
    (tmp_path / "in" / "b").mkdir()
    os.chmod(tmp_path / "in" / "a.png", 0)
    os.chmod(tmp_path / "in" / "b", 0)
    if os.access(tmp_path / "in" / "a.png", os.R_OK):
        pytest.skip("whoever runs the tests may read everything")
    run(tmp_path / "in", tmp_path / "out", model=model)
    os.chmod(tmp_path / "in" / "b", stat.S_IRWXU)
    assert [error for *_, error in errors_of(tmp_path / "out")] == [
        f"{tmp_path}/in/{name}: Permission denied" for name in "ab"
    ]


def test_names_of_any_bytes(model: pf.PIPNet, tmp_path: Path) -> None:
    for number, name in enumerate(("gesicht ü\n.png", os.fsdecode(b"\xff.png"))):
        write_picture(tmp_path / "in" / name, number, 1)
    video = tmp_path / "in" / os.fsdecode(b"\xfe.avi")
    write_video(tmp_path / "v.avi", [1])
    os.replace(tmp_path / "v.avi", video)
    run(tmp_path / "in", tmp_path / "out", model=model)
    names = {os.path.basename(path): (faces, error) for path, _, faces, error in images_of(tmp_path / "out")}
    assert names.pop("\\udcfe.avi") == (None, f"{tmp_path}/in/\\udcfe.avi: expected the name of a video to be UTF-8")
    assert names == {"gesicht ü\n.png": (1, None), "\\udcff.png": (1, None)}
    assert sorted(row["path"] for row in faces_of(tmp_path / "out")) == sorted(
        f"{tmp_path}/in/{name}" for name in names
    )


def test_a_file_that_is_named_twice_is_annotated_once(
    model: pf.PIPNet, photos: Path, expected: Path, tmp_path: Path
) -> None:
    again = [photos, photos / "0" / "1.png", f"{photos}/*/*.png", photos / ".." / photos.name]
    run(again, tmp_path, model=model)
    assert_same(tmp_path, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model": make_model}, "model: '.*', not '", id="model"),
        pytest.param({"detector": "haar"}, "detector: 'Finder', not 'haar'", id="detector"),
        pytest.param({"every": 2}, "every: 5, not 2", id="every"),
        pytest.param({"shard_size": 5}, "shard_size: 4, not 5", id="shard size"),
        pytest.param({"every": 3, "shard_size": 1}, "every: 5, not 3", id="two"),
    ],
)
def test_runs_are_not_mixed(
    changes: dict[str, Any], message: str, photos: Path, model: pf.PIPNet, expected: Path
) -> None:
    before = {path: path.read_bytes() for path in expected.rglob("*") if path.is_file()}
    changes = {name: value() if callable(value) else value for name, value in changes.items()}
    with pytest.raises(ValueError, match=f"annotate: out: {expected} is of another run: {message}.*; take another"):
        run(photos, expected, **{"model": model, **changes})
    assert {path: path.read_bytes() for path in expected.rglob("*") if path.is_file()} == before


def test_other_files(photos: Path, model: pf.PIPNet, expected: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "in")
    run(tmp_path / "in", tmp_path / "out", model=model)
    write_picture(tmp_path / "in" / "new.png", 3, 1)
    os.remove(tmp_path / "in" / "0" / "2.png")
    with pytest.raises(
        ValueError, match=r"other run: 10 files, not 10: .*/in/0/2\.png is gone, .*/in/new\.png is new \(the source @"
    ):
        run(tmp_path / "in", tmp_path / "out", model=model)
    # The message tells how to go on.
    old = tmp_path / "out" / "_run" / "list" / "paths"
    os.remove(tmp_path / "out" / "_images" / "part-000000-0000.parquet")
    assert run(f"@{old}", tmp_path / "out", model=model).errors == 1


def test_folders_of_something_else(photos: Path, model: pf.PIPNet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="annotate: out: expected a folder, got the file .*file"):
        run(photos, tmp_path / "file", model=model)
    with pytest.raises(ValueError, match=f"out: expected a new or an empty folder, .* got {tmp_path} with file in it"):
        run(photos, tmp_path, model=model)
    assert os.listdir(tmp_path) == ["file"]
    run(photos / "0", tmp_path / "out", model=model)
    for damaged in ("{", "[]"):
        (tmp_path / "out" / "_run" / "run.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"run\.json: (damaged: |expected a record, got list)"):
            run(photos / "0", tmp_path / "out", model=model)


def test_one_run_at_a_time(photos: Path, model: pf.PIPNet, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")

    def again(progress: Progress) -> None:
        with pytest.raises(RuntimeError, match=f"annotate: out: another run is going on in {tmp_path}"):
            run(photos, tmp_path, model=model)

    assert run(photos, tmp_path, model=model, on_progress=again).faces == 11


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"sources": []}, ValueError, "annotate: sources: expected at least one, got none", id="none"),
        pytest.param({"sources": [b"a"]}, TypeError, "sources: expected paths as text, got bytes", id="bytes"),
        pytest.param({"sources": "gone"}, ValueError, "sources: no such file or folder: gone", id="gone"),
        pytest.param({"sources": "@gone"}, ValueError, "sources: no such file or folder: gone", id="no list"),
        pytest.param({"model": 3}, TypeError, "annotate: model: expected a path or a PIPNet, got int", id="model"),
        pytest.param({"model": "gone.safetensors"}, FileNotFoundError, "no such model file: gone", id="no model"),
        pytest.param({"detector": None}, TypeError, 'detector: expected "auto", .* got None', id="no detector"),
        pytest.param({"detector": "hog"}, ValueError, "detector: expected .* got 'hog'", id="detector"),
        pytest.param({"batch_size": 0}, ValueError, "annotate: batch_size: expected an integer >= 1", id="batch"),
        pytest.param({"every": 0}, ValueError, "annotate: every: expected an integer >= 1, got 0", id="every"),
        pytest.param({"shard_size": 0}, ValueError, "annotate: shard_size: expected an integer >= 1", id="share"),
        pytest.param({"processes": -1}, ValueError, "annotate: processes: expected an integer >= 0", id="processes"),
        pytest.param({"on": "moon"}, ValueError, r"annotate: on: expected one of \['processes', 'ray'\], got", id="on"),
    ],
)
def test_wrong_arguments(
    options: dict[str, Any], error: type[Exception], message: str, photos: Path, model: pf.PIPNet, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run(**{"sources": photos, "out": tmp_path / "out", "model": model, **options})
    assert not os.listdir(tmp_path)


def test_nothing_to_annotate(model: pf.PIPNet, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for source in (tmp_path / "in", tmp_path / "in" / "*.jpg"):
        with pytest.raises(ValueError, match="annotate: sources: (expected images .*, found none in|nothing matches)"):
            run(source, tmp_path / "out", model=model)
        assert os.listdir(tmp_path / "out") == []


def test_what_a_detector_may_do_wrong(photos: Path, model: pf.PIPNet, tmp_path: Path) -> None:
    for number, (returned, error) in enumerate([(np.ones((2, 3)), ValueError), ("none", TypeError)]):
        with pytest.raises(error, match=r"annotate: .*/0/0\.png: FaceLandmarker: .*boxes: expected"):
            run(photos, tmp_path / str(number), model=model, detector=lambda image, returned=returned: returned)


def test_a_model_that_diverged(photos: Path, tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        model.x_layer.bias.fill_(np.nan)
    with pytest.raises(FloatingPointError, match=r"annotate: model: expected finite .*/0/0\.png; .* diverged"):
        run(photos, tmp_path, model=model)


def test_a_full_disk(photos: Path, model: pf.PIPNet, expected: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_table", full)
        with pytest.raises(OSError, match="No space left on device"):
            run(photos, tmp_path, model=model)
    run(photos, tmp_path, model=model)
    assert_same(tmp_path, expected)


def test_without_pyarrow(photos: Path, model: pf.PIPNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"annotate needs pyarrow, .*pip install 'pipnet_fast\[annotate\]'"):
        run(photos, tmp_path / "out", model=model)
    assert not os.listdir(tmp_path)


def test_models_and_detectors_by_name(tmp_path: Path, model: pf.PIPNet, photos: Path) -> None:
    pf.save(model, tmp_path / "model.safetensors")
    options: dict[str, Any] = {"model": tmp_path / "model.safetensors", "device": "cpu", "engine": "torch"}
    found = annotate(photos / "0", tmp_path / "out", processes=0, detector="auto", **options)
    assert found.images == 4
    # Other names of the same.
    assert (
        annotate(photos / "0", tmp_path / "out", processes=0, detector="haar", **{**options, "model": model}) == found
    )


def test_the_file_of_a_detector_is_one_by_any_kind_of_path(tmp_path: Path, model: pf.PIPNet, photos: Path) -> None:
    options: dict[str, Any] = {"model": model, "device": "cpu", "engine": "torch", "processes": 0}
    path = tmp_path / "mine.json"
    FittedDetector("haar", BoxStyle(0.9, 0.9, 0.0, 0.1)).save(path)
    annotate(photos / "0", tmp_path / "out", detector=path, **options)
    annotate(photos / "0", tmp_path / "out", detector=str(path), **options)
    FittedDetector("haar", BoxStyle(0.8, 0.9, 0.0, 0.1)).save(path)
    with pytest.raises(ValueError, match="is of another run: detector"):
        annotate(photos / "0", tmp_path / "out", detector=path, **options)


def test_pictures_tell_what_they_are(photos: Path) -> None:
    """The tests' own: a color that is read back from a photo."""
    from pipnet_fast.pipeline.images import read_rgb

    for number, count in enumerate(COUNTS):
        assert color(read_rgb(photos / f"{number // 4}" / f"{number}.png")) == (number, count)
