"""Files of ``torch.save`` from anywhere: no code in them runs, and small ones stay small."""

import os
import zipfile
from typing import Any

import torch

from pipnet_fast._errors import first_line

_ZIP = b"PK\x03\x04"


def read_torch_file(path: str | os.PathLike[str], what: str) -> Any:
    """What a file holds, on the CPU: tensors and plain values.

    Args:
        path: the file.
        what: it should be, for the message.

    Raises:
        ValueError: damaged, one that would run code, or one that unpacks to more than it has.
    """
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise half a dozen types
        raise ValueError(f"{os.fspath(path)}: not a readable {what}: {first_line(error)}") from None


def _check_archive(path: str | os.PathLike[str]) -> None:
    """torch reads compressed archives too, and several entries of one place, but writes neither."""
    with open(path, "rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    size = os.path.getsize(path)
    if unpacked > size:
        raise ValueError(f"expected an archive that is not compressed, got {unpacked} bytes in a file of {size}")
