"""Files to annotate: every one once, whatever folders, patterns and lists are like, in shares, without memory."""

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipnet_fast.annotate import inputs as inputs_module
from pipnet_fast.annotate import sources
from pipnet_fast.annotate.inputs import Inputs, Listing
from pipnet_fast.annotate.sources import check_sources, list_paths

NAMES = ("a.jpg", "b.PNG", "b/c.jpeg", "b/deep/d.webp", "b/e.txt", ".hidden/f.jpg", ".g.jpg", "v.mp4", "x.jpg/h.jpg")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(tree: Path, *given: str) -> list[str]:
    return [os.path.relpath(path, tree) for path in list_paths(given)]


FOUND = ["a.jpg", "b/c.jpeg", "b/deep/d.webp", "b.PNG", "v.mp4", "x.jpg/h.jpg"]


def test_a_folder_with_all_that_is_below_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(tree, str(tree)) == FOUND
    monkeypatch.chdir(tree)
    assert names(tree, ".") == FOUND
    # Files outright may be anything, and come again: duplicates are another's business.
    assert names(tree, "b/e.txt", "./b/../a.jpg", ".hidden", "b/deep") == [
        "b/e.txt", "a.jpg", ".hidden/f.jpg", "b/deep/d.webp"
    ]  # fmt: skip
    # A folder of more entries than are sorted together.
    monkeypatch.setattr(sources, "RUN", 2)
    assert sorted(names(tree, ".")) == sorted(FOUND)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "x.jpg/h.jpg"]),
        ("?.[jP]*", ["a.jpg", "b.PNG", "x.jpg/h.jpg"]),
        ("b/*", ["b/c.jpeg", "b/deep/d.webp", "b/e.txt"]),
        ("*/*.jp*g", ["b/c.jpeg", "x.jpg/h.jpg"]),
        ("**/*.webp", ["b/deep/d.webp"]),
        ("b/**/*.jpeg", ["b/c.jpeg"]),
        ("b/**", ["b/c.jpeg", "b/deep/d.webp"]),
        ("*/deep/d.webp", ["b/deep/d.webp"]),
        ("**/deep/*.webp", ["b/deep/d.webp"]),
    ],
)
def test_patterns(pattern: str, expected: list[str], tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(tree, str(tree / pattern)) == expected
    monkeypatch.chdir(tree)
    assert names(tree, pattern) == expected


def test_a_name_that_looks_like_a_pattern(tree: Path) -> None:
    (tree / "[1].jpg").touch()
    assert names(tree, str(tree / "[1].jpg")) == ["[1].jpg"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"], ids=["lines", "Windows", "zeros"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "open"])
def test_lists(end: bytes, last: bool, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "list"
    place.write_bytes(end.join([b"a.jpg", b"", b"gone \xff.png", b"b"]) + end * last)
    monkeypatch.chdir(tree)
    expected = ["a.jpg", os.fsdecode(b"gone \xff.png"), "b"]
    assert names(tree, f"@{place}") == expected
    # Names that lie across the blocks that are read at a time.
    monkeypatch.setattr(sources, "_BLOCK", 7)
    if end != b"\0":
        assert names(tree, f"@{place}") == expected


def test_links(tree: Path) -> None:
    (tree / "b" / "loop").symlink_to(tree)
    (tree / "b" / "folder.jpg").symlink_to(tree / "x.jpg")
    (tree / "itself.jpg").symlink_to(tree / "itself.jpg")
    (tree / "nowhere.jpg").symlink_to(tree / "gone")
    (tree / "other.jpg").symlink_to(tree / "a.jpg")
    # What leads nowhere is told of when it is read.
    expected = sorted([*FOUND, "itself.jpg", "nowhere.jpg", "other.jpg"])
    assert sorted(names(tree, str(tree))) == expected
    # x.jpg matches, and so does what is in it.
    found = names(tree, str(tree / "**/*.jpg"))
    assert sorted(found) == sorted([*(name for name in expected if name.endswith(".jpg")), "x.jpg/h.jpg"])


def test_folders_that_cannot_be_read_are_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert "b/deep" in names(tree, str(tree))
    assert "b/deep" in names(tree, str(tree / "b" / "**" / "*.webp"))


def test_sources_that_are_not_there(tree: Path) -> None:
    check_sources([str(tree), str(tree / "*.none"), str(tree / "a.jpg"), f"@{tree / 'a.jpg'}"])
    for wrong in (str(tree / "none"), f"@{tree / 'none'}", f"@{tree}/*"):
        with pytest.raises(ValueError, match=r"annotate: sources: no such file or folder: .*(none|\*)$"):
            check_sources([str(tree), wrong])
    for pattern in (tree / "*.none", tree / "nowhere" / "*.jpg"):
        with pytest.raises(ValueError, match=r"annotate: sources: nothing matches .*\*\.(none|jpg)"):
            names(tree, str(pattern))


def freeze(folder: Path, paths: Any, size: int | None = None) -> tuple[Listing, Inputs]:
    folder.mkdir()
    return Inputs.freeze(paths, folder, size), Inputs(folder)


def test_shares(tmp_path: Path) -> None:
    paths = [f"/in/{i}\n\udcff.jpg" for i in range(10)]
    listing, inputs = freeze(tmp_path / "list", paths, 4)
    assert (listing.inputs, listing.shard_size) == (10, 4)
    assert [inputs.shard(i) for i in range(len(inputs))] == [paths[:4], paths[4:8], paths[8:]]
    assert [inputs.count(i) for i in range(3)] == [4, 4, 2]


@pytest.mark.parametrize(
    ("photos", "videos", "size"), [(1, 0, 16), (2000, 0, 32), (0, 100, 100), (66_000, 0, 1024)], ids=str
)
def test_shares_for_every_process(photos: int, videos: int, size: int, tmp_path: Path) -> None:
    paths = [f"{i}.jpg" for i in range(photos)] + [f"{i}.mp4" for i in range(videos)]
    listing, inputs = freeze(tmp_path / "list", paths)
    assert listing.shard_size == size
    # A video counts as 64 photos, so that a share is one of them here.
    assert len(inputs) == (videos or -(-photos // size))
    assert sum(map(inputs.count, range(len(inputs)))) == photos + videos


def test_no_files(tmp_path: Path) -> None:
    listing, inputs = freeze(tmp_path / "list", [])
    assert (listing.inputs, len(inputs)) == (0, 0)


def test_a_file_counts_once(tmp_path: Path) -> None:
    listing, inputs = freeze(tmp_path / "twice", ["/b", "/a", "/b", "/c", "/a", "/b"], 9)
    assert inputs.shard(0) == ["/b", "/a", "/c"]
    # Folders give their files in any order.
    assert listing == freeze(tmp_path / "once", ["/c", "/b", "/a"], 9)[0]
    assert listing.paths != freeze(tmp_path / "other", ["/c", "/b", "/d"], 9)[0].paths


def test_what_differs_between_lists(tmp_path: Path) -> None:
    _, inputs = freeze(tmp_path / "old", ["/a", "/b", "/c"])
    freeze(tmp_path / "new", ["/d", "/c", "/a"])
    assert inputs.differences(tmp_path / "new") == "/b is gone, /d is new"
    freeze(tmp_path / "more", ["/a", "/b", "/c", "/d"])
    assert inputs.differences(tmp_path / "more") == "/d is new"


def test_memory_is_a_few_bytes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000
    monkeypatch.setattr(inputs_module, "_BLOCK", 1 << 14)

    def paths() -> Iterator[str]:
        return (f"/a/folder/with/a/rather/long/name/{i:09d}.jpg" for i in range(count))

    freeze(tmp_path / "first", [])
    tracemalloc.start()
    try:
        freeze(tmp_path / "many", paths())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Hashes, sorted in a copy; as text the paths would take 100 bytes each.
    assert peak < 40 * count
