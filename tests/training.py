"""Small faces to train on, in a table of one's own, and the flags of runs that take seconds."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipnet_fast.cli import main

# Eyes, nose, corners of the mouth, in fractions of the face.
MEAN = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
COLORS = [(255, 60, 60), (60, 255, 60), (60, 60, 255), (255, 255, 60), (60, 255, 255)]
SIDE = 64
# What the table does not tell, and a network that is as small as can be.
FLAGS: dict[str, Any] = {
    "dataset": "table",
    "options": ["flip=[1, 0, 2, 4, 3]", "eyes=[0, 1]"],
    "crop-scale": 1.6,
    "num-neighbors": 2,
    "width": 0.0625,
    "input-size": 64,
    "batch-size": 8,
    "learning-rate": 1e-3,
    "epochs": 3,
    "workers": 0,
    "threads": 1,
    "device": "cpu",
}


def write_faces(folder: Path, split: str, count: int, seed: int = 0, missing: float = 0.0) -> None:
    """``count`` images of five dots and their labels in px, counted from the center of the first pixel.

    Of the labels but the eyes', which errors are divided by, a share is ``missing``.
    """
    random, dropped = np.random.RandomState(seed), np.random.RandomState(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["file," + ",".join(f"{axis}{n}" for n in range(5) for axis in "xy")]
    for number in range(count):
        points = 12 + 40 * (MEAN + random.uniform(-0.06, 0.06, MEAN.shape)) + random.uniform(-6, 6, 2)
        image = random.randint(40, 90, (SIDE, SIDE, 3)).astype(np.uint8)
        for (x, y), color in zip(points, COLORS, strict=True):
            cv2.circle(image, (round(x * 16), round(y * 16)), 3 * 16, color, cv2.FILLED, cv2.LINE_AA, shift=4)
        name = f"{split}{number}.png"
        cv2.imwrite(str(folder / "images" / name), image)
        points[2:][dropped.rand(3) < missing] = np.nan
        lines.append(f"{name}," + ",".join(f"{v:.3f}" for v in points.ravel()))
    (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def arguments(root: Path, out: Path, **changes: Any) -> list[str]:
    """Arguments of ``pipnet-fast`` for a small run; a flag whose value is None is left out."""
    values = {"root": root, "out": out, **FLAGS, **{key.replace("_", "-"): value for key, value in changes.items()}}
    words = ["train"]
    for name, value in values.items():
        if value is True or value is False:
            words.append(f"--{'' if value else 'no-'}{name}")
        elif name in ("options", "augmentation"):
            words += [word for pair in value for word in (f"--{name}", pair)]
        elif value is not None:
            words += [f"--{name}", *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]
    return words


def run(root: Path, out: Path, *more: str, **changes: Any) -> int:
    """The command's exit status."""
    return main([*arguments(root, out, **changes), *more])


def launch(*words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """torchrun with two processes, on a port of its own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    endpoint = ["--rdzv-endpoint=localhost:0", "-m", "pipnet_fast"]
    # One thread in each, and no advice about it on stderr.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*torchrun, *endpoint, *words], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
