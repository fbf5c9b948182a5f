"""Predictions of a model for the faces of a data set, in pixels of their images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

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
        boxes: (n, 4) tight boxes to crop by in place of the data set's, as a detector finds them (``detected_boxes``);
            NaN for a face that was not found.
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
    shown = data if boxes is None else _with_boxes(data, boxes)
    rule, size = crop_rule(model, shown), model.config.input_size
    found = [i for i, sample in enumerate(shown.samples) if np.isfinite(sample.box).all()]
    points = np.full((len(data), data.layout.num_landmarks, 2), np.nan)
    scores = np.full(points.shape[:2], np.nan)
    bad: list[BadSample] = []
    kept = np.arange(len(data))
    if found:
        loader = CropLoader(
            # The faces that a detector missed are not even read.
            replace(shown, samples=[shown.samples[i] for i in found]),
            rule,
            size,
            batch_size,
            augmentation=None,
            shuffle=False,
            workers=workers,
            skip_bad=skip_bad,
        )
        read: list[int] = []
        with torch.no_grad(), _evaluating(model):
            run = run or _predict(model)
            for batch in loader:
                result = _numbers(run(batch.crops))
                if flip_average:
                    result = _averaged(result, _numbers(run(batch.crops.flip(2))), data.layout.flip, rule, size)
                faces = [found[i] for i in batch.index.tolist()]
                points[faces] = rule.to_image(result[0], loader.affines(batch.index), size)
                scores[faces] = result[1]
                read += faces
        bad, kept = loader.bad, np.setdiff1d(kept, np.setdiff1d(found, read))
    name = name or type(model).__name__
    return hold_against(name, data, points[kept], scores[kept], index=kept, norm=norm, bad=bad)


def crop_rule(model: LandmarkModel, data: FaceData) -> CropRule:
    """How a model is shown faces: tight boxes by its own rule, others by the data set's, in the model's pixel base."""
    return model.crop if data.tight else replace(data.crop, pixel_base=model.crop.pixel_base)


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
    """Put the model in eval mode meanwhile."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _numbers(landmarks: Landmarks) -> tuple[Floats, Floats]:
    points, scores = (tensor.double().cpu().numpy() for tensor in landmarks)
    return points, scores


def _averaged(
    plain: tuple[Floats, Floats],
    mirrored: tuple[Floats, Floats],
    flip: npt.NDArray[np.int64],
    rule: CropRule,
    size: int,
) -> tuple[Floats, Floats]:
    """The means of the landmarks of crops and of their mirror images."""
    points, scores = mirrored[0][:, flip], mirrored[1][:, flip]
    # The last pixel's center is that of the mirrored first one.
    width = 1.0 if rule.pixel_base == "continuous" else 1.0 - 1.0 / size
    points = np.stack((width - points[..., 0], points[..., 1]), axis=-1)
    return (plain[0] + points) / 2, (plain[1] + scores) / 2


def _with_boxes(data: FaceData, boxes: Any) -> FaceData:
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.shape != (len(data), 4):
        raise ValueError(f"evaluate: boxes: expected shape {(len(data), 4)}, got {boxes.shape}")
    samples = [replace(sample, box=box) for sample, box in zip(data.samples, boxes, strict=True)]
    return replace(data, samples=samples, tight=True)
