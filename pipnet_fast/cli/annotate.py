"""``pipnet-fast annotate``: landmarks of any number of photos and videos, as one table."""

import argparse
import sys
from typing import Any

from tqdm import tqdm

from pipnet_fast.annotate import Progress, annotate
from pipnet_fast.annotate.annotation import PLACES
from pipnet_fast.cli._arguments import add_landmarker_options


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "annotate",
        help="find landmarks in any number of photos and videos, into one table",
        description="Find the landmarks of all faces in photos and videos and write them into a folder of Parquet "
        "files, a row a face: pandas.read_parquet(DIR). DIR/_images has a row for every photo and frame, and "
        "DIR/_errors.parquet those that could not be read; if there are any, the exit status is 1. A run that was "
        "killed goes on when the same command is given again. Coordinates are pixels, continuous: the center of the "
        "first pixel is 0.5.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SRC",
        help="photos, videos, folders with all that is below them, patterns in quotes such as 'in/**/*.jpg', or "
        "@LIST, a file with a path a line",
    )
    parser.add_argument("--out", required=True, metavar="DIR.parquet", help="folder for the tables, made if need be")
    add_landmarker_options(parser)
    parser.add_argument(
        "--on",
        choices=PLACES,
        default=PLACES[0],
        help="this machine's processes, or a Ray cluster, for which --engine ray is short (default: %(default)s)",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="workers (default: one for every core)")
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="pictures in one forward pass (default: %(default)s)"
    )
    parser.add_argument(
        "--every", type=int, default=5, metavar="N", help="take every N-th frame of videos (default: %(default)s)"
    )
    parser.add_argument("--shard-size", type=int, metavar="N", help="photos that a worker does at a time")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Annotate; 1 if some files could not be read."""
    on_ray = arguments.engine == "ray"
    # Without a terminal there is no bar: it would stand among the messages of a log.
    with tqdm(unit="file", leave=False, disable=None) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.total
            # What was there already does not count for the rate.
            if bar.n == 0:
                bar.initial = progress.done
            bar.update(progress.done - bar.n)

        found = annotate(
            arguments.sources,
            arguments.out,
            model=arguments.model,
            detector=arguments.detector,
            device=arguments.device,
            engine="auto" if on_ray else arguments.engine,
            batch_size=arguments.batch_size,
            every=arguments.every,
            shard_size=arguments.shard_size,
            processes=arguments.processes,
            on="ray" if on_ray else arguments.on,
            on_progress=show,
        )
    print(
        f"{found.faces} face(s) in {found.images} picture(s), {found.faceless} without a face, written to "
        f"{arguments.out}"
    )
    if found.errors:
        print(f"{found.errors} file(s) or frame(s) could not be read:", file=sys.stderr)
        for message in found.messages:
            print(f"  {message}", file=sys.stderr)
        if found.errors > len(found.messages):
            print(f"  and others, all in {found.folder / '_errors.parquet'}", file=sys.stderr)
    return 1 if found.errors else 0
