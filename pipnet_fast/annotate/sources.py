"""The files that are to be annotated: folders, patterns, lists and single files become one stream of paths.

Nothing is opened here but folders and lists, and nothing is kept but what is left to do of the folders being read.
"""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import NamedTuple

from pipnet_fast.data.readers.images import IMAGES, VIDEOS

# What a name begins with that stands for a file with a path a line.
LIST = "@"

# A folder's entries are sorted in runs of so many, which bounds memory.
RUN = 1 << 16

_MAGIC = frozenset("*?[")
_BLOCK = 1 << 20


def is_video(path: str) -> bool:
    """Whether a file is read as a video; by its name."""
    return os.path.splitext(path)[1].lower() in VIDEOS


def check_sources(sources: Sequence[str]) -> None:
    """Raise a ValueError for a source that is not there, before others are listed for an hour."""
    for source in sources:
        if not (_exists(source) or (_has_magic(source) and not source.startswith(LIST))):
            raise ValueError(f"annotate: sources: no such file or folder: {source.removeprefix(LIST)}")


def list_paths(sources: Sequence[str]) -> Iterator[str]:
    """Absolute paths of files, in the order of the sources, and of a folder by name.

    A folder gives the images and videos in it and below, by the ends of their names. A pattern's ``*``, ``?`` and
    ``[]`` stand for parts of a name and ``**`` for folders, any number of them. What begins with a dot is passed over
    and links to other folders are not followed, in both. ``@FILE`` is a list, a path a line, or each with a zero after
    it, as ``find -print0`` writes them. A file of a list or one named outright may be anything. A folder that cannot be
    read is in the stream itself.

    Raises:
        ValueError: a pattern that matches nothing.
        OSError: a list that cannot be read.
    """
    for source in sources:
        if source.startswith(LIST):
            yield from map(os.path.abspath, _lines(source.removeprefix(LIST)))
        elif _exists(source):
            yield from _files(os.path.abspath(source))
        else:
            # From the root, so that no part of the pattern is taken for a path.
            drive, below = os.path.splitdrive(os.path.abspath(source))
            found = False
            for path in _matches(drive + os.sep, [part for part in below.split(os.sep) if part]):
                found = True
                yield from _files(path)
            if not found:
                raise ValueError(f"annotate: sources: nothing matches {source}")


class _Entry(NamedTuple):
    path: str
    kind: str
    """"folder", "file", or "unread": a folder that cannot be read."""


def _exists(source: str) -> bool:
    return os.path.lexists(source.removeprefix(LIST))


def _has_magic(text: str) -> bool:
    return not _MAGIC.isdisjoint(text)


def _files(path: str) -> Iterator[str]:
    """The file, or the images and videos in the folder and below it."""
    if not os.path.isdir(path):
        yield path
        return
    folders = [_entries(path)]
    while folders:
        entry = next(folders[-1], None)
        if entry is None:
            folders.pop()
        elif entry.kind == "folder":
            folders.append(_entries(entry.path))
        elif entry.kind == "unread" or os.path.splitext(entry.path)[1].lower() in IMAGES + VIDEOS:
            yield entry.path


def _matches(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Files and folders below a folder whose names match the parts of a pattern."""
    part, *rest = parts
    if not _has_magic(part):
        path = os.path.join(folder, part)
        if rest:
            if os.path.isdir(path):
                yield from _matches(path, rest)
        elif os.path.lexists(path):
            yield path
    elif part == "**" and not rest:
        yield folder
    elif part == "**":
        yield from _matches(folder, rest)
        for entry in _entries(folder):
            if entry.kind == "folder":
                yield from _matches(entry.path, parts)
    else:
        for entry in _entries(folder):
            if entry.kind == "unread":
                yield entry.path
            elif fnmatchcase(os.path.basename(entry.path), part):
                if not rest:
                    yield entry.path
                elif entry.kind == "folder":
                    yield from _matches(entry.path, rest)


def _entries(folder: str) -> Iterator[_Entry]:
    """What is in a folder and does not begin with a dot."""
    try:
        with os.scandir(folder) as entries:
            while run := list(islice(entries, RUN)):
                yield from sorted(_Entry(entry.path, kind) for entry in run if (kind := _kind(entry)))
    except OSError:
        yield _Entry(folder, "unread")


def _kind(entry: "os.DirEntry[str]") -> str | None:
    if entry.name.startswith("."):
        return None
    if entry.is_symlink():
        # One that leads nowhere is told of when it is read.
        return None if os.path.isdir(entry.path) else "file"
    return "folder" if entry.is_dir() else "file"


def _lines(path: str) -> Iterator[str]:
    """The lines of a list that are not empty."""
    with open(path, "rb") as file:
        end = b"\0" if b"\0" in file.read(_BLOCK) else b"\n"
        file.seek(0)
        rest = b""
        while block := file.read(_BLOCK):
            *lines, rest = (rest + block).split(end)
            yield from _names(lines, end)
        yield from _names([rest], end)


def _names(lines: Sequence[bytes], end: bytes) -> Iterator[str]:
    for line in lines:
        name = line.removesuffix(b"\r") if end == b"\n" else line
        if name:
            yield os.fsdecode(name)
