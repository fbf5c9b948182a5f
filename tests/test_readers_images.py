"""Photos and videos in a folder, without labels."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipnet_fast.cli import main
from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, FaceData, open_data
from pipnet_fast.data.sources import ImageFile, VideoFrame
from tests.miniature import write_image
from tests.test_sources import number_shown, write_video


def names(data: FaceData, root: Path) -> list[str]:
    return [os.path.relpath(str(sample.image), root) for sample in data.samples]


def test_every_image_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.jpg", "a/z.PNG", "a/deep/er/c.tiff", "a b.webp", "folder.jpg/d.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in (".hidden.jpg", "a/._z.png", ".thumbnails/t.jpg", "notes.txt", "a/z.json", "jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "b.jpg")
    monkeypatch.setattr(ImageFile, "read", lambda self: pytest.fail("an image was opened"))
    data = open_data("images", tmp_path, "all")
    assert names(data, tmp_path) == [
        "a b.webp",
        "a/deep/er/c.tiff",
        "a/z.PNG",
        "b.jpg",
        "folder.jpg/d.bmp",
        "link.jpg",
    ]
    assert all(sample.landmarks is None and np.isnan(sample.box).all() for sample in data.samples)
    assert (data.name, data.layout.name, data.crop) == (f"{tmp_path.name}/all", "300w68", CropRule(1.2))
    assert (data.tight, len(data.bad)) == (False, 0)


def test_options(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    data = open_data("images", tmp_path, "all", layout="wflw98", scale=1.3, top_shift=0.2)
    assert (data.layout.num_landmarks, data.crop) == (98, CropRule(1.3, 0.2))


@pytest.mark.parametrize(
    ("every", "expected"),
    [({}, [1, 6, 11]), ({"every": 1}, list(range(1, 13))), ({"every": 4}, [1, 5, 9]), ({"every": 100}, [1])],
    ids=str,
)
@pytest.mark.parametrize(("name", "codec"), [("v.avi", "MJPG"), ("V.MP4", "mp4v")])
def test_frames_of_videos(tmp_path: Path, every: dict[str, Any], expected: list[int], name: str, codec: str) -> None:
    write_video(tmp_path / "v.avi", 12, codec)
    (tmp_path / "v.avi").rename(tmp_path / name)
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "z.png")
    data = open_data("images", tmp_path, "all", **every)
    shown = [f"{name}, frame {number}" for number in expected]
    assert names(data, tmp_path) == sorted(["a.png", *shown, "z.png"], key=lambda text: text.split(",")[0])
    frames = [sample.image for sample in data.samples if isinstance(sample.image, VideoFrame)]
    assert [number_shown(frame.read()) for frame in frames] == expected


@pytest.mark.parametrize("keep", [0.9, 0.5])
def test_of_a_cut_off_video_what_can_be_read(tmp_path: Path, keep: float) -> None:
    """Its header still claims all frames."""
    write_video(tmp_path / "whole.avi", 60)
    content = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "whole.avi").unlink()
    (tmp_path / "cut.avi").write_bytes(content[: int(keep * len(content))])
    data = open_data("images", tmp_path, "all", every=1)
    shown = [number_shown(sample.image.read()) for sample in data.samples]
    assert shown == list(range(1, len(data) + 1))
    assert 60 * (keep - 0.15) < len(data) < 60


@pytest.mark.parametrize("content", [b"", b"no video", bytes(range(256)) * 40], ids=["empty", "text", "noise"])
def test_damaged_videos(tmp_path: Path, content: bytes) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "b.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.mp4: expected a video that OpenCV can read, found none"):
        open_data("images", tmp_path, "all")
    data = open_data("images", tmp_path, "all", skip_bad=True)
    assert names(data, tmp_path) == ["a.jpg"]
    assert [bad.where for bad in data.bad] == [str(tmp_path / "b.mp4")]


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "shut" / "b.jpg")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="shut: Permission denied"):
        open_data("images", tmp_path, "all")
    data = open_data("images", tmp_path, "all", skip_bad=True)
    assert (names(data, tmp_path), len(data.bad)) == (["a.jpg"], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"every": 0}, "images: every: expected a number of frames >= 1, got 0", id="every"),
        pytest.param({"every": True}, "every: expected a number of frames >= 1, got True", id="every, a bool"),
        pytest.param({"every": 2.5}, "every: expected a number of frames >= 1, got 2.5", id="every, no integer"),
        pytest.param({"layout": "mine"}, "layout: expected one of .*, got 'mine'", id="layout"),
        pytest.param({"scale": 0}, "scale: expected 0 < scale", id="scale"),
        pytest.param({"boxes": "given"}, "open_data: images: .*'boxes'", id="unknown"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write_image(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=message):
        open_data("images", tmp_path, "all", **options)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="expected faces of .*/all, found none"):
        open_data("images", tmp_path, "all")
    with pytest.raises(ValueError, match="split: expected one of .* for images, got 'train'"):
        open_data("images", tmp_path, "train")


def test_info_says_that_boxes_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b" / "b.jpg")
    assert main(["data", "info", "images", str(tmp_path), "--split", "all"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "labelled: 0, with missing landmarks: 0, unlabelled: 2",
        "images: 2",
        "without a box, for a detector to find: 2",
    ]
