"""One module a data set, each with ``SPLITS`` and ``read``; they share nothing but the file formats."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from pipnet_fast.data.errors import BadSamples, DataError
from pipnet_fast.data.samples import FaceData

# Imported when asked for: some need h5py or scipy, which come with the extra "train".
READERS = {
    "300w": "w300",
    "300vw": "vw300",
    "aflw19": "aflw19",
    "celeba": "celeba",
    "cofw": "cofw",
    "cofw68": "cofw68",
    "images": "images",
    "lapa": "lapa",
    "menpo2d": "menpo2d",
    "table": "table",
    "wflw": "wflw",
    "wflw68": "wflw68",
}


def open_data(
    name: str, root: str | os.PathLike[str], split: str, *, skip_bad: bool = False, **options: Any
) -> FaceData:
    """Read the labels of one split of a data set as it was downloaded; images are read when they are needed.

    Args:
        name: one of ``READERS``.
        root: the folder that the data set was unpacked to; each reader says what it expects there.
        split: "train", "test" or what else the reader's ``SPLITS`` has; any where that is empty.
        skip_bad: leave out faces whose files are missing or damaged, and list them in ``FaceData.bad``; otherwise the
            first one raises.
        options: of the reader.

    Raises:
        ValueError: an unknown name, split or option value.
        DataError: a file that is missing, damaged or in another format, with its name and line; or no face at all.
        ImportError: h5py or scipy is missing where the format needs it.
    """
    if name not in READERS:
        raise ValueError(f"open_data: name: expected one of {', '.join(READERS)}, got {name!r}")
    reader = import_module(f"{__name__}.{READERS[name]}")
    if reader.SPLITS and split not in reader.SPLITS:
        raise ValueError(f"open_data: split: expected one of {reader.SPLITS} for {name}, got {split!r}")
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the folder of {name}, found {'a file' if folder.exists() else 'nothing'}")
    bad = BadSamples(skip_bad)
    try:
        data: FaceData = reader.read(folder, split, bad, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"open_data: {name}: {str(error).removeprefix('read() ')}") from None
    if not data.samples:
        why = f"; {len(bad.found)} are bad, first {bad.found[0].reason}" if bad.found else ""
        raise DataError(f"{folder}: expected faces of {data.name}, found none{why}")
    return data
