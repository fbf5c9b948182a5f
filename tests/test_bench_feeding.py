"""The feeding case: its rival does what it is said to do, sides that disagree are not timed, and records come out."""

from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from tests.commands import RunBench, bench
from tests.miniature import write_noise_faces
from tests.pictures import THREE, centers, dots


@pytest.fixture
def feeding() -> ModuleType:
    return bench("feeding")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_noise_faces(tmp_path, "train", 16, ".jpg")
    return tmp_path


def test_the_rival_s_labels_lie_on_their_dots(feeding: ModuleType, tmp_path: Path) -> None:
    points_px = np.array([[100.3, 110.9], [160.2, 106.4], [131.7, 150.1]])
    path = tmp_path / "dots.png"
    cv2.imwrite(str(path), dots(points_px, 256, 256)[:, :, ::-1])
    rival = feeding.OfficialData([path], points_px[None] / 256, THREE.flip, [[1], [0], [0]])
    # Its occlusions and grays have no dots to find.
    rival._occluded = lambda image: image
    seen = 0
    for _ in range(60):
        pixels, score, x, y, *_ = rival.sample(0)
        crop = ((pixels * rival._std + rival._mean) * 255).round().permute(1, 2, 0).numpy()
        if (crop[..., 0] == crop[..., 1]).all():
            continue
        cells = score.flatten(1).argmax(dim=1)
        column, row = cells % 8, cells // 8
        labels = np.stack([(column + x[range(3), row, column]) * 32, (row + y[range(3), row, column]) * 32], axis=1)
        found = centers(crop)
        mirrored = found[0, 0] > found[1, 0]
        # Turned to the nearest pixel.
        np.testing.assert_allclose(labels, found[THREE.flip] if mirrored else found, atol=0.6)
        seen += 1
    assert seen > 30


def test_sides_that_disagree_are_not_timed(feeding: ModuleType, folder: Path, tmp_path: Path) -> None:
    faces = feeding.store_crops(folder, 16, tmp_path)
    official = feeding.official_data(faces, augment=False)
    feeding.check(official, faces)
    official._mean = official._mean + 0.1
    with pytest.raises(RuntimeError, match="normalized pixels differ by .*: not timed"):
        feeding.check(official, faces)
    official._mean, official.points_frac = official._mean - 0.1, official.points_frac + 0.01
    with pytest.raises(RuntimeError, match="target maps differ from those of the labels: not timed"):
        feeding.check(official, faces)


def test_records(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = RunBench(monkeypatch, tmp_path / "records.json")("feeding", "--data", str(folder), "--rounds", "1")
    assert {r["unit"] for r in records} == {"ms", "1/s", "x"}
    assert len(records) == 15
    assert {(r["case"], r["threads"], r["shape"]) for r in records} == {("feeding", 1, "B=16 256x256 N=68 K=10")}
