"""Commands called in process, and what they said."""

import argparse
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from pipnet_fast.cli import OneLineParser, main


class Result(NamedTuple):
    status: int
    out: str
    err: str


class Run:
    """Calls ``pipnet-fast`` and returns exit status and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> Result:
        try:
            status: Any = main([str(word) for word in words])
        except SystemExit as end:
            status = end.code
        return Result(status, *self.capsys.readouterr())


class RunOne(Run):
    """Calls one command, whose errors are raised."""

    def __init__(self, capsys: pytest.CaptureFixture[str], command: ModuleType) -> None:
        super().__init__(capsys)
        self.command = command

    def __call__(self, *words: object) -> Result:
        arguments = parsed(self.command, *words)
        return Result(arguments.run(arguments), *self.capsys.readouterr())


def parsed(command: ModuleType, *words: object) -> argparse.Namespace:
    """The arguments of a call of one command."""
    parser = OneLineParser(prog="pipnet-fast")
    command.add_command(parser.add_subparsers(required=True))
    return parser.parse_args([command.__name__.rpartition(".")[2], *map(str, words)])
