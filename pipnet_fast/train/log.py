"""What a run tells of itself: a line and a row an epoch, curves, a progress bar."""

import csv
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipnet_fast.train.checkpoint import write_atomically

# One epoch: what it is, loss terms, learning rate, val_nme where validated, speed.
Row = dict[str, Any]
# Curves take longer to draw than a small epoch takes to run.
SECONDS_BETWEEN_DRAWINGS = 30.0


def require_matplotlib() -> None:
    """Raise ImportError now rather than at the end of an epoch."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("train: curves.png needs matplotlib: pip install 'pipnet_fast[train]'") from None


class Log:
    """``log.csv`` and ``curves.png`` of a run. The table is written anew each time, so no row is lost or doubled."""

    def __init__(self, folder: Path) -> None:
        """Write into ``folder``."""
        self._folder = folder
        self._drawn = time.monotonic()

    def write(self, history: Sequence[Row], *, last: bool) -> None:
        """Write the table, and the curves if ``last`` or a while ago.

        Raises:
            OSError: the folder cannot be written.
        """
        if not history:
            return
        write_table(self._folder / "log.csv", history)
        if last or time.monotonic() - self._drawn > SECONDS_BETWEEN_DRAWINGS:
            draw_curves(history, self._folder / "curves.png")
            self._drawn = time.monotonic()


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV, with a column for every name that one of them has.

    Raises:
        OSError: the folder cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def draw_curves(history: Sequence[Row], path: Path) -> None:
    """A picture of the loss terms, the validation error and the learning rate over the epochs."""
    # Not pyplot, which wants a display and keeps every figure.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    validated = [row for row in history if "val_nme" in row]
    terms = [name for name in history[0] if name == "loss" or name.startswith("loss_")]
    titles = ["training loss", *["validation NME, %"] * bool(validated), "learning rate"]
    figure = Figure(figsize=(5 * len(titles), 4))
    # Set by hand: to find the margins, matplotlib would draw all of it once more.
    margins = {"left": 0.15 / len(titles), "right": 1 - 0.06 / len(titles), "bottom": 0.14, "top": 0.9, "wspace": 0.25}
    panels = dict(zip(titles, figure.subplots(1, len(titles), gridspec_kw=margins), strict=True))
    epochs = [row["epoch"] for row in history]
    for term in terms:
        # Terms that are all zero, as the neighbors' of K = 0, have no place on a logarithmic axis.
        if any(row[term] > 0 for row in history):
            panels["training loss"].plot(epochs, [row[term] for row in history], label=term)
    panels["training loss"].set_yscale("log")
    panels["training loss"].legend()
    if validated:
        panel = panels["validation NME, %"]
        panel.plot([row["epoch"] for row in validated], [row["val_nme"] for row in validated], color="C3")
        best = min(validated, key=lambda row: float(row["val_nme"]))
        panel.axhline(best["val_nme"], color="0.7", linewidth=1)
        panel.plot(
            best["epoch"], best["val_nme"], "o", color="C3", label=f"{best['val_nme']:.2f} in epoch {best['epoch']}"
        )
        panel.legend()
    panels["learning rate"].plot(epochs, [row["learning_rate"] for row in history], color="C2")
    panels["learning rate"].ticklabel_format(axis="y", scilimits=(0, 0))
    for title, panel in panels.items():
        # In its place by hand, too.
        panel.set_title(title, y=1.0)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


class Progress:
    """A bar over the steps of an epoch on a terminal, and a line after each epoch anywhere."""

    def __init__(self, epochs: int, done: int, *, silent: bool) -> None:
        """A run of ``epochs``, some of them done before; ``silent`` in all processes but one."""
        self._epochs = epochs
        self._silent = silent
        self._first = done
        self._start = time.monotonic()

    def bar(self, epoch: int, faces: int) -> "tqdm[Any]":
        """A bar over the faces of an epoch, counted from 1; without a terminal there is none."""
        return tqdm(
            total=faces,
            desc=f"epoch {epoch}/{self._epochs}",
            unit="face",
            leave=False,
            disable=True if self._silent else None,
        )

    def warn(self, message: str) -> None:
        """Print a warning."""
        if not self._silent:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    def line(self, row: Row) -> None:
        """Print what came of an epoch, and when the run will end if all go on like the ones so far."""
        if self._silent:
            return
        done = row["epoch"] - self._first
        left = (time.monotonic() - self._start) / done * (self._epochs - row["epoch"])
        error = f"  val {row['val_nme']:.3f}%" if "val_nme" in row else ""
        print(
            f"epoch {row['epoch']}/{self._epochs}  loss {row['loss']:.5f}{error}  lr {row['learning_rate']:.2e}  "
            f"{row['samples_per_second']:.0f} faces/s  ETA {duration(left)}",
            flush=True,
        )


def duration(seconds: float) -> str:
    """As 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
