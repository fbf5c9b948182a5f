"""Tables in many files: whole or not at all, kept or made anew, never mixed up."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from pipnet_fast.data import DataError
from pipnet_fast.selftrain.shards import Shards, identity_of, read_identity
from pipnet_fast.train.distributed import World
from tests.pictures import numbered

SCHEMA = pa.schema([pa.field("index", pa.int64(), nullable=False), pa.field("value", pa.float64())])
IDENTITY: dict[str, Any] = {"format": "test/1", "inputs": 10, "shard_size": 4, "from": "squares"}


class Squares:
    """Makes the squares of the inputs, and remembers which."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.made: list[range] = []
        self._dies_at = dies_at

    def __call__(self, rows: range) -> pa.Table:
        if self._dies_at in rows:
            raise KeyboardInterrupt
        self.made.append(rows)
        return pa.table([rows, np.square(rows, dtype=np.float64)], schema=SCHEMA)


@dataclass(frozen=True)
class Unaware(World):
    """One of several processes, that does not wait for the others."""

    def barrier(self) -> None:
        pass


def process(rank: int, size: int) -> World:
    return Unaware(rank, size, torch.device("cpu"))


def shards(folder: Path, **changes: Any) -> Shards:
    return Shards(folder, {**IDENTITY, **changes}, SCHEMA)


def values(table: Shards) -> list[float]:
    return pa.concat_tables(list(table.tables()))["value"].to_pylist()


SQUARES = [float(i * i) for i in range(10)]


def test_rows_are_cut_into_files(tmp_path: Path) -> None:
    table, squares = shards(tmp_path / "new" / "folder"), Squares()
    table.write(squares)
    assert squares.made == [range(0, 4), range(4, 8), range(8, 10)]
    assert sorted(os.listdir(table.folder)) == [f"part-0000{i}.parquet" for i in range(3)]
    assert values(table) == SQUARES
    assert read_identity(table.folder, "test/1") == IDENTITY


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    table = shards(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        table.write(Squares(dies_at=5))
    assert os.listdir(tmp_path) == ["part-00000.parquet"]
    with pytest.raises(DataError, match=r"part-00001\.parquet: no such file"):
        values(table)
    squares = Squares()
    table.write(squares)
    assert squares.made == [range(4, 8), range(8, 10)]
    assert values(table) == SQUARES


def test_what_a_killed_process_left_does_no_harm(tmp_path: Path) -> None:
    for name in ("part-00001.parquet.tmp", "part-00009.parquet.tmp"):
        (tmp_path / name).write_bytes(b"PAR1 half of")
    shards(tmp_path).write(Squares())
    assert values(shards(tmp_path)) == SQUARES


def test_processes_share_the_files_out(tmp_path: Path) -> None:
    other, main = Squares(), Squares()
    shards(tmp_path).write(other, world=process(1, 2))
    shards(tmp_path).write(main, world=process(0, 2))
    assert (main.made, other.made) == ([range(0, 4), range(8, 10)], [range(4, 8)])
    assert values(shards(tmp_path)) == SQUARES


def test_a_folder_that_is_not_shared_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"part-00001\.parquet: another process has written it, .*share the folder"):
        shards(tmp_path).write(Squares(), world=process(0, 2))


def flip_a_bit_of_the_values(data: bytearray) -> None:
    # The upper bytes of 25, which become those of 12.5.
    data[data.index(np.float64(25).tobytes()) + 6] ^= 16


DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "empty": lambda data: data.clear(),
    "cut": lambda data: data.__delitem__(slice(len(data) // 2, None)),
    "no end": lambda data: data.__setitem__(slice(-4, None), b"\0\0\0\0"),
    "zeros": lambda data: data.__setitem__(slice(None), bytes(len(data))),
    "a flipped bit": flip_a_bit_of_the_values,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_made_anew(damage: Callable[[bytearray], None], tmp_path: Path) -> None:
    table = shards(tmp_path)
    table.write(Squares())
    data = bytearray(table.path(1).read_bytes())
    damage(data)
    table.path(1).write_bytes(data)
    with pytest.raises(DataError, match=r"part-00001\.parquet: not a readable Parquet file: ."):
        values(table)
    squares = Squares()
    table.write(squares)
    assert squares.made == [range(4, 8)]
    assert values(table) == SQUARES


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(pa.table([range(4, 7), np.zeros(3)], schema=SCHEMA), id="rows"),
        pytest.param(pa.table([range(3, 7), np.zeros(4)], schema=SCHEMA), id="index"),
        pytest.param(pa.table({"index": range(4, 8), "value": ["a", "b", "c", "d"]}), id="columns"),
    ],
)
def test_files_with_other_rows_are_made_anew(wrong: pa.Table, tmp_path: Path) -> None:
    table = shards(tmp_path)
    table.write(Squares())
    table._write(1, wrong)
    with pytest.raises(DataError, match=r"part-00001\.parquet: expected a part of the table in "):
        values(table)
    table.write(Squares())
    assert values(table) == SQUARES


