"""Mean shapes by name, from text files and from arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipnet_fast.layouts import Layout, layout_names, load_layout, load_mean_shape

# N, the ranges of x and y, and the centroid of the mean shapes that the official code ships.
SHAPES = {
    "300w68": (68, (0.0556, 0.9425), (0.0725, 0.9521), (0.500, 0.467)),
    "300w68_gssl": (68, (0.1223, 0.8752), (0.1383, 0.8868), (0.499, 0.474)),
    "cofw29": (29, (0.0934, 0.9323), (0.0926, 0.9459), (0.519, 0.359)),
    "wflw98": (98, (0.0796, 0.9125), (0.3036, 0.9147), (0.499, 0.562)),
    "aflw19": (19, (0.2520, 0.7494), (0.2007, 0.9323), (0.501, 0.409)),
    "lapa106": (106, (0.1022, 0.8984), (0.1150, 0.9071), (0.501, 0.438)),
}


def test_names() -> None:
    assert layout_names() == sorted(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_numbers(name: str) -> None:
    count, x_range, y_range, centroid = SHAPES[name]
    points = load_mean_shape(name)
    assert points.dtype == np.float64
    assert points.shape == (count, 2)
    assert (points[:, 0].min(), points[:, 0].max()) == pytest.approx(x_range, abs=1e-4)
    assert (points[:, 1].min(), points[:, 1].max()) == pytest.approx(y_range, abs=1e-4)
    assert tuple(points.mean(axis=0)) == pytest.approx(centroid, abs=1e-3)


@pytest.mark.parametrize("name", SHAPES)
def test_mirroring_the_mean_face_keeps_it(name: str) -> None:
    layout, points = load_layout(name), load_mean_shape(name)
    assert layout.num_landmarks == len(points)
    mirrored = points[layout.flip]
    mirrored[:, 0] = points[:, 0].min() + points[:, 0].max() - mirrored[:, 0]
    # The largest distance of any layout is 0.033 of the crop; two landmarks swapped by mistake are further apart.
    assert abs(mirrored - points).max() < 0.05
    assert layout.outer_eyes is not None
    left, right = layout.outer_eyes
    assert layout.flip[left] == right
    assert points[right, 0] - points[left, 0] > 0.3


def test_an_unknown_layout() -> None:
    with pytest.raises(ValueError, match="layout: expected one of 300w68, .*, got '300w'"):
        load_layout("300w")


@pytest.mark.parametrize(
    ("flip", "eyes", "message"),
    [
        pytest.param([0, 0, 2], None, "flip: expected a permutation of 0..2", id="not a permutation"),
        pytest.param([1, 2, 0], None, "its own inverse", id="not an involution"),
        pytest.param([], None, r"flip: expected N >= 1 integers, got float64 \(0,\)", id="empty"),
        pytest.param([0.0, 1.0], None, "integers, got float64", id="not integers"),
        pytest.param([1, 0], (0, 2), r"outer_eyes: expected two landmarks of 0..1, got \(0, 2\)", id="no such eye"),
        pytest.param([1, 0], (1, 1), r"outer_eyes: .* got \(1, 1\)", id="one eye twice"),
    ],
)
def test_layouts_that_are_none(flip: list[int], eyes: tuple[int, int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout("mine", np.array(flip), eyes)


def test_a_call_gives_an_array_of_its_own() -> None:
    load_mean_shape("aflw19")[:] = 7
    assert load_mean_shape("aflw19").max() < 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("0.25 0.5 0.75 1.0", id="official, one line without a newline"),
        pytest.param("0.25 0.5\n0.75 1.0\n", id="one landmark a line"),
        pytest.param(" 2.5e-1\t.5 0.75  1 \r\n", id="other white space and notations"),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_text_file(text: str, kind: type, tmp_path: Path) -> None:
    file = tmp_path / "meanface.txt"
    file.write_text(text)
    assert load_mean_shape(kind(file)).tolist() == [[0.25, 0.5], [0.75, 1.0]]


def test_official_text_round_trip(tmp_path: Path) -> None:
    points = load_mean_shape("lapa106")
    file = tmp_path / "meanface.txt"
    file.write_text(" ".join(map(str, points.ravel().tolist())))
    assert np.array_equal(load_mean_shape(file), points)


def test_a_path_is_not_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("aflw19").write_text("1 2")
    assert load_mean_shape(Path("aflw19")).tolist() == [[1, 2]]
    assert load_mean_shape("aflw19").shape == (19, 2)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([[1, 2], [3, 4], [5, 6]], id="list"),
        pytest.param(((1, 2), (3, 4), (5, 6)), id="tuple"),
        pytest.param(np.array([[1, 2], [3, 4], [5, 6]], dtype=np.int64), id="integers"),
        pytest.param(np.array([[1, 3, 5], [2, 4, 6]], dtype=np.float32).T, id="float32, transposed"),
        pytest.param(torch.tensor([[1.0, 2], [3, 4], [5, 6]]), id="tensor"),
        pytest.param(torch.tensor([[1.0, 2], [3, 4], [5, 6]], requires_grad=True), id="tensor with gradient"),
        pytest.param(torch.tensor([[1.0, 2], [3, 4], [5, 6]], dtype=torch.float16), id="half-precision tensor"),
    ],
)
def test_arrays(value: Any) -> None:
    points = load_mean_shape(value)
    assert points.dtype == np.float64
    assert points.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_one_landmark() -> None:
    assert load_mean_shape([[3, 4]]).tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("wflw", "expected one of 300w68, .*wflw98, a file or .* got 'wflw'", id="unknown name"),
        pytest.param("", "expected one of 300w68", id="empty name"),
        pytest.param(Path("no/such.txt"), "got 'no/such.txt'", id="missing file"),
        pytest.param([], r"expected shape \(N, 2\) with N >= 1, got \(0,\)", id="empty list"),
        pytest.param(np.zeros((0, 2)), r"with N >= 1, got \(0, 2\)", id="no landmarks"),
        pytest.param(np.zeros((2, 3)), r"got \(2, 3\)", id="three columns"),
        pytest.param(np.zeros(10), r"got \(10,\)", id="flat"),
        pytest.param(np.zeros((1, 5, 2)), r"got \(1, 5, 2\)", id="batched"),
        pytest.param([[0, 0], [1, float("nan")]], r"finite coordinates, got \[1.0, nan\] at landmark 1", id="nan"),
        pytest.param([[float("-inf"), 0]], r"finite coordinates, got \[-inf, 0.0\] at landmark 0", id="infinity"),
        pytest.param([["a", "b"]], r"expected numbers of shape \(N, 2\), got list", id="words"),
        pytest.param([[1, 2], [3]], "expected numbers", id="ragged"),
        pytest.param(None, "mean_shape: expected", id="none"),
        pytest.param({"x": 1}, "expected numbers .* got dict", id="dict"),
    ],
)
def test_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_mean_shape(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"0.1 0.2 0.3", "an even count of numbers .* got 3", id="odd count"),
        pytest.param(b"0.1 0.2 x 0.4", "is not a list of numbers: .*'x'", id="not numbers"),
        pytest.param(b"0.1,0.2", "is not a list of numbers", id="commas"),
        pytest.param(b"\xff\xfe\x00\x01", "is not a list of numbers", id="binary"),
        pytest.param(b"0.1 nan", r"finite coordinates, got \[0.1, nan\] at landmark 0", id="nan"),
        pytest.param(b"", r"with N >= 1, got \(0, 2\)", id="empty"),
    ],
)
def test_refused_text(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "meanface.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_mean_shape(file)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of 300w68"):
        load_mean_shape(tmp_path)
