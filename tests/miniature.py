"""Writes files of data sets in their true formats, for the tests of the readers."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


def landmarks(count: int = 68, seed: int = 0) -> Points:
    """(N, 2) different points within 10..50 px, in 1/8 px, so that text and the half pixel of the base are exact."""
    generator = np.random.default_rng(seed)
    return generator.integers(80, 400, (count, 2)) / 8


def box_of(points: Points) -> list[float]:
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def write_image(path: Path, width: int = 64, height: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


def pts_text(points: Points, newline: str = "\n", version: str = "1", blanks: str = " ", end: str = "") -> str:
    """Points in continuous px as a .pts file has them, counted from 1."""
    lines = [f"version: {version}", f"n_points:{blanks}{len(points)}", "{"]
    lines += [f"{x!r} {y!r}" for x, y in (points + 0.5).tolist()]
    return newline.join([*lines, "}"]) + end


def write_pts(path: Path, points: Points) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pts_text(points))


def write_face(stem: Path, points: Points, suffix: str = ".jpg", size: tuple[int, int] = (64, 64)) -> None:
    """An image and its .pts, as 300W and Menpo have them."""
    write_image(stem.with_name(stem.name + suffix), *size)
    write_pts(stem.with_name(stem.name + ".pts"), points)


def write_noise_faces(folder: Path, split: str, count: int, suffix: str = ".png") -> None:
    """Faces in the form of ytf68: random landmarks on noise."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = ["file," + ",".join(f"x{n},y{n}" for n in range(68))]
    for number in range(count):
        file = f"{number}{suffix}"
        assert cv2.imwrite(str(folder / "images" / file), random.integers(0, 256, (120, 140, 3), np.uint8))
        rows.append(f"{file}," + ",".join(f"{v:.1f}" for v in random.uniform(20, 110, 136)))
    (folder / f"{split}.csv").write_text("\n".join(rows), encoding="utf-8")


def write_bounding_boxes(path: Path, boxes: dict[str, tuple[Any, Any]]) -> None:
    """300W's boxes: image name to detector's and ground truth box, corners counted from 1, in MAT v5."""
    from scipy.io import savemat

    cells = np.empty((1, len(boxes)), dtype=object)
    for index, (name, (detector, truth)) in enumerate(boxes.items()):
        cells[0, index] = {
            "imgName": name,
            "bb_detector": np.array([detector], dtype=np.float64),
            "bb_ground_truth": np.array([truth], dtype=np.float64),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"bounding_boxes": cells})
