"""What a worker process does: read, cut, change and stack the faces of one batch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipnet_fast.crop import Affine, CropRule, Image, compose, cut_part, warp
from pipnet_fast.data.augment import Augmentation, Change
from pipnet_fast.data.cache import PartCache
from pipnet_fast.data.errors import UNREADABLE, reason
from pipnet_fast.data.samples import BadSample, FaceData

Indices = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Crops and labels of B faces.

    Attributes:
        crops: (B, S, S, 3) of uint8, RGB.
        points_frac: (B, N, 2) of float32, in fractions of the crop; may leave it; NaN where not labelled.
        index: (B,) of int64, into the data's samples.
    """

    crops: Tensor
    points_frac: Tensor
    index: Tensor  # type: ignore[assignment]  # tuples have a method of that name


class Step(NamedTuple):
    """What to make a batch of: numbers of samples, and the epoch."""

    epoch: int
    indices: Indices


class Made(NamedTuple):
    """A batch, with what was bad by the sample's number; or what went wrong, which crosses processes as text."""

    batch: Batch | None
    bad: dict[int, BadSample]
    error: str | None = None


class Crops(Dataset[Made]):
    """Makes batches; the same ones in whichever process."""

    def __init__(
        self,
        data: FaceData,
        rule: CropRule,
        affines: Affine,
        size: int,
        augmentation: Augmentation | None,
        seed: int,
        *,
        skip_bad: bool,
        replace_by: Indices | None,
        cache: PartCache | None,
    ) -> None:
        """See ``CropLoader``.

        Args:
            data: the faces.
            rule: what fractions of crops mean.
            affines: (n, 2, 3), image px to px of the unchanged crops.
            size: of the crops.
            augmentation: see there.
            seed: see there.
            skip_bad: see there.
            replace_by: numbers of samples, ascending, that may take the place of bad ones; None to leave these out.
            cache: for parts of images.
        """
        self._samples, self._num_landmarks = data.samples, data.layout.num_landmarks
        self._flip, self._rule, self._affines, self._size = data.layout.flip, rule, affines, size
        self._augmentation, self._seed = augmentation, seed
        self._skip_bad, self._replace_by, self._cache = skip_bad, replace_by, cache

    def __getitems__(self, step: Step) -> Made:
        """A batch."""
        bad: dict[int, BadSample] = {}
        made: list[tuple[Image, npt.NDArray[np.float64]]] = []
        kept: list[int] = []
        for wanted in step.indices.tolist():
            for index in self._candidates(wanted):
                try:
                    made.append(self.face(step.epoch, index))
                except UNREADABLE as error:
                    where = str(self._samples[index].image)
                    if not self._skip_bad:
                        return Made(None, bad, reason(where, error))
                    bad[index] = BadSample(where, reason(where, error))
                else:
                    kept.append(index)
                    break
            else:
                if self._replace_by is not None:
                    return Made(None, bad, f"{next(iter(bad.values())).reason}; nor can any other image be read")
        batch = Batch(
            torch.from_numpy(_stacked([crop for crop, _ in made], (self._size, self._size, 3), np.uint8)),
            torch.from_numpy(_stacked([points for _, points in made], (self._num_landmarks, 2), np.float32)),
            torch.tensor(kept, dtype=torch.int64),
        )
        return Made(batch, bad)

    def face(self, epoch: int, index: int) -> tuple[Image, npt.NDArray[np.float64]]:
        """The crop (S, S, 3) of a sample and its points (N, 2) in fractions of it.

        Raises:
            ImageError, DataError or OSError: the image cannot be read.
        """
        sample, size = self._samples[index], self._size
        plain, change = self.placed(epoch, index)
        part, from_part = self._part(index, plain)
        crop = part.copy() if change is None else change.finish(warp(part, compose(change.affine, from_part), size))
        if sample.landmarks is None:
            return crop, np.full((self._num_landmarks, 2), np.nan)
        affine = plain if change is None else compose(change.affine, plain)
        points_frac = self._rule.to_crop(sample.landmarks[None], affine[None], size)[0]
        return crop, points_frac[self._flip] if change is not None and change.flipped else points_frac

    def placed(self, epoch: int, index: int) -> tuple[Affine, Change | None]:
        """The matrix (2, 3) of a sample's crop before it is changed, and its change in an epoch."""
        if self._augmentation is None:
            return self._affines[index], None
        return self._affines[index], self._augmentation.draw(generator(self._seed, epoch, index), self._size)

    def _part(self, index: int, affine: Affine) -> tuple[Image, Affine]:
        """What the crop needs of the image, by any change, and the matrix to it; unchanging, that is the crop."""
        stored = self._cache and self._cache.get(index)
        if stored:
            return stored
        image = self._samples[index].image.read()
        if self._augmentation is None:
            part, from_part = warp(image, affine, self._size), np.eye(2, 3)
        else:
            part, from_part = cut_part(
                image, affine, self._size, reach=self._augmentation.reach, zoom=self._augmentation.zoom
            )
        if self._cache:
            self._cache.put(index, part, from_part)
        return part, from_part

    def _candidates(self, wanted: int) -> Iterator[int]:
        yield wanted
        if self._replace_by is not None:
            after = int(np.searchsorted(self._replace_by, wanted, side="right"))
            yield from np.roll(self._replace_by, -after)[:-1].tolist()


def generator(seed: int, *key: int) -> np.random.Generator:
    """Random numbers of their own for every key."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _stacked(
    rows: Sequence[npt.NDArray[np.generic]], shape: tuple[int, ...], dtype: type[np.generic]
) -> npt.NDArray[np.generic]:
    stacked = np.empty((len(rows), *shape), dtype)
    for row, value in zip(stacked, rows, strict=True):
        row[...] = value
    return stacked
