"""MAT files of both versions: the same values as scipy has, and a DataError for whatever is no such file."""

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from pipnet_fast.data import DataError
from pipnet_fast.data.readers._mat5 import read_mat5
from pipnet_fast.data.readers._mat73 import open_mat73
from tests.matlab import write_mat73


def cells(*values: Any) -> Any:
    array = np.empty((len(values), 1), dtype=object)
    for i, value in enumerate(values):
        array[i, 0] = value
    return array


VALUES = {
    "doubles": np.arange(6.0).reshape(2, 3) / 7,
    "bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "negative": np.array([[-24, 300]], dtype=np.int16),
    "logical": np.array([[True, False]]),
    "empty": np.zeros((0, 5)),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_numbers_of_version_5(name: str, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, VALUES, do_compression=compressed)
    (value,) = read_mat5(path, name)
    assert value.shape == VALUES[name].shape
    assert np.array_equal(value, VALUES[name])


@pytest.mark.parametrize("compressed", [False, True])
def test_text_cells_and_structs_of_version_5(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    boxes = cells(
        {"imgName": "image_0001.png", "bb_detector": np.array([[1.5, 2, 3, 4]])},
        {"imgName": "Lefèvre.jpg", "bb_detector": np.array([[5.0, 6, 7, 8]])},
    )
    values = {
        "boxes": boxes,
        "rows": np.array(["ab", "cd"]),
        "none": "",
        "same": cells(np.ones((1, 2)), np.ones((1, 2))),
    }
    scipy.io.savemat(path, values, do_compression=compressed)
    found, rows, none, same = read_mat5(path, "boxes", "rows", "none", "same")
    assert found.shape == (2, 1)
    (first,), (second,) = (found[i, 0].ravel() for i in range(2))
    assert (first["imgName"], second["imgName"]) == ("image_0001.png", "Lefèvre.jpg")
    assert second["bb_detector"].tolist() == [[5, 6, 7, 8]]
    assert (rows, none) == (["ab", "cd"], "")
    assert [cell.tolist() for cell in same[:, 0]] == [[[1, 1]], [[1, 1]]]


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    padding = 0 if kind == 15 else -len(content) % 8
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(padding)


def array(
    kind: int = 6, shape: tuple[int, ...] = (1, 2), parts: bytes | None = None, flags: int = 0, order: str = "<"
) -> bytes:
    """An array "x", of class double, [1.5, -2] unless told otherwise."""
    if parts is None:
        parts = element(9, struct.pack(f"{order}2d", 1.5, -2), order)
    head = element(6, struct.pack(f"{order}II", kind | flags, 0), order)
    head += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    small_name = struct.pack(f"{order}I", 1 << 16 | 1) + b"x\0\0\0"
    return element(14, head + small_name + parts, order)


def mat5(body: bytes, order: str = "<") -> bytes:
    text = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124)
    return text + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI") + body


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_of_bytes(order: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(mat5(array(order=order), order))
    assert read_mat5(path, "x")[0].tolist() == [[1.5, -2]]


def nested(depth: int) -> bytes:
    inner = array()
    for _ in range(depth):
        inner = array(1, (1, 1), inner)
    return inner


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not a MAT file of version 5", id="empty"),
        pytest.param(b"\0" * 200, "not a MAT file of version 5", id="zeros, which scipy takes for version 4"),
        pytest.param(mat5(b"")[:125], "not a MAT file of version 5", id="half a header"),
        pytest.param(b"GIF89a".ljust(126) + b"IM", "not a MAT file of version 5", id="a picture"),
        pytest.param(mat5(b"").replace(b"\x00\x01IM", b"\x00\x02IM"), "got one of version 7.3", id="version 7.3"),
        pytest.param(mat5(b""), r"expected the variable 'x', found \[\]", id="no variables"),
        pytest.param(mat5(array().replace(b"x\0", b"y\0")), r"variable 'x', found \['y'\]", id="another variable"),
        pytest.param(mat5(array()[:-8]), "cut off: an element of 64 bytes", id="cut off in numbers"),
        pytest.param(mat5(array() + b"\x0e\0"), "cut off between elements", id="cut off in a tag"),
        pytest.param(mat5(element(14, array()[8:24])), "without all of its parts", id="only flags"),
        pytest.param(mat5(array(shape=(1, 3))), r"shape \[1, 3\] with 2 values", id="too few numbers"),
        pytest.param(mat5(array(shape=(HUGE, HUGE))), "in 64 bytes", id="absurd shape"),
        pytest.param(mat5(array(1, (HUGE, 1), b"")), "in 40 bytes", id="absurd count of cells"),
        pytest.param(mat5(array(shape=(-1, 2))), "flags .* and shape", id="negative shape"),
        pytest.param(mat5(array(shape=(2,))), "flags .* and shape", id="one axis"),
        pytest.param(mat5(array(shape=(1,) * 33)), "flags .* and shape", id="33 axes"),
        pytest.param(mat5(array(flags=0x800)), "complex numbers in 'x'", id="complex"),
        pytest.param(mat5(array(kind=5)), "an array of class 5", id="sparse"),
        pytest.param(mat5(array(kind=17)), "an array of class 17", id="an object"),
        pytest.param(mat5(array(parts=element(99, bytes(16)))), "stored as type 99", id="unknown storage"),
        pytest.param(mat5(array(parts=element(9, bytes(15)))), "buffer size must be a multiple", id="half a number"),
        pytest.param(mat5(array(4, parts=element(16, b"\xff\xfe"))), "utf-8", id="text that is none"),
        pytest.param(mat5(array(4, parts=element(9, b"ab"))), "text stored as type 9", id="text of doubles"),
        pytest.param(mat5(array(4, parts=element(16, b"abc"))), "with 3 values", id="too much text"),
        pytest.param(mat5(array(2, (1, 1), element(5, bytes(4)) + element(1, b"ab"))), "names of fields", id="struct"),
        pytest.param(
            mat5(array(1, (1, 1), element(9, bytes(8)))), "element of type 9 in a cell", id="no array in a cell"
        ),
        pytest.param(mat5(nested(30)), "of depth 16", id="30 cells in each other"),
        pytest.param(mat5(element(15, b"junk")), "while decompressing", id="compressed junk"),
        pytest.param(mat5(element(15, zlib.compress(array())[:-20])), "cut off", id="cut off while compressed"),
    ],
)
def test_damaged_files_of_version_5(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.mat: .*{message}"):
        read_mat5(path, "x")


@pytest.mark.parametrize("compressed", [False, True])
def test_junk_ends_in_a_message(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"c": cells("0/a.jpg", {"a": 1}), "x": np.arange(4.0)}, do_compression=compressed)
    good, random = path.read_bytes(), np.random.default_rng(0)
    failures = 0
    for trial in range(300):
        bad = bytearray(good[: random.integers(len(good))] if trial % 3 == 0 else good)
        for _ in range(3 if bad else 0):
            bad[random.integers(len(bad))] = random.integers(256)
        path.write_bytes(bad)
        try:
            read_mat5(path, "c", "x")
        except DataError:
            failures += 1
    assert failures > 100


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mat: No such file"):
        read_mat5(tmp_path / "a.mat", "x")
    with pytest.raises(DataError, match=r"a\.mat: no such file"), open_mat73(tmp_path / "a.mat"):
        pass


