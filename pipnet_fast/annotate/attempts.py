"""Notes on disk of who is at a share, by which the file that kills processes is found, on whatever machine.

A note that is there when a share is begun is a dead process'. From then on the share is done one picture at a time,
each of which is noted before it is touched.
"""

import json
from contextlib import suppress
from pathlib import Path

from pipnet_fast._files import write_whole
from pipnet_fast.annotate.parts import Position

# So many processes may die at a picture before it is given up. One death may have been another's fault, as where
# memory ran out.
TRIES = 2


class Attempt:
    """The present attempt at a share.

    Args:
        path: of the note.
    """

    def __init__(self, path: Path) -> None:
        """Begin: read the note of the dead, or write the first."""
        self._path = path
        self.is_careful = path.exists()
        self._deaths: dict[str, int] = {}
        if not self.is_careful:
            self._write(None)
            return
        with suppress(OSError, ValueError, TypeError, AttributeError):  # half a note
            note = json.loads(path.read_text(encoding="utf-8"))
            self._deaths = {place: int(count) for place, count in note["deaths"].items()}
            if note["at"] is not None:
                self._deaths[note["at"]] = self._deaths.get(note["at"], 0) + 1

    def may_touch(self, position: Position) -> bool:
        """Whether to try a picture, which is then noted; False if too many have died at it."""
        if not self.is_careful:
            return True
        place = ":".join(map(str, position))
        if self._deaths.get(place, 0) >= TRIES:
            return False
        self._write(place)
        return True

    def end(self) -> None:
        """The share is done."""
        self._path.unlink(missing_ok=True)

    def _write(self, place: str | None) -> None:
        note = json.dumps({"deaths": self._deaths, "at": place})
        write_whole(self._path, lambda file: file.write(note.encode()))
