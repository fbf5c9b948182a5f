"""Menpo 2D in both releases and tracks, and the labels in a wrong order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, open_data
from pipnet_fast.data.readers._menpo_order import right_order
from tests.miniature import box_of, landmarks, write_face, write_image

BOX = [5.25, 6.0, 58.5, 57.0]


def line(name: str, count: int, seed: int) -> str:
    """MenpoBenchmark's: path, box, five points, landmarks; counted from 0."""
    five = np.full(10, 7.0)
    numbers = np.concatenate((np.array(BOX), five, landmarks(count, seed).ravel() - 0.5))
    return " ".join([name, *map(repr, numbers.tolist())])


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    for seed, (stem, count) in enumerate([("aflw__face_2", 68), ("aflw__face_10", 39), ("aflw__face_1", 68)]):
        write_face(tmp_path / stem, landmarks(count, seed))
    return tmp_path


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        folder = tmp_path / split.capitalize()
        for track, count in (("semifrontal", 68), ("profile", 39)):
            names = [f"image/{track}/b.jpg", f"image/{track}/a.jpg"]
            for name in names:
                write_image(folder / name)
            lines = [line(name, count, seed) for seed, name in enumerate(names)]
            (folder / f"Menpo2D_{track}_{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def names_of(data: Any) -> list[str]:
    return [Path(str(sample.image)).name for sample in data.samples]


@pytest.mark.parametrize(("track", "faces"), [("semifrontal", {"1": 2, "2": 0}), ("profile", {"10": 1})])
def test_challenge_release(challenge: Path, track: str, faces: dict[str, int]) -> None:
    data = open_data("menpo2d", challenge, "train", track=track)
    assert names_of(data) == [f"aflw__face_{name}.jpg" for name in faces]
    count = 68 if track == "semifrontal" else 39
    for seed, sample in zip(faces.values(), data.samples, strict=True):
        assert np.array_equal(np.asarray(sample.landmarks), landmarks(count, seed))
        assert sample.box.tolist() == box_of(landmarks(count, seed))
    assert (data.norm, data.tight, data.crop) == ("diagonal", True, CropRule(1.1))
    assert data.name == f"menpo2d/{track}/train"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("track", "count"), [("semifrontal", 68), ("profile", 39)])
def test_benchmark_release(listed: Path, track: str, count: int, split: str) -> None:
    data = open_data("menpo2d", listed, split, track=track)
    assert names_of(data) == ["b.jpg", "a.jpg"], "the order is the list's"
    for seed, sample in enumerate(data.samples):
        assert np.array_equal(np.asarray(sample.landmarks), landmarks(count, seed))
        assert sample.box.tolist() == [value + 0.5 for value in BOX]
        assert sample.image.read().shape == (64, 64, 3)
    assert (data.norm, data.tight) == ("diagonal", False)
    tight = open_data("menpo2d", listed, split, track=track, boxes="tight")
    assert tight.tight
    assert tight.samples[1].box.tolist() == box_of(landmarks(count, 1))


def test_profiles_mirror_into_themselves(challenge: Path) -> None:
    data = open_data("menpo2d", challenge, "train", track="profile")
    assert data.layout.flip.tolist() == list(range(39))
    assert data.layout.outer_eyes is None


def test_folders_of_the_archives_may_be_there(challenge: Path, listed: Path) -> None:
    """Both are written into one folder: the lists go first."""
    (listed / "Menpo2D").mkdir()
    (listed / "menpo_train_release").mkdir()
    for name in ("Train", "Test"):
        (listed / name).rename(listed / "Menpo2D" / name)
    for path in challenge.glob("aflw*"):
        path.rename(challenge / "menpo_train_release" / path.name)
    assert names_of(open_data("menpo2d", listed, "train")) == ["b.jpg", "a.jpg"]
    (listed / "Menpo2D" / "Train" / "Menpo2D_semifrontal_train.txt").unlink()
    assert names_of(open_data("menpo2d", listed, "train")) == ["aflw__face_1.jpg", "aflw__face_2.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("image/semifrontal/a.jpg 1 2 3", "expected a path and 150 numbers, got 4 words", id="truncated"),
        pytest.param(
            line("image/semifrontal/a.jpg", 39, 0), "expected a path and 150 numbers, got 93 words", id="profile"
        ),
        pytest.param(
            line("image/none.jpg", 68, 0), "image/none.jpg: expected an image, found no such file", id="no image"
        ),
        pytest.param(line("a" * 5000, 68, 0), "aaa: expected an image, found no such file", id="a name too long"),
        pytest.param(
            line("image/semifrontal/a.jpg", 68, 0).rpartition(" ")[0] + " x", "expected a number, got 'x'", id="a word"
        ),
        pytest.param(
            line("image/semifrontal/a.jpg", 68, 0).replace("58.5", "5.25"), "a.jpg: expected a box x0 < x1", id="box"
        ),
    ],
)
def test_damaged_lists(listed: Path, text: str, message: str) -> None:
    path = listed / "Train" / "Menpo2D_semifrontal_train.txt"
    path.write_text(path.read_text() + "\n" + text)
    with pytest.raises(DataError, match=message):
        open_data("menpo2d", listed, "train")
    data = open_data("menpo2d", listed, "train", skip_bad=True)
    assert (len(data), len(data.bad)) == (2, 1)


