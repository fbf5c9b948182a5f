"""The command ``pipnet-fast``. Exit status 0; 1 where some inputs failed; 2 and one line for a wrong call."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import pipnet_fast
from pipnet_fast.cli import (
    annotate,
    data,
    demo,
    detect,
    eval,
    export,
    grids,
    info,
    neighbors,
    prior,
    selftrain,
    train,
    video,
)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = OneLineParser(prog="pipnet-fast", description="Facial landmarks by PIPNet.")
    parser.add_argument("--version", action="version", version=f"pipnet_fast {pipnet_fast.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        detect,
        demo,
        video,
        annotate,
        export,
        data,
        train,
        selftrain,
        eval,
        grids,
        prior,
        neighbors,
        info,
    ):
        module.add_command(commands)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        # A reader that went away shows here, not in the interpreter's last moments.
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print(f"pipnet-fast {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        print(f"pipnet-fast {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return status
