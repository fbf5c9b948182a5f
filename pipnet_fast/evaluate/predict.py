"""Predictions of a model for the faces of a data set, in pixels of their images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipnet_fast.crop import CropRule
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.data.samples import BadSample, FaceData, Norm
from pipnet_fast.evaluate.evaluation import Evaluation, hold_against
from pipnet_fast.models import PIPNet
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.ops import Landmarks, decode
from pipnet_fast.pipeline.images import normalize

Floats = npt.NDArray[np.float64]

# What runs a model: uint8 RGB crops (B, S, S, 3) on the CPU to landmarks in fractions of the crops, as a ``Runtime``.
Run = Callable[[Tensor], Landmarks]


class Predicted(NamedTuple):
    """Predictions for a batch of b faces.

    Attributes:
        index: (b,) of int64, into the data's samples.
        points_px: (b, N, 2) of float64, in px of the images.
        scores: (b, N) of float64.
        mirrored: points and scores that the mirror images of the crops gave, of the same shapes and brought back: to
            the image as it is, and to its landmarks' order. None unless asked for.
    """

    index: npt.NDArray[np.int64]  # type: ignore[assignment]  # tuples have a method of that name
    points_px: Floats
    scores: Floats
    mirrored: tuple[Floats, Floats] | None


def evaluate(
    model: LandmarkModel,
    data: FaceData,
    *,
    batch_size: int = 32,
    workers: int = 0,
    norm: Norm | None = None,
    flip_average: bool = False,
    run: Run | None = None,
    boxes: Floats | None = None,
    skip_bad: bool = False,
    name: str | None = None,
) -> Evaluation:
    """Predict the landmarks of labelled faces and hold them against the labels.

    Faces are cropped by the model's own rule where boxes are tight, else by that of the data set (``crop_rule``).

    Args:
        model: a model of this package, in any mode; it comes back in it.
        data: the faces; those without labels have no part in the measures.
        batch_size: crops in one forward pass.
        workers: processes that read ahead; 0 to read in this one.
        norm: what errors are divided by; by default as the data set has it.
        flip_average: average the landmarks of each crop and of its mirror image, at twice the time.
        run: what runs the model, such as ``compile(model)``; by default ``model.predict`` on the model's device, the
            fused path. ``unfused(model)`` goes through the dense maps.
        boxes: (n, 4) tight boxes to crop by in place of the data set's, as a detector finds them (``detected_boxes``)
            or the labels' (``label_boxes``); NaN for a face that was not found.
        skip_bad: leave out faces whose images cannot be read, and list them in ``Evaluation.bad``.
        name: whose predictions, for tables; by default the kind of model.

    Raises:
        TypeError, ValueError: no model, another number of landmarks than the data set's, or a bad argument.
        DataError: an image that cannot be read.
    """
    if not isinstance(model, LandmarkModel):
        raise TypeError(f"evaluate: model: expected a landmark model of this package, got {type(model).__name__}")
    if model.config.num_landmarks != data.layout.num_landmarks:
        raise ValueError(
            f"evaluate: model: expected one of {data.layout.num_landmarks} landmarks for {data.name}, got one of "
            f"{model.config.num_landmarks}"
        )
    shown = data if boxes is None else with_boxes(data, boxes, "evaluate")
    found = [i for i, sample in enumerate(shown.samples) if sample.has_box]
    points = np.full((len(data), data.layout.num_landmarks, 2), np.nan)
    scores = np.full(points.shape[:2], np.nan)
    bad: list[BadSample] = []
    kept = np.arange(len(data))
    if found:
        # The faces that a detector missed are not even read.
        shown = replace(shown, samples=[shown.samples[i] for i in found])
        loader = plain_crops(model, shown, batch_size=batch_size, workers=workers, skip_bad=skip_bad)
        read: list[int] = []
        for batch in predicted(model, loader, mirror=flip_average, run=run):
            faces = [found[i] for i in batch.index.tolist()]
            points[faces], scores[faces] = batch.points_px, batch.scores
            if batch.mirrored is not None:
                points[faces] = (points[faces] + batch.mirrored[0]) / 2
                scores[faces] = (scores[faces] + batch.mirrored[1]) / 2
            read += faces
        bad, kept = loader.bad, np.setdiff1d(kept, np.setdiff1d(found, read))
    name = name or type(model).__name__
    return hold_against(name, data, points[kept], scores[kept], index=kept, norm=norm, bad=bad)


def plain_crops(
    model: LandmarkModel, data: FaceData, *, batch_size: int, workers: int = 0, skip_bad: bool = False
) -> CropLoader:
    """What a model is shown of faces: unchanged crops by ``crop_rule``, in the order of the data.

    Raises:
        TypeError, ValueError, DataError: as ``CropLoader``.
    """
    return CropLoader(
        data,
        crop_rule(model, data),
        model.config.input_size,
        batch_size,
        augmentation=None,
        shuffle=False,
        workers=workers,
        skip_bad=skip_bad,
    )


def predicted(
    model: LandmarkModel, loader: CropLoader, *, mirror: bool = False, run: Run | None = None
) -> Iterator[Predicted]:
    """Predictions batch by batch, of which no more than one is held.

    Args:
        model: a model of this package; it is in eval mode until the last batch is out.
        loader: its ``plain_crops``. Faces whose images cannot be read are missing in the batches if it skips them.
        mirror: predict the mirror images of the crops, too, at twice the time.
        run: what runs the model, as for ``evaluate``.

    Raises:
        DataError, RuntimeError: as ``CropLoader``.
    """
    rule, size, flip = loader.crop, loader.input_size, loader.data.layout.flip
    run = run or _predict(model)
    with _evaluating(model):
        for batch in loader:
            affines = loader.affines(batch.index)
            points, scores = _numbers(run, batch.crops)
            mirrored = None
            if mirror:
                seen, sure = _numbers(run, batch.crops.flip(2))
                mirrored = rule.to_image(_unmirrored(seen, rule, size)[:, flip], affines, size), sure[:, flip]
            yield Predicted(batch.index.numpy(), rule.to_image(points, affines, size), scores, mirrored)


def crop_rule(model: LandmarkModel, data: FaceData) -> CropRule:
    """How a model is shown faces: tight boxes by its own rule, others by the data set's, in the model's pixel base."""
    return model.crop if data.tight else replace(data.crop, pixel_base=model.crop.pixel_base)


def with_boxes(data: FaceData, boxes: Any, operation: str) -> FaceData:
    """The same faces in tight boxes (n, 4), NaN for those that are not to be seen.

    Raises:
        ValueError: another shape.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.shape != (len(data), 4):
        raise ValueError(f"{operation}: boxes: expected shape {(len(data), 4)}, got {boxes.shape}")
    samples = [replace(sample, box=box) for sample, box in zip(data.samples, boxes, strict=True)]
    return replace(data, samples=samples, tight=True)


