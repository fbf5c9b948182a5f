"""What is wrong with a file of a data set, and whether that ends the reading."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipnet_fast.data.samples import BadSample


class DataError(ValueError):
    """A file of a data set that is missing, damaged or not in its format; names the file, and the line by number."""


class BadSamples:
    """Collects what is wrong with single faces, or lets the first end the reading."""

    def __init__(self, skip: bool) -> None:
        """``skip``: leave bad faces out and count them."""
        self.skip = skip
        self.found: list[BadSample] = []

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Around the reading of one face: a DataError inside is noted, if bad faces are to be skipped."""
        try:
            yield
        except DataError as error:
            if not self.skip:
                raise
            self.found.append(BadSample(where, str(error)))
