"""The labelled faces that cases are measured on."""

from pathlib import Path
from typing import Any

from pipnet_fast.data import FaceData, open_data


def labelled_faces(table: Path, **options: Any) -> FaceData:
    """Faces of 68 landmarks with their tight boxes: a CSV file as ``pipnet_fast.data.readers.table`` documents it."""
    return open_data("table", table.parent, table.stem, layout="300w68", **options)
