"""The .pts format in all variants seen in real files, and what is wrong with damaged ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipnet_fast.data import DataError
from pipnet_fast.data.readers._pts import MAX_PTS_BYTES, read_pts
from tests.miniature import landmarks, pts_text

GOOD = pts_text(landmarks(3))


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "a.pts"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(pts_text(landmarks(), blanks="  "), id="LF, two blanks, no final newline, as Helen and MERL-RAV"),
        pytest.param(pts_text(landmarks(), newline="\r\n"), id="CRLF, version 1, as 300VW 001"),
        pytest.param(pts_text(landmarks(), newline="\r\n", version="1.0", end="\r\n"), id="CRLF, 1.0, as 300VW 401"),
        pytest.param(pts_text(landmarks(), newline=" \n", end="\n\n \n"), id="trailing blanks and lines"),
        pytest.param(pts_text(landmarks(), newline="\n\n"), id="blank lines between"),
        pytest.param(pts_text(landmarks(), newline="\r"), id="CR"),
        pytest.param("\ufeff" + pts_text(landmarks()), id="byte order mark"),
        pytest.param(pts_text(landmarks()).replace("\n}", " }"), id="closing brace on the last point's line"),
        pytest.param(pts_text(landmarks()).replace("{\n", "{"), id="opening brace on the first point's line"),
    ],
)
def test_variants(tmp_path: Path, text: str) -> None:
    assert np.array_equal(read_pts(written(tmp_path, text)), landmarks())


def test_counts_from_1(tmp_path: Path) -> None:
    """The center of the first pixel, 1 1 in the file, is half a pixel from the image's edge."""
    path = written(tmp_path, "version: 1\nn_points: 2\n{\n1 1\n-3.25 1e2\n}\n")
    assert read_pts(path, (1, 2)).tolist() == [[0.5, 0.5], [-3.75, 99.5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "expected a .pts file with points between { and }, found no line with {", id="empty"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "line 1: expected UTF-8 text, got the byte 0x89", id="binary"),
        pytest.param(GOOD.encode("utf-16"), "line 1: expected UTF-8 text, got the byte 0xff", id="UTF-16"),
        pytest.param(GOOD[:-1], "line 7: expected } after the points, the file ends before it", id="truncated"),
        pytest.param(GOOD.replace("n_points: 3\n", ""), "expected n_points before {, found none", id="no count"),
        pytest.param(GOOD.replace(": 3", ": 68"), "line 2: expected n_points 3, got '68'", id="another count"),
        pytest.param(
            GOOD.replace(": 3", ": " + "9" * 9999), "line 2: expected n_points 3, got '999", id="absurd count"
        ),
        pytest.param(
            GOOD.replace(": 3", ":"), r"expected n_points 3, got '\{'|expected n_points before", id="count gone"
        ),
        pytest.param(GOOD.replace("\n}", "\n1 2\n}"), "line 8: expected 3 points before }, got 4", id="one too many"),
        pytest.param(GOOD.replace("\n}", " 7\n}"), "line 6: expected x and y, got '", id="three numbers"),
        pytest.param(GOOD.replace("{\n", "{\nx y\n"), "line 4: expected a number, got 'x'", id="words"),
        pytest.param(GOOD.replace("{\n", "{\n1,5 2,5\n"), "line 4: expected a number, got '1,5'", id="decimal comma"),
        pytest.param(
            GOOD.replace("{\n", "{\nnan 1\n"), r"line 4: expected a number within \+-1000000, got 'nan'", id="NaN"
        ),
        pytest.param(GOOD.replace("{\n", "{\n1 1e999\n"), r"line 4: expected a number within .*'1e999'", id="infinity"),
        pytest.param(GOOD.replace("{\n", "{\n1 1e7\n"), r"line 4: expected a number within .*'1e7'", id="absurd value"),
        pytest.param(" " * (MAX_PTS_BYTES + 1), "expected at most 1048576 bytes of text, found more", id="huge"),
    ],
)
def test_damaged(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"a.pts(, |: )({message})"):
        read_pts(written(tmp_path, content), (3,))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="b.pts: No such file or directory"):
        read_pts(tmp_path / "b.pts")
    with pytest.raises(DataError, match="Is a directory|Permission denied"):
        read_pts(tmp_path)


# Mostly right files with something wrong somewhere: junk alone never gets past the header.
PIECES = st.sampled_from(
    ["version: 1", "n_points: 1", "n_points:  2", "{", "}", "1 2", "3.5 -4", "1e5", "x", "", "\0", "\ufeff"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.lists(PIECES, max_size=9).map(lambda pieces: "\n".join(pieces).encode()),
        st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=4)).map(
            lambda edit: GOOD.encode()[: edit[0]] + edit[1] + GOOD.encode()[edit[0] + 1 :]
        ),
        st.binary(max_size=60),
        st.text(max_size=60).map(str.encode),
    )
)
def test_any_content_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    try:
        points = read_pts(written(tmp_path, content), (1, 2, 3))
    except DataError:
        return
    assert points.shape in [(1, 2), (2, 2), (3, 2)]
    assert np.isfinite(points).all()
