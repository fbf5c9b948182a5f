"""WFLW and WFLW-68 from lists as they are published: 207 words a face, 197 in the lists of subsets."""

import contextlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipnet_fast.data import DataError, open_data
from pipnet_fast.data.readers.wflw import SUBSETS, parse_line
from pipnet_fast.data.readers.wflw68 import CROP
from pipnet_fast.layouts import wflw98_to_300w68

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"
SUBSET_LISTS = "WFLW_annotations/list_98pt_test"

# Image, flags of pose, expression, illumination, make-up, occlusion, blur. Two faces are in one image.
FACES = [
    ("0--Parade/0_Parade_1.jpg", "100000"),
    ("0--Parade/0_Parade_1.jpg", "000000"),
    ("7--Cheering/7_Cheering_2.jpg", "011011"),
    ("7--Cheering/7_Cheering_3.jpg", "100100"),
]


def landmarks(face: int) -> Any:
    """Some lie outside of the image, some outside of the box."""
    return np.stack((np.arange(98) * 0.5 - 3 + face / 4, np.arange(98) * 0.25 - 1), axis=1)


def box(face: int) -> list[int]:
    return [face, 2, face + 20, 32]


def line(face: int, image: str, flags: str) -> str:
    points = " ".join(f"{value:.6f}" for value in landmarks(face).ravel())
    return f"{points} {' '.join(map(str, box(face)))} {' '.join(flags)} {image}"


def short(full: str) -> str:
    words = full.split()
    return " ".join([*words[:196], words[-1]])


def write_wflw(root: Path, split: str = "test", lines: list[str] | None = None, lists: bool = True) -> list[str]:
    lines = [line(face, *values) for face, values in enumerate(FACES)] if lines is None else lines
    for folder in (LISTS, SUBSET_LISTS) if lists else (LISTS,):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / LISTS / f"list_98pt_rect_attr_{split}.txt").write_text("\n".join(lines) + "\n")
    for number, (image, _) in enumerate(FACES):
        path = root / "WFLW_images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((30, 40 + number, 3), 200, dtype=np.uint8))
    for position, suffix in enumerate(SUBSETS.values() if lists else ()):
        members = [short(line(face, *values)) for face, values in enumerate(FACES) if values[1][position] == "1"]
        (root / SUBSET_LISTS / f"list_98pt_test_{suffix}.txt").write_text("\n".join(reversed(members)) + "\n")
    return lines


@pytest.mark.parametrize("split", ["train", "test"])
def test_faces(split: str, tmp_path: Path) -> None:
    write_wflw(tmp_path, split)
    data = open_data("wflw", tmp_path, split)
    assert (data.name, len(data), data.layout.name, data.norm) == (f"wflw/{split}", 4, "wflw98", "inter_ocular")
    for face, (sample, (image, _)) in enumerate(zip(data.samples, FACES, strict=True)):
        assert sample.landmarks is not None
        # The first pixel is 0, its center 0.5 from the image's edge.
        assert sample.landmarks == pytest.approx(landmarks(face) + 0.5, abs=1e-6)
        assert sample.box.tolist() == [value + 0.5 for value in box(face)]
        assert str(sample.image) == str(tmp_path / "WFLW_images" / image)
    assert data.samples[0].image.read().shape == (30, 41, 3)
    assert data.samples[3].image.read().shape == (30, 43, 3)
    # Grown by a tenth of 20 x 30 on every side.
    assert data.crop_boxes()[0] == pytest.approx([-1.5, -0.5, 22.5, 35.5])


@pytest.mark.parametrize("lists", [True, False], ids=["with lists of subsets", "without"])
def test_subsets(lists: bool, tmp_path: Path) -> None:
    write_wflw(tmp_path, lists=lists)
    data = open_data("wflw", tmp_path, "test")
    members = {name: [data.samples.index(s) for s in data.subset(name).samples] for name in data.subset_names()}
    assert members == {
        "pose": [0, 3],
        "expression": [2],
        "illumination": [2],
        "occlusion": [2],
        "blur": [2],
        "makeup": [3],
    }