def test_damaged_files(challenge: Path) -> None:
    (challenge / "aflw__face_2.pts").write_text("version: 1\nn_points: 5\n{\n}\n")
    with pytest.raises(DataError, match="aflw__face_2.pts, line 2: expected n_points 68 or 39, got '5'"):
        open_data("menpo2d", challenge, "train")
    assert len(open_data("menpo2d", challenge, "train", skip_bad=True).bad) == 1


@pytest.mark.parametrize(
    ("split", "options", "error", "message"),
    [
        ("test", {}, DataError, "expected Test/Menpo2D_semifrontal_test.txt, found none; .* no test labels"),
        (
            "train",
            {"boxes": "given"},
            DataError,
            "expected Train/Menpo2D_semifrontal_train.txt, found none; .* no boxes",
        ),
        ("train", {"boxes": "x"}, ValueError, r"boxes: expected one of \('tight', 'given'\), got 'x'"),
        ("train", {"track": "front"}, ValueError, r"track: expected one of \('semifrontal', 'profile'\), got 'front'"),
    ],
)
def test_what_is_not_there(challenge: Path, split: str, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_data("menpo2d", challenge, split, **options)


@pytest.mark.parametrize(
    ("stem", "count", "moved"),
    [
        pytest.param("aflw__face_65193", 39, {1: 12, 12: 1, 6: 7, 13: 16, 14: 15, 16: 13, 17: 17}, id="jaw and brow"),
        pytest.param("aflw__face_64849", 39, {1: 12, 13: 13}, id="jaw"),
        pytest.param("aflw__face_43770", 39, {12: 12, 13: 16}, id="brow"),
        pytest.param("aflw__face_64806", 68, {17: 17, 18: 22, 20: 20, 23: 23}, id="18 to 22"),
        pytest.param("aflw__face_43536", 39, {17: 22, 18: 21, 23: 23}, id="17 to 22"),
        pytest.param("aflw__face_42898", 39, {28: 31, 29: 30, 32: 32}, id="28 to 31"),
        pytest.param("aflw__face_41487", 39, {28: 34, 31: 31}, id="28 to 34"),
        pytest.param("aflw__face_41364", 68, {36: 36, 37: 43, 42: 48, 43: 37, 48: 42, 49: 49}, id="eyes swapped"),
        pytest.param("aflw__face_63001", 68, {17: 17, 18: 23, 22: 27, 23: 18, 27: 22, 28: 28}, id="brows swapped"),
        pytest.param("aflw__face_47687", 68, {60: 60, 61: 64, 62: 63, 64: 61, 65: 68, 67: 66}, id="inner lips"),
        pytest.param("aflw__face_1", 68, {1: 1, 18: 18, 68: 68}, id="any other"),
        pytest.param("65193", 39, {1: 1, 12: 12}, id="a file of another name"),
    ],
)
def test_right_order(stem: str, count: int, moved: dict[int, int]) -> None:
    points = landmarks(count)
    fixed = right_order(points, stem)
    assert {first: int(np.flatnonzero((points == fixed[first - 1]).all(axis=1))[0]) + 1 for first in moved} == moved


def test_order_is_put_right_on_request(challenge: Path) -> None:
    write_face(challenge / "aflw__face_64849", landmarks(39, 5))
    write_face(challenge / "aflw__face_45522", landmarks(68, 6))
    jaw = np.asarray(open_data("menpo2d", challenge, "train", track="profile").samples[1].landmarks)
    assert np.array_equal(jaw, landmarks(39, 5))
    jaw = np.asarray(open_data("menpo2d", challenge, "train", track="profile", fix_order=True).samples[1].landmarks)
    assert np.array_equal(jaw[:12], landmarks(39, 5)[11::-1])
    spurious = open_data("menpo2d", challenge, "train", fix_order=True).samples[-1]
    assert np.isnan(np.asarray(spurious.landmarks)).all(axis=1).tolist() == [True] * 17 + [False] * 51
    assert spurious.box.tolist() == box_of(landmarks(68, 6)[17:])
