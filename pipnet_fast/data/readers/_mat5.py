"""MAT files of version 5, the part of the format that data sets use: numbers, text, cells and structs.

scipy reads them too, but its compiled parser crashes the process on some damaged files; this one raises.
"""

import struct
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.data.errors import DataError

# Codes of the format: how an element is stored, and of what class an array is.
_MATRIX, _COMPRESSED = 14, 15
_STORED_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STORED_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}

_MAX_DEPTH = 16
_MAX_UNPACKED = 1 << 30


def read_mat5(path: Path, *variables: str) -> list[Any]:
    """Values of variables of a MAT file of version 5.

    Numbers are arrays of two or more axes; text is a str, of several rows a list of them; cells are arrays of
    objects, structs arrays of dicts.

    Raises:
        DataError: missing, no such file, damaged, or without one of the variables.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or not data.startswith(b"MATLAB"):
        raise DataError(f"{path}: not a MAT file of version 5")
    if data[125 if order == "<" else 124] != 1:
        raise DataError(f"{path}: expected a MAT file of version 5, got one of version 7.3 (HDF5)")
    try:
        found = _Parser(order).read(memoryview(data)[128:], variables)
    except (ValueError, zlib.error) as error:
        raise DataError(f"{path}: damaged MAT file: {error}") from None
    for variable in variables:
        if variable not in found:
            raise DataError(f"{path}: expected the variable {variable!r}, found {sorted(found)}")
    return [found[variable] for variable in variables]


class _Parser:
    """Reads elements; ``order`` of bytes is "<" or ">". Raises ValueError for what is damaged or not supported."""

    def __init__(self, order: str) -> None:
        self._order = order

    def read(self, data: memoryview, wanted: tuple[str, ...]) -> dict[str, Any]:
        """Variables of a file after its header; those that are not wanted are None."""
        found = {}
        for kind, content in self._elements(data):
            if kind == _COMPRESSED:
                kind, content = self._unpack(content)
            if kind == _MATRIX:
                parts = self._elements(content)
                kind, shape, name = self._header(parts)
                found[name] = self._array(kind, shape, parts, len(content), 0) if name in wanted else None
        return found

    def _elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Storage code and content of one element after another."""
        position = 0
        while position < len(data):
            if len(data) - position < 8:
                raise ValueError("cut off between elements")
            kind, size = struct.unpack_from(f"{self._order}II", data, position)
            start = position + 8
            if kind >> 16:  # a small one: both in four bytes, up to four bytes of content in the other four
                kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            end = start + size
            if end > len(data) or (start == position + 4 and size > 4):
                raise ValueError(f"cut off: an element of {size} bytes where {len(data) - start} are left")
            yield kind, data[start:end]
            position = end if kind == _COMPRESSED else end + -end % 8

    def _unpack(self, content: memoryview) -> tuple[int, memoryview]:
        unpacked = zlib.decompressobj().decompress(content, _MAX_UNPACKED)
        return self._next(self._elements(memoryview(unpacked)))

    def _next(self, parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
        part = next(parts, None)
        if part is None:
            raise ValueError("an array without all of its parts")
        return part

    def _header(self, parts: Iterator[tuple[int, memoryview]]) -> tuple[int, tuple[int, ...], str]:
        """Class, shape and name of an array."""
        flags = self._integers(parts)
        shape = tuple(self._integers(parts).tolist())
        name = bytes(self._next(parts)[1]).decode("latin-1")
        if len(flags) != 2 or not 2 <= len(shape) <= 8 or min(shape) < 0:
            raise ValueError(f"an array of flags {flags.tolist()} and shape {list(shape)}")
        if flags[0] & 0x800:
            raise ValueError(f"complex numbers in {name!r}")
        return int(flags[0] & 0xFF), shape, name

    def _integers(self, parts: Iterator[tuple[int, memoryview]]) -> npt.NDArray[np.int64]:
        values = self._stored(*self._next(parts))
        if values.dtype.kind == "f":
            raise ValueError(f"the shape of an array in {values.dtype}")
        return values.astype(np.int64)

    def _stored(self, kind: int, content: memoryview) -> npt.NDArray[Any]:
        if kind not in _STORED_NUMBERS:
            raise ValueError(f"numbers stored as type {kind}")
        return np.frombuffer(content, self._order + _STORED_NUMBERS[kind])

    def _array(
        self, kind: int, shape: tuple[int, ...], parts: Iterator[tuple[int, memoryview]], size: int, depth: int
    ) -> Any:
        """The value of an array, of which ``parts`` are what follows its header, and ``size`` are all its bytes."""
        count = prod(shape)
        if count > size:  # before anything of that size is allocated
            raise ValueError(f"an array of shape {list(shape)} in {size} bytes")
        if kind in _NUMBERS:
            stored = self._stored(*self._next(parts))
            _check_count(len(stored), shape)
            with np.errstate(all="ignore"):
                return stored.astype(_NUMBERS[kind]).reshape(shape, order="F")
        if kind == _CHAR:
            return self._text(self._next(parts), shape)
        if kind == _CELL:
            return _objects([self._nested(parts, depth) for _ in range(count)], shape)
        if kind == _STRUCT:
            names = self._field_names(parts)
            return _objects([{name: self._nested(parts, depth) for name in names} for _ in range(count)], shape)
        raise ValueError(f"an array of class {kind}")

    def _nested(self, parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
        kind, content = self._next(parts)
        if kind != _MATRIX or depth >= _MAX_DEPTH:
            raise ValueError(f"an element of type {kind} in a cell or struct of depth {depth}")
        if not len(content):
            return np.empty((0, 0))
        inner = self._elements(content)
        array_class, shape, _ = self._header(inner)
        return self._array(array_class, shape, inner, len(content), depth + 1)

    def _text(self, part: tuple[int, memoryview], shape: tuple[int, ...]) -> str | list[str]:
        kind, content = part
        if kind not in _STORED_TEXT:
            raise ValueError(f"text stored as type {kind}")
        encoding = _STORED_TEXT[kind]
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self._order == "<" else "-be"
        text = bytes(content).decode(encoding)
        _check_count(len(text), shape)
        rows = [text[row :: shape[0]] for row in range(shape[0])]
        return rows if len(rows) > 1 else "".join(rows)

    def _field_names(self, parts: Iterator[tuple[int, memoryview]]) -> list[str]:
        length = self._integers(parts)
        names = bytes(self._next(parts)[1])
        if len(length) != 1 or length[0] < 1 or len(names) % length[0]:
            raise ValueError(f"names of fields of lengths {length.tolist()} in {len(names)} bytes")
        step = int(length[0])
        return [names[start : start + step].split(b"\0")[0].decode("latin-1") for start in range(0, len(names), step)]


def _check_count(count: int, shape: tuple[int, ...]) -> None:
    if count != prod(shape):
        raise ValueError(f"an array of shape {list(shape)} with {count} values")


def _objects(values: list[Any], shape: tuple[int, ...]) -> npt.NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):  # at once, NumPy would take equal arrays for further axes
        array[index] = value
    return array.reshape(shape, order="F")
