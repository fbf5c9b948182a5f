"""How large a picture a file holds, from its header: known before anything of that size is allocated.

A file of some hundred bytes may unpack to gigabytes, and OpenCV refuses only what is above 2^30 pixels. Whatever stands
in a header twice counts at its largest.
"""

import re
import struct
from collections.abc import Iterator

FORMATS = "AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PNM, TIFF or WebP"

# Sizes of TIFF's types of whole numbers, by their code.
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
_TIFF_WIDTHS, _TIFF_HEIGHTS = (256, 322), (257, 323)  # of the image, and of its tiles

# A marker is what follows the last 0xFF of several, and no 0.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}  # without a length
_JPEG_ENDS = {0xD9, 0xDA}

# Segments, entries or boxes that are looked at, far more than photos have: none of them takes long.
_MOST = 1 << 16

_PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?!\d)")


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in px, as stored; None for what is none of ``FORMATS``, or too damaged to tell."""
    reader = next((reader for start, reader in _READERS if re.match(start, data)), None)
    try:
        size = reader(data) if reader else None
    except (struct.error, OverflowError):
        return None
    return size if size and min(size) > 0 else None


def _png(data: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if data[12:16] == b"IHDR" else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    position = 2
    for _ in range(_MOST):
        # Damaged files have bytes between segments, which decoders pass over.
        found = _JPEG_MARKER.search(data, position)
        if found is None or found[0][1] in _JPEG_ENDS:
            break
        position = found.end()
        if found[0][1] in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            return width, height
        if found[0][1] not in _JPEG_ALONE:
            position += struct.unpack_from(">H", data, position)[0]
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return 1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return (width & 0x3FFF, height & 0x3FFF) if kind == b"VP8 " else None


def _bmp(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    # Negative where rows run from the top.
    return abs(width), abs(height)


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _pnm(data: bytes) -> tuple[int, int] | None:
    found = _PNM.match(data)
    return (int(found[1]), int(found[2])) if found else None


def _tiff(data: bytes) -> tuple[int, int] | None:
    order, big = "<" if data[:2] == b"II" else ">", 43 in (data[2], data[3])
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
    first, length = (directory + 8, 20) if big else (directory + 2, 12)
    widths, heights = [0], [0]
    for entry in range(first, first + min(entries, _MOST) * length, length):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if kind in _TIFF_INTEGERS and tag in _TIFF_WIDTHS + _TIFF_HEIGHTS:
            code, place = order + _TIFF_INTEGERS[kind], entry + (12 if big else 8)
            if struct.calcsize(code) > (8 if big else 4):
                (place,) = struct.unpack_from(order + "I", data, place)
            (widths if tag in _TIFF_WIDTHS else heights).append(struct.unpack_from(code, data, place)[0])
    return max(widths), max(heights)


def _jpeg2000(data: bytes) -> tuple[int, int] | None:
    boxes = [(b"jp2c", 0, 0)] if data[:1] == b"\xff" else _boxes(data, 0, len(data))
    for kind, start, _ in boxes:
        if kind == b"jp2c":
            # SOC and SIZ, which begins with its length and capabilities.
            x, y, left, top = struct.unpack_from(">8xIIII", data, start)
            return x - left, y - top
    return None


def _avif(data: bytes) -> tuple[int, int] | None:
    # Of the picture, of the tiles that it may consist of, and of its alpha.
    sizes = [
        struct.unpack_from(">4xII", data, at)
        for meta, outer, outer_end in _boxes(data, 0, len(data))
        if meta == b"meta"
        for properties, middle, middle_end in _boxes(data, outer + 4, outer_end)
        if properties == b"iprp"
        for container, inner, inner_end in _boxes(data, middle, middle_end)
        if container == b"ipco"
        for kind, at, _ in _boxes(data, inner, inner_end)
        if kind == b"ispe"
    ]
    return max(sizes, key=lambda size: size[0] * size[1]) if sizes else None


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the boxes that JPEG 2000 and AVIF consist of."""
    for _ in range(_MOST):
        if start + 8 > end:
            break
        size, kind = struct.unpack_from(">I4s", data, start)
        begin = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        stop = min(start + size, end) if size else end
        yield kind, begin, stop
        start = max(stop, begin)


_READERS = (
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"\xff\xd8\xff", _jpeg),
    (rb"RIFF[\s\S]{4}WEBP", _webp),
    (rb"BM", _bmp),
    (rb"GIF8[79]a", _gif),
    (rb"P[1-6]", _pnm),
    (rb"II[*+]\0|MM\0[*+]", _tiff),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _jpeg2000),
    (rb"[\s\S]{4}ftyp", _avif),
)
