"""Mean shapes of the paper's landmark layouts, by name, and the reading of one's own."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MeanShape = npt.NDArray[np.float64]


def layout_names() -> list[str]:
    """Names accepted wherever a mean shape is asked for, such as ``"wflw98"``."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def load_mean_shape(mean_shape: Any) -> MeanShape:
    """Return a mean shape as a float64 array (N, 2), x before y, in fractions of the crop.

    Args:
        mean_shape: the name of a layout (see ``layout_names``), the path of a text file with x and y
            interleaved (the official ``meanface.txt``), or anything that converts to an (N, 2) array, N >= 1.

    Raises:
        ValueError: unknown name, unreadable text, wrong shape, or values that are not finite.
    """
    if isinstance(mean_shape, str) and mean_shape in layout_names():
        text = resources.files(__name__).joinpath(f"{mean_shape}.json").read_text(encoding="utf-8")
        points = np.array(json.loads(text)["mean_shape"], dtype=np.float64)
    elif isinstance(mean_shape, (str, Path)):
        points = _read_text(Path(mean_shape))
    else:
        points = _as_array(mean_shape)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"mean_shape: expected shape (N, 2) with N >= 1, got {points.shape}")
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise ValueError(f"mean_shape: expected finite coordinates, got {points[bad].tolist()} at landmark {bad}")
    return points


def _read_text(path: Path) -> MeanShape:
    if not path.is_file():
        known = ", ".join(layout_names())
        raise ValueError(f"mean_shape: expected one of {known}, a file or an (N, 2) array, got {str(path)!r}")
    try:
        values = [float(token) for token in path.read_text(encoding="utf-8").split()]
    except ValueError as error:
        raise ValueError(f"mean_shape: {path} is not a list of numbers: {error}") from None
    if len(values) % 2:
        raise ValueError(f"mean_shape: {path}: expected an even count of numbers (x y ...), got {len(values)}")
    return np.array(values, dtype=np.float64).reshape(-1, 2)


def _as_array(value: Any) -> MeanShape:
    try:
        # A tensor on the GPU or with a gradient does not convert by itself.
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"mean_shape: expected numbers of shape (N, 2), got {type(value).__name__}: {error}") from None
