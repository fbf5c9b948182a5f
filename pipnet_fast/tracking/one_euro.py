"""The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012) over many points at once.

An exponential filter whose cutoff rises with speed: slow points are held still, fast ones are followed closely.

    cutoff = min_cutoff + beta * |speed|,    x' += a (x - x'),    a = 1 / (1 + 1 / (2 pi cutoff dt))
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

# Of the filter on the speed, as in the paper.
SPEED_CUTOFF_HZ = 1.0


class OneEuroFilter:
    """Smooths points that move together; the first ones pass as they are.

    Args:
        min_cutoff_hz: of points at rest, > 0; lower is calmer.
        beta: how far the cutoff rises with speed, Hz for every size a second, >= 0; higher lags less.
    """

    def __init__(self, min_cutoff_hz: float, beta: float) -> None:
        """See the class."""
        self._min_cutoff, self._beta = min_cutoff_hz, beta
        self._smooth: Points | None = None
        self._speed: Points | float = 0.0
        self._time = 0.0

    def __call__(self, points: npt.NDArray[np.floating[Any]], time_s: float, size: float) -> Points:
        """Smoothed points.

        Args:
            points: (n, 2), as many in each call.
            time_s: seconds, later than in the call before.
            size: what speeds are measured in, such as a face's side in the unit of the points, > 0: one setting then
                fits faces of all sizes.
        """
        if self._smooth is None:
            self._smooth = points.astype(np.float64)
        else:
            step = time_s - self._time
            speed = (points - self._smooth) / (size * step)
            self._speed = self._speed + _weight(SPEED_CUTOFF_HZ, step) * (speed - self._speed)
            # Of the point, not of each axis: else a path would bend.
            cutoff = self._min_cutoff + self._beta * np.linalg.norm(self._speed, axis=1, keepdims=True)
            self._smooth = self._smooth + _weight(cutoff, step) * (points - self._smooth)
        self._time = time_s
        return self._smooth


def one_euro(smoothing: float) -> OneEuroFilter | None:
    """The filter of a setting, 0 < smoothing <= 1; none for 0.

    At 0.5 a face at rest jitters a fifth, and the lag is below 10 ms (bench/tracking.py); both constants are divided
    by 16 from the crisp end to the calm one.
    """
    if smoothing == 0:
        return None
    return OneEuroFilter(min_cutoff_hz=4 / 16**smoothing, beta=128 / 16**smoothing)


def _weight(cutoff_hz: Any, step_s: float) -> Any:
    return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * step_s))
