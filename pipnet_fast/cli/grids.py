"""``pipnet-fast grids``: how often the right grid cell wins, at a PIPNet's stride and at coarser ones."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipnet_fast.cli._arguments import folder_argument
from pipnet_fast.cli._faces import add_face_arguments, open_boxed_faces, report_left_out, warn_of_crops
from pipnet_fast.cli._models import BOX, load_model, model_names
from pipnet_fast.cli._tables import aligned, write_rows
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
    add_face_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Count for every model, print the table and write the files; 1 if some faces were left out."""
    out = None if arguments.out is None else folder_argument("--out", arguments.out)
    if out:
        figures.require_matplotlib()
    names = model_names(arguments.models)
    models = [load_model(model, arguments.mean_shape, arguments.device) for model in arguments.models]
    data, boxes = open_boxed_faces(arguments)
    if boxes is None:
        warn_of_crops(data, zip(names, models, strict=True))
    accuracies = [
        grid_accuracy(
            model,
            data,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            boxes=boxes,
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
    return report_left_out(entry for accuracy in accuracies for entry in accuracy.bad)


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
