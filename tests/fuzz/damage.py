"""What happens to files, by accident or by intent: a good one and a random generator in, a damaged one out."""

import re
import struct
from collections.abc import Callable
from random import Random

# On the edges of what counts, sizes and offsets may be.
NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (b"0", b"-1", b"4294967297", b"99999999999999999999", b"1e999", b"-1e308", b"nan", b"inf", b"", b"[]", b'"')
# Structures lie where files begin: half of the damage is done there.
HEAD = 512


def damaged(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """One to three kinds of damage; ``others`` are files, perhaps of other formats, to take parts of."""
    for _ in range(random.choice((1, 1, 2, 3))):
        data = random.choice(KINDS)(data, random, others)
    return data


def truncations(data: bytes, count: int) -> list[bytes]:
    """Files that end too early: within the first bytes, everywhere, and just before the end."""
    lengths = {*range(count // 4), *(len(data) * i // count for i in range(count)), len(data) - 1}
    return [data[:length] for length in sorted(lengths) if 0 <= length < len(data)]


def _place(data: bytes, random: Random) -> int:
    return random.randrange(min(len(data), HEAD) + 1) if random.random() < 0.5 else random.randrange(len(data) + 1)


def _cut(data: bytes, random: Random, others: list[bytes]) -> bytes:
    return data[: _place(data, random)]


def _flip_bits(data: bytes, random: Random, others: list[bytes]) -> bytes:
    flipped, place = bytearray(data or b"\0"), _place(data, random)
    for _ in range(random.randint(1, 8)):
        flipped[min(place + random.randrange(8), len(flipped) - 1)] ^= 1 << random.randrange(8)
    return bytes(flipped)


def _lie(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Another number where one may be."""
    size, place = random.choice((1, 2, 4, 8)), _place(data, random)
    number = struct.pack(random.choice("<>") + "Q", random.choice(NUMBERS))
    return data[:place] + (number[:size] if random.random() < 0.5 else number[-size:]) + data[place + size :]


def _lie_in_words(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Another number where one is written out."""
    found = list(re.finditer(rb"-?\d[\d.]*", data[: 1 << 16]))
    if not found:
        return _lie(data, random, others)
    word = random.choice(found)
    return data[: word.start()] + random.choice(WORDS) + data[word.end() :]


def _repeat(data: bytes, random: Random, others: list[bytes]) -> bytes:
    start, end = sorted((_place(data, random), _place(data, random)))
    return data[:end] + (data[start:end] * random.choice((1, 2, 100)))[: 1 << 20] + data[end:]


def _leave_out(data: bytes, random: Random, others: list[bytes]) -> bytes:
    start = _place(data, random)
    return data[:start] + data[start + random.choice((1, 2, 4, 8, 64, 1024)) :]


def _put_in(data: bytes, random: Random, others: list[bytes]) -> bytes:
    place = _place(data, random)
    return data[:place] + random.randbytes(random.choice((1, 2, 4, 8, 64))) + data[place:]


def _splice(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Begins as one file, goes on as another."""
    other = random.choice(others)
    return data[: _place(data, random)] + other[_place(other, random) :]


def _replace(data: bytes, random: Random, others: list[bytes]) -> bytes:
    return random.choice(others)


KINDS: tuple[Callable[[bytes, Random, list[bytes]], bytes], ...] = (
    *(_cut, _flip_bits, _flip_bits, _lie, _lie, _lie, _lie_in_words, _lie_in_words),
    *(_repeat, _leave_out, _put_in, _splice, _splice, _replace),
)
