"""Pictures of faces: landmarks and boxes drawn over the photo."""

import cv2
import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import Floats, Image
from pipnet_fast.pipeline.faces import Faces

# RGB, told apart by most eyes (Okabe and Ito's palette), a face each, then from the start.
COLORS = (
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
)

# OpenCV draws at fractions of a pixel when coordinates are given in these units.
SHIFT = 4


def draw_faces(image: Image, faces: Faces) -> Image:
    """A copy of an RGB image (h, w, 3) with each face's landmarks and box in a color of its own.

    A tracked face keeps its color, and its id stands above its box.
    """
    picture: Image = image.copy()
    for index, number in enumerate(faces.ids.tolist()):
        color = COLORS[(number if number >= 0 else index) % len(COLORS)]
        x0, y0, x1, y1 = faces.boxes[index, :4]
        side = max(1.0, float(np.hypot(x1 - x0, y1 - y0)))
        thickness = max(1, round(side / 300))
        cv2.rectangle(picture, fixed_point(x0, y0), fixed_point(x1, y1), color, thickness, cv2.LINE_AA, SHIFT)
        if number >= 0:
            left, top = (value // 2**SHIFT for value in fixed_point(x0, y0 - side / 30))
            height = max(0.4, side / 300)
            cv2.putText(
                picture, str(number), (left, top), cv2.FONT_HERSHEY_SIMPLEX, height, color, thickness, cv2.LINE_AA
            )
        radius = max(1.0, side / 150) * 2**SHIFT
        for x, y in faces.landmarks[index]:
            cv2.circle(picture, fixed_point(x, y), round(radius), color, cv2.FILLED, cv2.LINE_AA, SHIFT)
    return picture


def write_png(path: str, image: Image) -> None:
    """Write an RGB image. Raises OSError where the file cannot be written."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OSError(f"{path}: the picture could not be encoded")
    with open(path, "wb") as file:
        file.write(data.tobytes())


def fixed_points(points: Floats) -> npt.NDArray[np.int32]:
    """Continuous px (..., 2) in OpenCV's fixed point, counted from pixel centers; far-off ones are kept near."""
    fixed = (np.asarray(points, dtype=np.float64) - 0.5).clip(-1e5, 1e5) * 2**SHIFT
    rounded: npt.NDArray[np.int32] = fixed.round().astype(np.int32)
    return rounded


def fixed_point(x: float | Floats, y: float | Floats) -> tuple[int, int]:
    """One of ``fixed_points``, as OpenCV takes it."""
    fixed_x, fixed_y = fixed_points(np.array([x, y])).tolist()
    return fixed_x, fixed_y
