"""What the readers need of the file system, every failure a DataError with the file's name."""

import os
from pathlib import Path

from pipnet_fast.data.errors import DataError


def find(root: Path, *candidates: str) -> Path:
    """The first of some paths under ``root`` that exists: archives are unpacked, and renamed, in several ways.

    Raises:
        DataError: none exists; lists them.
    """
    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate
    raise DataError(f"{root}: expected {' or '.join(candidates)} in it, found nothing of that name")


def read_lines(path: Path) -> list[str]:
    """Lines of a text file in UTF-8.

    Raises:
        DataError: missing, unreadable, or no text.
    """
    try:
        # Not splitlines, which splits at more characters than editors count lines by.
        return path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8: {error}") from None


def check_file(path: Path) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        DataError: it is none.
    """
    # Unlike Path.is_file, this is False for a name that is too long, too.
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    return path
