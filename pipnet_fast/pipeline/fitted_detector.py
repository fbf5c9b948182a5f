"""A detector for landmarks that do not span the face from the brows to the chin: its boxes made tight about them."""

import json
import math
import os
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pipnet_fast._files import write_whole
from pipnet_fast.crop import Image
from pipnet_fast.pipeline.detectors import Boxes, BoxStyle, Detector, create_detector

FORMAT = "pipnet_fast detector/1"
SUFFIX = ".json"
# A box that shrinks or grows more than this has nothing to do with the face.
_LARGEST_SCALE = 10.0


class FittedDetector:
    """A detector whose boxes are turned into the tight ones of other landmarks than the 68.

    ``evaluate.fit_detector`` measures how on labelled faces.

    Args:
        name: "haar" or "yunet:PATH".
        style: how its boxes, tight about 68 landmarks, turn into those.
    """

    def __init__(self, name: str, style: BoxStyle) -> None:
        """See the class."""
        detector = None if name.endswith(SUFFIX) else create_detector(name)
        if detector is None:
            raise ValueError(f"FittedDetector: name: expected haar or yunet:PATH, got {name!r}")
        self.name, self.style = name, style
        self._detector: Detector = detector

    def __call__(self, image: Image) -> Boxes:
        """Boxes (n, 5) of an RGB image, tight about the landmarks."""
        boxes = np.asarray(self._detector(image), dtype=np.float64)
        tight = restyled(boxes, self.style)
        return np.concatenate((tight, boxes[:, 4:]), axis=1).astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, for ``load_detector`` and for ``--detector`` of the commands.

        Raises:
            ValueError: a name that does not end in .json.
            OSError: the file cannot be written.
        """
        if not os.fspath(path).endswith(SUFFIX):
            raise ValueError(f"FittedDetector: path: expected a name that ends in {SUFFIX}, got {os.fspath(path)!r}")
        text = json.dumps({"format": FORMAT, "detector": self.name, "style": asdict(self.style)}, indent=2)
        write_whole(path, lambda file: file.write((text + "\n").encode()))


def load_detector(path: str | os.PathLike[str]) -> FittedDetector:
    """Read what ``FittedDetector.save`` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another file, or numbers out of their ranges.
        RuntimeError: a detector that is not present here.
    """
    source = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such detector file: {source}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: not a readable detector file: {error}") from None
    match values:
        case {"format": str(format), "detector": str(name), "style": dict(style)} if format == FORMAT:
            return FittedDetector(name, _style(style, source))
    raise ValueError(f"{source}: expected a detector file in format {FORMAT!r}")


def restyled(boxes: npt.NDArray[np.float64], style: BoxStyle) -> npt.NDArray[np.float64]:
    """Boxes (n, 4), x0, y0, x1, y1, that a style makes of boxes (n, 4 or more)."""
    corners = boxes[:, :4]
    return style.to_tight(np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1))


def _style(values: dict[str, Any], source: str) -> BoxStyle:
    names = [field.name for field in fields(BoxStyle)]
    numbers = all(isinstance(v, (int, float)) and math.isfinite(v) for v in values.values())
    if sorted(values) != sorted(names) or not numbers:
        raise ValueError(f"{source}: style: expected finite numbers for {', '.join(names)}, got {values!r:.200}")
    style = BoxStyle(**values)
    scales, shifts = (style.scale_x, style.scale_y), (style.shift_x, style.shift_y)
    if not all(0 < s <= _LARGEST_SCALE for s in scales) or not all(abs(s) <= _LARGEST_SCALE for s in shifts):
        raise ValueError(f"{source}: style: expected scales above 0 and up to {_LARGEST_SCALE:g}, got {style}")
    return style
