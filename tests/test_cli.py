"""The command pipnet-fast, in process, and once as its users start it."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import pipnet_fast as pf
from pipnet_fast.cli import detect, info, main
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.pipeline.draw import COLORS
from pipnet_fast.pipeline.images import read_rgb
from tests.commands import Run


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture(scope="module")
def expected() -> pf.Faces:
    return pf.FaceLandmarker(device="cpu")(astronaut())


@pytest.fixture
def face(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    path.write_bytes(astronaut().read_bytes())
    return path


@pytest.fixture
def black(tmp_path: Path) -> Path:
    path = tmp_path / "black.png"
    Image.new("RGB", (80, 60)).save(path)
    return path


def read_table(folder: Path) -> list[list[str]]:
    with open(folder / "landmarks.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def read_record(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_detect_writes_picture_json_and_table(
    run: Run, face: Path, black: Path, tmp_path: Path, expected: pf.Faces
) -> None:
    out = tmp_path / "made" / "out"
    result = run("detect", face, black, "--out", out, "--device", "cpu")
    assert result.status == 0
    assert f"1 face(s) in 2 photo(s), written to {out}" in result.out
    assert names(out) == ["black.json", "black_landmarks.png", "face.json", "face_landmarks.png", "landmarks.csv"]

    record = read_record(out / "face.json")
    assert (record["photo"], record["width"], record["height"]) == (str(face), 512, 512)
    (found,) = record["faces"]
    np.testing.assert_allclose(found["landmarks"], expected.landmarks[0], atol=1e-2)
    np.testing.assert_allclose(found["landmark_scores"], expected.scores[0], atol=1e-3)
    np.testing.assert_allclose(found["box"], expected.boxes[0, :4], atol=1e-2)
    record = read_record(out / "black.json")
    assert (record["width"], record["height"], record["faces"]) == (80, 60, [])

    header, *rows = read_table(out)
    assert header[:9] == ["photo", "face", "box_x0", "box_y0", "box_x1", "box_y1", "score", "x0", "y0"]
    assert header[-2:] == ["x67", "y67"]
    assert len(header) == 7 + 2 * 68
    (row,) = rows
    assert row[:2] == [str(face), "0"]
    np.testing.assert_allclose(np.array(row[2:7], float), expected.boxes[0], atol=1e-2)
    np.testing.assert_allclose(np.array(row[7:], float).reshape(68, 2), expected.landmarks[0], atol=1e-2)


def test_picture_shows_photo_landmarks_and_box(run: Run, face: Path, tmp_path: Path, expected: pf.Faces) -> None:
    run("detect", face, "--out", tmp_path / "out", "--device", "cpu")
    picture, photo = read_rgb(tmp_path / "out" / "face_landmarks.png"), read_rgb(face)
    assert picture.shape == photo.shape
    # At each landmark the color of the first face, and the photo where nothing is drawn.
    x, y = expected.landmarks[0].astype(int).T
    distance = np.abs(picture[y, x].astype(int) - COLORS[0]).max(axis=1)
    assert np.median(distance) < 40
    x0, y0, x1, y1 = expected.boxes[0, :4].astype(int)
    np.testing.assert_allclose(picture[y0 + 10 : y1 - 10, x0].mean(axis=0), COLORS[0], atol=60)
    drawn = (picture != photo).any(axis=2)
    drawn[min(y0, *y) - 5 : max(y1, *y) + 5, min(x0, *x) - 5 : max(x1, *x) + 5] = False
    assert not drawn.any()


def test_rerun_into_the_same_folder_replaces(run: Run, face: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("detect", face, "--out", out).status == 0
    before = {name: (out / name).read_bytes() for name in names(out)}
    assert run("detect", face, "--out", out).status == 0
    assert {name: (out / name).read_bytes() for name in names(out)} == before
    assert len(read_table(out)) == 2


@pytest.mark.parametrize("name", ["face.json", "landmarks.csv", "link.json", "folder.json"])
def test_other_files_are_never_replaced(run: Run, face: Path, tmp_path: Path, name: str) -> None:
    """As annotations that lie beside photos under their names."""
    photos = tmp_path / "photos"
    photos.mkdir()
    stem = "face" if name == "landmarks.csv" else Path(name).stem
    shutil.copy(face, photos / f"{stem}.png")
    mine = tmp_path / "mine.json"
    mine.write_text('{"version": "5.0"}')
    place = photos / name
    if name == "link.json":
        place.symlink_to(mine)
    elif name == "folder.json":
        place.mkdir()
    else:
        place.write_text(mine.read_text())
    before = names(photos)
    result = run("detect", photos, "--out", photos)
    assert (result.status, result.out) == (2, "")
    assert re.search(rf"^pipnet-fast detect: --out: .*{name} is there already, and no result of", result.err)
    assert (names(photos), mine.read_text()) == (before, '{"version": "5.0"}')


def test_long_names_are_shortened(run: Run, face: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a" * 245, "a" * 246, "ä" * 123):
        shutil.copy(face, photos / f"{name}.png")
    assert run("detect", photos, "--out", tmp_path / "out").status == 0
    assert len(list((tmp_path / "out").glob("*.json"))) == len(list((tmp_path / "out").glob("*.png"))) == 3


def test_same_stem_in_two_folders(run: Run, face: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "photo.png", tmp_path / "b" / "photo.png", tmp_path / "b" / "photo.bmp"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(paths[0])
    paths[1].write_bytes(face.read_bytes())
    Image.new("RGB", (50, 20)).save(paths[2])
    out = tmp_path / "out"
    assert run("detect", *paths, "--out", out).status == 0
    records = [read_record(path) for path in sorted(out.glob("*.json"))]
    assert sorted((r["photo"], r["width"], len(r["faces"])) for r in records) == sorted(
        [(str(paths[0]), 40, 0), (str(paths[1]), 512, 1), (str(paths[2]), 50, 0)]
    )
    for path in out.glob("*.json"):
        assert read_rgb(path.with_name(f"{path.stem}_landmarks.png")).shape[1] == read_record(path)["width"]
    assert len(list(out.glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("photos", "stems"),
    [
        pytest.param(["a.png", "b.png"], ["a", "b"], id="unlike"),
        pytest.param(["x/a.png", "y/a.png", "z/a.jpg"], ["a", "a_2", "a_3"], id="alike"),
        pytest.param(["a.png", "A.png"], ["a", "A_2"], id="alike-but-for-case"),
        pytest.param(["a_2.png", "x/a.png", "y/a.png"], ["a_2", "a", "a_3"], id="number-already-taken"),
        pytest.param(["a.b.png", "a.c.png"], ["a.b", "a.c"], id="dots"),
        pytest.param(["landmarks.png"], ["landmarks_2"], id="name-of-the-table"),
    ],
)
def test_names_of_results(photos: list[str], stems: list[str]) -> None:
    assert detect.target_names([Path(photo) for photo in photos], Path("out")) == stems


def test_folder_of_photos(run: Run, face: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "deeper.png").mkdir(parents=True)
    (folder / "notes.txt").write_text("no photo")
    (folder / "sub").mkdir()
    Image.new("RGB", (20, 20)).save(folder / "sub" / "below.png")
    for name in ("c.JPG", "a.png", "b b.webp"):
        Image.new("RGB", (30, 20)).save(folder / name)
    out = tmp_path / "out"
    result = run("detect", folder, face, "--out", out)
    assert result.status == 0
    assert "1 face(s) in 4 photo(s)" in result.out
    assert {p.stem for p in out.glob("*.json")} == {"a", "b b", "c", "face"}
    assert list(map(str, detect.expand([str(folder)])[0])) == [str(folder / n) for n in ("a.png", "b b.webp", "c.JPG")]


@pytest.mark.parametrize("name", [pytest.param("my photo.png", id="space"), pytest.param("Zoë 顔.png", id="non-ascii")])
def test_names_of_photos(run: Run, face: Path, tmp_path: Path, name: str) -> None:
    photo = face.rename(tmp_path / name)
    out = tmp_path / "out folder é"
    assert run("detect", photo, "--out", out).status == 0
    assert names(out) == sorted([f"{photo.stem}.json", f"{photo.stem}_landmarks.png", "landmarks.csv"])
    assert read_record(out / f"{photo.stem}.json")["photo"] == str(photo)
    assert read_table(out)[1][0] == str(photo)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are Unicode")
def test_photo_whose_name_is_no_utf8(run: Run, face: Path, tmp_path: Path) -> None:
    photo = face.rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    result = run("detect", photo, "--out", tmp_path / "out")
    assert result.status == 0
    assert len(read_table(tmp_path / "out")) == 2


def test_unreadable_among_good_photos(run: Run, face: Path, black: Path, tmp_path: Path) -> None:
    bad, missing, empty = tmp_path / "bad.png", tmp_path / "missing.jpg", tmp_path / "empty.jpg"
    bad.write_text("no photo")
    empty.touch()
    out = tmp_path / "out"
    result = run("detect", bad, face, missing, empty, black, "--out", out)
    assert result.status == 1
    assert "1 face(s) in 2 photo(s)" in result.out
    assert "3 of 5 input(s) could not be read:" in result.err
    assert "Traceback" not in result.err
    for path in (bad, missing, empty):
        assert len(re.findall(f"^  {re.escape(str(path))}: .+$", result.err, re.MULTILINE)) == 1
    assert str(face) not in result.err
    assert names(out) == ["black.json", "black_landmarks.png", "face.json", "face_landmarks.png", "landmarks.csv"]
    assert len(read_table(out)) == 2


def test_a_line_of_pixels_is_a_photo_without_faces(run: Run, face: Path, tmp_path: Path) -> None:
    line = tmp_path / "line.png"
    Image.new("RGB", (5000, 1)).save(line)
    result = run("detect", line, face, "--out", tmp_path / "out")
    assert result.status == 0
    assert "1 face(s) in 2 photo(s)" in result.out


def test_a_photo_is_never_overwritten_by_its_picture(run: Run, face: Path, tmp_path: Path) -> None:
    before = face.read_bytes()
    run("detect", face, "--out", tmp_path)
    assert face.read_bytes() == before


USAGE = [
    pytest.param([], "COMMAND", id="no-subcommand"),
    pytest.param(["nosuch"], "invalid choice: 'nosuch'", id="unknown-subcommand"),
    pytest.param(["detect", "{photo}", "--out", "{out}", "--bogus"], "--bogus", id="unknown-option"),
    pytest.param(["detect", "{photo}"], "--out", id="missing-out"),
    pytest.param(["detect", "--out", "{out}"], "PHOTO", id="no-photo"),
    pytest.param(["demo"], "--out", id="demo-missing-out"),
    pytest.param(["info", "photo.png"], "photo.png", id="info-takes-nothing"),
    pytest.param(["detect", "{photo}", "--out", "{out}", "--detector", "nosuch"], "nosuch", id="detector"),
    pytest.param(["detect", "{photo}", "--out", "{out}", "--detector", "yunet:no.onnx"], "no.onnx", id="yunet-missing"),
    pytest.param(["detect", "{photo}", "--out", "{out}", "--detector", "yunet:{photo}"], "face.png", id="yunet-photo"),
    pytest.param(["detect", "{photo}", "--out", "{out}", "--model", "no.safetensors"], "no.safetensors", id="no-model"),
    pytest.param(["detect", "{photo}", "--out", "{out}", "--model", "{photo}"], "face.png", id="model-is-a-photo"),
    pytest.param(["detect", "{photo}", "--out", "{out}", "--engine", "nosuch"], "nosuch", id="engine"),
    pytest.param(["detect", "{photo}", "--out", "{out}", "--device", "nosuch"], "nosuch", id="device"),
    pytest.param(["detect", "{photo}", "--out", "{photo}"], "face.png", id="out-is-a-file"),
    pytest.param(["detect", "{photo}", "--out", "{photo}/sub"], "face.png", id="out-below-a-file"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_wrong_calls_are_one_line(run: Run, face: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run(*(a.format(photo=face, out=tmp_path / "out") for a in arguments))
    assert result.status == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert result.err.startswith("pipnet-fast")
    assert message in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["cuda", "xpu", "hpu"])
def test_devices_that_are_not_here_are_one_line(run: Run, face: Path, tmp_path: Path, device: str) -> None:
    if getattr(getattr(torch, device, None), "is_available", bool)():
        pytest.skip(f"there is a device {device}")
    result = run("detect", face, "--out", tmp_path / "out", "--device", device)
    assert result.status == 2
    assert result.err.count("\n") == 1


def test_out_that_cannot_be_written(run: Run, face: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "landmarks.csv").mkdir(parents=True)
    result = run("detect", face, "--out", tmp_path / "out")
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert "landmarks.csv" in result.err


@pytest.mark.parametrize("arguments", [["--help"], ["detect", "--help"], ["demo", "--help"], ["info", "--help"]])
def test_help(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.status == 0
    assert result.out.startswith("usage: pipnet-fast")
    assert result.err == ""


def test_interrupt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupted)
    assert run("info") == (130, "", "pipnet-fast info: interrupted\n")


def test_info(run: Run) -> None:
    result = run("info")
    assert result.status == 0
    assert result.err == ""
    assert f"pipnet_fast {pf.__version__}, Python {sys.version_info.major}.{sys.version_info.minor}" in result.out
    for version in (f"torch {metadata.version('torch')}", f"numpy {np.__version__}", f"{cv2.__version__}"):
        assert version in result.out
    for name, present in pf.ops.backends().items():
        assert re.search(rf"^backends: .*'{name}': {present}", result.out, re.MULTILINE)
    for name, present in pf.engines().items():
        assert re.search(rf"^engines: .*'{name}': {present}", result.out, re.MULTILINE)
    assert re.search(r"^model in the box: .+\.safetensors$", result.out, re.MULTILINE)


def test_demo_on_its_photo(run: Run, tmp_path: Path, expected: pf.Faces) -> None:
    result = run("demo", "--out", tmp_path / "out", "--device", "cpu")
    assert result.status == 0
    assert "1 face(s) in 1 photo(s)" in result.out
    assert names(tmp_path / "out") == ["astronaut.json", "astronaut_landmarks.png", "landmarks.csv"]
    (found,) = read_record(tmp_path / "out" / "astronaut.json")["faces"]
    np.testing.assert_allclose(found["landmarks"], expected.landmarks[0], atol=1e-2)


def test_demo_on_a_photo_of_ones_own(run: Run, black: Path, tmp_path: Path) -> None:
    result = run("demo", black, "--out", tmp_path / "out")
    assert result.status == 0
    assert names(tmp_path / "out") == ["black.json", "black_landmarks.png", "landmarks.csv"]
    assert "0 face(s) in 1 photo(s)" in result.out


def test_demo_without_scikit_image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python says that there is no such module.
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    result = run("demo", "--out", tmp_path / "out")
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert "pip install scikit-image" in result.err


def test_own_model(run: Run, face: Path, tmp_path: Path) -> None:
    points = np.random.RandomState(0).rand(5, 2)
    model = pf.PIPNet(num_landmarks=5, num_neighbors=2, width=0.125, input_size=64, mean_shape=points)
    pf.save(model.eval(), tmp_path / "own.safetensors")
    assert run("detect", face, "--out", tmp_path / "out", "--model", tmp_path / "own.safetensors").status == 0
    header, row = read_table(tmp_path / "out")
    assert len(header) == len(row) == 7 + 2 * 5
    assert np.shape(read_record(tmp_path / "out" / "face.json")["faces"][0]["landmarks"]) == (5, 2)


def test_the_installed_command(face: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("pipnet-fast")
    call = [command, "detect", face, "missing.jpg", "--out", "out"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "1 face(s) in 1 photo(s), written to out" in done.stdout
    assert "1 of 2 input(s) could not be read:\n  missing.jpg: No such file or directory\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert names(tmp_path / "out") == ["face.json", "face_landmarks.png", "landmarks.csv"]


def test_second_run_into_the_photos_folder_leaves_its_pictures_alone(run: Run, face: Path) -> None:
    for _ in range(2):
        assert run("detect", face.parent, "--out", face.parent).status == 0
    assert len(read_table(face.parent)) == 2


def test_folder_without_images_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("detect", tmp_path / "empty", "--out", tmp_path / "out")
    assert result.status == 1
    assert "empty: a folder without images" in result.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("pipnet_fast 0.")