def test_files_that_are_not_accepted_are_made_anew(tmp_path: Path) -> None:
    table, squares = shards(tmp_path), Squares()
    table.write(Squares())
    table.write(squares, accept=lambda part: part["value"][0].as_py() != 16)
    assert squares.made == [range(4, 8)]


def test_tables_are_not_mixed(tmp_path: Path) -> None:
    shards(tmp_path).write(Squares())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        ValueError, match=r"part-00000\.parquet is of another table: from: 'squares', not 'cubes'; take another folder"
    ):
        shards(tmp_path, **{"from": "cubes"}).write(Squares())
    with pytest.raises(ValueError, match="inputs: 10, not 3; shard_size: 4, not 5; take"):
        shards(tmp_path, inputs=3, shard_size=5).write(Squares())
    # Files beyond the end of a shorter table, too.
    for shard in (0, 1):
        (tmp_path / f"part-0000{shard}.parquet").unlink()
    with pytest.raises(ValueError, match=r"part-00002\.parquet is of another table: inputs: 10, not 4"):
        shards(tmp_path, inputs=4).write(Squares())
    assert all(path.read_bytes() == data for path, data in before.items() if path.exists())
    shards(tmp_path, inputs=10).write(Squares())
    shards(tmp_path / "other", **{"from": "cubes"}).write(Squares())
    os.replace(tmp_path / "other" / "part-00002.parquet", tmp_path / "part-00002.parquet")
    with pytest.raises(DataError, match=r"part-00002\.parquet: .* got another table's"):
        values(shards(tmp_path))


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param(None, id="none"),
        pytest.param({"pipnet_fast": "{"}, id="no JSON"),
        pytest.param({"pipnet_fast": "[1]"}, id="no record"),
    ],
)
def test_files_of_others_are_not_written_over(metadata: Any, tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    parquet.write_table(pa.table({"theirs": [1]}).replace_schema_metadata(metadata), path)
    with pytest.raises(ValueError, match=r"part-00000\.parquet is of another table: format: None, not 'test/1'"):
        shards(tmp_path).write(Squares())
    assert parquet.read_table(path)["theirs"].to_pylist() == [1]
    with pytest.raises(DataError, match=r"expected a table in format 'test/1', got None"):
        read_identity(tmp_path, "test/1")


@pytest.mark.parametrize("value", [0, -3, "4", None, 2.5])
def test_numbers_of_a_file_are_checked(value: Any, tmp_path: Path) -> None:
    identity = json.dumps({**IDENTITY, "shard_size": value})
    table = pa.table({"index": [1]}).replace_schema_metadata({"pipnet_fast": identity})
    parquet.write_table(table, tmp_path / "part-00000.parquet")
    with pytest.raises(DataError, match=r"part-00000\.parquet: shard_size: expected an integer >= 1, got "):
        read_identity(tmp_path, "test/1")


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.part-00000\.parquet: no such file"):
        read_identity(tmp_path / "nowhere", "test/1")


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        arguments[1].write(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(OSError, match=r"No space left on device: .*part-00000\.parquet"):
        shards(tmp_path).write(Squares())
    assert not os.listdir(tmp_path)


def test_faces_are_told_apart_wherever_their_folder_is() -> None:
    faces = numbered(3)
    one = identity_of(faces)
    assert one["inputs"] == 3
    moved = replace(numbered(3), name="renamed")
    for sample in moved.samples:
        object.__setattr__(sample.image, "name", f"/elsewhere/{sample.image}")
    assert identity_of(moved) == one
    moved.samples[1].box[2] += 0.25
    assert identity_of(moved)["faces"] != one["faces"]
    object.__setattr__(faces.samples[0].image, "name", "\udcff.png")
    assert identity_of(faces)["faces"] != one["faces"]
