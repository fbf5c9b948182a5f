"""``pipnet-fast train``: train a model; every setting is an entry of a TOML file and a flag."""

import argparse
from typing import Any

from pipnet_fast.cli._config import add_config_arguments, read_config
from pipnet_fast.train import TrainConfig, train


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
    add_config_arguments(parser, TrainConfig)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train."""
    result = train(read_config(arguments, TrainConfig), resume=arguments.resume)
    print(f"trained {len(result.history)} epoch(s), written to {result.folder}")
    return 0
