"""The readers: good files of each, how one is read and its answer checked, and which errors are documented."""

import contextlib
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io
import torch
from PIL import Image

import pipnet_fast as pf
from pipnet_fast.data import DataError, open_data
from pipnet_fast.data.readers._mat5 import read_mat5
from pipnet_fast.data.readers._pts import read_pts
from pipnet_fast.engines.plan_file import HEADER
from pipnet_fast.layouts import load_mean_shape
from pipnet_fast.pipeline.image_size import image_size
from pipnet_fast.pipeline.images import ImageError, decode_rgb
from pipnet_fast.train.checkpoint import read_checkpoint, write_checkpoint
from tests.inputs import randomized
from tests.miniature import landmarks, pts_text, write_image
from tests.training import write_faces

MEAN_SHAPE = np.random.RandomState(0).rand(5, 2)
FLIP = [1, 0, 2, 4, 3]
# Damaged headers may ask for so much at most, so that no file takes long.
MOST_PIXELS = 1 << 22


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        file: its name, in a folder that has nothing else at first.
        good: makes good files, each of another variant of the format, and what else they need beside them.
        read: reads the file at a path, and asserts that what comes of it can be.
        refuses: the documented errors.
    """

    file: str
    good: Callable[[Path], list[bytes]]
    read: Callable[[Path], None]
    refuses: type[Exception]


def _images(folder: Path) -> list[bytes]:
    y, x = np.mgrid[:48, :64]
    photo = np.stack((x * 4, y * 5, 255 - x * 2 - y), axis=2).astype(np.uint8)
    files = [cv2.imencode(s, photo)[1].tobytes() for s in (".bmp", ".jpg", ".png", ".ppm", ".tif", ".webp", ".jp2")]
    turned = Image.Exif()
    turned[0x0112] = 6
    several: dict[str, Any] = {"save_all": True, "append_images": [Image.fromarray(photo[::-1])]}
    for options in (
        {"format": "JPEG", "progressive": True, "exif": turned},
        {"format": "GIF", **several},
        {"format": "PNG", **several},
        {"format": "WEBP", **several},
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "AVIF"},
    ):
        file = io.BytesIO()
        Image.fromarray(photo).save(file, **options)
        files.append(file.getvalue())
    return files


def _read_image(path: Path) -> None:
    data = path.read_bytes()
    image, size = decode_rgb(data, path.name, MOST_PIXELS), image_size(data)
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)
    assert size is not None
    # What a header says beyond that is no harm.
    assert 1 <= image.shape[0] * image.shape[1] <= size[0] * size[1], (image.shape, size)


def _model(**options: Any) -> pf.PIPNet:
    return randomized(**{"num_landmarks": 5, "num_neighbors": 2, "width": 0.0625, "input_size": 64, **options})


def _checkpoints(folder: Path) -> list[bytes]:
    state = _model().state_dict()
    files = []
    for content, zipped in ((state, True), ({"state_dict": state}, True), (state, False)):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        files.append(file.getvalue())
    return files


def _models(folder: Path) -> list[bytes]:
    files = []
    for model in (_model(mean_shape=MEAN_SHAPE), _model(), pf.CoordNet("resnet18", 5, 64, width=0.0625)):
        pf.save(model, folder / "model")
        files.append((folder / "model").read_bytes())
    return files


def _check_model(model: Any) -> None:
    assert not model.training
    assert 1 <= model.config.num_landmarks <= 4096
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def _runs(folder: Path) -> list[bytes]:
    write_checkpoint(folder / "run", {"epoch": 3, "model": _model().state_dict(), "random": [1, 2.5, "a"]})
    return [(folder / "run").read_bytes()]


def _read_run(path: Path) -> None:
    assert isinstance(read_checkpoint(path), dict)


def _plans(folder: Path) -> list[bytes]:
    files = []
    for storage in ("float32", "int8"):
        pf.save_plan(_model(mean_shape=MEAN_SHAPE).eval(), folder / "plan", head_storage=storage)  # type: ignore[arg-type]
        files.append((folder / "plan").read_bytes())
    return files


def _read_plan(path: Path) -> None:
    """A file whose size and checksum were made to fit; as it is they give it away."""
    data = path.read_bytes()
    with contextlib.suppress(ValueError):
        _check_plan(data)
    if len(data) >= HEADER.size:
        data = data[:16] + struct.pack("<Q", len(data)) + data[24:]
        data = data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]
    _check_plan(data)


def _check_plan(data: bytes) -> None:
    from pipnet_fast import _C

    array = np.frombuffer(data, np.uint8)
    plan = _C.Plan(array.ctypes.data, array.size)
    assert 32 <= plan.input_size <= 4096
    assert 0 <= plan.landmarks <= 4096


def _tables(folder: Path) -> list[bytes]:
    write_faces(folder, "made", 3)
    text = (folder / "made.csv").read_text()
    (folder / "made.csv").unlink()
    header, *rows = text.splitlines()
    boxes = [f"{row},{index},2.5,60,61,blur dark" for index, row in enumerate(rows)]
    more = "\n".join([f"{header},box_x0,box_y0,box_x1,box_y1,subset", *boxes])
    return [text.encode(), more.encode(), text.replace(",", ";").encode(), text.replace("\n", "\r\n").encode()]


def _lists(folder: Path) -> list[bytes]:
    for name in ("a.jpg", "b.jpg"):
        write_image(folder / "images" / name)
    points = landmarks(5).tolist()
    faces: list[dict[str, Any]] = [
        {"file": "a.jpg", "landmarks": points, "subsets": ["blur"]},
        {"file": "b.jpg", "landmarks": [None, *points[1:]]},
    ]
    boxes = [{**face, "box": [index, 2, 60, 61.5]} for index, face in enumerate(faces)]
    return [json.dumps(faces).encode(), json.dumps(boxes, indent=1).encode()]


def _read_table(path: Path) -> None:
    # What single faces lack may only leave them out.
    data = open_data("table", path.parent, "train", flip=FLIP, skip_bad=True)
    assert all(isinstance(bad.reason, str) for bad in data.bad)
    for sample in data.samples:
        assert Path(str(sample.image)).is_file()
        assert sample.box.shape == (4,)
        if sample.landmarks is not None:
            assert sample.landmarks.shape == (5, 2)
            assert np.nanmax(np.abs(sample.landmarks)) <= 1e6 + 1
    open_data("table", path.parent, "train", flip=FLIP)


def _read_pts(path: Path) -> None:
    points = read_pts(path, (3, 5))
    assert points.shape in ((3, 2), (5, 2))
    assert np.abs(points).max() <= 1e6 + 1


def _read_mean_shape(path: Path) -> None:
    points = load_mean_shape(path)
    assert points.shape == (len(points), 2)
    assert np.isfinite(points).all()


def _matrices(folder: Path) -> list[bytes]:
    files = []
    for compressed in (False, True):
        boxes = {"bb": np.arange(4.0)[None], "name": "a.jpg"}
        scipy.io.savemat(folder / "mat", {"boxes": boxes, "x": np.arange(6, dtype=np.int16)}, do_compression=compressed)
        files.append((folder / "mat").read_bytes())
    return files


def _read_checkpoint(path: Path) -> None:
    _check_model(pf.load_official(path, MEAN_SHAPE))


def _read_model(path: Path) -> None:
    _check_model(pf.load(path))


TARGETS = {
    "image": Target("photo", _images, _read_image, ImageError),
    "checkpoint": Target("model.pth", _checkpoints, _read_checkpoint, ValueError),
    "safetensors": Target("model.safetensors", _models, _read_model, ValueError),
    "run": Target("last.pt", _runs, _read_run, ValueError),
    "plan": Target("model.plan", _plans, _read_plan, ValueError),
    "csv": Target("train.csv", _tables, _read_table, DataError),
    "json": Target("train.json", _lists, _read_table, DataError),
    "pts": Target("a.pts", lambda folder: [pts_text(landmarks(n)).encode() for n in (3, 5)], _read_pts, DataError),
    "meanshape": Target(
        "mean.txt", lambda folder: [" ".join(map(str, landmarks(5).ravel())).encode()], _read_mean_shape, ValueError
    ),
    "mat": Target("a.mat", _matrices, lambda p: read_mat5(p, "boxes", "x"), DataError),
}
