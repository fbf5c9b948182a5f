"""Landmark layouts: the paper's by name, with mean shape, mirror permutation and eye corners; reading of one's own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.layouts.convert import wflw98_to_300w68

__all__ = ["Layout", "MeanShape", "layout_names", "load_layout", "load_mean_shape", "wflw98_to_300w68"]

MeanShape = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layout:
    """What the landmarks of a data set are, apart from where they lie.

    Attributes:
        name: for messages and files.
        flip: (N,) permutation: landmark i of the mirrored image is what landmark flip[i] was. Its own inverse.
        outer_eyes: the landmarks at the outer eye corners, whose distance errors are divided by; None if it has none.
    """

    name: str
    flip: npt.NDArray[np.int64]
    outer_eyes: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check that the permutation is one, and that it mirrors the eyes."""
        flip = np.asarray(self.flip)
        count, order = len(flip), np.arange(len(flip))
        if flip.ndim != 1 or count == 0 or not np.issubdtype(flip.dtype, np.integer):
            raise ValueError(f"Layout {self.name}: flip: expected N >= 1 integers, got {flip.dtype} {flip.shape}")
        if not np.array_equal(np.sort(flip), order) or not np.array_equal(flip[flip], order):
            raise ValueError(
                f"Layout {self.name}: flip: expected a permutation of 0..{count - 1} that is its own inverse"
            )
        eyes = self.outer_eyes
        if eyes is not None and (len(eyes) != 2 or eyes[0] == eyes[1] or not all(0 <= eye < count for eye in eyes)):
            raise ValueError(f"Layout {self.name}: outer_eyes: expected two landmarks of 0..{count - 1}, got {eyes!r}")
        object.__setattr__(self, "flip", flip.astype(np.int64))

    @property
    def num_landmarks(self) -> int:
        """N."""
        return len(self.flip)

    def subset(self, landmarks: Sequence[int], name: str | None = None) -> "Layout":
        """The layout of some of the landmarks, in the order given; ``mean_shape[landmarks]`` is its mean shape.

        Raises:
            ValueError: a landmark twice, one that there is not, or one without its mirror image.
        """
        kept = np.asarray(landmarks)
        if kept.ndim != 1 or len(kept) == 0 or not np.issubdtype(kept.dtype, np.integer):
            raise ValueError(f"Layout {self.name}: subset: expected landmarks, got {kept.dtype} {kept.shape}")
        if len(np.unique(kept)) != len(kept) or kept.min() < 0 or kept.max() >= self.num_landmarks:
            raise ValueError(
                f"Layout {self.name}: subset: expected different landmarks of 0..{self.num_landmarks - 1}, got "
                f"{kept.tolist()}"
            )
        place = {landmark: index for index, landmark in enumerate(kept.tolist())}
        mirrored = self.flip[kept].tolist()
        lonely = [landmark for landmark, image in zip(place, mirrored, strict=True) if image not in place]
        if lonely:
            raise ValueError(
                f"Layout {self.name}: subset: expected every landmark with its mirror image, got {lonely[0]} without "
                f"{int(self.flip[lonely[0]])}"
            )
        eyes = self.outer_eyes
        outer_eyes = (place[eyes[0]], place[eyes[1]]) if eyes is not None and set(eyes) <= set(place) else None
        flip = np.array([place[image] for image in mirrored])
        return Layout(name or f"{self.name} subset", flip, outer_eyes)


def layout_names() -> list[str]:
    """Names accepted wherever a mean shape is asked for, such as ``"wflw98"``."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def load_layout(name: str) -> Layout:
    """The layout of a name, see ``layout_names``.

    Raises:
        ValueError: no such layout.
    """
    if name not in layout_names():
        raise ValueError(f"layout: expected one of {', '.join(layout_names())}, got {name!r}")
    values = _read_json(name)
    first, second = values["outer_eyes"]
    return Layout(name, np.array(values["flip"]), (first, second))


def load_mean_shape(mean_shape: Any) -> MeanShape:
    """Return a mean shape as a float64 array (N, 2), x before y, in fractions of the crop.

    Args:
        mean_shape: the name of a layout (see ``layout_names``), the path of a text file with x and y
            interleaved (the official ``meanface.txt``), or anything that converts to an (N, 2) array, N >= 1.

    Raises:
        ValueError: unknown name, unreadable text, wrong shape, or values that are not finite.
    """
    if isinstance(mean_shape, str) and mean_shape in layout_names():
        points = np.array(_read_json(mean_shape)["mean_shape"], dtype=np.float64)
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


def _read_json(name: str) -> dict[str, Any]:
    text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


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
