"""COFW and COFW-68 in their true formats, images within a MAT file, and predictions that were published."""

import os
import pickle
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from torch.utils.data import DataLoader, Dataset

from pipnet_fast.data import DataError, HDF5Image, open_data
from pipnet_fast.data.predictions import read_cofw68_predictions
from pipnet_fast.pipeline.images import ImageError
from tests.matlab import write_mat73


def pictures(count: int) -> list[Any]:
    """Of different sizes, the second one gray."""
    random = np.random.default_rng(7)
    return [random.integers(0, 256, (20 + i, 30) if i == 1 else (20 + i, 30, 3), dtype=np.uint8) for i in range(count)]


def write_cofw(folder: Path, split: str, count: int = 3, name: str = "COFW_{}_color.mat", **changed: Any) -> list[Any]:
    """Landmark i of face f is at (10 f + i, 100 f + i), its box x y w h = f + 1, 2, 11, 21; returns the images."""
    images = pictures(count)
    face, landmark = np.arange(count)[:, None], np.arange(29)[None]
    phis = np.concatenate((10 * face + landmark, 100 * face + landmark, landmark % 2 + 0 * face), axis=1)
    boxes = np.stack([(f + 1.0, 2.0, 11.0, 21.0) for f in range(count)])
    end = {"train": "Tr", "test": "T"}[split]
    matrices = {f"phis{end}": phis.astype(np.float64), f"bboxes{end}": boxes, **changed}
    path = folder / name.format(split)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mat73(path, {k: v for k, v in matrices.items() if v is not None}, {f"Is{end}": images})
    return images


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["COFW_{}_color.mat", "common/xpburgos/behavior/code/pose/COFW_{}.mat"])
def test_cofw(split: str, name: str, tmp_path: Path) -> None:
    images = write_cofw(tmp_path, split, name=name)
    data = open_data("cofw", tmp_path, split)
    assert (data.name, len(data), data.layout.name, data.norm) == (f"cofw/{split}", 3, "cofw29", "inter_ocular")
    for f, (sample, image) in enumerate(zip(data.samples, images, strict=True)):
        assert sample.landmarks is not None
        # The first pixel is 1, its center 0.5 from the image's edge.
        assert np.array_equal(sample.landmarks, np.stack((10 * f + np.arange(29), 100 * f + np.arange(29)), 1) - 0.5)
        assert sample.box.tolist() == [f + 0.5, 1.5, f + 10.5, 21.5]
        rgb = sample.image.read()
        assert rgb.dtype == np.uint8
        assert rgb.flags.c_contiguous
        assert np.array_equal(rgb, image if image.ndim == 3 else np.repeat(image[:, :, None], 3, 2))
    assert np.array_equal(data.crop_boxes(), [sample.box for sample in data.samples])


