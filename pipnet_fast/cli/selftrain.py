"""``pipnet-fast selftrain``: train on labelled and unlabelled faces together."""

import argparse
from typing import Any

from pipnet_fast.cli._config import add_config_arguments, read_config
from pipnet_fast.selftrain import SelfTrainConfig, selftrain


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "selftrain",
        help="train a model on labelled and unlabelled faces",
        description="Self-training with curriculum (section 3.3 of the paper), without it, or domain-adversarial "
        "training. [data] is the labelled set. Writes into the folder --out: config.toml, rounds.csv, a training run "
        "for each round, the pseudo-labels as Parquet, and final.safetensors (for pipnet_fast.load, and --model of the "
        "other commands). For many GPUs or machines: torchrun ... -m pipnet_fast selftrain ... with the same "
        "arguments.",
    )
    add_config_arguments(parser, SelfTrainConfig)
    parser.add_argument(
        "--unlabelled",
        action="append",
        type=_unlabelled,
        metavar="DATASET:ROOT[:SPLIT]",
        help="faces without labels, such as images:FOLDER for a folder of pictures and videos; may be given several "
        "times, in place of the file's [[unlabelled]], whose tables can say more",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train."""
    config = read_config(arguments, SelfTrainConfig, unlabelled=arguments.unlabelled)
    result = selftrain(config, resume=arguments.resume)
    print(f"{len(result.rounds)} round(s), written to {result.folder}")
    return 0


def _unlabelled(text: str) -> dict[str, str]:
    dataset, colon, rest = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"expected DATASET:ROOT[:SPLIT], got {text!r}")
    # From the right: a root may have colons.
    root, colon, split = rest.rpartition(":")
    if not colon or "/" in split or "\\" in split:
        root, split = rest, ""
    return {"dataset": dataset, "root": root, **({"split": split} if split else {})}
