"""Commands called in process, and what they said."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from pipnet_fast.cli import OneLineParser, main

ROOT = Path(__file__).parents[1]


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


def bench(name: str) -> ModuleType:
    """A module of bench/, which is not installed."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(f"bench.{name}")
    finally:
        sys.path.remove(str(ROOT))


class RunBench:
    """Calls ``python -m bench`` in this process, for others take seconds to begin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
        self.monkeypatch, self.out = monkeypatch, out

    def __call__(self, *words: str) -> list[dict[str, Any]]:
        """The records that a case wrote into ``out``, a file."""
        self.call("__main__", *words, "--json", str(self.out))
        records: list[dict[str, Any]] = json.loads(self.out.read_text())
        return records

    def call(self, module: str, *words: str) -> None:
        """Call the command of a module of bench/."""
        self.monkeypatch.setattr(sys, "argv", [f"bench.{module}", *words])
        bench(module).main()
