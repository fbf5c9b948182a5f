"""Tables in many Parquet files, each of which appears whole or not at all.

A run that was killed goes on from the files that are there, and processes that share the folder share the work.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipnet_fast._parquet import differences, part_identity, read_part, schema_identity, write_part
from pipnet_fast.data.digest import face_digest
from pipnet_fast.data.errors import DataError
from pipnet_fast.data.samples import FaceData
from pipnet_fast.train.distributed import World

# A process that works by itself.
ALONE = World(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Shards:
    """A table with a row for each of n inputs, in files of ``shard_size`` rows.

    Attributes:
        folder: where the files are.
        identity: what the rows follow from, in plain values: among them "format", n as "inputs", and "shard_size". It
            is in every file, and a folder has files of one identity only.
        schema: pyarrow's, of the columns, of which "index" numbers the inputs.
    """

    folder: Path
    identity: Mapping[str, Any]
    schema: Any

    def __len__(self) -> int:
        """How many files the table has when it is whole."""
        return len(range(0, self.identity["inputs"], self.identity["shard_size"]))

    def path(self, shard: int) -> Path:
        """A file of the table."""
        return _path(self.folder, shard)

    def rows(self, shard: int) -> range:
        """The inputs of a file."""
        size = self.identity["shard_size"]
        return range(shard * size, min((shard + 1) * size, self.identity["inputs"]))

    def write(
        self, make: Callable[[range], Any], *, world: World = ALONE, accept: Callable[[Any], bool] = lambda table: True
    ) -> None:
        """Make the files that are not there, or damaged, and wait until all processes have made theirs.

        Args:
            make: the table of some inputs, one row each.
            world: whose processes share the files out; all of them must call this.
            accept: whether a file that is there already need not be made anew.

        Raises:
            ValueError: the folder has files of another table.
            OSError: the disk is full, or the folder cannot be written.
            RuntimeError: a file of another process is missing at the end: the folder is not shared.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_identity()
        for shard in range(world.rank, len(self), world.size):
            if not self._is_done(shard, accept):
                self._write(shard, make(self.rows(shard)))
        world.barrier()
        if world.is_main:
            missing = [shard for shard in range(len(self)) if not self.path(shard).is_file()]
            if missing:
                raise RuntimeError(
                    f"{self.path(missing[0])}: another process has written it, but it is not here; let all machines "
                    "share the folder"
                )

    def require(self, operation: str, data: FaceData, **values: Any) -> None:
        """Raise a ValueError of ``operation`` unless the table is that of the data, and its identity has the values."""
        expected = identity_of(data) | values
        found = {name: self.identity.get(name) for name in expected}
        if found != expected:
            raise ValueError(
                f"{operation}: {self.folder}: expected the table of {data.name}; {differences(found, expected)}"
            )

    def tables(self) -> Iterator[Any]:
        """The table, file by file.

        Raises:
            DataError: a file that is missing, damaged or of another table.
        """
        for shard in range(len(self)):
            path = self.path(shard)
            table = read_part(path)
            if schema_identity(table.schema) != self.identity or not self._is_whole(table, shard):
                raise DataError(f"{path}: expected a part of the table in {self.folder}, got another table's")
            yield table

    def _check_identity(self) -> None:
        """Raise unless every file that is there, and not damaged, is of this table."""
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                found = part_identity(path)
            except DataError:
                continue
            if found != self.identity:
                raise ValueError(
                    f"{path} is of another table: {differences(found, self.identity)}; take another folder, or empty "
                    "this one"
                )

    def _is_done(self, shard: int, accept: Callable[[Any], bool]) -> bool:
        try:
            table = read_part(self.path(shard))
        except DataError:
            return False
        return self._is_whole(table, shard) and accept(table)

    def _is_whole(self, table: Any, shard: int) -> bool:
        return bool(table.schema.equals(self.schema)) and np.array_equal(table["index"], self.rows(shard))

    def _write(self, shard: int, table: Any) -> None:
        write_part(self.path(shard), table, self.identity, one_writer=True)


def identity_of(data: FaceData) -> dict[str, Any]:
    """What tells the faces of a data set from others: how many, and a digest without labels."""
    return {"inputs": len(data), "faces": face_digest(data, labels=False)}


def read_identity(folder: Path, expected_format: str, *numbers: str) -> dict[str, Any]:
    """The identity of the table in a folder, whose values ``numbers`` are integers >= 1.

    Raises:
        DataError: the first file is missing, damaged, or of another format.
    """
    path = _path(folder, 0)
    identity = part_identity(path)
    if identity.get("format") != expected_format:
        raise DataError(f"{path}: expected a table in format {expected_format!r}, got {identity.get('format')!r:.100}")
    for name in ("inputs", "shard_size", *numbers):
        if not isinstance(identity.get(name), int) or identity[name] < 1:
            raise DataError(f"{path}: {name}: expected an integer >= 1, got {identity.get(name)!r:.100}")
    return identity


def _path(folder: Path, shard: int) -> Path:
    return folder / f"part-{shard:05d}.parquet"
