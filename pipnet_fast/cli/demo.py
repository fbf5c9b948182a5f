"""``pipnet-fast demo``: detect on one photo, by default one that is free to use."""

import argparse
from pathlib import Path
from typing import Any

from pipnet_fast.cli import detect


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="detect on a free photo, or on yours",
        description="Find landmarks in a photo of the astronaut Eileen Collins (NASA, public domain; it comes with "
        "scikit-image), or in yours.",
    )
    parser.add_argument("photo", nargs="?", metavar="PHOTO", help="your own photo")
    detect.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Annotate the photo."""
    arguments.photos = [arguments.photo or str(astronaut())]
    return detect.run(arguments)


def astronaut() -> Path:
    """Path of scikit-image's photo of an astronaut."""
    try:
        import skimage.data
    except ImportError:
        raise RuntimeError(
            "the demo's photo comes with scikit-image: pip install scikit-image, or name a photo of yours"
        ) from None
    return Path(skimage.data.__file__).with_name("astronaut.png")
