"""The folder of a run: what it holds, who may write into it, and whether it is the same run.

    part-SSSSSS-PPPP.parquet           faces: part P of share S; all of them are one table
    _images/part-SSSSSS-PPPP.parquet   a row for every picture that was read, or could not be; the part is done
    _errors.parquet                    of those, what could not be read
    _run/run.json                      the run's identity; once it is there, the list and the model are
    _run/list/, _run/model.safetensors
    _run/running/, _run/pending/       shares that somebody is at, parts that are being written

Readers of Parquet pass over names that begin with an underscore, so that the folder as a whole is the table of faces.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipnet_fast._files import write_whole
from pipnet_fast._parquet import differences
from pipnet_fast.annotate.inputs import Inputs
from pipnet_fast.models import LandmarkModel, save


class RunFolder:
    """The places in it.

    Attributes:
        path: the folder itself.
    """

    def __init__(self, path: Path) -> None:
        """Name a folder; nothing is opened or made."""
        self.path = path
        self.images = path / "_images"
        self.errors = path / "_errors.parquet"
        self.run = path / "_run"
        self.identity = self.run / "run.json"
        self.list = self.run / "list"
        self.new_list = self.run / "list.new"
        self.model = self.run / "model.safetensors"
        self.running = self.run / "running"
        self.pending = self.run / "pending"

    def read_identity(self) -> dict[str, Any] | None:
        """The identity of the run, None if none has begun.

        Raises:
            ValueError: it is damaged.
        """
        try:
            identity = json.loads(self.identity.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"annotate: {self.identity}: damaged: {error}; take another folder") from None
        if not isinstance(identity, dict):
            raise ValueError(f"annotate: {self.identity}: expected a record, got {type(identity).__name__}")
        return identity

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only run in the folder, which is made if need be; where the system can tell.

        Raises:
            ValueError: a file, or a folder of something else.
            RuntimeError: another run is going on in it.
        """
        self._require_ours()
        self.run.mkdir(parents=True, exist_ok=True)
        with open(self.run / "lock", "wb") as file:
            try:
                import fcntl
            except ImportError:
                pass
            else:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise RuntimeError(f"annotate: out: another run is going on in {self.path}") from None
                except OSError:  # a file system without locks
                    pass
            # What the killed have left.
            for folder in (self.new_list, self.pending):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            try:
                yield
            finally:
                begun = self.identity.exists()
                for folder in (self.new_list, self.pending) if begun else (self.run,):
                    shutil.rmtree(folder, ignore_errors=True)

    def begin(self, identity: Mapping[str, Any], model: LandmarkModel) -> None:
        """Keep the new list and the model, or hold them against those that are there.

        Raises:
            ValueError: the folder has annotations of another run; says what differs.
        """
        found = self.read_identity()
        if found is None:
            shutil.rmtree(self.list, ignore_errors=True)
            os.replace(self.new_list, self.list)
            save(model, self.model)
            text = json.dumps(dict(identity), indent=1) + "\n"
            write_whole(self.identity, lambda file: file.write(text.encode()), durable=True)
        elif found != identity:
            differing = self._differences(found, identity)
            raise ValueError(f"annotate: out: {self.path} is of another run: {differing}; take another folder")
        for folder in (self.images, self.running):
            folder.mkdir(exist_ok=True)

    def _differences(self, found: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
        """What is not the same, files first."""
        listed = ("inputs", "paths", "shard_size")
        others = differences(*({k: v for k, v in values.items() if k not in listed} for values in (found, identity)))
        if found.get("paths") == identity["paths"]:
            return others or differences(found, identity)
        files = f"{found.get('inputs')} files, not {identity['inputs']}"
        with suppress(OSError, ValueError):  # a list that is gone or damaged
            files += f": {Inputs(self.list).differences(self.new_list)}"
        files += f" (the source @{self.list / 'paths'} is the old list, to go on with)"
        return "; ".join(filter(None, (others, files)))

    def _require_ours(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"annotate: out: expected a folder, got the file {self.path}")
        if self.path.is_dir() and not self.identity.exists():
            # A run that was killed while it listed has left nothing else.
            others = sorted({*os.listdir(self.path)} - {self.run.name})
            if others:
                raise ValueError(
                    f"annotate: out: expected a new or an empty folder, or one of a run that goes on, got {self.path} "
                    f"with {others[0]} in it"
                )
