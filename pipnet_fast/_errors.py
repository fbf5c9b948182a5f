"""Words of errors: of arguments that cannot be, and those of other libraries in a line."""

from typing import Any


def require_int(name: str, argument: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise a ValueError of ``name`` unless ``value`` is an integer from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        expected = f">= {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: {argument}: expected an integer {expected}, got {value!r}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
