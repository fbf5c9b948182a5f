"""The pose of the generic head, projected at known angles."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipnet_fast.geometry import head_pose
from pipnet_fast.geometry.pose import GENERIC_HEAD_MM, HEAD_POINTS
from pipnet_fast.layouts import layout_names, load_layout, load_mean_shape

Floats = npt.NDArray[np.float64]

HEIGHT, WIDTH = 480, 640
CAMERA = np.array([[640.0, 0, 320], [0, 640, 240], [0, 0, 1]])


def about(axis: int, degrees: float) -> Floats:
    """Rotation about x, y or z by the right hand."""
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    rotation = np.eye(3)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation[first, first], rotation[first, second] = cosine, -sine
    rotation[second, first], rotation[second, second] = sine, cosine
    return rotation


def project(
    yaw: float, pitch: float, roll: float, at: tuple[float, float, float] = (0, 0, 600), camera: Floats = CAMERA
) -> Floats:
    rotation = about(2, roll) @ about(1, -yaw) @ about(0, -pitch)
    points = (GENERIC_HEAD_MM @ rotation.T + at) @ camera.T
    return np.asarray(points[:, :2] / points[:, 2:])


def landmarks(six: Floats, layout: str = "300w68") -> Floats:
    """All landmarks of a layout, of which only the six are there."""
    points = np.full((*six.shape[:-2], load_layout(layout).num_landmarks, 2), np.nan)
    points[..., list(HEAD_POINTS[layout]), :] = six
    return points


def pose_of(six: Floats, **options: Any) -> Any:
    return head_pose(landmarks(six), (HEIGHT, WIDTH), "300w68", **options)


ANGLES = [(0, 0, 0), (40, 0, 0), (0, 25, 0), (0, 0, 30), (-70, 10, -5), (20, -25, 170), (-15, 35, -60)]


def test_known_angles_come_back() -> None:
    pose = pose_of(np.stack([project(*angles, at=(30, -50, 700)) for angles in ANGLES]))
    got = np.stack((pose.yaw_deg, pose.pitch_deg, pose.roll_deg), axis=1)
    assert got == pytest.approx(np.array(ANGLES), abs=1e-3)
    assert pose.translation_mm == pytest.approx(np.array([[30, -50, 700]] * len(ANGLES)), abs=0.05)
    for rotation, (yaw, pitch, roll) in zip(pose.rotation, ANGLES, strict=True):
        assert rotation == pytest.approx(about(2, roll) @ about(1, -yaw) @ about(0, -pitch), abs=1e-4)


def test_what_the_signs_mean() -> None:
    nose, chin, left_eye, right_eye = project(0, 0, 0)[:4]
    eyes = (left_eye + right_eye) / 2
    assert nose[0] == pytest.approx(eyes[0])
    turned = project(20, 0, 0)
    assert turned[0, 0] - turned[2:4, 0].mean() > 5
    up = project(0, 20, 0)
    assert up[0, 1] - up[2:4, 1].mean() < nose[1] - eyes[1] - 5
    clockwise = project(0, 0, 20)
    assert clockwise[3, 1] > clockwise[2, 1] + 5
    assert chin[1] > nose[1] > eyes[1]
    assert right_eye[0] > left_eye[0]


@pytest.mark.parametrize("layout", HEAD_POINTS)
def test_every_layout(layout: str) -> None:
    points = landmarks(project(25, -10, 5), layout)
    pose = head_pose(points, (HEIGHT, WIDTH), layout)
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx((25, -10, 5), abs=1e-3)
    assert sorted(HEAD_POINTS) == layout_names()


@pytest.mark.parametrize("layout", ["300w68", "lapa106"])
def test_mean_faces_look_ahead(layout: str) -> None:
    # Mean shapes are in fractions of boxes that are not square. A head of the wrong proportions turns narrow faces.
    shapes = np.stack([load_mean_shape(layout) * (100, height) + (200, 150) for height in (95, 100, 105, 110, 115)])
    pose = head_pose(shapes, (HEIGHT, WIDTH), layout, camera=[[640, 0, 250], [0, 640, 200], [0, 0, 1]])
    assert abs(pose.yaw_deg).max() < 1
    assert abs(pose.pitch_deg).max() < 3
    assert abs(pose.roll_deg).max() < 2


def test_shapes_of_one_of_some_and_of_none() -> None:
    one = pose_of(project(0, 0, 0))
    assert [np.shape(values) for values in one] == [(), (), (), (3, 3), (3,)]
    two = pose_of(np.stack([project(0, 0, 0), project(10, 0, 0)]))
    assert [values.shape for values in two] == [(2,), (2,), (2,), (2, 3, 3), (2, 3)]
    none = pose_of(np.zeros((0, 6, 2)))
    assert [values.shape for values in none] == [(0,), (0,), (0,), (0, 3, 3), (0, 3)]


def test_a_camera_of_ones_own() -> None:
    camera = np.array([[900.0, 0, 100], [0, 950, 50], [0, 0, 1]])
    pose = pose_of(project(-30, 5, 0, camera=camera), camera=camera)
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx((-30, 5, 0), abs=1e-3)
    assert pose.translation_mm == pytest.approx([0, 0, 600], abs=0.05)


def test_pixel_noise_costs_degrees() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, (20, 6, 2))
    pose = pose_of(project(20, 10, 0) + noise)
    assert abs(pose.yaw_deg - 20).max() < 6
    assert abs(pose.pitch_deg - 10).max() < 8
    assert abs(pose.roll_deg).max() < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"landmarks": np.zeros((98, 2))}, r"landmarks: .* got float64 \(98, 2\)", id="N"),
        pytest.param({"landmarks": np.zeros((1, 1, 68, 2))}, r"expected \(N, 2\) or \(n, N, 2\)", id="4 dims"),
        pytest.param({"landmarks": np.full((68, 2), np.nan)}, "finite numbers, got .* of face 0", id="NaN"),
        pytest.param({"landmarks": np.ones((68, 2))}, "a face of 1 px or more, got face 0", id="one point"),
        pytest.param({"layout": "mine"}, "layout: expected one of", id="layout"),
        pytest.param({"image_size": (0, 3)}, r"image_size: expected height and width in px, got \(0, 3\)", id="size"),
        pytest.param({"image_size": (4, 3, 3)}, "image_size: expected height and width", id="shape"),
        pytest.param({"camera": np.eye(2)}, r"camera: expected \(3, 3\)", id="camera"),
        pytest.param({"camera": np.diag([-1, 1, 1])}, "camera: expected .*positive focal lengths", id="focal length"),
    ],
)
def test_bad_calls(changes: dict[str, Any], message: str) -> None:
    points = landmarks(project(0, 0, 0))
    arguments = {"landmarks": points, "image_size": (HEIGHT, WIDTH), "layout": "300w68", **changes}
    with pytest.raises(ValueError, match=f"head_pose: .*{message}"):
        head_pose(**arguments)
