"""MP4 files changed in their headers, for what OpenCV does not write: rotation and variable frame rates."""

import struct
from pathlib import Path


def turn(path: Path) -> None:
    """Say that the picture is to be shown turned by 90 degrees clockwise."""
    data = bytearray(path.read_bytes())
    header = _find(data, ["moov", "trak", "tkhd"])[-1]
    one = 1 << 16
    struct.pack_into(">9i", data, header + 48, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def time_frames(path: Path, durations: list[float]) -> None:
    """Give frames other durations, in those that they have; the sum must stay."""
    data = bytearray(path.read_bytes())
    boxes = _find(data, ["moov", "trak", "mdia", "minf", "stbl", "stts"])
    table = boxes[-1]
    entries, frames, ticks = struct.unpack_from(">3i", data, table + 12)
    assert entries == 1
    assert frames == len(durations) == sum(durations)
    assert data.rindex(b"mdat") < boxes[0]  # else frames would move in the file
    rows = b"".join(struct.pack(">2i", 1, round(ticks * d)) for d in durations)
    data[table + 12 : table + 24] = struct.pack(">i", frames) + rows
    for box in boxes:
        (size,) = struct.unpack_from(">i", data, box)
        struct.pack_into(">i", data, box, size + len(rows) - 8)
    path.write_bytes(data)


def _find(data: bytearray, names: list[str]) -> list[int]:
    """Where the boxes of a path begin, from the outermost one on."""
    found, start, end = [], 0, len(data)
    for name in names:
        while data[start + 4 : start + 8] != name.encode():
            (size,) = struct.unpack_from(">I", data, start)
            start += size
            assert start < end
        found.append(start)
        (size,) = struct.unpack_from(">I", data, start)
        start, end = start + 8, start + size
    return found
