"""An exported file is held against its model before it is kept."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pipnet_fast.export._network import OUTPUTS, Input
from pipnet_fast.models import GRMI, MapNet, PIPNet
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.grmi import hough_votes, upsample
from pipnet_fast.pipeline.images import normalize

Arrays = npt.NDArray[Any]
# What runs a file: crops as its input is, to landmarks (B, N, 2) and scores (B, N).
Run = Callable[[Arrays], tuple[Arrays, Arrays]]

# Points may differ by this much of the crop, scores by this much of the largest; or by a few times what float32 itself
# changes in the model, where that is more.
TOLERANCE = 1e-4
ROUNDINGS = 8
# How many crops are made up where none are given.
MADE_UP = 8


class Int8Cost(NamedTuple):
    """What int8 costs."""

    measure: str
    """"NME", in percent of the norm, or "shift", of landmarks, in percent of the crop's side."""
    faces: int
    """On how many it was measured."""
    float32: float
    """0 for a shift, which is counted from here."""
    int8: float


class Checked(NamedTuple):
    """How a file was held against its model."""

    by: str
    """What ran it."""
    crops: int
    """How many crops were compared, one by one and together: those whose winning cells rounding cannot change."""
    deviation_frac: float
    """The largest difference of a coordinate, in fractions of the crop."""
    int8: Int8Cost | None = None
    """Of a file in int8."""


class ExportError(RuntimeError):
    """An exported file does not give what its model gives."""


def made_up_crops(size: int) -> Arrays:
    """Crops (8, S, S, 3) of soft blobs and noise, always the same, in which the cells of a grid differ."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(MADE_UP, 3, 6, 6, generator=generator)
    soft = F.interpolate(coarse, size=(size, size), mode="bicubic")
    pixels = soft + 0.1 * torch.randn(soft.shape, generator=generator)
    crops: Arrays = (255 * pixels).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return crops


def checked_crops(operation: str, argument: str, crops: Any, size: int) -> Arrays:
    """Crops that were given, as an array.

    Raises:
        TypeError, ValueError: no uint8 crops (B, S, S, 3) with B >= 1.
    """
    array = crops.cpu().numpy() if isinstance(crops, Tensor) else crops
    expected = f"uint8 RGB crops (B, {size}, {size}, 3), B >= 1"
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{operation}: {argument}: expected {expected}, got {got}")
    if array.shape[1:] != (size, size, 3) or not len(array):
        raise ValueError(f"{operation}: {argument}: expected {expected}, got {array.shape}")
    return array


def require_agreement(operation: str, by: str, run: Run, model: LandmarkModel, crops: Arrays, input: Input) -> Checked:
    """Run a file on crops, one by one and together, and hold it against its model in float64.

    Crops in which two cells' scores are so close that rounding chooses between them are left out: no two ways to
    compute them need to agree.

    Args:
        operation: for messages.
        by: what ``run`` is.
        run: the file.
        model: in eval mode.
        crops: uint8 (B, S, S, 3).
        input: what the file takes.

    Raises:
        ExportError: other shapes, points or scores than the model's.
        ValueError: crops none of which can be compared.
    """
    single = copy.deepcopy(model).cpu().float()
    double = copy.deepcopy(single).double()
    expected = [_expected(single, double, crops[i : i + 1]) for i in range(len(crops))]
    decided = [index for index, one in enumerate(expected) if one.decided]
    if not decided:
        raise ValueError(
            f"{operation}: crops: expected one in which rounding cannot change a landmark's cell, got {len(crops)} "
            "in which it can; give more crops, of faces"
        )
    given = as_input(crops[decided], input)
    truths = [np.concatenate([expected[i].truth[output] for i in decided]) for output in (0, 1)]
    allowed = [max(expected[i].allowed[output] for i in decided) for output in (0, 1)]
    deviations = [0.0]
    for rows in (*(slice(i, i + 1) for i in range(len(given))), slice(None)):
        results = run(given[rows])
        differences = [
            _difference(operation, by, output, got, truth[rows], most)
            for output, got, truth, most in zip(OUTPUTS, results, truths, allowed, strict=True)
        ]
        deviations.append(differences[0])
    return Checked(by, len(given), max(deviations))


def as_input(crops: Arrays, input: Input) -> Arrays:
    """Crops (B, S, S, 3) of uint8 as a file takes them."""
    return crops if input == "uint8" else normalize(torch.from_numpy(crops)).contiguous().numpy()


class _Expected(NamedTuple):
    """Of one crop: what the model gives in float64, and how far from it a file may be."""

    truth: tuple[Arrays, Arrays]
    allowed: tuple[float, float]
    decided: bool


def _expected(single: LandmarkModel, double: LandmarkModel, crop: Arrays) -> _Expected:
    x = normalize(torch.from_numpy(crop))
    with torch.no_grad():
        truth, own = double.predict(x.double()), single.predict(x)
        exact, rounded = _responses(double, x.double()), _responses(single, x)
    # MapNet reads the second highest cell, too.
    ranks = 3 if isinstance(double, MapNet) else 2
    decided = exact is None or _gap(exact, ranks) > ROUNDINGS * float((exact - rounded).abs().max())
    roundings = [float((a - b).abs().max()) for a, b in zip(truth, own, strict=True)]
    size = max(1.0, float(truth.scores.abs().max()))
    allowed = max(TOLERANCE, ROUNDINGS * roundings[0]), max(TOLERANCE * size, ROUNDINGS * roundings[1])
    return _Expected((truth.points_frac.numpy(), truth.scores.numpy()), allowed, decided)


def _responses(model: LandmarkModel, x: Tensor) -> Any:
    """The maps (B, N, H, W) whose highest cells are the landmarks', None for a model without."""
    if isinstance(model, PIPNet):
        return model(x).score
    if isinstance(model, MapNet):
        return model(x).heatmaps
    if isinstance(model, GRMI):
        maps = model(x)
        return hough_votes(upsample(maps, x.shape[2] // maps.logits.shape[2]), model.config.radius_px)
    return None


def _gap(responses: Tensor, ranks: int) -> float:
    """The least difference between any map's highest cells, as many as ``ranks``; infinite where there is one cell."""
    cells = responses.flatten(2)
    best = cells.topk(min(ranks, cells.shape[2]), dim=2).values
    return float((best[..., :-1] - best[..., 1:]).min()) if best.shape[2] > 1 else float("inf")


def _difference(operation: str, by: str, output: str, got: Arrays, truth: Arrays, allowed: float) -> float:
    got = np.asarray(got)
    if got.shape != truth.shape or got.dtype != np.float32:
        raise ExportError(
            f"{operation}: the file's {output}, run by {by}: expected float32 {truth.shape}, got {got.dtype} "
            f"{got.shape}; nothing was written"
        )
    difference = float(np.abs(got - truth).max(initial=0.0))
    if not difference <= allowed:
        raise ExportError(
            f"{operation}: the file's {output}, run by {by}, differ from the model's by {difference:.3g} (allowed: "
            f"{allowed:.3g}); nothing was written"
        )
    return difference
