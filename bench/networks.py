"""Networks and crops of the whole-engine cases: random and seeded, the same for every subject."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

import pipnet_fast as pf
from bench.faces import labelled_faces
from pipnet_fast.crop import CropRule, warp
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.pipeline.images import normalize

Crops = npt.NDArray[np.uint8]
Model = TypeVar("Model", bound=LandmarkModel)

LAYOUT = "wflw98"
NEIGHBORS = 10


def pipnet(backbone: str, size: int, width: float = 1.0) -> pf.PIPNet:
    """A randomized PIPNet of 98 landmarks, 10 neighbors and the official merge, for crops of ``size`` px."""
    points = len(pf.neighbor_table(LAYOUT, 0).starts) - 1
    model = pf.PIPNet(backbone, points, NEIGHBORS, input_size=size, mean_shape=LAYOUT, width=width, merge="official")
    return randomized(model)


def load_pipnet(file: str | Path) -> pf.PIPNet:
    """A trained PIPNet.

    Raises:
        ValueError: a model of another kind.
    """
    model = pf.load(file)
    if not isinstance(model, pf.PIPNet):
        raise ValueError(f"bench: --model: expected a PIPNet, got a {type(model).__name__}")
    return model


def randomized(model: Model, seed: int = 0) -> Model:
    """Give a model seeded weights of which every layer matters, in place; returns it in eval mode.

    A fresh one will not do: its head is close to zero, so that scores tie, and without the statistics of its
    BatchNorms the activations of a deep network grow beyond what half precision and int8 can hold.
    """
    generator = torch.Generator().manual_seed(seed)
    size = model.config.input_size
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.ndim > 1:
                value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
            elif key.endswith(".bias"):
                value.normal_(0, 0.1, generator=generator)
            elif key.endswith(".weight"):
                value.uniform_(0.5, 1.5, generator=generator)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            # The statistics of one batch, not a moving average.
            norm.momentum = None
            norm.reset_running_stats()
        model.train().forward_features(normalize(torch.from_numpy(random_crops(4, size, seed))))
        for norm in norms:
            norm.momentum = 0.1
    model.eval()
    return model


def random_crops(count: int, size: int, seed: int = 0) -> Crops:
    """RGB crops (count, size, size, 3) of soft blobs and noise, so that cells of the grid differ."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    soft = F.interpolate(coarse, size=(size, size), mode="bicubic")
    noise = 0.2 * torch.randn(count, 3, size, size, generator=generator)
    pixels: Crops = (255 * (soft + noise)).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def face_crops(labels: Path, count: int, size: int, rule: CropRule, seed: int = 0) -> Crops:
    """Crops (count, size, size, 3) of labelled faces, drawn at random; ``labels`` is what ``bench accuracy`` reads."""
    data = labelled_faces(labels)
    chosen = np.random.default_rng(seed).choice(len(data), count, replace=count > len(data))
    samples = [data.samples[int(i)] for i in chosen]
    affines = rule.affine(rule.apply(np.array([sample.box for sample in samples])), size)
    return np.stack([warp(s.image.read(), affine, size) for s, affine in zip(samples, affines, strict=True)])
