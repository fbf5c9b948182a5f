"""What is wrong with a file of a data set, and whether that ends the reading."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipnet_fast.data.samples import BadSample
from pipnet_fast.pipeline.images import ImageError


class DataError(ValueError):
    """A file of a data set that is missing, damaged or not in its format; names the file, and the line by number."""


# What the reading of an image raises.
UNREADABLE = (ImageError, DataError, OSError)


def reason(where: str, error: Exception) -> str:
    """What is wrong, and where, which some messages say themselves."""
    return str(error) if isinstance(error, DataError) or where in str(error) else f"{where}: {error}"


class BadSamples:
    """Collects what is wrong with single faces, or lets the first end the reading."""

    def __init__(self, skip: bool) -> None:
        """``skip``: leave bad faces out and count them."""
        self.skip = skip
        self.found: list[BadSample] = []

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Around the reading of one face: what is wrong is noted, if bad faces are to be skipped.

        Raises:
            DataError: what is wrong, otherwise.
        """
        try:
            yield
        except UNREADABLE as error:
            if not self.skip:
                raise DataError(reason(where, error)) from None
            self.found.append(BadSample(where, reason(where, error)))
