"""Checkpoints of a run: they appear whole or not at all, and are read without running code from them."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

# The version of the layout of what is written.
FORMAT = "pipnet_fast.train/1"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], *, durable: bool = False) -> None:
    """Write a file beside its place and move it there; an older one stays until then.

    Args:
        path: the place.
        write: writes into the open file.
        durable: wait until the disk has it before the older one goes, so that not even a power cut loses both.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the message names the file.
    """
    # One name for all attempts: what a killed process has left is overwritten.
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        # torch.save reports a failing write as a RuntimeError of its own, raised while the OSError was handled.
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values.

    Raises:
        OSError: as for ``write_atomically``.
    """
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **content}, file), durable=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``write_checkpoint`` wrote, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or no checkpoint of a run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise half a dozen types
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: expected a checkpoint in format {FORMAT!r}, got {found!r}")
    return content
