"""Configurations on the command line: every entry of a TOML file is a flag, too."""

import argparse
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pipnet_fast.train import TrainConfig, _toml
from pipnet_fast.train._fields import Field, fields_of, is_optional

Config = TypeVar("Config", bound=TrainConfig)


def add_config_arguments(parser: argparse.ArgumentParser, config: type[TrainConfig]) -> None:
    """CONFIG, ``--resume`` and a flag for every entry of every group."""
    parser.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG",
        help=f"TOML file, or one in the box: {', '.join(config_names(config))}; flags go before its entries",
    )
    parser.add_argument("--resume", action="store_true", help="go on in --out; without CONFIG, with its config.toml")
    for name, group in config.groups().items():
        flags = parser.add_argument_group(f"[{name}]", " ".join(group.__doc__.split()))
        for field in fields_of(group):
            _add_flag(flags, name, field)


def read_config(arguments: argparse.Namespace, config: type[Config], **lists: Any) -> Config:
    """The configuration of a call: its file's entries, and the flags before them.

    Args:
        arguments: of a parser that ``add_config_arguments`` was called on.
        config: its class.
        lists: further entries of the file, in place of its own unless they are None.

    Raises:
        ValueError: no such file, or a bad entry.
    """
    given = {name: value for name, value in vars(arguments).items() if "." in name and value is not None}
    path = _find(arguments.config, given.get("system.out"), arguments.resume, config)
    tables: dict[str, Any] = _toml.read(path) if path else {}
    for name, value in given.items():
        group, entry = name.split(".")
        table = tables.setdefault(group, {})
        table[entry] = {**table.get(entry, {}), **dict(value)} if entry in ("options", "augmentation") else value
    tables |= {name: value for name, value in lists.items() if value is not None}
    try:
        return config.from_dict(tables)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path and not given else str(error)) from None


def config_names(config: type[TrainConfig]) -> list[str]:
    """Names of the configurations in the box."""
    files = _box(config).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def _box(config: type[TrainConfig]) -> Any:
    """The folder ``configs`` beside the class."""
    return resources.files(config.__module__.rpartition(".")[0]).joinpath("configs")


def _find(name: str | None, out: str | None, resume: bool, config: type[TrainConfig]) -> Path | None:
    if name is None:
        saved = Path(out, "config.toml") if resume and out else None
        return saved if saved and saved.is_file() else None
    path, names = Path(name), config_names(config)
    if path.is_file():
        return path
    if name in names:
        return Path(str(_box(config).joinpath(f"{name}.toml")))
    raise ValueError(f"CONFIG: expected a TOML file, or one of {', '.join(names)}, got {name!r}")


def _add_flag(flags: "argparse._ArgumentGroup", group: str, field: Field) -> None:
    """A flag that leaves None where it is not given, so that defaults stay those of the configuration."""
    hint = get_args(field.hint)[0] if is_optional(field.hint) else field.hint
    default = "" if field.default in (None, "", {}, ()) else f" (default: {_text(field.default)})"
    options: dict[str, Any] = {"help": f"{field.help}{default}".replace("%", "%%"), "metavar": "VALUE"}
    if hint is bool:
        options = {"help": options["help"], "action": argparse.BooleanOptionalAction}
    elif get_origin(hint) is Literal:
        options |= {"choices": get_args(hint), "metavar": "NAME"}
    elif get_origin(hint) is tuple:
        options |= {"type": get_args(hint)[0], "nargs": "*", "metavar": "N" if get_args(hint)[0] is int else "NAME"}
    elif get_origin(hint) is dict:
        options |= {"type": _pair, "action": "append", "metavar": "NAME=VALUE"}
    else:
        options |= {"type": hint}
    flags.add_argument(f"--{field.name.replace('_', '-')}", dest=f"{group}.{field.name}", default=None, **options)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, _toml.read_value(value)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
