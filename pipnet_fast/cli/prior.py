"""``pipnet-fast prior``: where models see landmarks when there is no face."""

import argparse
from collections.abc import Sequence
from typing import Any

from pipnet_fast.cli._arguments import folder_argument
from pipnet_fast.cli._models import BOX, load_model, model_names
from pipnet_fast.cli._tables import aligned, write_rows
from pipnet_fast.engines import compile
from pipnet_fast.evaluate import figures
from pipnet_fast.evaluate.prior import Prior, faceless, implicit_prior
from pipnet_fast.layouts import MeanShape, load_mean_shape
from pipnet_fast.models import PIPNet
from pipnet_fast.models._base import LandmarkModel


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "prior",
        help="show what models see in pictures without a face",
        description="Feed pictures without a face to models and see how close to a mean face they still put their "
        "landmarks: the prior of positions that they have learned (section 3.4). Prints how far predictions lie from "
        "the mean shape and how much they vary over the pictures, in percent of the crop, and writes prior.csv, "
        "prior.json and prior.png (as Figure 9: a column a model, a row a picture).",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f'.safetensors model, official .pth checkpoint, or "{BOX}": the one in the box',
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results, made if need be")
    parser.add_argument(
        "--pictures",
        nargs="+",
        default=["black"],
        metavar="KIND",
        help="black, gray, noise, or a folder of images, which are whole crops then (default: black)",
    )
    parser.add_argument("--count", type=int, default=16, metavar="N", help="of noise and of a folder (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument(
        "--mean-shape",
        metavar="SHAPE",
        help="of models that carry none, official checkpoints and other heads: a layout's name or meanface.txt",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Predict, print the table and write the files."""
    out = folder_argument("--out", arguments.out)
    figures.require_matplotlib()
    given = None if arguments.mean_shape is None else load_mean_shape(arguments.mean_shape)
    names, kinds = model_names(arguments.models), list(dict.fromkeys(arguments.pictures))
    models = [load_model(model, arguments.mean_shape, arguments.device) for model in arguments.models]
    sizes = {model.config.input_size for model in models}
    crops = {(kind, size): faceless(kind, size, arguments.count, arguments.seed) for kind in kinds for size in sizes}
    priors = []
    for model, name in zip(models, names, strict=True):
        runtime, mean_shape, size = compile(model, "torch"), _mean_shape(model, given), model.config.input_size
        priors += [implicit_prior(name, runtime, kind, crops[kind, size], mean_shape) for kind in kinds]
    print("\n".join(aligned(_rows(priors), names=2)))
    out.mkdir(parents=True, exist_ok=True)
    write_rows([prior.row() for prior in priors], out, "prior")
    figures.draw_priors(priors, out / "prior.png")
    print(f"written to {out}")
    return 0


def _mean_shape(model: LandmarkModel, given: MeanShape | None) -> MeanShape | None:
    own = model.mean_shape if isinstance(model, PIPNet) else None
    return given if own is None else own


def _rows(priors: Sequence[Prior]) -> list[list[str]]:
    """Of the table."""
    rows = [["model", "pictures", "count", "from the mean shape %", "spread %"]]
    for prior in priors:
        numbers = ["-" if value is None else f"{100 * value:.2f}" for value in (prior.distance, prior.spread)]
        rows.append([prior.model, prior.pictures, str(len(prior.crops)), *numbers])
    return rows
