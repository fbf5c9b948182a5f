"""The list of files of a run, frozen in its folder and cut into shares, so that a million of them need no memory."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipnet_fast.annotate.sources import is_video

# A share of the work has about so many photos, a minute or two of the Haar cascade, and is smaller where there are
# fewer than 64 shares, so that there is something for every process.
SHARE = 1024
LEAST_SHARE, FEW_SHARES = 16, 64
# A video counts as so many photos.
VIDEO = 64

_BLOCK = 1 << 20


class Listing(NamedTuple):
    """What tells a list of files from others, in whatever order folders give them."""

    inputs: int
    """How many files, each counted once."""
    paths: str
    """The sum of all paths' hashes."""
    shard_size: int
    """Photos in a share."""


class Inputs:
    """The files of a run, share by share.

    Attributes:
        folder: has the files "paths", where each path has a zero after it as ``find -print0`` writes them, and
            "shards.npy", which tells where shares begin.
    """

    def __init__(self, folder: Path) -> None:
        """Open what ``freeze`` wrote into a folder."""
        self.folder = folder
        # (shares + 1, 2): the number of a share's first file, and where its path begins; the last row is the end.
        self._begins: npt.NDArray[np.int64] = np.load(folder / "shards.npy")

    @classmethod
    def freeze(cls, paths: Iterable[str], folder: Path, shard_size: int | None) -> Listing:
        """Write a list.

        Memory is 8 bytes a path, to find those that are there twice, and those themselves.

        Args:
            paths: of files; the second mention of one is left out.
            folder: where to; exists, and is nobody else's.
            shard_size: photos in a share; None, as the number of files asks for.
        """
        place = folder / "paths"
        repeated = _repeated(_write(place, map(os.fsencode, paths)))
        if repeated:
            once = folder / "paths.once"
            _write(once, _once(_read(place), repeated))
            os.replace(once, place)
        inputs, weight, digest = 0, 0, 0
        for path in _read(place):
            inputs += 1
            weight += _weight(path)
            digest += int.from_bytes(_hash(path), "little")
        size = shard_size or min(max(-(-weight // FEW_SHARES), LEAST_SHARE), SHARE)
        with open(folder / "shards.npy", "wb") as file:
            np.save(file, np.array(list(_begins(_read(place), size)), np.int64))
            os.fsync(file.fileno())
        return Listing(inputs, f"{digest % (1 << 128):032x}", size)

    def __len__(self) -> int:
        """How many shares there are."""
        return len(self._begins) - 1

    def shard(self, number: int) -> list[str]:
        """The files of a share."""
        begin, end = self._begins[number : number + 2, 1].tolist()
        with open(self.folder / "paths", "rb") as file:
            file.seek(begin)
            return [os.fsdecode(path) for path in file.read(end - begin).split(b"\0")[:-1]]

    def count(self, number: int) -> int:
        """How many files a share has."""
        return int(self._begins[number + 1, 0] - self._begins[number, 0])

    def differences(self, new: Path) -> str:
        """In words, a file that is only here and one that is only in the list that ``freeze`` wrote into ``new``."""
        told = []
        for words, one, other in (("is gone", self.folder, new), ("is new", new, self.folder)):
            hashes, known = (np.fromiter(map(_short_hash, _read(place / "paths")), np.uint64) for place in (one, other))
            missing = np.flatnonzero(~np.isin(hashes, known))
            if missing.size:
                path = next(islice(_read(one / "paths"), int(missing[0]), None))
                told.append(f"{os.fsdecode(path)} {words}")
        return ", ".join(told)


def _hash(path: bytes) -> bytes:
    return hashlib.blake2b(path, digest_size=16).digest()


def _short_hash(path: bytes) -> int:
    return int.from_bytes(_hash(path)[:8], "little")


def _weight(path: bytes) -> int:
    return VIDEO if is_video(os.fsdecode(path)) else 1


def _write(place: Path, paths: Iterable[bytes]) -> "array[int]":
    """Write a list; returns the short hashes of its paths."""
    hashes = array("Q")
    with open(place, "wb") as file:
        for path in paths:
            file.write(path + b"\0")
            hashes.append(_short_hash(path))
        file.flush()
        os.fsync(file.fileno())
    return hashes


def _read(place: Path) -> Iterator[bytes]:
    with open(place, "rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            *paths, rest = (rest + block).split(b"\0")
            yield from paths


def _repeated(hashes: "array[int]") -> frozenset[int]:
    """Those that are there twice."""
    values = np.frombuffer(hashes, np.uint64) if hashes else np.zeros(0, np.uint64)
    ordered = np.sort(values)
    return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _once(paths: Iterable[bytes], repeated: frozenset[int]) -> Iterator[bytes]:
    """The first mention of every path."""
    seen: set[bytes] = set()
    for path in paths:
        if _short_hash(path) in repeated:
            if path in seen:
                continue
            seen.add(path)
        yield path


def _begins(paths: Iterable[bytes], size: int) -> Iterator[tuple[int, int]]:
    """The number and the place of the first path of each share, and of the end."""
    number, place, weight = 0, 0, 0
    yield 0, 0
    for path in paths:
        if weight and weight + _weight(path) > size:
            yield number, place
            weight = 0
        number, place, weight = number + 1, place + len(path) + 1, weight + _weight(path)
    if number:
        yield number, place
