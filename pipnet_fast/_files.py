"""Files that appear whole or not at all."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from typing import IO


def write_whole(
    path: str | os.PathLike[str],
    write: Callable[[IO[bytes]], object],
    *,
    one_writer: bool = False,
    durable: bool = False,
) -> None:
    """Write a file beside its place and move it there; an older one stays until then.

    Args:
        path: the place.
        write: writes into the open file.
        one_writer: nobody else writes this file meanwhile. Then all attempts have one name beside it, so that what a
            killed process has left is overwritten; else each has a name of its own.
        durable: wait until the disk has it before the older one goes, so that not even a power cut loses both.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the message names the file.
    """
    place = os.fspath(path)
    temporary = f"{place}.tmp" if one_writer else f"{place}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, place)
        if durable:
            _sync_folder(os.path.dirname(place) or os.curdir)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, place) from error
        raise


@contextlib.contextmanager
def place_whole(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name beside a file's place, for what is written by name: moved there at the end, deleted after an error.

    Raises:
        OSError: nothing was written, or it cannot be moved.
    """
    place = os.fspath(path)
    # Formats are chosen by the suffix.
    stem, suffix = os.path.splitext(place)
    temporary = f"{stem}.{uuid.uuid4().hex}.tmp{suffix}"
    try:
        yield temporary
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sync_folder(folder: str) -> None:
    """Wait until the disk has the folder's entries, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
