"""Faces of several sets as one: each is cropped as its own set asks for, so that faces look alike (section 3.4)."""

from collections.abc import Sequence
from dataclasses import replace

from pipnet_fast.crop import CropRule
from pipnet_fast.data import FaceData, open_data
from pipnet_fast.layouts import Layout
from pipnet_fast.selftrain.config import UnlabelledConfig


def open_unlabelled(config: UnlabelledConfig, layout: Layout, *, skip_bad: bool) -> FaceData:
    """A set without labels, or without a look at them.

    Faces have the crops of the set (``as_crops``) or, where there are no boxes, boxes of NaN: a detector is to find
    them.

    Args:
        config: which set.
        layout: of the landmarks that its faces are to get.
        skip_bad: leave out what is damaged.

    Raises:
        ValueError, DataError: as ``open_data``; ``crop_scale`` for a set with neither labels nor missing boxes.
    """
    data = open_data(config.dataset, config.root, config.chosen_split(), skip_bad=skip_bad, **config.options)
    if not len(data):
        raise ValueError(f"{data.name}: expected faces or pictures to learn from, got none")
    if not has_boxes(data):
        return _without_labels(data, layout)
    if config.crop_scale is not None:
        if any(sample.landmarks is None for sample in data.samples):
            raise ValueError(
                f"unlabelled.crop_scale: {data.name}: expected labels to take tight boxes of, but it has boxes alone; "
                "leave crop_scale out"
            )
        data = data.with_tight_boxes(CropRule(config.crop_scale, config.top_shift))
    return _without_labels(as_crops(data), layout)


def has_boxes(data: FaceData) -> bool:
    """Whether it is known where the faces are."""
    return all(sample.has_box for sample in data.samples)


def as_crops(data: FaceData) -> FaceData:
    """The same crops by boxes that a rule common to all sets leaves as they are."""
    samples = [replace(sample, box=box) for sample, box in zip(data.samples, data.crop_boxes(), strict=True)]
    return replace(data, samples=samples, crop=CropRule(scale=1.0, pixel_base=data.crop.pixel_base), tight=False)


def joined(labelled: FaceData, others: Sequence[FaceData]) -> FaceData:
    """Labelled faces, then those of other sets; all in the crops of their own sets.

    Raises:
        ValueError: fractions of crops that mean other points in one set than in another.
    """
    sets = [as_crops(data) for data in (labelled, *others)]
    for data in sets:
        if data.crop.pixel_base != labelled.crop.pixel_base:
            raise ValueError(
                f"selftrain: {data.name}: expected crops in the pixel base of {labelled.name}, "
                f"{labelled.crop.pixel_base!r}, got {data.crop.pixel_base!r}"
            )
    name = " + ".join(data.name for data in sets)
    samples = [sample for data in sets for sample in data.samples]
    return replace(sets[0], name=name, samples=samples, bad=[bad for data in sets for bad in data.bad])


def _without_labels(data: FaceData, layout: Layout) -> FaceData:
    return replace(data, layout=layout, samples=[replace(sample, landmarks=None) for sample in data.samples])