@pytest.fixture
def mat73(tmp_path: Path) -> Path:
    path = tmp_path / "a.mat"
    write_mat73(path, {"m": np.arange(6.0).reshape(2, 3)}, {"c": [np.zeros((2, 2)), np.ones((1, 3))]})
    return path


def test_version_7_3_has_matlab_axes(mat73: Path) -> None:
    with h5py.File(mat73) as file:
        assert file["m"].shape == (3, 2)
        assert file.userblock_size == 512
    with open_mat73(mat73) as file:
        assert file.numbers("m", 3).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.count_cells("c") == 2


def test_version_7_3_with_other_contents(mat73: Path) -> None:
    with h5py.File(mat73, "r+") as file:
        file["complex"] = np.zeros((3, 2), dtype=complex)
        file["text"] = "abc"
        file.create_dataset("huge", (3, 1 << 40), "f8", chunks=(3, 1024))
        file.create_dataset("square", (2, 2), h5py.ref_dtype)
        file.create_group("group")
    with open_mat73(mat73) as file:
        with pytest.raises(DataError, match=r"expected the variable 'x', found \['c', 'complex', .*'m'"):
            file.numbers("x", 3)
        with pytest.raises(DataError, match=r"a\.mat: m: expected shape \(n, 4\), got \(2, 3\)"):
            file.numbers("m", 4)
        with pytest.raises(DataError, match=r"huge: expected shape \(n, 3\), got \(1099511627776, 3\)"):
            file.numbers("huge", 3)
        with pytest.raises(DataError, match=r"complex: expected numbers of shape \(n, 3\), got complex128"):
            file.numbers("complex", 3)
        with pytest.raises(DataError, match=r"text: expected shape \(n, 3\), got \(\)"):
            file.numbers("text", 3)
        with pytest.raises(DataError, match=r"group: expected an array, got a struct"):
            file.numbers("group", 3)
        with pytest.raises(DataError, match=r"m: expected a cell array, got float64"):
            file.count_cells("m")
        with pytest.raises(DataError, match=r"square: expected n x 1 cells, got shape \(2, 2\)"):
            file.count_cells("square")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda good: good[: len(good) // 2], id="half"),
        pytest.param(lambda good: good[:-1], id="the last byte"),
        pytest.param(lambda good: good[:600], id="within the superblock"),
        pytest.param(lambda good: good[:512], id="the header only"),
        pytest.param(lambda good: b"", id="all"),
        pytest.param(lambda good: bytes(len(good)), id="zeros"),
        pytest.param(lambda good: mat5(array()), id="version 5"),
    ],
)
def test_version_7_3_cut_off_or_none(damage: Any, mat73: Path) -> None:
    mat73.write_bytes(damage(mat73.read_bytes()))
    with pytest.raises(DataError, match=r"a\.mat: not a MAT file of version 7.3 \(HDF5\), or damaged"):  # noqa: SIM117
        with open_mat73(mat73) as file:
            file.numbers("m", 3)


def test_version_7_3_with_damaged_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    matrix = np.random.default_rng(0).random((50, 3))
    write_mat73(path, {"m": matrix}, {})
    with h5py.File(path) as file:
        start = file["m"].id.get_chunk_info(0).byte_offset + 512
    bad = bytearray(path.read_bytes())
    bad[start : start + 16] = bytes(16)
    path.write_bytes(bad)
    with open_mat73(path) as file, pytest.raises(DataError, match=r"a\.mat: .* damaged: OSError"):
        file.numbers("m", 3)


def test_without_h5py(mat73: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    wanted = r"a\.mat: reading a MAT file of version 7.3 needs h5py, .*pip install 'pipnet_fast\[train\]'"
    with pytest.raises(ImportError, match=wanted), open_mat73(mat73):
        pass
