"""What several commands do with their arguments."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def named_values(flag: str, texts: Sequence[str], form: str = "NAME=VALUE") -> dict[str, Any]:
    """Names and values; numbers, lists and the like are written as JSON, words as they are.

    Raises:
        ValueError: a text that is not of ``form``.
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise ValueError(f"{flag}: expected {form}, got {text!r}")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values


def folder_argument(flag: str, text: str) -> Path:
    """A folder that may be there or be made.

    Raises:
        ValueError: a file is there.
    """
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{flag}: expected a folder, got the file {path}")
    return path


def add_landmarker_options(parser: argparse.ArgumentParser) -> None:
    """Add what makes a ``FaceLandmarker``: --model, --detector, --device and --engine."""
    parser.add_argument("--model", metavar="FILE", help=".safetensors model (default: the one in the box)")
    parser.add_argument(
        "--detector", default="auto", metavar="NAME", help="auto, haar, yunet:PATH or fit-detector's file"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--engine", default="auto", help="auto or one of those that `pipnet-fast info` lists")