def unfused(model: PIPNet) -> Run:
    """A PIPNet by its dense maps and the reference decoder: the slow path that the fused one must equal."""
    device, dtype = _place(model)

    def run(crops: Tensor) -> Landmarks:
        return decode(model(normalize(crops.to(device), dtype)), model.table, backend="reference")

    return run


def _predict(model: LandmarkModel) -> Run:
    device, dtype = _place(model)
    return lambda crops: model.predict(normalize(crops.to(device), dtype))


def _place(model: LandmarkModel) -> tuple[torch.device, torch.dtype]:
    parameter = next(model.parameters())
    return parameter.device, parameter.dtype


@contextmanager
def _evaluating(model: LandmarkModel) -> Iterator[None]:
    """Put the model in eval mode meanwhile; its parts come back in theirs, as BatchNorms that are frozen."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        # Of the whole model by its own method, which forgets what it keeps for evaluation.
        model.train(modes[model])
        for module, mode in modes.items():
            module.training = mode


def _numbers(run: Run, crops: Tensor) -> tuple[Floats, Floats]:
    # Not about the loop of a generator, whose caller would be without gradients, too.
    with torch.no_grad():
        points, scores = run(crops)
    return points.double().cpu().numpy(), scores.double().cpu().numpy()


def _unmirrored(points_frac: Floats, rule: CropRule, size: int) -> Floats:
    """Points in crops from points (b, N, 2) in their mirror images."""
    # The last pixel's center is that of the mirrored first one.
    width = 1.0 if rule.pixel_base == "continuous" else 1.0 - 1.0 / size
    return np.stack((width - points_frac[..., 0], points_frac[..., 1]), axis=-1)
