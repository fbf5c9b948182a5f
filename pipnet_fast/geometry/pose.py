"""Which way a head looks, from its landmarks and a head that stands for everybody's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import tight_boxes
from pipnet_fast.geometry._points import as_faces, as_landmarks, select
from pipnet_fast.layouts import load_layout

Floats = npt.NDArray[np.float64]

# Tip of the nose, chin, outer eye corners, corners of the mouth, mm from the tip of the nose: of the widespread rigid
# head of 14 points, brought to 90 mm between the outer eye corners. It has no tip of the nose. That is put 20 mm before
# the base, as noses are in the mean, and as low between eyes and mouth as in the mean face of 300W. A flatter, shorter
# head that is widespread, too, turns faces that look ahead by up to 40 degrees.
# Axes as of a camera that the face looks into: x to the image's right, y down, z away from the camera.
GENERIC_HEAD_MM = np.array(
    [[0, 0, 0], [0, 76, 36], [-45, -33, 36], [45, -33, 36], [-24, 31, 28], [24, 31, 28]], dtype=np.float64
)
# The same points of the layouts.
HEAD_POINTS: dict[str, tuple[int, ...]] = {
    "300w68": (30, 8, 36, 45, 48, 54),
    "300w68_gssl": (30, 8, 36, 45, 48, 54),
    "wflw98": (54, 16, 60, 72, 76, 82),
    "lapa106": (54, 16, 66, 79, 84, 90),
    "cofw29": (20, 28, 8, 9, 22, 23),
    "aflw19": (13, 18, 6, 11, 15, 17),
}
# Faces smaller than this, px, are rounding.
_LEAST_SIDE_PX = 1.0


class HeadPose(NamedTuple):
    """Poses of n heads; of a single one the arrays lack their first axis.

    rotation = Rz(roll) Ry(-yaw) Rx(-pitch): the head nods first, then turns, then tilts, about the camera's axes.

    Attributes:
        yaw_deg: (n,) -90 to 90; above 0 where the face turns to the image's right.
        pitch_deg: (n,) -180 to 180; above 0 where it looks up; beyond 90 the landmarks are not those of a face.
        roll_deg: (n,) -180 to 180; above 0 where it is turned clockwise, as one sees it.
        rotation: (n, 3, 3) from the head's axes to the camera's: x to the image's right, y down, z away from it. The
            unit matrix is a face that looks along the camera's axis, into it.
        translation_mm: (n, 3) the tip of the nose from the camera: as wrong as the head is larger or smaller than the
            generic one, and the third as the focal length is.
    """

    yaw_deg: Floats
    pitch_deg: Floats
    roll_deg: Floats
    rotation: Floats
    translation_mm: Floats


def head_pose(landmarks: Any, image_size: Sequence[int], layout: str, camera: Any = None) -> HeadPose:
    """How heads are turned, by the pose of a generic head whose projection lies closest to six of the landmarks.

    The six are the tip of the nose, the chin, the outer eye corners and the corners of the mouth. The pose is solved
    for by SQPnP (Terzakis and Lourakis 2020), then by least squares of the pixels. Nobody has the generic head: expect
    angles to be off by several degrees, yaw by 15 where a face is narrower, those of one person by much the same ones.
    An open mouth lowers the chin and so changes the pitch. Angles are against the camera's axis, not against the line
    of sight to the head.

    Args:
        landmarks: (n, N, 2) of n faces, or (N, 2) of a single one; continuous px of the image.
        image_size: height and width of the image in px, as ``image.shape[:2]`` has them.
        layout: which landmarks they are: "300w68", "wflw98", "lapa106", "cofw29" or "aflw19".
        camera: (3, 3) matrix of the camera in continuous px; by default the longer side of the image is the focal
            length (a view of 53 degrees) and its middle the center. Lenses are taken to be without distortion.

    Raises:
        ValueError: a bad argument, a landmark that is not finite, or a face without size.
    """
    order = list(select("head_pose", HEAD_POINTS, layout))
    points = as_landmarks("head_pose", landmarks, load_layout(layout).num_landmarks)
    faces = as_faces("head_pose", points[..., order, :])
    matrix = _camera(image_size, camera)
    if len(faces):
        boxes = tight_boxes(faces)
        small = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) < _LEAST_SIDE_PX
        if small.any():
            face = int(np.flatnonzero(small)[0])
            raise ValueError(f"head_pose: landmarks: expected a face of {_LEAST_SIDE_PX:g} px or more, got face {face}")
    solved = [_solve(face, matrix, index) for index, face in enumerate(faces)]
    rotation = np.array([r for r, _ in solved]).reshape(-1, 3, 3)
    translation = np.array([t for _, t in solved]).reshape(-1, 3)
    pose = HeadPose(*_angles(rotation), rotation, translation)
    return HeadPose(*(values[0] for values in pose)) if points.ndim == 2 else pose


def _camera(image_size: Sequence[int], camera: Any) -> Floats:
    size = np.asarray(image_size)
    if size.shape != (2,) or size.dtype.kind not in "iuf" or not (np.isfinite(size) & (size > 0)).all():
        raise ValueError(f"head_pose: image_size: expected height and width in px, got {image_size!r}")
    if camera is None:
        height, width = size.tolist()
        focal = float(max(height, width))
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    matrix = np.asarray(camera, dtype=np.float64)
    focal_lengths = matrix[(0, 1), (0, 1)] if matrix.shape == (3, 3) else np.zeros(2)
    if not np.isfinite(matrix).all() or (focal_lengths <= 0).any() or matrix[2].tolist() != [0, 0, 1]:
        raise ValueError(
            "head_pose: camera: expected (3, 3) with positive focal lengths and a last row 0 0 1, got "
            f"{matrix.tolist()}"
        )
    return matrix


def _solve(face: Floats, camera: Floats, index: int) -> tuple[Floats, Floats]:
    """Rotation (3, 3) and translation (3,) of one face (6, 2)."""
    try:
        found, rotation, translation = cv2.solvePnP(GENERIC_HEAD_MM, face, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if found:
            rotation, translation = cv2.solvePnPRefineLM(GENERIC_HEAD_MM, face, camera, None, rotation, translation)
    except cv2.error:  # landmarks on one line, or all but on one point
        found = False
    if not found or not np.isfinite(rotation).all() or not np.isfinite(translation).all() or translation[2, 0] <= 0:
        raise ValueError(f"head_pose: landmarks: expected a face, found no head before the camera for face {index}")
    turned: Floats = np.asarray(cv2.Rodrigues(rotation)[0], dtype=np.float64)
    return turned, np.asarray(translation, dtype=np.float64)[:, 0]


def _angles(rotation: Floats) -> tuple[Floats, Floats, Floats]:
    """Yaw, pitch and roll (n,) in degrees of rotations (n, 3, 3)."""
    yaw = np.arctan2(rotation[:, 2, 0], np.hypot(rotation[:, 2, 1], rotation[:, 2, 2]))
    pitch = -np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    return np.degrees(yaw), np.degrees(pitch), np.degrees(roll)
