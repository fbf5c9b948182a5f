"""People's own data: CSV, JSON and lists of names; boxes, missing labels, the derived mirror permutation."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipnet_fast.cli import main
from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, open_data
from pipnet_fast.data.readers._mirror import mirror_permutation
from pipnet_fast.layouts import layout_names, load_layout, load_mean_shape
from pipnet_fast.train import TrainConfig
from tests.miniature import write_image
from tests.training import FLAGS, run, write_faces

# Two eyes, a nose, two corners of a mouth.
HEADER = "file,x0,y0,x1,y1,x2,y2,x3,y3,x4,y4"
FACE = [[10, 10], [30, 10], [20, 20], [12, 30], [28, 30]]
FLIP = [1, 0, 2, 4, 3]
CELLS = "10,10,30,10,20,20,12,30,28,30"


def write(root: Path, name: str, text: str, *images: str) -> Path:
    (root / name).write_text(text)
    for image in images or ("a.jpg", "b.jpg"):
        write_image(root / "images" / image)
    return root


def write_json(root: Path, faces: Any) -> Path:
    return write(root, "train.json", json.dumps(faces))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{HEADER}\na.jpg,{CELLS}\nb.jpg,{CELLS}\n", id="plain"),
        pytest.param(f"\ufeff{HEADER}\r\na.jpg,{CELLS}\r\nb.jpg,{CELLS}", id="BOM and CRLF, as spreadsheets save"),
        pytest.param(f"{HEADER}\na.jpg,{CELLS}\nb.jpg,{CELLS}\n".replace(",", ";"), id="semicolons"),
        pytest.param(f"{HEADER}\na.jpg,{CELLS}\nb.jpg,{CELLS}\n".replace(",", "\t"), id="tabs"),
        pytest.param(f'{HEADER}\n"a.jpg",{CELLS}\n\n b.jpg , {CELLS}\n,,,,,,,,,,\n', id="quotes, blanks, empty rows"),
        pytest.param(f"width,{HEADER},age\n9,a.jpg,{CELLS},30\n9,b.jpg,{CELLS},x\n", id="further columns"),
        pytest.param(
            f"y4,x4,{HEADER.removesuffix(',x4,y4')}\n30,28,a.jpg,{CELLS[:-6]}\n30,28,b.jpg,{CELLS[:-6]}\n",
            id="any order",
        ),
    ],
)
def test_csv(tmp_path: Path, text: str) -> None:
    data = open_data("table", write(tmp_path, "train.csv", text), "train")
    assert [str(sample.image) for sample in data.samples] == [
        str(tmp_path / "images" / name) for name in ("a.jpg", "b.jpg")
    ]
    for sample in data.samples:
        assert np.array_equal(np.asarray(sample.landmarks), np.array(FACE) + 0.5)
        assert sample.box.tolist() == [10.5, 10.5, 30.5, 30.5]
    assert data.layout.flip.tolist() == FLIP
    assert (data.name, data.tight, data.crop, data.norm) == (f"{tmp_path.name}/train", True, CropRule(1.2), "diagonal")


def test_json_is_the_same(tmp_path: Path) -> None:
    faces = [{"file": "a.jpg", "landmarks": FACE}, {"file": "b.jpg", "landmarks": FACE, "note": 3}]
    data = open_data("table", write_json(tmp_path, faces), "train")
    assert len(data) == 2
    assert np.array_equal(np.asarray(data.samples[1].landmarks), np.array(FACE) + 0.5)
    assert data.layout.flip.tolist() == FLIP


def test_pixel_base(tmp_path: Path) -> None:
    root = write_json(tmp_path, [{"file": "a.jpg", "landmarks": FACE, "box": [5, 6, 40, 41]}])
    edge = open_data("table", root, "train", pixel_base="continuous")
    center = open_data("table", root, "train", pixel_base="center")
    assert np.array_equal(np.asarray(edge.samples[0].landmarks), FACE)
    assert edge.samples[0].box.tolist() == [5, 6, 40, 41]
    assert center.samples[0].box.tolist() == [5.5, 6.5, 40.5, 41.5]
    assert np.array_equal(np.asarray(center.samples[0].landmarks), np.array(FACE) + 0.5)
    assert open_data("table", root, "train").samples[0].box.tolist() == center.samples[0].box.tolist()


@pytest.mark.parametrize("boxes", ["given", "tight"])
@pytest.mark.parametrize("pixel_base", ["center", "continuous"])
def test_offset(tmp_path: Path, boxes: Any, pixel_base: Any) -> None:
    box = [5, 6, 40, 41]
    faces = [
        {"file": "a.jpg", "landmarks": FACE, "box": box},
        {"file": "b.jpg", "landmarks": [None, *FACE[1:]], "box": box},
    ]
    root = write_json(tmp_path, faces)
    offset = np.array([-1, 0.25])
    plain = open_data("table", root, "train", boxes=boxes, pixel_base=pixel_base)
    moved = open_data("table", root, "train", boxes=boxes, pixel_base=pixel_base, offset_px=tuple(offset))
    for old, new in zip(plain.samples, moved.samples, strict=True):
        assert np.array_equal(np.asarray(new.landmarks), np.asarray(old.landmarks) + offset, equal_nan=True)
        assert new.box.tolist() == (old.box + np.tile(offset, 2)).tolist()
    assert moved.layout.flip.tolist() == FLIP


def test_offset_in_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_faces(tmp_path, "train", 8)
    offset, flip = "offset_px=[-4,0.5]", f"flip={FLIP}"
    for name, options in (("as-is", [flip]), ("moved", [flip, offset])):
        assert main(["data", "show", "table", str(tmp_path), "--out", str(tmp_path / name), "--option", *options]) == 0
    assert (tmp_path / "as-is").read_bytes() != (tmp_path / "moved").read_bytes()

    assert run(tmp_path, tmp_path / "run", options=[*FLAGS["options"], offset], epochs=1) == 0
    assert TrainConfig.from_toml(tmp_path / "run" / "config.toml").data.options["offset_px"] == [-4, 0.5]

    labels = [np.asarray(face.landmarks) for face in open_data("table", tmp_path, "train", flip=FLIP).samples]
    moved = [{"index": i, "points": (points + np.array([-4, 0.5])).tolist()} for i, points in enumerate(labels)]
    (tmp_path / "moved.json").write_text(json.dumps(moved))
    capsys.readouterr()
    arguments = ["eval", str(tmp_path / "moved.json"), "--data", "table", str(tmp_path), "--split", "train"]
    assert main([*arguments, "--option", flip, "--option", offset]) == 0
    assert re.search(r"moved +all +8 +0 +0\.00 ", capsys.readouterr().out)


def test_missing_landmarks(tmp_path: Path) -> None:
    rows = [f"a.jpg,{CELLS}", "b.jpg,,,30,10,NaN,nan,12,30,28,30"]
    csv = open_data("table", write(tmp_path, "train.csv", "\n".join([HEADER, *rows])), "train")
    (tmp_path / "train.csv").unlink()
    partly = [None, [30, 10], [float("nan"), float("nan")], [12, 30], [28, 30]]
    faces = [{"file": "a.jpg", "landmarks": FACE}, {"file": "b.jpg", "landmarks": partly}]
    for data in (csv, open_data("table", write_json(tmp_path, faces), "train")):
        points = np.asarray(data.samples[1].landmarks)
        assert np.isnan(points).all(axis=1).tolist() == [True, False, True, False, False]
        assert points[1].tolist() == [30.5, 10.5]
        assert data.samples[1].box.tolist() == [12.5, 10.5, 30.5, 30.5]
        assert data.layout.flip.tolist() == FLIP, "from the face that has all"


def test_given_boxes_and_subsets(tmp_path: Path) -> None:
    header = f"{HEADER},box_x0,box_y0,box_x1,box_y1,subset"
    text = "\n".join(
        [header, f"a.jpg,{CELLS},5,6,40,41,blur pose", f"b.jpg,{CELLS},5,6,40,42,", "b.jpg" + "," * 10 + ",1,2,3,4,"]
    )
    data = open_data("table", write(tmp_path, "train.csv", text), "train")
    assert [sample.box.tolist() for sample in data.samples] == [
        [5.5, 6.5, 40.5, 41.5],
        [5.5, 6.5, 40.5, 42.5],
        [1.5, 2.5, 3.5, 4.5],
    ]
    assert data.samples[2].landmarks is None, "a box without a label"
    assert [sample.subsets for sample in data.samples] == [("blur", "pose"), (), ()]
    assert not data.tight
    with pytest.raises(DataError, match="train.csv, line 4: box: expected at least one labelled landmark"):
        open_data("table", tmp_path, "train", boxes="tight")
    tight = open_data("table", tmp_path, "train", boxes="tight", skip_bad=True, scale=1.5)
    assert tight.tight
    assert tight.crop_boxes()[0].tolist() == [5.5, 5.5, 35.5, 35.5]


def test_a_box_is_missing(tmp_path: Path) -> None:
    faces = [
        {"file": "a.jpg", "landmarks": FACE, "box": [1, 2, 3, 4]},
        {"file": "b.jpg", "landmarks": FACE, "box": None},
    ]
    with pytest.raises(DataError, match="train.json, face 2: expected a box as other faces have, found none"):
        open_data("table", write_json(tmp_path, faces), "train")


def test_names_without_labels(tmp_path: Path) -> None:
    write(tmp_path, "more.txt", "b.jpg\n\na b.jpg\r\n", "b.jpg", "a b.jpg")
    assert open_data("table", tmp_path, "more").layout.name == "300w68"
    write(tmp_path, "train.csv", f"{HEADER}\nb.jpg,{CELLS}\n", "b.jpg")
    data = open_data("table", tmp_path, "more")
    assert [Path(str(sample.image)).name for sample in data.samples] == ["b.jpg", "a b.jpg"]
    assert all(sample.landmarks is None and np.isnan(sample.box).all() for sample in data.samples)
    assert data.layout.flip.tolist() == FLIP, "that of the training split"
    assert not data.tight
    assert open_data("table", tmp_path, "more", layout="wflw98").layout.num_landmarks == 98


def test_images_may_lie_beside_the_lists(tmp_path: Path) -> None:
    write_image(tmp_path / "sub" / "a.png")
    (tmp_path / "train.txt").write_text("sub/a.png\n")
    assert str(open_data("table", tmp_path, "train", layout="wflw98").samples[0].image) == str(
        tmp_path / "sub" / "a.png"
    )


def test_known_layout(tmp_path: Path) -> None:
    points = (load_mean_shape("wflw98") * 100).tolist()
    root = write_json(tmp_path, [{"file": "a.jpg", "landmarks": points}])
    data = open_data("table", root, "train", layout="wflw98")
    assert (data.layout.outer_eyes, data.norm) == ((60, 72), "inter_ocular")
    with pytest.raises(DataError, match=r"train.json: expected 68 landmarks, as 300w68 has, got 98"):
        open_data("table", root, "train", layout="300w68")


def test_ones_own_layout(tmp_path: Path) -> None:
    root = write_json(tmp_path, [{"file": "a.jpg", "landmarks": FACE}])
    data = open_data("table", root, "train", eyes=[0, 1])
    assert (list(data.layout.outer_eyes or ()), data.norm) == ([0, 1], "inter_ocular")
    identity = open_data("table", root, "train", flip=[0, 1, 2, 3, 4])
    assert identity.layout.flip.tolist() == [0, 1, 2, 3, 4]


def test_all_splits_have_the_layout_of_the_training_split(tmp_path: Path) -> None:
    """Faces of the other split all look aside: from them no permutation could be derived."""
    aside = "10,10,14,10,12,20,28,30,30,30"
    write(tmp_path, "val.csv", f"{HEADER}\na.jpg,{aside}\n")
    with pytest.raises(ValueError, match="expected a mean face whose mirror image"):
        open_data("table", tmp_path, "val")
    write(tmp_path, "train.csv", f"{HEADER}\na.jpg,{CELLS}\nb.jpg,1\n")
    assert open_data("table", tmp_path, "val").layout.flip.tolist() == FLIP


@pytest.mark.parametrize("name", layout_names())
def test_the_permutations_of_the_paper_are_derived(name: str) -> None:
    derived = mirror_permutation(load_mean_shape(name), name)
    assert np.array_equal(derived, load_layout(name).flip)


def test_deriving_needs_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"mine: deriving flip needs scipy, .* pip install 'pipnet_fast\[train\]'"):
        mirror_permutation(np.array(FACE, dtype=np.float64), "mine")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        pytest.param(
            [[0, 0], [10, 0], [8, 10]],
            "mine: flip: expected a mean face .* landmark 2 .* 2 are 0.400 apart",
            id="askew",
        ),
        pytest.param([[0, 0], [1, 3], [2, 9], [9, 5]], "give the permutation as flip=", id="no face"),
    ],
)
def test_no_permutation(points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mirror_permutation(np.array(points, dtype=np.float64), "mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "line 1: expected a column 'file'", id="empty"),
        pytest.param(f"name,{HEADER[5:]}\n", "line 1: expected a column 'file', got \\['name'", id="no file column"),
        pytest.param(HEADER.replace("x1", "x0"), "line 1: expected every column once, got 'x0' twice", id="twice"),
        pytest.param(
            HEADER.replace("x1,", ""), "line 1: expected columns x0, y0, .* without a gap, see 'x", id="no x1"
        ),
        pytest.param("file,x0,y0,x999999999,y999999999\n", "without a gap, see 'x1'", id="absurd count"),
        pytest.param(
            f"{HEADER},box_x0\n", "line 1: expected all of box_x0, .* or none, box_y0 is missing", id="half a box"
        ),
        pytest.param(
            f"{HEADER}\na.jpg,{CELLS}\nb.jpg,1,2", "line 3: expected 11 cells as in the header, got 3", id="truncated"
        ),
        pytest.param(
            f"{HEADER}\na.jpg,{CELLS},7", "line 2: expected 11 cells as in the header, got 12", id="a cell too many"
        ),
        pytest.param(f"{HEADER}\na.jpg,one{CELLS[2:]}", "line 2: expected a number, got 'one'", id="a word"),
        pytest.param(f"{HEADER}\na.jpg,-inf{CELLS[2:]}", "line 2: expected a number within .*'-inf'", id="infinity"),
        pytest.param(
            f"{HEADER}\na.jpg,{CELLS[2:]}".replace(".jpg,,", ".jpg,,"), "both x and y of landmark 0, or", id="x alone"
        ),
        pytest.param(f"{HEADER}\n,{CELLS}", "line 2: expected the name of an image file, got none", id="no name"),
        pytest.param(f"{HEADER}\nnone.jpg,{CELLS}", "none.jpg: expected an image, found no such file", id="no image"),
        pytest.param(f"{HEADER}\na.jpg{',3' * 10}", "line 2: box: expected landmarks that span an area", id="one spot"),
        pytest.param(
            f"{HEADER}\na.jpg{',' * 10}", "line 2: box: expected at least one labelled landmark", id="no label"
        ),
        pytest.param(f'{HEADER}\n"a.jpg,{CELLS}\n', "line 3: unexpected end of data", id="open quote"),
        pytest.param(f"{HEADER}\n{'a' * 200_000},{CELLS}\n", "line 2: field larger than field limit", id="huge cell"),
        pytest.param(f"{HEADER}\na\0.jpg,{CELLS}", "expected an image, found no such file|NUL", id="zero character"),
        pytest.param(
            f"{HEADER},box_x0,box_y0,box_x1,box_y1\na.jpg,{CELLS},1,2,1,4",
            "line 2: expected a box x0 < x1, y0 < y1, got",
            id="flat box",
        ),
    ],
)
def test_damaged_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data("table", write(tmp_path, "train.csv", text), "train", flip=FLIP)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "train.json, line 1: Expecting value", id="empty"),
        pytest.param('[{"file": "a.jpg"},\n', "train.json, line 2: ", id="truncated"),
        pytest.param("[" * 100_000, "train.json(, line 1)?: ", id="deep"),
        pytest.param("[" + "9" * 9999 + "]", "train.json(, face 1)?: ", id="a number of 9999 digits"),
        pytest.param('{"file": "a.jpg"}', "expected a list of faces, got dict", id="no list"),
        pytest.param('["a.jpg"]', "face 1: expected an object with \"file\", got 'a.jpg'", id="no object"),
        pytest.param('[{"file": 3}]', "face 1: expected an object with \"file\", got {'file': 3}", id="no name"),
        pytest.param('[{"file": ""}]', "face 1: expected the name of an image file, got none", id="empty name"),
        pytest.param(
            '[{"file": "a.jpg", "landmarks": []}]', 'face 1: expected "landmarks" to be a list', id="no points"
        ),
        pytest.param('[{"file": "a.jpg", "landmarks": [1, 2]}]', "face 1: expected 2 numbers, got 1", id="flat list"),
        pytest.param('[{"file": "a.jpg", "landmarks": [[1, 2, 3]]}]', "face 1: expected 2 numbers, got", id="triple"),
        pytest.param('[{"file": "a.jpg", "landmarks": [[1, "2"]]}]', "face 1: expected a number, got '2'", id="text"),
        pytest.param(
            '[{"file": "a.jpg", "landmarks": [[1, true]]}]', "face 1: expected a number, got True", id="truth"
        ),
        pytest.param('[{"file": "a.jpg", "landmarks": [[1, Infinity]]}]', "face 1: expected a number within", id="inf"),
        pytest.param('[{"file": "a.jpg", "landmarks": [[1, null]]}]', "both x and y of landmark 0", id="x alone"),
        pytest.param('[{"file": "a.jpg", "box": [1, 2, 3]}]', "face 1: expected 4 numbers, got", id="three of a box"),
        pytest.param('[{"file": "a.jpg", "subsets": "blur"}]', 'face 1: expected "subsets" to be a list', id="subsets"),
        pytest.param(
            '[{"file": "a.jpg", "landmarks": [[1, 2], [3, 4]]}, {"file": "b.jpg", "landmarks": [[1, 2]]}]',
            "face 2: expected 2 landmarks as before, got 1",
            id="another count",
        ),
    ],
)
def test_damaged_json(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data("table", write(tmp_path, "train.json", text), "train", flip=[1, 0])


def test_skipped_and_counted(tmp_path: Path) -> None:
    text = f"{HEADER}\na.jpg,{CELLS}\nb.jpg,{CELLS},1\nnone.jpg,{CELLS}\nb.jpg,{CELLS}\n"
    data = open_data("table", write(tmp_path, "train.csv", text), "train", skip_bad=True)
    assert len(data) == 2
    assert [bad.where.rpartition(" ")[2] for bad in data.bad] == ["3", "4"]
    write(tmp_path, "val.csv", f"{HEADER}\nb.jpg,1\n")
    with pytest.raises(
        DataError, match="expected faces of .*/val, found none; 1 are bad, first .*val.csv, line 2: expected 11"
    ):
        open_data("table", tmp_path, "val", skip_bad=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": "loose"}, "table: boxes: expected one of"),
        ({"pixel_base": "corner"}, r"table: pixel_base: expected one of \('continuous', 'center'\), got 'corner'"),
        (
            {"layout": "300w68", "eyes": (0, 1)},
            "table: layout: expected no flip or eyes beside it, got layout='300w68'",
        ),
        ({"layout": "300w69"}, "layout: expected one of .*, got '300w69'"),
        ({"offset_px": [-1]}, r"table: offset_px: expected two finite numbers, x and y, .*, got \[-1\]"),
        ({"offset_px": 1.0}, "offset_px: expected two finite numbers, .*, got 1.0"),
        ({"offset_px": "-1,0"}, "offset_px: expected two finite numbers, .*, got '-1,0'"),
        ({"offset_px": ["-1", "0"]}, r"offset_px: expected two finite numbers, .*, got \['-1', '0'\]"),
        ({"offset_px": [True, False]}, "offset_px: expected two finite numbers"),
        ({"offset_px": [float("nan"), 0]}, r"offset_px: expected two finite numbers, .*, got \[nan, 0\]"),
        ({"offset_px": [0, -float("inf")]}, "offset_px: expected two finite numbers"),
        ({"offset_px": [0, 2e6]}, r"offset_px: expected .* within \+-1000000, got \[0, 2000000.0\]"),
        ({"flip": [0, 1, 3]}, "flip: expected a permutation of 0..2"),
        ({"flip": [2, 1, 0]}, "train.csv: expected 3 landmarks, as .* has, got 5"),
        ({"eyes": (0, 9)}, "outer_eyes: expected two landmarks of 0..4"),
        ({"eyes": (0, 3)}, r"eyes: expected landmarks that mirror into each other, got \(0, 3\)"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    root = write(tmp_path, "train.csv", f"{HEADER}\na.jpg,{CELLS}\n")
    with pytest.raises(ValueError, match=message):
        open_data("table", root, "train", **options)


def test_which_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train: expected one file with suffix .csv, .json, .txt, found none"):
        open_data("table", tmp_path, "train")
    write(tmp_path, "train.csv", HEADER)
    write(tmp_path, "train.txt", "a.jpg")
    with pytest.raises(DataError, match="train: expected one file .*, found train.csv and train.txt"):
        open_data("table", tmp_path, "train")


GOOD = "file,x0,y0,x1,y1\na.jpg,1,2,3,4\na.jpg,,,5,6\n"
PIECES = st.sampled_from(
    ["file", "x0", "y0", "x1", "y1", "a.jpg", "1", "2.5", "nan", "", ",", ";", "\n", '"', "\0", "x", "-"]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.lists(PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode()),
        st.lists(PIECES, max_size=12).map(lambda pieces: f"file,x0,y0\n{''.join(pieces)}".encode()),
        st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=4)).map(
            lambda edit: GOOD.encode()[: edit[0]] + edit[1] + GOOD.encode()[edit[0] + 1 :]
        ),
        st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")),
    ),
    suffix=st.sampled_from(["csv", "txt"]),
    skip_bad=st.booleans(),
)
def test_any_content_is_read_or_refused(tmp_path: Path, content: bytes, suffix: str, skip_bad: bool) -> None:
    write_image(tmp_path / "images" / "a.jpg", 8, 8)
    for old in tmp_path.glob("fuzzed.*"):
        old.unlink()
    (tmp_path / f"fuzzed.{suffix}").write_bytes(content)
    try:
        data = open_data("table", tmp_path, "fuzzed", layout=None, flip=[1, 0], skip_bad=skip_bad)
    except DataError:
        return
    for sample in data.samples:
        assert sample.landmarks is None or sample.landmarks.shape == (2, 2)


# Values as a JSON file may have them, in the places where faces have theirs.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a.jpg", "", "x"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faces=VALUES
    | st.lists(
        st.fixed_dictionaries(
            {"file": st.just("a.jpg") | VALUES},
            optional={"landmarks": VALUES | st.just([[1, 2], [3, 4]]), "box": VALUES, "subsets": VALUES},
        ),
        max_size=3,
    )
)
def test_any_json_is_read_or_refused(tmp_path: Path, faces: Any) -> None:
    write_image(tmp_path / "images" / "a.jpg", 8, 8)
    (tmp_path / "fuzzed.json").write_text(json.dumps(faces))
    try:
        data = open_data("table", tmp_path, "fuzzed", flip=[1, 0])
    except DataError:
        return
    assert all(sample.landmarks is None or sample.landmarks.shape == (2, 2) for sample in data.samples)


YTF68 = [path for path in (parent / "shared/data/ytf68" for parent in Path(__file__).parents) if path.is_dir()]


@pytest.mark.skipif(not YTF68, reason="shared/data/ytf68 is not beside the repository")
def test_ytf68() -> None:
    """A real data set: counts as its README has them, and 300W's permutation from its own mean face."""
    train, val, more = (open_data("table", YTF68[0], split) for split in ("train", "val", "unlabelled"))
    assert [len(data) for data in (train, val, more)] == [3347, 428, 1218]
    flip = load_layout("300w68").flip
    mean = train.mean_shape()
    mirrored = mean[flip] * (-1, 1) + (2 * mean[:, 0].mean(), 0)
    assert np.linalg.norm(mirrored - mean, axis=1).max() < 0.03
    for data in (train, val, more):
        assert np.array_equal(data.layout.flip, flip)
    first = np.asarray(train.samples[0].landmarks)
    assert first[0].tolist() == [45.5, 98.5]
    assert train.samples[0].image.read().shape == (192, 176, 3)
