"""Writes MAT files of version 7.3 as MATLAB does: HDF5 behind a user block, axes in reverse, cells as references."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def write_mat73(path: Path, matrices: Mapping[str, Any], cells: Mapping[str, Sequence[Any]]) -> None:
    """Matrices, and n x 1 cell arrays of matrices, of doubles or bytes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, matrix in matrices.items():
            _write(file, name, np.asarray(matrix))
        for name, values in cells.items():
            references = [_write(file, f"#refs#/{name}{i}", np.asarray(value)).ref for i, value in enumerate(values)]
            dataset = file.create_dataset(name, (1, len(values)), h5py.ref_dtype)
            dataset[0] = references
            dataset.attrs["MATLAB_class"] = np.bytes_("cell")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Fri Dec 14 2012 HDF5 schema 1.00 ."
    with path.open("r+b") as file:
        file.write(header.ljust(116) + bytes(8) + b"\x00\x02IM")


def _write(file: Any, name: str, matrix: Any) -> Any:
    kind = {"float64": "double", "uint8": "uint8"}[str(matrix.dtype)]
    dataset = file.create_dataset(name, data=matrix.T, compression="gzip", chunks=matrix.T.shape)
    dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    return dataset
