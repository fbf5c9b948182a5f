"""TOML in and out; the standard library reads it from Python 3.11 on, and nothing there writes it."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def read(path: Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        ValueError: not TOML; the message names file and line.
        OSError: no readable file.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    return tables


def read_value(text: str) -> Any:
    """A value as TOML has it, or the text itself where it is none."""
    try:
        values = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return values["value"] if set(values) == {"value"} else text


def write(tables: Mapping[str, Any]) -> str:
    """Tables as text, and lists of tables; None is left out, a table in a table follows it under its dotted name."""
    parts = []
    for name, content in tables.items():
        several = isinstance(content, list)
        for table in content if several else [content]:
            lines = [f"[[{name}]]" if several else f"[{name}]"]
            inner = {f"{name}.{_key(key)}": value for key, value in table.items() if isinstance(value, dict) and value}
            lines += [f"{_key(k)} = {_value(v)}" for k, v in table.items() if v is not None and not isinstance(v, dict)]
            parts.append("\n".join(lines) + "\n")
            if inner:
                parts.append(write(inner))
    return "\n".join(parts)


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's text is TOML's, but for this one.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
