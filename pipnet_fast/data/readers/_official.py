"""Labels and crops of 300W in whole pixels, as the official preprocessing has them; for comparison with its numbers.

Differs from the package's own by up to half a pixel, and where a crop meets the left or upper border of the image.
"""

import numpy as np

from pipnet_fast.data.samples import Points
from pipnet_fast.data.sources import ImageSource


def official_face(landmarks: Points, image: ImageSource, scale: float) -> tuple[Points, Points]:
    """Landmarks (N, 2) and crop (4,) as the official code makes them, in the px whose pixel i covers [i, i + 1).

    It cuts the fraction off coordinates that count from 1, which on average is what counting from the pixel's edge
    gives. A crop that starts outside the image slides inside with its size unchanged; at the other end it is cut.

    Args:
        landmarks: (N, 2) in continuous px, from numbers that counted from 1.
        image: is read, for its size.
        scale: growth of the box's sides.

    Raises:
        ImageError: the image cannot be read.
    """
    height, width = image.read().shape[:2]
    # The half that was taken off comes back with a rounding error, which must not cost a whole pixel.
    points = np.trunc((landmarks + 0.5).round(6))
    low = points.min(axis=0)
    side = points.max(axis=0) - low
    start = np.maximum(low - np.trunc((scale - 1) / 2 * side), 0)
    side = np.minimum(side + np.trunc((scale - 1) * side), np.array([width, height]) - start - 1)
    return points, np.concatenate((start, start + side))
