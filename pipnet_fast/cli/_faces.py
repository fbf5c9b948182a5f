"""The labelled faces that several commands measure models on."""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from pipnet_fast.cli._arguments import named_values
from pipnet_fast.data import BadSample, FaceData, open_data
from pipnet_fast.data.mean_face import warn_of_other_crops
from pipnet_fast.data.readers import READERS
from pipnet_fast.evaluate.boxes import Floats, label_boxes
from pipnet_fast.models._base import LandmarkModel

# Boxes that every data set with labels has.
TIGHT = "tight"


def add_face_arguments(parser: argparse.ArgumentParser) -> None:
    """Which faces, and what models see of them at once and where."""
    add_data_arguments(parser, required=True)
    add_mean_shape(parser)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="B")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (default: 0)")
    parser.add_argument("--out", metavar="DIR", help="folder for the results, made if need be")
    parser.add_argument(
        "--boxes",
        metavar="KIND",
        help="tight: crop by the tight boxes of the labels by each model's own rule; or which of the data set's boxes, "
        "where it has several",
    )


def add_data_arguments(parser: "argparse.ArgumentParser | argparse._ArgumentGroup", required: bool) -> None:
    """Which labelled faces: what ``open_faces`` opens."""
    parser.add_argument(
        "--data", nargs=2, required=required, metavar=("NAME", "ROOT"), help=f"{', '.join(READERS)}; and its folder"
    )
    parser.add_argument("--split", default="test", help="which part of it (default: test)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the data set's reader, as layout=300w68"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out and count what cannot be read")


def add_mean_shape(parser: argparse.ArgumentParser) -> None:
    """What official checkpoints do not hold themselves."""
    parser.add_argument(
        "--mean-shape", metavar="SHAPE", help="of official checkpoints: a layout's name or meanface.txt"
    )


def open_faces(arguments: argparse.Namespace, **options: Any) -> FaceData:
    """The faces of a call; ``options`` of the reader give way to those of the call.

    Raises:
        ValueError, DataError, ImportError: as ``open_data``.
    """
    name, root = arguments.data
    options |= named_values("--option", arguments.option, "KEY=VALUE")
    return open_data(name, root, arguments.split, skip_bad=arguments.skip_bad, **options)


def open_boxed_faces(arguments: argparse.Namespace) -> tuple[FaceData, Floats | None]:
    """The faces of a call, and the boxes that models are to crop by in place of the data set's.

    Raises:
        ValueError, DataError, ImportError: as ``open_faces``, ``label_boxes``.
    """
    if arguments.boxes == TIGHT:
        data = open_faces(arguments)
        return data, label_boxes(data)
    return open_faces(arguments, **({"boxes": arguments.boxes} if arguments.boxes else {})), None


def warn_of_crops(data: FaceData, models: Iterable[tuple[str, LandmarkModel]]) -> None:
    """Tell which models, by name, are shown other crops than those they were trained with."""
    for name, model in models:
        message = warn_of_other_crops(data, model.crop)
        if message:
            print(f"warning: {name}: {message}; --boxes {TIGHT} crops by the model's rule", file=sys.stderr)


def report_left_out(entries: Iterable[BadSample]) -> int:
    """Tell which faces were left out, each once, and return the exit status: 1 if some were."""
    bad = {entry.where: entry.reason for entry in entries}
    if bad:
        print(f"{len(bad)} face(s) were left out:", *bad.values(), sep="\n  ", file=sys.stderr)
    return 1 if bad else 0
