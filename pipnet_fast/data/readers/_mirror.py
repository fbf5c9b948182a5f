"""Which landmark becomes which when a face is mirrored, read off the mean face."""

import numpy as np
import numpy.typing as npt

from pipnet_fast.data.samples import Points

# Of the sides of the mean face's tight box. The data sets of the paper keep within 0.04; a face turned aside does not.
TOLERANCE = 0.05


def mirror_permutation(mean_shape: Points, name: str) -> npt.NDArray[np.int64]:
    """The permutation (N,) that pairs each landmark with its mirror image, itself on the midline.

    The mean face is mirrored about the mean of its x, and landmarks are paired one to one so that the sum of
    distances is least.

    Args:
        mean_shape: (N, 2), in any unit.
        name: of the data, for messages.

    Raises:
        ValueError: the pairs are not mutual, or some are further apart than ``TOLERANCE``.
        ImportError: SciPy is missing.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError(
            f"{name}: flip: deriving it needs SciPy: pip install 'pipnet_fast[train]', or give flip="
        ) from None

    low, high = mean_shape.min(axis=0), mean_shape.max(axis=0)
    shape = (mean_shape - low) / np.where(high > low, high - low, 1.0)
    mirrored = shape * (-1, 1) + (2 * shape[:, 0].mean(), 0)
    distance = np.linalg.norm(shape[:, None] - mirrored[None], axis=2)
    rows, flip = linear_sum_assignment(distance)
    worst = int(distance[rows, flip].argmax())
    apart = distance[worst, flip[worst]]
    if apart > TOLERANCE or not np.array_equal(flip[flip], rows):
        raise ValueError(
            f"{name}: flip: expected a mean face whose mirror image meets it within {TOLERANCE} of its box, but "
            f"landmark {worst} and the mirrored {flip[worst]} are {apart:.3f} apart; give the permutation as flip="
        )
    return np.asarray(flip, dtype=np.int64)
