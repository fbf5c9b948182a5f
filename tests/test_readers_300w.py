"""300W as ibug's archives unpack, with boxes of MAT files; crops as the official code cuts them."""

from pathlib import Path

import numpy as np
import pytest

from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, open_data
from pipnet_fast.data.readers._official import official_face
from pipnet_fast.data.sources import ImageFile
from pipnet_fast.layouts import load_layout
from tests.miniature import box_of, landmarks, write_bounding_boxes, write_face, write_image, write_pts

# Names in the order of the official lists; suffixes as they are.
TRAIN = [
    "afw/1051618982_1.jpg",
    "afw/70037463_1.jpg",
    "helen/trainset/100032540_1.jpg",
    "lfpw/trainset/image_0001.png",
    "lfpw/trainset/image_0003.png",
]
COMMON = ["helen/testset/296814969_3.jpg", "lfpw/testset/image_0018.png"]
CHALLENGE = ["ibug/image_003_1.jpg", "ibug/image_092.jpg", "ibug/image_092 _01.jpg", "ibug/image_092_02.jpg"]
PRIVATE = ["01_Indoor/indoor_001.png", "02_Outdoor/outdoor_001.png"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(TRAIN + COMMON + CHALLENGE):
        path = tmp_path / name
        write_face(path.with_suffix(""), landmarks(seed=seed), path.suffix)
    for name in PRIVATE:
        write_face((tmp_path / "300W" / name).with_suffix(""), landmarks(), ".png")
    (tmp_path / "afw" / "Thumbs.db").write_bytes(b"junk")
    (tmp_path / "afw" / "._70037463_1.pts").write_bytes(b"junk")
    return tmp_path


@pytest.mark.parametrize(
    ("split", "names", "parts"),
    [
        ("train", TRAIN, ()),
        ("test", COMMON + CHALLENGE, ("common", "challenge")),
        ("common", COMMON, ("common",)),
        ("challenge", CHALLENGE, ("challenge",)),
        ("private", [f"300W/{name}" for name in PRIVATE], ("indoor", "outdoor")),
        ("outdoor", [f"300W/{name}" for name in PRIVATE[1:]], ("outdoor",)),
    ],
)
def test_splits(root: Path, split: str, names: list[str], parts: tuple[str, ...]) -> None:
    data = open_data("300w", root, split)
    assert [str(sample.image) for sample in data.samples] == [str(root / name) for name in names]
    assert data.name == f"300w/{split}"
    assert data.subset_names() == parts
    assert (data.norm, data.tight, data.crop) == ("inter_ocular", True, CropRule(1.1))
    assert np.array_equal(data.layout.flip, load_layout("300w68").flip)


def test_landmarks_and_boxes(root: Path) -> None:
    data = open_data("300w", root, "train")
    for seed, sample in enumerate(data.samples):
        assert sample.landmarks is not None
        assert np.array_equal(sample.landmarks, landmarks(seed=seed))
        assert sample.box.tolist() == box_of(landmarks(seed=seed))
    assert data.samples[0].image.read().shape == (64, 64, 3)


def test_the_spaced_name_may_have_been_renamed(root: Path) -> None:
    """Half of the pair even: the list stays the same."""
    (root / "ibug" / "image_092 _01.jpg").rename(root / "ibug" / "image_092_01.jpg")
    data = open_data("300w", root, "challenge")
    stems = [str(sample.image).rpartition("/")[2] for sample in data.samples]
    assert stems == ["image_003_1.jpg", "image_092.jpg", "image_092_01.jpg", "image_092_02.jpg"]


@pytest.mark.parametrize("folder", ["Bounding Boxes", "Bounding_Boxes"])
@pytest.mark.parametrize(("kind", "expected"), [("detector", [1.5, 2.5, 30.5, 40.5]), ("ground_truth", [0, 1, 9, 19])])
def test_given_boxes_are_looked_up_by_name(root: Path, folder: str, kind: str, expected: list[float]) -> None:
    """The file has more entries than there are images, in another order, and names with a space or without."""
    boxes = {name.rpartition("/")[2].replace(" ", ""): ((1, 1, 5, 5), (1, 1, 6, 6)) for name in reversed(CHALLENGE)}
    boxes["image_092_01.jpg"] = ((2, 3, 31, 41), (0.5, 1.5, 9.5, 19.5))
    boxes["another_1.jpg"] = ((7, 7, 8, 8), (7, 7, 8, 8))
    write_bounding_boxes(root / folder / "bounding_boxes_ibug.mat", boxes)
    data = open_data("300w", root, "challenge", boxes=kind)
    assert data.samples[2].box.tolist() == expected
    assert not data.tight
    assert data.samples[0].box.tolist() == [0.5, 0.5, *([4.5, 4.5] if kind == "detector" else [5.5, 5.5])]


def test_damaged_boxes(root: Path) -> None:
    path = root / "Bounding Boxes" / "bounding_boxes_ibug.mat"
    with pytest.raises(DataError, match="expected a folder 'Bounding Boxes' or 'Bounding_Boxes', found none"):
        open_data("300w", root, "challenge", boxes="detector")
    write_bounding_boxes(
        path, {"image_003_1.jpg": ((1, 1, 5, 5), (1, 1, 5, 5)), "image_092.jpg": ((5, 5, 1, 1), (1, 1))}
    )
    with pytest.raises(DataError, match=r"image_092.jpg: expected a box x0 < x1, y0 < y1, got \[4.5, 4.5, 0.5, 0.5\]"):
        open_data("300w", root, "challenge", boxes="detector")
    data = open_data("300w", root, "challenge", boxes="ground_truth", skip_bad=True)
    assert len(data) == 1
    assert [bad.reason.partition(": ")[2][:20] for bad in data.bad] == [
        "expected a box of 4 ",
        *["expected a box under"] * 2,
    ]
    whole = path.read_bytes()
    for junk in (
        b"",
        b"junk" * 100,
        whole[: len(whole) // 2],
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400),
    ):
        path.write_bytes(junk)
        with pytest.raises(DataError, match="ibug.mat: expected a MAT file with a cell bounding_boxes"):
            open_data("300w", root, "challenge", boxes="detector")
    path.unlink()
    with pytest.raises(DataError, match="ibug.mat: expected the boxes of ibug, found no such file"):
        open_data("300w", root, "challenge", boxes="detector")


def test_what_is_wrong_with_one_face(root: Path) -> None:
    (root / "afw" / "70037463_1.pts").unlink()
    (root / "helen" / "trainset" / "100032540_1.jpg").unlink()
    (root / "lfpw" / "trainset" / "image_0001.pts").write_text("version: 1\nn_points: 68\n{\n1 2\n")
    write_image(root / "lfpw" / "trainset" / "image_0003.jpg")
    write_pts(root / "lfpw" / "trainset" / "image_0004.pts", np.full((68, 2), 3.0))
    write_image(root / "lfpw" / "trainset" / "image_0004.png")
    with pytest.raises(DataError, match="afw/70037463_1: expected one .pts of this name, found none"):
        open_data("300w", root, "train")
    data = open_data("300w", root, "train", skip_bad=True)
    assert [str(sample.image) for sample in data.samples] == [str(root / TRAIN[0])]
    reasons = [bad.reason.replace(str(root) + "/", "") for bad in data.bad]
    assert reasons == [
        "afw/70037463_1: expected one .pts of this name, found none",
        "helen/trainset/100032540_1: expected one image of this name, found none",
        "lfpw/trainset/image_0003: expected one image of this name, found image_0003.jpg and image_0003.png",
        "lfpw/trainset/image_0001.pts, line 5: expected } after the points, the file ends before it",
        "lfpw/trainset/image_0004.pts: box: expected landmarks that span an area, got the box [3.0, 3.0, 3.0, 3.0]",
    ]


def test_a_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder 'afw' or '300W/afw' or '300w/afw', found none"):
        open_data("300w", tmp_path, "train")
    for name in ("afw", "helen/trainset", "lfpw/trainset"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match="expected faces of 300w/train, found none"):
        open_data("300w", tmp_path, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": "loose"}, r"300w: boxes: expected one of \('tight', 'ground_truth', 'detector'\), got 'loose'"),
        ({"boxes": "detector", "official": True}, "300w: official: expected boxes=\"tight\", got 'detector'"),
        ({"scale": 0}, "CropRule: scale"),
        ({"size": 3}, "open_data: 300w: .*unexpected keyword argument 'size'"),
    ],
)
def test_wrong_options(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_data("300w", root, "train", **options)


@pytest.mark.parametrize(
    ("span", "scale", "crop"),
    [
        pytest.param((0, 400), 1.1, (0, 440), id="at the border"),
        pytest.param((5, 405), 1.1, (0, 440), id="past the border: slides"),
        pytest.param((100, 200), 1.1, (95, 205), id="inside"),
        pytest.param((100, 200), 1.3, (85, 215), id="scale 1.3"),
        pytest.param((101, 132), 1.1, (100, 134), id="whole pixels"),
        pytest.param((300, 480), 1.1, (291, 489), id="near the other border"),
        pytest.param((300, 498), 1.1, (291, 499), id="cut at the other border"),
    ],
)
def test_official_crops(tmp_path: Path, span: tuple[int, int], scale: float, crop: tuple[int, int]) -> None:
    """The first two are the numbers known of the official code; files count from 1 and have fractions."""
    write_image(tmp_path / "a.jpg", 500, 500)
    counted_from_1 = np.array([[span[0] + 0.9, span[0]], [span[1] + 0.2, span[1] + 0.999]])
    points, box = official_face(counted_from_1 - 0.5, ImageFile(tmp_path / "a.jpg"), scale)
    assert points.tolist() == [[span[0]] * 2, [span[1]] * 2]
    assert box.tolist() == [crop[0], crop[0], crop[1], crop[1]]


def test_official_labels(root: Path) -> None:
    data = open_data("300w", root, "train", official=True)
    first = landmarks(seed=0) + 0.5
    assert data.samples[0].landmarks is not None
    assert np.array_equal(data.samples[0].landmarks, np.trunc(first))
    assert np.array_equal(data.crop_boxes()[0], data.samples[0].box)
    assert not data.tight
    ours = open_data("300w", root, "train")
    assert np.abs(data.crop_boxes() - ours.crop_boxes()).max() < 3
    Path(str(data.samples[0].image)).write_bytes(b"no image")
    with pytest.raises(DataError, match="1051618982_1.jpg: not an image"):
        open_data("300w", root, "train", official=True)
