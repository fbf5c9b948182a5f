"""Where an image comes from: a file, a frame of a video, an entry of an HDF5 file."""

import os
from dataclasses import dataclass
from typing import Protocol

from pipnet_fast.crop import Image
from pipnet_fast.pipeline.images import read_rgb


class ImageSource(Protocol):
    """A picture that is read when it is needed; small, and copied to worker processes."""

    def read(self) -> Image:
        """RGB (h, w, 3) of uint8.

        Raises:
            ImageError: missing, damaged, or no image.
        """

    def __str__(self) -> str:
        """For messages and tables: which file, and where in it."""


@dataclass(frozen=True)
class ImageFile:
    """An image file of its own."""

    path: str | os.PathLike[str]

    def read(self) -> Image:
        """See ``ImageSource``."""
        return read_rgb(self.path)

    def __str__(self) -> str:
        """The path."""
        return os.fspath(self.path)