def test_the_color_release_comes_first(tmp_path: Path) -> None:
    write_cofw(tmp_path, "test", 1, name="COFW_{}.mat")
    write_cofw(tmp_path, "test", 2)
    assert len(open_data("cofw", tmp_path, "test")) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"phisT": None}, "expected the variable 'phisT', found", id="no labels"),
        pytest.param({"phisT": np.ones((3, 86))}, r"phisT: expected shape \(n, 87\), got \(3, 86\)", id="86 columns"),
        pytest.param({"bboxesT": np.ones((4, 4))}, "got 3 labels, 4 boxes and 3 images", id="four boxes"),
        pytest.param({"bboxesT": np.ones((3, 4))}, r"IsT\{1\}: expected a box x0 < x1", id="boxes of one pixel"),
        pytest.param({"phisT": np.full((3, 87), np.nan)}, r"IsT\{1\}: .* got \[nan, nan\] at landmark 0", id="nan"),
    ],
)
def test_cofw_with_other_contents(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_cofw(tmp_path, "test", **changed)
    with pytest.raises(DataError, match=rf"COFW_test_color\.mat: .*{message}"):
        open_data("cofw", tmp_path, "test")


def test_bad_faces_of_cofw_are_left_out_and_listed(tmp_path: Path) -> None:
    boxes = np.array([[1.0, 2, 11, 21], [1, 2, 0, 21], [1, np.inf, 11, 21]])
    images = write_cofw(tmp_path, "test", bboxesT=boxes)
    data = open_data("cofw", tmp_path, "test", skip_bad=True)
    assert len(data) == 1
    assert np.array_equal(data.samples[0].image.read(), images[0])
    path = tmp_path / "COFW_test_color.mat"
    assert [bad.where for bad in data.bad] == [f"{path}: IsT{{2}}", f"{path}: IsT{{3}}"]


def test_cofw_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a file 'COFW_test_color\.mat' or 'COFW_test\.mat' or .*found none"):
        open_data("cofw", tmp_path, "test")


class Images(Dataset[Any]):
    """What a loader's workers do with samples."""

    def __init__(self, images: Sequence[HDF5Image]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        return os.getpid(), torch.from_numpy(self.images[index].read())


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
# Python 3.12 and later say so of every fork beside other threads.
fork_beside_threads = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@needs_fork
@fork_beside_threads
def test_images_are_read_by_several_processes(tmp_path: Path) -> None:
    written = write_cofw(tmp_path, "test", 8)
    images = [HDF5Image(tmp_path / "COFW_test_color.mat", "IsT", index) for index in range(8)]
    images[0].read()  # this process has the file open when the workers are forked
    loader = DataLoader(Images(images), batch_size=None, num_workers=2, multiprocessing_context="fork")
    processes = set()
    for _ in range(2):
        for (process, pixels), image in zip(loader, written, strict=True):
            processes.add(process)
            assert np.array_equal(pixels, image if image.ndim == 3 else np.repeat(image[:, :, None], 3, 2))
    assert len(processes) == 4
    assert os.getpid() not in processes
    assert images[7].read().shape == (27, 30, 3)


@needs_fork
@fork_beside_threads
def test_a_fork_amid_reading_does_not_hang(tmp_path: Path) -> None:
    write_cofw(tmp_path, "test")
    image, stop = HDF5Image(tmp_path / "COFW_test_color.mat", "IsT", 0), threading.Event()

    def read_on() -> None:
        while not stop.is_set():
            image.read()

    thread = threading.Thread(target=read_on)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # ends a child that hangs
                os._exit(0 if image.read().shape == (20, 30, 3) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def test_an_image_is_small_and_says_where_it_is(tmp_path: Path) -> None:
    write_cofw(tmp_path, "test")
    image = open_data("cofw", tmp_path, "test").samples[1].image
    image.read()
    assert pickle.loads(pickle.dumps(image)) == image
    assert len(pickle.dumps(image)) < 500
    assert str(image) == f"{tmp_path / 'COFW_test_color.mat'}: IsT{{2}}"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        pytest.param(np.zeros((4, 5)), r"of uint8, got float64 \(4, 5\)", id="doubles"),
        pytest.param(np.zeros((4, 5, 4), np.uint8), r"got uint8 \(4, 5, 4\)", id="four channels"),
        pytest.param(np.zeros((4, 5, 3, 2), np.uint8), r"got uint8 \(4, 5, 3, 2\)", id="four axes"),
        pytest.param(np.zeros(4, np.uint8), r"got uint8 \(4,\)", id="one axis"),
    ],
)
def test_cells_that_are_no_image(cell: Any, message: str, tmp_path: Path) -> None:
    write_mat73(tmp_path / "a.mat", {}, {"IsT": [cell]})
    with pytest.raises(ImageError, match=rf"a\.mat: IsT\{{1\}}: .*{message}"):
        HDF5Image(tmp_path / "a.mat", "IsT", 0).read()


def test_an_image_of_absurd_size_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        huge = file.create_dataset("huge", (1 << 20, 1 << 20), "u1", chunks=(1024, 1024))
        empty = file.create_dataset("none", (0, 5), "u1")
        file.create_dataset("IsT", (3, 1), h5py.ref_dtype)[:2, 0] = [huge.ref, empty.ref]
    for index, message in enumerate(["expected 1 to", r"expected 1 to .* got 5 x 0", "(?i)reference"]):
        with pytest.raises(ImageError, match=message):
            HDF5Image(path, "IsT", index).read()


@pytest.mark.parametrize(
    ("path", "variable", "index"),
    [
        pytest.param("b.mat", "IsT", 0, id="no such file"),
        pytest.param("a.mat", "IsTr", 0, id="no such variable"),
        pytest.param("a.mat", "IsT", 3, id="no such cell"),
        pytest.param("junk.mat", "IsT", 0, id="no HDF5"),
    ],
)
def test_images_that_are_not_there(path: str, variable: str, index: int, tmp_path: Path) -> None:
    write_mat73(tmp_path / "a.mat", {}, {"IsT": pictures(3)})
    (tmp_path / "junk.mat").write_bytes(b"junk" * 500)
    with pytest.raises(ImageError, match=rf"{path}: {variable}\{{{index + 1}\}}: "):
        HDF5Image(tmp_path / path, variable, index).read()


def test_images_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py, .*pip install 'pipnet_fast\[train\]'"):
        HDF5Image(tmp_path / "a.mat", "IsT", 0).read()


def points68(face: int) -> Any:
    return np.stack((np.arange(68.0) + face - 20, 3 * np.arange(68.0)), axis=1)


def write_cofw68(folder: Path, count: int = 3, **changed: Any) -> None:
    (folder / "test_annotations").mkdir(parents=True)
    boxes = changed.get("boxes", np.array([(f - 24, 9, 101, 51) for f in range(count)], dtype=np.int16))
    scipy.io.savemat(folder / "cofw68_test_bboxes.mat", {"bboxes": boxes}, do_compression=True)
    for f in range(count):
        values = {"Points": points68(f), "Occ": np.zeros((1, 68), np.uint8)}
        scipy.io.savemat(folder / f"test_annotations/{f + 1}_points.mat", values, do_compression=True)


@pytest.mark.parametrize("beside", [True, False], ids=["one folder", "COFW elsewhere"])
def test_cofw68(beside: bool, tmp_path: Path) -> None:
    root = tmp_path / "benchmark"
    write_cofw68(root / "COFW68_Data" if beside else root)
    if not beside:
        (root / "test_annotations").rename(root / "cofw68_test_annotations")
    images = write_cofw(root if beside else tmp_path / "cofw", "test")
    data = open_data("cofw68", root, "test", **({} if beside else {"cofw": tmp_path / "cofw"}))
    assert (data.name, data.layout.name, data.norm) == ("cofw68/test", "300w68", "inter_ocular")
    for f, sample in enumerate(data.samples):
        assert sample.landmarks is not None
        assert np.array_equal(sample.landmarks, points68(f) - 0.5)
        assert sample.box.tolist() == [f - 24.5, 8.5, f + 75.5, 58.5]
    assert np.array_equal(data.samples[2].image.read(), images[2])
    # Grown by 0.15 of 100 x 50 on every side.
    assert data.crop_boxes()[0] == pytest.approx([-24.5 - 15, 8.5 - 7.5, 75.5 + 15, 58.5 + 7.5])


def test_training_images_of_cofw68_have_no_labels(tmp_path: Path) -> None:
    images = write_cofw(tmp_path, "train")
    data = open_data("cofw68", tmp_path, "train")
    assert [sample.landmarks for sample in data.samples] == [None] * 3
    assert data.samples[1].box.tolist() == [1.5, 1.5, 11.5, 21.5]
    assert data.crop_boxes()[1] == pytest.approx([0, -1.5, 13, 24.5])
    assert np.array_equal(data.samples[0].image.read(), images[0])


def test_damaged_files_of_cofw68(tmp_path: Path) -> None:
    write_cofw(tmp_path, "test", 5)
    write_cofw68(tmp_path, 5)
    (tmp_path / "test_annotations/2_points.mat").unlink()
    scipy.io.savemat(tmp_path / "test_annotations/3_points.mat", {"Points": np.zeros((67, 2))})
    path = tmp_path / "test_annotations/4_points.mat"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"2_points\.mat: No such file"):
        open_data("cofw68", tmp_path, "test")
    data = open_data("cofw68", tmp_path, "test", skip_bad=True)
    assert [str(sample.image)[-6:] for sample in data.samples] == ["IsT{1}", "IsT{5}"]
    missing, other_shape, cut_off = (bad.reason for bad in data.bad)
    assert "2_points.mat: No such file" in missing
    assert "3_points.mat: Points: expected shape (68, 2), got (67, 2)" in other_shape
    assert "4_points.mat: damaged MAT file" in cut_off


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        pytest.param(np.ones((2, 4)), r"bboxes: expected one for each of the 3 images, got 2", id="two boxes"),
        pytest.param(np.ones((3, 5)), r"bboxes: expected shape \(n, 4\), got \(3, 5\)", id="five columns"),
        pytest.param("text", r"bboxes: expected numbers of shape \(n, 4\), got str", id="text"),
    ],
)
def test_boxes_of_cofw68_that_are_none(boxes: Any, message: str, tmp_path: Path) -> None:
    write_cofw(tmp_path, "test")
    write_cofw68(tmp_path, boxes=boxes)
    with pytest.raises(DataError, match=message):
        open_data("cofw68", tmp_path, "test")


