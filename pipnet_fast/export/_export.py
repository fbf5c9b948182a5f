"""What every export begins with, all that can be wrong being looked at before the first long computation."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipnet_fast.export._metadata import metadata
from pipnet_fast.export._network import ExportNetwork, Input
from pipnet_fast.export._verify import Arrays, Checked, Run, checked_crops, made_up_crops, require_agreement
from pipnet_fast.layouts import Layout


@dataclass(frozen=True)
class Export:
    """A model on its way into a file."""

    operation: str
    place: Path
    model: Any
    input: Input
    network: ExportNetwork
    metadata: dict[str, str]
    crops: Arrays
    """(B, S, S, 3) of uint8, to compare file and model on."""

    def require_agreement(self, by: str, run: Run) -> Checked:
        """Hold the file, run by ``by``, against the model."""
        return require_agreement(self.operation, by, run, self.model, self.crops, self.input)


def prepare(
    operation: str,
    model: Any,
    path: str | os.PathLike[str],
    suffix: str,
    input: Input,
    layout: str | Layout | None,
    crops: Any,
) -> Export:
    """Check the arguments and make the network.

    Raises:
        TypeError, ValueError: a model, input, layout or crops that cannot be exported; a path with another suffix than
            ``suffix``, of a folder, or in a folder that is not there.
    """
    place = Path(path)
    if place.is_dir():
        raise ValueError(f"{operation}: path: expected a file, got the folder {place}")
    if place.suffix != suffix:
        raise ValueError(f"{operation}: path: expected a name that ends in {suffix}, got {str(place)!r}")
    if not place.parent.is_dir():
        raise ValueError(f"{operation}: path: expected a folder that is there, got {place.parent}")
    network = ExportNetwork(operation, model, input)
    entries = metadata(operation, model, input, layout)
    size = model.config.input_size
    shown = made_up_crops(size) if crops is None else checked_crops(operation, "crops", crops, size)
    return Export(operation, place, model, input, network, entries, shown)
