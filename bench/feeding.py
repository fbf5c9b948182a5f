"""Training samples per second and core: our loader, decoding and normalizing included, against the official steps.

The rival reads crops of 256x256 that were stored as JPEG; ours reads the images themselves, and, to compare on equal
files, the same stored crops. All run in one process on one thread, as a worker process would, and what counts is the
time that the core works for them, whoever else wants it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import pipnet_fast as pf
from bench.dense_loss import dense_targets
from bench.faces import labelled_faces
from bench.record import Record, device_name, installed, measured, versions
from bench.rivals.official_data import OfficialData
from bench.timing import interleaved
from bench.train import keep_freed_memory
from pipnet_fast.crop import CropRule, warp
from pipnet_fast.data import FaceData, ImageFile, Sample
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.pipeline.images import normalize

SIZE, BATCH, NEIGHBORS, STRIDE = 256, 16, 10, 32
RIVAL = "official steps"
CACHE_MB = 2000
# Of normalized pixels: two JPEG decoders differ by a few of 255 levels.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Faces:
    """The same faces in images and as stored crops, and the labels of the latter."""

    images: FaceData
    crops: FaceData
    points_frac: npt.NDArray[np.float64]

    @property
    def files(self) -> list[Path]:
        """Of the crops."""
        return [Path(str(sample.image)) for sample in self.crops.samples]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and images/")
    parser.add_argument("--faces", type=int, default=800, help="how many of them (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Time for a batch, samples per second, and the ratio to the official steps in paired rounds."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        faces = store_crops(arguments.data, arguments.faces, Path(folder))
        official = partial(official_data, faces)
        check(official(augment=False), faces)
        calls = {
            RIVAL: _rival(official()),
            f"{RIVAL}, no target maps": _rival(official(targets=False)),
            "CropLoader, images": _ours(faces.images),
            "CropLoader, stored crops": _ours(faces.crops),
            "CropLoader, images, cached": _ours(faces.images, cache_mb=CACHE_MB),
        }
        times = interleaved(calls, arguments.rounds, "cpu", inner=4, clock=time.process_time)
    shape = f"B={BATCH} {SIZE}x{SIZE} N={faces.points_frac.shape[1]} K={NEIGHBORS}"
    common: dict[str, Any] = {"case": "feeding", "device": device_name("cpu"), "threads": 1, "dtype": "float32"}
    common |= {"shape": shape, "versions": {**versions(), **installed("opencv-python-headless", "pillow")}}
    records = []
    for name, values in times.items():
        shared = {**common, "subject": name}
        ratios = [rival / own for rival, own in zip(times[RIVAL], values, strict=True)]
        records.append(measured(shared, "batch", "ms", values))
        records.append(measured(shared, "samples per second", "1/s", [BATCH * 1e3 / value for value in values]))
        records.append(measured(shared, f"speed-up over {RIVAL}", "x", ratios))
    return records


def store_crops(data: Path, count: int, folder: Path) -> Faces:
    """Faces of train.csv, evenly over it, and their crops by the paper's rule as JPEG files in ``folder``."""
    everyone = labelled_faces(data / "train.csv").with_tight_boxes(CropRule(1.3))
    images = replace(everyone, samples=everyone.samples[:: max(1, len(everyone) // count)][:count])
    affines = images.crop.affine(images.crop_boxes(), SIZE)
    points_px = images.crop.to_crop(np.array([sample.landmarks for sample in images.samples]), affines, SIZE) * SIZE
    crops = []
    for number, (sample, affine) in enumerate(zip(images.samples, affines, strict=True)):
        path = folder / f"{number}.jpg"
        crop = warp(sample.image.read(), affine, SIZE)
        path.write_bytes(cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))[1].tobytes())
        crops.append(Sample(ImageFile(path), points_px[number], np.array([0.0, 0.0, SIZE, SIZE])))
    stored = FaceData("ytf68/crops", images.layout, crops, CropRule(1.0))
    return Faces(images, stored, points_px / SIZE)


def official_data(faces: Faces, **steps: bool) -> OfficialData:
    """The rival on the stored crops."""
    layout = faces.crops.layout
    neighbors = pf.neighbor_table(layout.name, NEIGHBORS).neighbors.tolist()
    return OfficialData(faces.files, faces.points_frac, layout.flip, neighbors, stride=STRIDE, **steps)


def check(official: OfficialData, faces: Faces) -> None:
    """Refuse to time sides that do not give the same pixels and labels where nothing is augmented."""
    ours = next(iter(CropLoader(faces.crops, faces.crops.crop, SIZE, BATCH, augmentation=None, shuffle=False)))
    pixels, *maps = official.batch(range(len(ours.index)))
    worst = float((pixels - normalize(ours.crops)).abs().max())
    if not worst < TOLERANCE:
        raise RuntimeError(f"normalized pixels differ by {worst}: not timed")
    neighbors = torch.tensor(official.neighbors)
    labels = torch.from_numpy(faces.points_frac[: len(pixels)])
    torch.testing.assert_close(ours.points_frac, labels.float())
    expected = dense_targets(labels, neighbors, (SIZE // STRIDE, SIZE // STRIDE))
    for got, wanted in zip(maps, expected, strict=True):
        if not torch.allclose(got, wanted.float(), atol=1e-4):
            raise RuntimeError("target maps differ from those of the labels: not timed")


def _rival(official: OfficialData) -> Callable[[], list[Tensor]]:
    batches = _endless(len(official.files))
    return lambda: official.batch(next(batches))


def _endless(count: int) -> Iterator[Sequence[int]]:
    random = np.random.default_rng(0)
    while True:
        order = random.permutation(count)
        yield from (order[start : start + BATCH].tolist() for start in range(0, count - BATCH + 1, BATCH))


def _ours(data: FaceData, cache_mb: int = 0) -> Callable[[], Tensor]:
    """Batches as the network takes them; the cache is filled beforehand."""
    loader = CropLoader(
        data, data.crop, SIZE, BATCH, augmentation=Augmentation(), shuffle=True, drop_last=True, cache_mb=cache_mb
    )
    if cache_mb:
        for _ in loader:
            pass

    def endless() -> Iterator[Tensor]:
        epoch = 0
        while True:
            loader.set_epoch(epoch)
            yield from (normalize(batch.crops) for batch in loader)
            epoch += 1

    batches = endless()
    return lambda: next(batches)
