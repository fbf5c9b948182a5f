"""Packages that only some formats need; they come with extras of the package."""

from importlib import import_module
from types import ModuleType


def import_optional(name: str, purpose: str, extra: str = "train") -> ModuleType:
    """Import a package of an extra.

    Raises:
        ImportError: it is not installed; says what for, and how to get it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"{purpose} needs {package}, which does not import ({error}): pip install 'pipnet_fast[{extra}]'"
        ) from None
