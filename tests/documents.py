"""The pages of the documentation and the blocks of code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code."""

    language: str
    code: str
    line: int
    """Of its first line in the page, from 1."""


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The blocks of a page in order, all or those in one language."""
    text = page.read_text(encoding="utf-8")
    found = [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in _BLOCK.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def lines(code: str) -> list[str]:
    """The commands of a block for the shell: without comments and empty lines, those that a backslash joins as one."""
    stripped = (line.strip() for line in code.replace("\\\n", " ").splitlines())
    return [line for line in stripped if line and not line.startswith("#")]
