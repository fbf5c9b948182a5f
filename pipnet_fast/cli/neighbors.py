"""``pipnet-fast neighbors``: which landmarks vote for which, as a table and as a picture."""

import argparse
from pathlib import Path
from typing import Any, get_args

import torch

from pipnet_fast.evaluate import figures
from pipnet_fast.layouts import layout_names, load_mean_shape
from pipnet_fast.neighbors import Merge, NeighborTable, neighbor_table


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "neighbors",
        help="show the neighbors of landmarks",
        description="Print for every landmark its neighbors, nearest first, how many landmarks vote for it, and what "
        "its own vote weighs when they are merged. How the error depends on their number (Figure 11) or on the stride "
        "(Table 1) is seen on trained models: pipnet-fast eval MODEL... --sweep num_neighbors --out DIR.",
    )
    parser.add_argument(
        "layout", metavar="LAYOUT", help=f"{', '.join(layout_names())}, or a text file of x and y (meanface.txt)"
    )
    parser.add_argument("--count", type=int, default=10, metavar="K", help="neighbors of each landmark (default: 10)")
    parser.add_argument("--merge", choices=get_args(Merge), default="mean", help="how votes are merged (default: mean)")
    parser.add_argument("--out", metavar="PNG", help="picture of the neighbors on the mean face")
    parser.add_argument(
        "--landmarks", type=int, nargs="+", metavar="N", help="of the picture (default: eight spread over the face)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table, draw the picture."""
    mean_shape = load_mean_shape(arguments.layout)
    count = len(mean_shape)
    if not 0 <= arguments.count < count:
        raise ValueError(f"--count: expected 0 to {count - 1} neighbors of {count} landmarks, got {arguments.count}")
    shown = arguments.landmarks or [i * count // 8 for i in range(8)]
    if not all(0 <= landmark < count for landmark in shown):
        raise ValueError(f"--landmarks: expected landmarks of 0..{count - 1}, got {shown}")
    table = neighbor_table(mean_shape, arguments.count, arguments.merge)
    print(_text(table))
    if arguments.out:
        figures.draw_neighbors(mean_shape, table, Path(arguments.out), list(dict.fromkeys(shown)))
        print(f"written to {arguments.out}")
    return 0


def _text(table: NeighborTable) -> str:
    votes = torch.bincount(table.neighbors.flatten(), minlength=table.num_landmarks)
    # The first entry of each row is the landmark's own vote.
    own = table.weights[table.starts[:-1].long()]
    lines = ["landmark  votes  own weight  neighbors"]
    for landmark, neighbors in enumerate(table.neighbors.tolist()):
        members = " ".join(map(str, neighbors))
        lines.append(f"{landmark:8}  {int(votes[landmark]):5}  {float(own[landmark]):10.3f}  {members}".rstrip())
    return "\n".join(lines)