def test_lists_of_subsets_may_have_all_207_words(tmp_path: Path) -> None:
    lines = write_wflw(tmp_path)
    (tmp_path / SUBSET_LISTS / "list_98pt_test_blur.txt").write_text(lines[2])
    assert len(open_data("wflw", tmp_path, "test").subset("blur")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            lambda lines: [],
            r"face '-2\.500000 7--.*_2\.jpg' has the flag 1 for blur, against this list",
            id="one less",
        ),
        pytest.param(
            lambda lines: [short(lines[1]), short(lines[2])], r"face '-2\.750000 .*' has the flag 0", id="one more"
        ),
        pytest.param(lambda lines: [short(lines[2])[1:]], "line 1: no such face in the list", id="another face"),
        pytest.param(lambda lines: ["", lines[2][9:]], "line 2: expected 197 words, got 206", id="cut off"),
    ],
)
def test_lists_of_subsets_that_contradict(content: Any, message: str, tmp_path: Path) -> None:
    lines = write_wflw(tmp_path)
    path = tmp_path / SUBSET_LISTS / "list_98pt_test_blur.txt"
    path.write_text("\n".join(content(lines)))
    with pytest.raises(DataError, match=rf"list_98pt_test_blur\.txt.*{message}"):
        open_data("wflw", tmp_path, "test")
    data = open_data("wflw", tmp_path, "test", skip_bad=True)
    assert (len(data), len(data.subset("blur"))) == (4, 1)
    assert [bad.where for bad in data.bad] == [str(path)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda words: words[:-1], "expected 207 words, got 206", id="no image"),
        pytest.param(lambda words: [*words[:196], words[-1]], "expected 207 words, got 197", id="of a subset's list"),
        pytest.param(lambda words: [*words, "x"], "expected 207 words, got 208", id="a space in the name"),
        pytest.param(lambda words: ["1,5", *words[1:]], "expected a number, got '1,5'", id="a comma"),
        pytest.param(lambda words: ["inf", *words[1:]], r"expected a number within .* got 'inf'", id="inf"),
        pytest.param(
            lambda words: [*words[:196], "9", "2", "9", "4", *words[200:]], "expected a box x0 < x1", id="box"
        ),
        pytest.param(lambda words: [*words[:200], "2", *words[201:]], "six flags of 0 or 1, got 2 1 1 0", id="flag 2"),
        pytest.param(
            lambda words: [*words[:-1], "gone.jpg"], r"WFLW_images/gone\.jpg: expected an image", id="no file"
        ),
    ],
)
def test_damaged_lines(change: Any, message: str, tmp_path: Path) -> None:
    lines = [line(face, *values) for face, values in enumerate(FACES)]
    lines[2] = " ".join(change(line(2, FACES[2][0], "011000").split()))
    lines.insert(1, "")
    write_wflw(tmp_path, "train", lines)
    with pytest.raises(DataError, match=message) as raised:
        open_data("wflw", tmp_path, "train")
    where = f"{tmp_path / LISTS}/list_98pt_rect_attr_train.txt, line 4"
    assert str(raised.value).startswith((where, str(tmp_path / "WFLW_images")))
    data = open_data("wflw", tmp_path, "train", skip_bad=True)
    assert [sample.box[0] for sample in data.samples] == [0.5, 1.5, 3.5]
    assert [bad.where for bad in data.bad] == [where]


def test_a_skipped_face_does_not_contradict_the_lists_of_subsets(tmp_path: Path) -> None:
    lines = write_wflw(tmp_path)
    path = tmp_path / LISTS / "list_98pt_rect_attr_test.txt"
    path.write_text("\n".join([*lines[:2], lines[2].replace(" 0 1 1 0 1 1 ", " 0 1 1 0 1 ? "), lines[3]]))
    data = open_data("wflw", tmp_path, "test", skip_bad=True)
    assert [bad.where for bad in data.bad] == [f"{path}, line 3"]


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected a file 'WFLW_annotations/.*_train\.txt' or 'list_98pt_rect_attr_train_test/"
    ):
        open_data("wflw", tmp_path, "train")
    write_wflw(tmp_path, "train")
    (tmp_path / "WFLW_images" / FACES[3][0]).unlink()
    with pytest.raises(DataError, match=r"7_Cheering_3\.jpg: expected an image"):
        open_data("wflw", tmp_path, "train")
    assert len(open_data("wflw", tmp_path, "train", skip_bad=True)) == 3


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    write_wflw(tmp_path, "train")
    (tmp_path / LISTS / "list_98pt_rect_attr_train.txt").write_bytes(b"\xff\xfe\x00junk")
    with pytest.raises(DataError, match=r"attr_train\.txt, line 1: expected UTF-8 text"):
        open_data("wflw", tmp_path, "train", skip_bad=True)


