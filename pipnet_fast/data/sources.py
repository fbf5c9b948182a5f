"""Where an image comes from: a file, a frame of a video, an entry of an HDF5 file."""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from pipnet_fast.crop import Image
from pipnet_fast.data._optional import import_optional
from pipnet_fast.pipeline.images import MAX_PIXELS, ImageError, as_rgb, read_rgb


class ImageSource(Protocol):
    """A picture that is read when it is needed; small, and copied to worker processes."""

    def read(self) -> Image:
        """RGB (h, w, 3) of uint8.

        Raises:
            ImageError: missing, damaged, or no image.
        """

    def __str__(self) -> str:
        """For messages and tables: which file, and where in it."""


@dataclass(frozen=True)
class ImageFile:
    """An image file of its own."""

    path: str | os.PathLike[str]

    def read(self) -> Image:
        """See ``ImageSource``."""
        return read_rgb(self.path)

    def __str__(self) -> str:
        """The path."""
        return os.fspath(self.path)


@dataclass(frozen=True)
class HDF5Image:
    """A cell of a MATLAB v7.3 file: (h, w, 3) RGB or (h, w) gray, which HDF5 has with its axes in reverse.

    The file stays open in every process that reads from it.

    Attributes:
        path: the file.
        variable: the cell array.
        index: the cell, from 0.
    """

    path: str | os.PathLike[str]
    variable: str
    index: int

    def read(self) -> Image:
        """See ``ImageSource``.

        Raises:
            ImportError: h5py is missing.
        """
        try:
            pixels = self._read_cell()
        except (ImageError, ImportError):
            raise
        except Exception as error:  # h5py has no error of its own, a damaged file can raise nearly any
            raise ImageError(f"{self}: {error}") from None
        return as_rgb(pixels, "rgb")

    def __str__(self) -> str:
        """File and cell, in MATLAB's notation."""
        return f"{os.fspath(self.path)}: {self.variable}{{{self.index + 1}}}"

    def _read_cell(self) -> Any:
        file = _open_hdf5(os.fspath(self.path))
        cells = file[self.variable]
        cell = file[cells[(0, self.index) if cells.shape[0] == 1 else (self.index, 0)]]
        shape, kind = cell.shape[::-1], cell.dtype  # before anything of that size is allocated
        if kind != "uint8" or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
            raise ImageError(f"{self}: expected an image (h, w, 3) or (h, w) of uint8, got {kind} {shape}")
        if not 1 <= shape[0] * shape[1] <= MAX_PIXELS:
            raise ImageError(f"{self}: expected 1 to {MAX_PIXELS} pixels, got {shape[0]} x {shape[1]}")
        return cell[...].T


@lru_cache(maxsize=8)
def _open_hdf5(path: str) -> Any:
    """An open file. A forked process can go on with it: HDF5 reads at given positions, h5py forks between two calls."""
    # Without a lock on the file, which network file systems and read-only ones refuse.
    return import_optional("h5py", f"{path}: reading its images").File(path, "r", locking=False)
