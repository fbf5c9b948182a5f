"""Batches of crops with their labels, read and changed ahead by worker processes."""

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import torch.multiprocessing
from torch import Tensor
from torch.utils.data import DataLoader

from pipnet_fast.crop import Affine, CropRule, Floats, compose
from pipnet_fast.data._crops import Batch, Crops, Indices, Made, Step, generator
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.data.cache import PartCache
from pipnet_fast.data.errors import DataError
from pipnet_fast.data.samples import BadSample, FaceData

__all__ = ["Batch", "CropLoader"]


class CropLoader:
    """Batches of one split of a data set, an epoch an iteration.

    Order and augmentation of a face follow from the seed, the epoch and its number in the data, so that neither
    workers nor processes change them. Of several processes each gets its slice of every step's batch of
    ``batch_size * world_size`` faces; the last batch, if it is smaller, is cut as evenly as it can be, and slices may
    be empty (B = 0), so that all processes make the same number of steps.

    An image is decoded once an epoch, or once at all where the cache holds its face. One iteration at a time.
    """

    def __init__(
        self,
        data: FaceData,
        crop: CropRule,
        input_size: int,
        batch_size: int,
        *,
        augmentation: Augmentation | None,
        shuffle: bool,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        skip_bad: bool = False,
        cache_mb: int = 0,
        start_method: str | None = None,
    ) -> None:
        """Check what can be checked without reading an image.

        Args:
            data: the faces.
            crop: how crops follow from their boxes.
            input_size: side S of the crops in px.
            batch_size: of this process.
            augmentation: None for plain crops, which are those of inference.
            shuffle: a new order every epoch, otherwise that of the data.
            seed: of order and augmentation.
            workers: processes that read ahead, kept from epoch to epoch; 0 to read in this one.
            rank: which of the processes that train together this one is.
            world_size: how many they are.
            drop_last: leave out a last batch that is smaller than ``batch_size * world_size``.
            skip_bad: go on where a face's box is void or its image cannot be read, and list it in ``bad``. With
                ``shuffle`` the data's next readable face takes its place, so that batches stay full; without, where
                every face is to count once, it is left out.
            cache_mb: MiB for decoded parts of images that this process's workers share and keep over the epochs. It
                changes no result.
            start_method: of the workers, "fork", "spawn" or "forkserver"; None for Python's own choice.

        Raises:
            TypeError: a number that is no integer.
            ValueError: a number out of range; no faces, or too few for a batch under ``drop_last``; landmarks of
                another layout than the data's.
            DataError: a box that spans no area, unless ``skip_bad``.
        """
        _check("input_size", input_size, 1)
        _check("batch_size", batch_size, 1)
        _check("seed", seed, 0)
        _check("workers", workers, 0)
        _check("world_size", world_size, 1)
        _check("rank", rank, 0, world_size - 1)
        _check("cache_mb", cache_mb, 0)
        if start_method not in (None, *torch.multiprocessing.get_all_start_methods()):
            known = ", ".join(torch.multiprocessing.get_all_start_methods())
            raise ValueError(f"CropLoader: start_method: expected one of {known}, got {start_method!r}")
        self.data, self.crop, self.input_size = data, crop, input_size
        self._bad: dict[int, BadSample] = {}
        boxes = crop.apply(np.array([sample.box for sample in data.samples], dtype=np.float64).reshape(-1, 4))
        usable = self._usable(boxes, skip_bad)
        affines = np.zeros((len(data), 2, 3))
        affines[usable] = crop.affine(boxes[usable], input_size)
        self._steps = _Steps(usable, shuffle, seed, batch_size * world_size, rank, world_size, drop_last)
        if not len(self._steps):
            least = batch_size * world_size if drop_last else 1
            raise ValueError(f"CropLoader: {data.name}: expected at least {least} usable face(s), got {len(usable)}")
        self._context = torch.multiprocessing.get_context(start_method) if workers else None
        self._crops = Crops(
            data,
            crop,
            affines,
            input_size,
            augmentation,
            seed,
            skip_bad=skip_bad,
            replace_by=usable if skip_bad and shuffle else None,
            cache=PartCache(len(data), cache_mb << 20, self._context) if cache_mb else None,
        )
        self._workers = workers
        self._loader: DataLoader[Made] | None = None

    @property
    def bad(self) -> list[BadSample]:
        """What ``skip_bad`` has passed over so far, in this process, in the order of the data."""
        return [self._bad[index] for index in sorted(self._bad)]

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is, from 0, and it is 0 at first."""
        _check("epoch", epoch, 0)
        self._steps.epoch = epoch

    def __len__(self) -> int:
        """How many batches an epoch has, the same in every process."""
        return len(self._steps)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch.

        Raises:
            DataError: an image that cannot be read, by name; under ``skip_bad`` only if there is none that can.
            RuntimeError: a worker process died.
        """
        for made in self._made():
            self._bad.update(made.bad)
            if made.batch is None:
                raise DataError(made.error)
            yield made.batch

    def affines(self, index: Iterable[int] | Tensor) -> Affine:
        """Matrices (B, 2, 3) from image px to px of the crops of the samples ``index`` (B,) in this epoch.

        ``crop.to_image`` maps predictions back with them; in a mirrored crop, landmark i is the image's ``flip[i]``.
        """
        placed = (self._crops.placed(self._steps.epoch, int(i)) for i in index)
        affines = [plain if change is None else compose(change.affine, plain) for plain, change in placed]
        return np.array(affines).reshape(-1, 2, 3)

    def _usable(self, boxes: Floats, skip_bad: bool) -> Indices:
        """Numbers of the samples whose crop boxes (n, 4) have an area; the others are bad."""
        samples, shape = self.data.samples, (self.data.layout.num_landmarks, 2)
        for sample in samples:
            if sample.landmarks is not None and sample.landmarks.shape != shape:
                raise ValueError(
                    f"CropLoader: {sample.image}: landmarks: expected {shape} of layout {self.data.layout.name}, "
                    f"got {sample.landmarks.shape}"
                )
        good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        for index in np.flatnonzero(~good).tolist():
            where, box = str(samples[index].image), samples[index].box.tolist()
            reason = f"{where}: box: expected finite x0 < x1 and y0 < y1, got {box}"
            if not skip_bad:
                raise DataError(reason)
            self._bad[index] = BadSample(where, reason)
        return np.flatnonzero(good)

    def _made(self) -> Iterator[Made]:
        """What the workers send; a death among them is one error, whatever torch makes of it."""
        self._loader = self._loader or self._start()
        try:
            try:
                yield from self._loader
            except (ConnectionError, EOFError, FileNotFoundError):
                if not self._workers:
                    raise
                # Who dies takes along what was sent and not yet received. The signal of the death is about to come,
                # and torch raises where it comes.
                time.sleep(0.1)
                raise RuntimeError("DataLoader worker is gone") from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            self._abandon_workers()
            raise RuntimeError(
                f"CropLoader: {self.data.name}: a worker process died, as they do when memory runs out: take fewer "
                f"workers, smaller batches or a smaller cache ({str(error).strip()})"
            ) from None

    def _abandon_workers(self) -> None:
        """End those that are left; the next iteration starts new ones."""
        iterator: Any = self._loader and self._loader._iterator
        self._loader = None
        # They may have died, too.
        with contextlib.suppress(RuntimeError):
            iterator._shutdown_workers()

    def _start(self) -> "DataLoader[Made]":
        return DataLoader(
            self._crops,
            # Steps go to the workers whole, and what they make comes back as it is; the types know lists only.
            batch_sampler=self._steps,  # type: ignore[arg-type]
            num_workers=self._workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            worker_init_fn=_settle_worker,
            multiprocessing_context=self._context,
            persistent_workers=self._workers > 0,
            # Of the workers' own seeds, which nobody uses; they would be drawn from the global generator.
            generator=torch.Generator(),
        )


