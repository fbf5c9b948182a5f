"""What all subjects of a whole-engine case do: the same network on the same crops, handed over in a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import pipnet_fast as pf
from bench.networks import Crops, face_crops, load_pipnet, pipnet, random_crops
from pipnet_fast.pipeline.images import normalize

Points = npt.NDArray[np.floating[Any]]

# Crops whose landmarks are compared before anything is timed, at least.
PROBE = 8
CALIBRATION = 64


@dataclass(frozen=True)
class Task:
    """A network in a folder, and how it is to be run; travels to the workers as JSON."""

    folder: str
    size: int
    """Side of the crops, px."""
    batch: int
    threads: int
    device: str = "cpu"
    dtype: str = "float32"

    def model(self) -> pf.PIPNet:
        """The network, in eval mode, on the device."""
        model = pf.load(self.file("model.safetensors"))
        assert isinstance(model, pf.PIPNet)
        return model.eval().to(self.device)

    def calibration(self) -> Crops:
        """Crops (64, S, S, 3) for those who quantize."""
        crops: Crops = np.load(self.file("calibration.npy"))
        return crops

    def batches(self) -> list[Crops]:
        """The crops to compare and to time, (batch, S, S, 3) each."""
        crops: Crops = np.load(self.file("crops.npy"))
        count = self.batch * max(1, -(-PROBE // self.batch))
        chosen = np.resize(crops, (count, *crops.shape[1:]))
        return list(chosen.reshape(-1, self.batch, *crops.shape[1:]))

    def file(self, name: str) -> Path:
        """A file of the folder, there or not."""
        return Path(self.folder, name)


@dataclass(frozen=True)
class Built:
    """A subject that is ready: uint8 RGB crops (batch, S, S, 3) in, landmarks (batch, N, 2) in px of the crop out."""

    run: Callable[[Crops], Points]
    packages: tuple[str, ...] = ()
    """Whose versions decide about its speed."""
    note: str | None = None
    """What a reader of its numbers must know."""


@dataclass(frozen=True)
class Network:
    """A network and its crops in a folder, and the landmarks that all subjects have to find."""

    folder: str
    name: str
    size: int
    shape: str
    landmarks_px: Points
    """(PROBE, N, 2), computed densely in float64."""


def prepare(
    folder: Path, name: str, size: int, width: float = 1.0, labels: Path | None = None, trained: Path | None = None
) -> Network:
    """Write a network and its crops into ``folder``.

    Args:
        folder: exists.
        name: of the backbone of a random network, or of a trained one.
        size: side of the crops, px; a trained network has its own.
        width: channel multiplier of the backbone.
        labels: faces to cut the crops from; None, random crops.
        trained: a model file to use instead of a random network.

    Raises:
        ValueError: a trained model that is no PIPNet.
    """
    model = pipnet(name, size, width) if trained is None else _trained(trained)
    size = model.config.input_size
    pf.save(model, folder / "model.safetensors")
    for file, count, seed in (("crops", PROBE, 1), ("calibration", CALIBRATION, 2)):
        crops = random_crops(count, size, seed) if labels is None else face_crops(labels, count, size, model.crop, seed)
        np.save(folder / file, crops)
    probe = torch.from_numpy(np.load(folder / "crops.npy"))
    model.eval().double()
    with torch.no_grad():
        maps = model(normalize(probe, torch.float64))
    points = pf.ops.decode(maps, model.table, backend="reference").points_frac.double().numpy() * size
    shape = f"{size}x{size} N={model.config.num_landmarks} K={model.config.num_neighbors}"
    return Network(str(folder), name, size, shape, points)


def _trained(file: Path) -> pf.PIPNet:
    model = load_pipnet(file)
    # What the rivals' decodes compute.
    return model.with_mean_shape(model.mean_shape, "official")
