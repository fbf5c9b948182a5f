"""MAT files of version 7.3, which are HDF5, by h5py."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.data._optional import import_optional
from pipnet_fast.data.errors import DataError
from pipnet_fast.data.readers._checks import numbers

# Far more than any data set of faces has; a damaged shape must not be taken for an order to allocate it.
MAX_NUMBERS = 1 << 27


class Mat73:
    """An open MAT file of version 7.3. HDF5 has MATLAB's axes in reverse; here they are MATLAB's again."""

    def __init__(self, path: Path, file: Any) -> None:
        """``file``: an h5py.File."""
        self._path, self._file = path, file

    def numbers(self, variable: str, columns: int) -> npt.NDArray[np.float64]:
        """A matrix (n, columns) of real numbers."""
        with _reading(self._path):
            dataset = self._dataset(variable)
            if dataset.ndim != 2 or dataset.shape[0] != columns or dataset.size > MAX_NUMBERS:
                raise DataError(f"{self._path}: {variable}: expected shape (n, {columns}), got {dataset.shape[::-1]}")
            matrix = np.ascontiguousarray(dataset[...].T)
        return numbers(matrix, (None, columns), f"{self._path}: {variable}")

    def count_cells(self, variable: str) -> int:
        """How many cells an n x 1 or 1 x n cell array has."""
        with _reading(self._path):
            dataset = self._dataset(variable)
            if dataset.dtype.kind != "O":  # references to what the cells hold
                raise DataError(f"{self._path}: {variable}: expected a cell array, got {dataset.dtype}")
            if dataset.ndim != 2 or min(dataset.shape) != 1 or dataset.size > MAX_NUMBERS:
                raise DataError(f"{self._path}: {variable}: expected n x 1 cells, got shape {dataset.shape[::-1]}")
            return int(dataset.size)

    def _dataset(self, variable: str) -> Any:
        if variable not in self._file:
            found = sorted(name for name in self._file if not name.startswith("#"))
            raise DataError(f"{self._path}: expected the variable {variable!r}, found {found}")
        dataset = self._file[variable]
        if not hasattr(dataset, "dtype"):
            raise DataError(f"{self._path}: {variable}: expected an array, got a struct")
        return dataset


@contextmanager
def open_mat73(path: Path) -> Iterator[Mat73]:
    """Open a MAT file of version 7.3 for the time of a ``with``.

    Raises:
        DataError: missing, no such file, or damaged, here or where a value is read.
        ImportError: h5py is missing.
    """
    h5py = import_optional("h5py", f"{path}: reading a MAT file of version 7.3")
    with _reading(path):
        # Without a lock, since network file systems and read-only ones refuse it.
        file = h5py.File(path, "r", locking=False)
    with file:
        yield Mat73(path, file)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Around what h5py does: on a damaged file it lets through whatever it ran into."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: not a MAT file of version 7.3 (HDF5), or damaged: {reason}") from None