def lines_of(faces: dict[str, Any]) -> list[str]:
    lines = []
    for number, points in faces.items():
        x, y = (" ".join(f"{value:.3f}" for value in column) + " " for column in points.T)
        lines += [f"{number} ", x, y, "0 " * 68]
    return lines


def test_predictions_are_put_into_the_order_of_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "method.txt"
    file.write_text("\r\n".join(lines_of({"2": points68(2), "3": points68(3), "1": points68(1)})) + "\r\n\r\n")
    predictions = read_cofw68_predictions(str(file))
    assert np.array_equal(predictions, np.stack([points68(f) for f in (1, 2, 3)]) - 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda lines: [], "expected four lines a face, got 0 lines", id="empty"),
        pytest.param(lambda lines: lines[:-1], "expected four lines a face, got 7 lines", id="cut off"),
        pytest.param(lambda lines: [*lines[:4], "1", *lines[5:]], "line 5: .* 1..2 .* got 1", id="a face twice"),
        pytest.param(lambda lines: ["3", *lines[1:]], "line 1: expected a number of 1..2 .* got 3", id="number 3 of 2"),
        pytest.param(lambda lines: ["1.5", *lines[1:]], "line 1: .* got 1.5", id="number 1.5"),
        pytest.param(lambda lines: ["1", "2 3", *lines[2:]], "line 2: expected 68 numbers, got 2", id="two x"),
        pytest.param(
            lambda lines: [*lines[:2], "nan " * 68, *lines[3:]],
            "line 3: expected a number within .* got 'nan'",
            id="nan",
        ),
        pytest.param(lambda lines: ["a.jpg", *lines[1:]], "line 1: expected a number, got 'a.jpg'", id="a name"),
    ],
)
def test_predictions_that_are_none(change: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "method.txt"
    file.write_text("\n".join(change(lines_of({"1": points68(1), "2": points68(2)}))))
    with pytest.raises(DataError, match=rf"method\.txt.*{message}"):
        read_cofw68_predictions(file)


BENCHMARK = Path(os.environ.get("PIPNET_COFW68", "/nonexistent"))


@pytest.mark.skipif(not (BENCHMARK / "Results").is_dir(), reason="PIPNET_COFW68 is not the repository cofw68-benchmark")
@pytest.mark.parametrize(
    ("method", "nme"),
    [
        ("SAPM_COFW68", 6.64),
        ("TCDCN_CFOW68", 7.66),
        ("CFSS_CFOW68", 6.28),
        ("HPM_HelenLfpw_COFW68test", 6.72),
        ("RCPR-occ_300w", 8.76),
    ],
)
def test_published_predictions_have_their_published_errors(method: str, nme: float, tmp_path: Path) -> None:
    # The labels are in the public repository, the images are not.
    shutil.copytree(BENCHMARK / "COFW68_Data", tmp_path / "COFW68_Data")
    numbers = {"phisT": np.zeros((507, 87)), "bboxesT": np.zeros((507, 4))}
    write_mat73(tmp_path / "COFW_test_color.mat", numbers, {"IsT": [np.zeros((1, 1), np.uint8)] * 507})
    data = open_data("cofw68", tmp_path, "test")
    labels = np.stack([np.asarray(sample.landmarks) for sample in data.samples])
    predictions = read_cofw68_predictions(BENCHMARK / f"Results/{method}.txt")
    errors = np.linalg.norm(predictions - labels, axis=2).mean(axis=1)
    left, right = data.layout.outer_eyes or (0, 0)
    between_eyes = np.linalg.norm(labels[:, left] - labels[:, right], axis=1)
    assert 100 * (errors / between_eyes).mean() == pytest.approx(nme, abs=0.005)
