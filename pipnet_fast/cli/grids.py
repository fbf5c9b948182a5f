"""``pipnet-fast grids``: how often the right grid cell wins, at a PIPNet's stride and at coarser ones."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipnet_fast.cli._arguments import folder_argument, named_values
from pipnet_fast.cli._models import BOX, load_model, model_names
from pipnet_fast.cli._tables import aligned, write_rows
from pipnet_fast.data import open_data
from pipnet_fast.data.readers import READERS
from pipnet_fast.evaluate import figures
from pipnet_fast.evaluate.grids import POOLINGS, GridAccuracy, grid_accuracy


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "grids",
        help="measure how often the right grid cell wins, at several strides",
        description="Count how often the highest score of a landmark is in the cell of its label, on the grid of a "
        "PIPNet and on coarser ones, which self-training with curriculum begins with (Figure 7): where features are "
        "max-pooled and scored by the same layer, and where the winner on the finest grid is only asked for its cell "
        "on the coarser one. With --out, also writes grids.csv, grids.json and grids.png.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f'.safetensors model or official .pth checkpoint of a PIPNet, or "{BOX}": the one in the box',
    )
    parser.add_argument(
        "--data", nargs=2, required=True, metavar=("NAME", "ROOT"), help=f"{', '.join(READERS)}; and its folder"
    )
    parser.add_argument("--split", default="test", help="which part of it (default: test)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the data set's reader, as layout=300w68"
    )
    parser.add_argument(
        "--mean-shape", metavar="SHAPE", help="of official checkpoints: a layout's name or meanface.txt"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out and count what cannot be read")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="B")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (default: 0)")
    parser.add_argument("--out", metavar="DIR", help="folder for the results, made if need be")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Count for every model, print the table and write the files; 1 if some faces were left out."""
    out = None if arguments.out is None else folder_argument("--out", arguments.out)
    if out:
        figures.require_matplotlib()
    names = model_names(arguments.models)
    models = [load_model(model, arguments.mean_shape, arguments.device) for model in arguments.models]
    name, root = arguments.data
    options = named_values("--option", arguments.option, "KEY=VALUE")
    data = open_data(name, root, arguments.split, skip_bad=arguments.skip_bad, **options)
    accuracies = [
        grid_accuracy(
            model,
            data,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            skip_bad=arguments.skip_bad,
            name=name,
        )
        for model, name in zip(models, names, strict=True)
    ]
    print(_text(accuracies))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        _write(accuracies, out)
        print(f"written to {out}")
    bad = {entry.where: entry.reason for accuracy in accuracies for entry in accuracy.bad}
    if bad:
        print(f"{len(bad)} face(s) were left out:", *bad.values(), sep="\n  ", file=sys.stderr)
    return 1 if bad else 0


def _text(accuracies: Sequence[GridAccuracy]) -> str:
    """The table, and which grids there are not."""
    rows = [["model", "stride", "cells", "landmarks", "pooled %", "merged %"]]
    missing = []
    for accuracy in accuracies:
        for grid in accuracy.grids:
            numbers = (grid.stride, f"{grid.cells}x{grid.cells}", accuracy.landmarks)
            rows.append([accuracy.name, *map(str, numbers), f"{grid.pooled:.2f}", f"{grid.merged:.2f}"])
        last = accuracy.grids[-1]
        if len(accuracy.grids) <= POOLINGS:
            missing.append(
                f"{accuracy.name}: no grid coarser than stride {last.stride}, for 2 does not divide its {last.cells} "
                "cell(s) a side"
            )
    return "\n".join([f"{accuracies[0].data}, {accuracies[0].faces} face(s)", *aligned(rows, names=1), *missing])


def _write(accuracies: Sequence[GridAccuracy], out: Path) -> None:
    rows = [
        {
            "model": accuracy.name,
            "data": accuracy.data,
            "faces": accuracy.faces,
            "landmarks": accuracy.landmarks,
            **grid._asdict(),
        }
        for accuracy in accuracies
        for grid in accuracy.grids
    ]
    write_rows(rows, out, "grids")
    figures.draw_grids(accuracies, out / "grids.png")
