"""300VW: videos and annotations joined by number, the lists, and the broken frames."""

import json
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, FaceData, open_data
from pipnet_fast.data.readers import vw300
from pipnet_fast.data.sources import VideoFrame
from tests.miniature import box_of, landmarks, write_image, write_pts
from tests.test_sources import number_shown, write_video

TRAIN = """001 002 003 004 007 009 010 011 013 015 016 017 018 019 020 022 025 027 028 029 031 033 034 035 037 039 041
    043 044 046 047 048 049 053 057 059 112 113 115 119 120 123 138 143 144 160 204 205 223 225"""
CATEGORY3 = "410 411 516 517 526 528 529 530 531 533 557 558 559 562"


def write_one(root: Path, name: str, frames: list[int], video: bytes = b"") -> None:
    for number in frames:
        write_pts(root / name / "annot" / f"{number:06d}.pts", landmarks(seed=number))
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "vid.avi").write_bytes(video)


def frames_of(data: FaceData) -> list[tuple[str, int]]:
    """Videos and frame numbers."""
    sources = [sample.image for sample in data.samples]
    assert all(isinstance(source, VideoFrame) for source in sources)
    return [(Path(str(source.path)).parent.name, source.number) for source in sources]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("train", {(): 50}),
        ("test", {("category1",): 31, ("category2",): 19, ("category3",): 14}),
        ("category2", {("category2",): 19}),
        ("category3", {("category3",): 14}),
    ],
)
def test_lists(tmp_path: Path, split: str, counts: dict[tuple[str, ...], int]) -> None:
    """Without the videos every one is missed by name: that shows the list."""
    write_one(tmp_path, "001", [1])
    write_one(tmp_path, "114", [1])
    write_one(tmp_path, "203", [1])
    write_one(tmp_path, "410", [1])
    data = open_data("300vw", tmp_path, split, skip_bad=True)
    assert len(data) == len(counts)
    assert len(data) + len(data.bad) == sum(counts.values())
    assert [sample.subsets for sample in data.samples] == list(counts)
    if split in ("train", "category3"):
        names = (TRAIN if split == "train" else CATEGORY3).split()
        assert [Path(bad.where).name for bad in data.bad] == names[1:]


def test_frames_are_joined_by_number(tmp_path: Path) -> None:
    write_video(tmp_path / "vid.avi", 12)
    for name in CATEGORY3.split():
        # The annotations begin late and have a gap.
        write_one(tmp_path / "300VW_Dataset_2015_12_14", name, [3, 4, 11, 12], (tmp_path / "vid.avi").read_bytes())
    data = open_data("300vw", tmp_path, "category3")
    assert frames_of(data) == [(name, number) for name in CATEGORY3.split() for number in (3, 4, 11, 12)]
    for sample in data.samples[:4]:
        number = number_shown(sample.image.read())
        assert np.array_equal(np.asarray(sample.landmarks), landmarks(seed=number))
        assert sample.box.tolist() == box_of(landmarks(seed=number))
    assert (data.crop, data.tight, data.norm, len(data.bad)) == (CropRule(1.1), True, "inter_ocular", 0)


@pytest.mark.parametrize(
    ("split", "every", "expected"),
    [
        ("train", None, [1, 6, 11]),
        ("train", 1, list(range(1, 13))),
        ("train", 4, [1, 5, 9]),
        ("category1", None, list(range(1, 13))),
        ("category1", 5, [1, 6, 11]),
    ],
)
def test_every_nth_frame(tmp_path: Path, split: str, every: int | None, expected: list[int]) -> None:
    name = "002" if split == "train" else "124"
    write_one(tmp_path, name, list(range(1, 13)))
    data = open_data("300vw", tmp_path, split, every=every, skip_bad=True)
    assert frames_of(data) == [(name, number) for number in expected]


def test_broken_frames_are_left_out(tmp_path: Path) -> None:
    """Of 540, 744 and 746 to 750 are broken."""
    write_one(tmp_path, "540", list(range(742, 753)))
    write_one(tmp_path, "541", [744])
    data = open_data("300vw", tmp_path, "category1", skip_bad=True)
    assert frames_of(data) == [("540", 742), ("540", 743), ("540", 745), ("540", 751), ("540", 752), ("541", 744)]
    left_out = [Path(bad.where).name for bad in data.bad if bad.reason == "left out: listed as a broken frame"]
    assert left_out == [f"000{number}.pts" for number in (744, 746, 747, 748, 749, 750)]
    assert len(open_data("300vw", tmp_path, "category1", skip_bad=True, exclude="none")) == 12


def test_how_many_frames_are_known_to_be_broken() -> None:
    """The counts of each video as published, 2127 in all."""
    lists = json.loads(resources.files("pipnet_fast.data.readers").joinpath("300vw.json").read_text())
    published = """401:120 402:109 410:148 411:316 508:99 518:208 529:134 530:109 531:14 533:234 540:6 547:30 548:139
        551:36 553:31 557:394"""
    counts = Counter(video for video, _ in vw300._known_broken(lists["broken"]))
    assert {f"{video}:{count}" for video, count in counts.items()} == set(published.split())
    assert counts.total() == 2127


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    write_one(tmp_path, "540", [743, 744, 745])
    (tmp_path / "mine.txt").write_text("540 000743\n\n540\t745\n114 1\n")
    data = open_data("300vw", tmp_path, "category1", skip_bad=True, exclude=tmp_path / "mine.txt")
    assert frames_of(data) == [("540", 744)]
    (tmp_path / "mine.txt").write_text("540 1\n540\n")
    with pytest.raises(DataError, match="mine.txt, line 2: expected a video and a frame such as 401 722, got '540'"):
        open_data("300vw", tmp_path, "category1", skip_bad=True, exclude=tmp_path / "mine.txt")
    with pytest.raises(DataError, match="yours.txt: No such file"):
        open_data("300vw", tmp_path, "category1", skip_bad=True, exclude=tmp_path / "yours.txt")


def test_extracted_frames_go_first(tmp_path: Path) -> None:
    write_one(tmp_path, "001", [1, 6, 11])
    (tmp_path / "001" / "vid.avi").unlink()
    for number in (1, 11):
        write_image(tmp_path / "001" / "frames" / f"{number:06d}.png", width=20 + number)
    with pytest.raises(DataError, match="001/frames: expected an image of frame 6, found none"):
        open_data("300vw", tmp_path, "train")
    data = open_data("300vw", tmp_path, "train", skip_bad=True)
    assert [sample.image.read().shape[1] for sample in data.samples] == [21, 31]


def test_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="001/vid.avi: expected a video, found no such file"):
        open_data("300vw", tmp_path, "train")
    write_one(tmp_path, "001", [])
    with pytest.raises(DataError, match="001/annot: No such file"):
        open_data("300vw", tmp_path, "train")
    (tmp_path / "001" / "annot").mkdir()
    with pytest.raises(DataError, match="001/annot: expected files such as 000001.pts, found none"):
        open_data("300vw", tmp_path, "train")
    write_one(tmp_path, "001", [1, 6])
    (tmp_path / "001" / "annot" / "000006.pts").write_text("version: 1")
    with pytest.raises(DataError, match="000006.pts: expected a .pts file"):
        open_data("300vw", tmp_path, "train")
    data = open_data("300vw", tmp_path, "train", skip_bad=True)
    assert (len(data), len(data.bad)) == (1, 50)
    with pytest.raises(ValueError, match="300vw: every: expected a number of frames >= 1, got 0"):
        open_data("300vw", tmp_path, "train", every=0)