def test_the_validation_part_has_a_fifth_of_the_faces_and_images_of_its_own(tmp_path: Path) -> None:
    images = [f"{i % 37}.jpg" for i in range(100)]
    write_wflw(tmp_path, "train", [line(face, image, "000000") for face, image in enumerate(images)])
    for image in set(images):
        (tmp_path / "WFLW_images" / image).touch()
    parts = {part: open_data("wflw", tmp_path, part) for part in ("train", "subtrain", "val")}
    assert {part: len(data) for part, data in parts.items()} == {"train": 100, "subtrain": 80, "val": 20}
    names = {part: [str(sample.image) for sample in data.samples] for part, data in parts.items()}
    assert not set(names["subtrain"]) & set(names["val"])
    assert sorted(names["subtrain"] + names["val"]) == sorted(names["train"])
    # Never another choice: results on it would not compare.
    held_out = [0, 5, 14, 19, 26, 34, 35, 36, 37, 42, 51, 56, 63, 71, 72, 73, 74, 79, 88, 93]
    assert [sample.box[0] - 0.5 for sample in parts["val"].samples] == held_out


def test_wflw68(tmp_path: Path) -> None:
    write_wflw(tmp_path)
    data = open_data("wflw68", tmp_path, "test")
    assert (data.name, data.layout.name, data.norm) == ("wflw68/test", "300w68", "inter_ocular")
    assert len(data.subset("pose")) == 2
    for face, sample in enumerate(data.samples):
        assert sample.landmarks is not None
        assert sample.landmarks == pytest.approx(wflw98_to_300w68(landmarks(face) + 0.5), abs=1e-6)
    assert data.crop is CROP
    # Of 20 x 30 from (0.5, 2.5): a tenth more on the left, on the right and below, a tenth less above.
    assert data.crop_boxes()[0] == pytest.approx([-1.5, 5.5, 22.5, 35.5])
    symmetric = open_data("wflw", tmp_path, "test").crop_boxes()[0]
    assert data.crop_boxes()[0] - symmetric == pytest.approx([0, 0.2 * 30, 0, 0])


def test_wflw68_with_official_weights(tmp_path: Path) -> None:
    write_wflw(tmp_path)
    exact = open_data("wflw68", tmp_path, "test")
    official = open_data("wflw68", tmp_path, "test", official_weights=True)
    eyelids = [37, 38, 40, 41, 43, 44, 46, 47]
    for sample, pulled, crop_box in zip(exact.samples, official.samples, exact.crop_boxes(), strict=True):
        assert sample.landmarks is not None
        # A thousandth of the way to the corner of the crop.
        expected = sample.landmarks.copy()
        expected[eyelids] -= 0.001 * (expected[eyelids] - crop_box[:2])
        assert pulled.landmarks == pytest.approx(expected, abs=1e-9)


@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"a\.txt, line 7: expected 207 words, got "):
        parse_line(text, "a.txt, line 7")


finite = st.floats(-1e6, 1e6)
words = st.one_of(
    finite.map(repr),
    st.sampled_from(["0", "1", "nan", "-", "1_0", "0x1", "\u0661"]),
    st.text("0123456789.-eE", min_size=1),
)


@given(st.lists(finite, min_size=200, max_size=200), st.lists(st.sampled_from("01"), min_size=6, max_size=6))
def test_every_face_comes_back(numbers: list[float], flags: list[str]) -> None:
    face = parse_line(" ".join([*map(repr, numbers), *flags, "0--Parade/ä_1.jpg"]) + "\r\n", "")
    assert [*face.landmarks.ravel().tolist(), *face.box.tolist()] == numbers
    assert face.subsets == tuple(name for name, flag in zip(SUBSETS, flags, strict=True) if flag == "1")
    assert face.image == "0--Parade/ä_1.jpg"


@given(st.lists(words, min_size=206, max_size=206))
def test_any_206_words_are_a_face_or_a_data_error(numbers: list[str]) -> None:
    with contextlib.suppress(DataError):
        face = parse_line(" ".join([*numbers, "a.jpg"]), "a.txt, line 7")
        assert (face.landmarks.shape, face.box.shape) == ((98, 2), (4,))
