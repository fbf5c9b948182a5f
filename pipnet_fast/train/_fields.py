"""Fields of configurations: described once, for TOML and flags alike, and checked by their types."""

import types
from dataclasses import fields
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

# Marks a field in which a run may differ from the one that it resumes.
MAY_CHANGE = "may change"


class Field(NamedTuple):
    """One field of a group."""

    name: str
    hint: Any
    default: Any
    help: str
    may_change: bool
    """Whether a run may be resumed with another value."""


def fields_of(group: Any) -> list[Field]:
    """The fields of a group's class, in their order; each is ``name: Annotated[type, help, MAY_CHANGE or not]``."""
    hints, blank = get_type_hints(group, include_extras=True), group()
    return [
        Field(f.name, hint.__origin__, getattr(blank, f.name), hint.__metadata__[0], MAY_CHANGE in hint.__metadata__)
        for f, hint in ((f, hints[f.name]) for f in fields(group))
    ]


def check_types(group: str, values: Any) -> None:
    """Check every field of a frozen dataclass against its type; whole numbers become floats, lists tuples.

    Raises:
        ValueError: a value of another type; the message names group and field.
    """
    hints = get_type_hints(type(values))
    for name in (f.name for f in fields(values)):
        value = getattr(values, name)
        try:
            object.__setattr__(values, name, convert(hints[name], value))
        except ValueError as error:
            raise ValueError(f"{group}.{name}: expected {error}, got {value!r}") from None


def convert(hint: Any, value: Any) -> Any:
    """A value as its type has it.

    Raises:
        ValueError: it is of another; the message says what was expected.
    """
    parts = get_args(hint)
    if is_optional(hint):
        return None if value is None else convert(parts[0], value)
    if get_origin(hint) is Literal:
        if value in parts and type(value) in {type(part) for part in parts}:
            return value
        raise ValueError(f"one of {', '.join(map(str, parts))}")
    if get_origin(hint) is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(convert(parts[0], item) for item in value)
        raise ValueError(f"a list, each {_WORDS[parts[0]]}")
    if get_origin(hint) is dict:
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return dict(value)
        raise ValueError("a table")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(_WORDS[hint])
    return value


def is_optional(hint: Any) -> bool:
    """Whether a type is ``X | None``."""
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
