"""From what a data set's files hold to arrays and samples, checked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.data.errors import DataError
from pipnet_fast.data.readers._files import MAX_COORDINATE, check_box
from pipnet_fast.data.samples import Sample
from pipnet_fast.data.sources import ImageSource

# A coordinate counts pixels from their centers: the first one's is 1 in MATLAB, 0 elsewhere. Continuous, it is 0.5.
ONE_BASED = -0.5
ZERO_BASED = 0.5


def numbers(value: Any, shape: Sequence[int | None], where: str) -> npt.NDArray[np.float64]:
    """Real numbers as float64, checked to be of ``shape``, in which None stands for any count.

    Raises:
        DataError: other values, or another shape.
    """
    wanted = f"({', '.join('n' if size is None else str(size) for size in shape)})"
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise DataError(f"{where}: expected numbers of shape {wanted}, got {kind}")
    if value.ndim != len(shape) or any(want not in (None, size) for want, size in zip(shape, value.shape, strict=True)):
        raise DataError(f"{where}: expected shape {wanted}, got {value.shape}")
    return value.astype(np.float64)


def make_sample(
    image: ImageSource,
    landmarks: npt.NDArray[np.float64] | None,
    box: npt.NDArray[np.float64],
    base: float,
    where: str,
    subsets: tuple[str, ...] = (),
) -> Sample:
    """A face of coordinates as the data set has them: landmarks (N, 2) or None, box (4,) as x0, y0, x1, y1.

    Args:
        image: where the picture is.
        landmarks: see above.
        box: see above.
        base: what makes the coordinates continuous, ``ONE_BASED`` or ``ZERO_BASED``.
        where: file and line or variable, for messages.
        subsets: of the sample.

    Raises:
        DataError: a coordinate that is not finite or beyond ``MAX_COORDINATE``, or a box without area.
    """
    if landmarks is not None and not (abs(landmarks) <= MAX_COORDINATE).all():
        bad = int(np.flatnonzero(~(abs(landmarks) <= MAX_COORDINATE).all(axis=1))[0])
        wanted = f"numbers within +-{MAX_COORDINATE:.0f}"
        raise DataError(f"{where}: expected {wanted}, got {landmarks[bad].tolist()} at landmark {bad}")
    return Sample(image, None if landmarks is None else landmarks + base, check_box(box + base, where), subsets)


def corners_of(xywh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Boxes (n, 4) of x, y, width, height as first and last pixel x0, y0, x1, y1, as the official code has them."""
    return np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:] - 1), axis=1)
