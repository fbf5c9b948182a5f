"""``pipnet-fast train``: train a model; every setting is an entry of a TOML file and a flag."""

import argparse
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pipnet_fast.train import TrainConfig, _toml, train
from pipnet_fast.train._fields import Field, fields_of, is_optional
from pipnet_fast.train.config import GROUPS


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "train",
        help="train a model",
        description="Train PIPNet, CoordNet, MapNet or G-RMI. Writes into the folder --out: config.toml, log.csv and "
        "curves.png, last.pt (to go on with after whatever ended the run), best.safetensors and final.safetensors (for "
        "pipnet_fast.load, and --model of the other commands). For many GPUs or machines: torchrun ... -m pipnet_fast "
        "train ... with the same arguments.",
    )
    parser.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG",
        help=f"TOML file, or one in the box: {', '.join(config_names())}; flags go before its entries",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from last.pt in --out; without CONFIG, with its config.toml"
    )
    for name, group in GROUPS.items():
        flags = parser.add_argument_group(f"[{name}]", " ".join(group.__doc__.split()))
        for field in fields_of(group):
            _add_flag(flags, name, field)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train."""
    result = train(read_config(arguments), resume=arguments.resume)
    print(f"trained {len(result.history)} epoch(s), written to {result.folder}")
    return 0


def config_names() -> list[str]:
    """Names of the configurations in the box."""
    files = resources.files("pipnet_fast.train").joinpath("configs").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def read_config(arguments: argparse.Namespace) -> TrainConfig:
    """The configuration of a call: its file's entries, and the flags before them.

    Raises:
        ValueError: no such file, or a bad entry.
    """
    given = {name: value for name, value in vars(arguments).items() if "." in name and value is not None}
    path = _find(arguments.config, given.get("system.out"), arguments.resume)
    tables = {name: dict(values) for name, values in (_toml.read(path) if path else {}).items()}
    for name, value in given.items():
        group, entry = name.split(".")
        table = tables.setdefault(group, {})
        table[entry] = {**table.get(entry, {}), **dict(value)} if entry in ("options", "augmentation") else value
    try:
        return TrainConfig.from_dict(tables)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path and not given else str(error)) from None


def _find(config: str | None, out: str | None, resume: bool) -> Path | None:
    if config is None:
        saved = Path(out, "config.toml") if resume and out else None
        return saved if saved and saved.is_file() else None
    path = Path(config)
    if path.is_file():
        return path
    if config in config_names():
        return Path(str(resources.files("pipnet_fast.train").joinpath("configs").joinpath(f"{config}.toml")))
    raise ValueError(f"CONFIG: expected a TOML file, or one of {', '.join(config_names())}, got {config!r}")


def _add_flag(flags: "argparse._ArgumentGroup", group: str, field: Field) -> None:
    """A flag that leaves None where it is not given, so that defaults stay those of the configuration."""
    hint = get_args(field.hint)[0] if is_optional(field.hint) else field.hint
    default = "" if field.default in (None, "", {}) else f" (default: {_text(field.default)})"
    options: dict[str, Any] = {"help": f"{field.help}{default}".replace("%", "%%"), "metavar": "VALUE"}
    if hint is bool:
        options = {"help": options["help"], "action": argparse.BooleanOptionalAction}
    elif get_origin(hint) is Literal:
        options |= {"choices": get_args(hint), "metavar": "NAME"}
    elif get_origin(hint) is tuple:
        options |= {"type": get_args(hint)[0], "nargs": "*", "metavar": "N"}
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
