"""What the landmarker found in one image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one image; n may be 0, the arrays keep their rank.

    Pixel coordinates are continuous: pixel i covers [i, i + 1), its center is i + 0.5.

    Attributes:
        landmarks: (n, N, 2) float32, px, x before y; may leave the image.
        scores: (n, N) float32 in 0..1, how sure the network is of each landmark's cell.
        boxes: (n, 5) float32, x0, y0, x1, y1 in px and the detector's score; tight about the landmarks. In tracking
            the score is the mean of the landmarks' scores, for most frames are not searched by a detector.
        ids: (n,) int64, -1 outside tracking.
    """

    landmarks: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """The number of faces."""
        return len(self.landmarks)

    def to_dict(self) -> list[dict[str, Any]]:
        """A list of plain values, one entry a face, for JSON; a tracked face's begins with its id."""
        return [
            {
                **({"id": int(number)} if number >= 0 else {}),
                "box": [round(float(v), 3) for v in box[:4]],
                "score": round(float(box[4]), 4),
                "landmarks": [[round(float(x), 3), round(float(y), 3)] for x, y in points],
                "landmark_scores": [round(float(v), 4) for v in scores],
            }
            for number, box, points, scores in zip(self.ids, self.boxes, self.landmarks, self.scores, strict=True)
        ]
