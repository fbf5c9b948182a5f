"""Checkpoints of a run: they appear whole or not at all, and are read without running code from them."""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from pipnet_fast._files import write_whole
from pipnet_fast._torch_files import read_torch_file

# The version of the layout of what is written.
FORMAT = "pipnet_fast.train/3"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], *, durable: bool = False) -> None:
    """Write a file of a run by ``write_whole``: one process writes it.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the message names the file.
    """
    write_whole(path, write, one_writer=True, durable=durable)


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values.

    Raises:
        OSError: as for ``write_atomically``.
    """
    write_atomically(path, lambda file: _save({"format": FORMAT, **content}, file), durable=True)


def _save(content: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # What torch.save makes of a failing write, raised while the OSError was handled.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``write_checkpoint`` wrote, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or no checkpoint of a run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    content = read_torch_file(path, "checkpoint")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: expected a checkpoint in format {FORMAT!r}, got {found!r}")
    return content