class _Steps:
    """The numbers of the faces of each step, of this process's slice, in a given epoch."""

    def __init__(
        self, usable: Indices, shuffle: bool, seed: int, total: int, rank: int, world_size: int, drop_last: bool
    ) -> None:
        """``total``: faces of a step over all processes."""
        self.epoch = 0
        self._usable, self._shuffle, self._seed = usable, shuffle, seed
        self._total, self._rank, self._world_size = total, rank, world_size
        self._count = len(usable) // total if drop_last else -(-len(usable) // total)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Step]:
        order = self._usable
        if self._shuffle:
            order = generator(self._seed, self.epoch).permutation(order)
        for step in range(self._count):
            faces = order[step * self._total : (step + 1) * self._total]
            first, end = (len(faces) * r // self._world_size for r in (self._rank, self._rank + 1))
            yield Step(self.epoch, faces[first:end])


def _as_it_is(made: Made) -> Made:
    return made


def _settle_worker(worker: int) -> None:
    """One thread in each; the interrupt key ends the main process, and they with it."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check(name: str, value: Any, least: int, largest: int | None = None) -> None:
    """Raise unless ``value`` is an integer from ``least`` to ``largest``."""
    expected = f">= {least}" if largest is None else f"{least} to {largest}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"CropLoader: {name}: expected an integer {expected}, got {value!r}")
    if value < least or (largest is not None and value > largest):
        raise ValueError(f"CropLoader: {name}: expected {expected}, got {value!r}")
