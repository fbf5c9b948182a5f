"""WFLW with the 68 landmarks of 300W, on crops like 300W's: what self-training across data sets adapts to."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipnet_fast.crop import CropRule
from pipnet_fast.data.errors import BadSamples
from pipnet_fast.data.readers import wflw
from pipnet_fast.data.samples import FaceData, Points, Sample
from pipnet_fast.layouts import load_layout
from pipnet_fast.layouts.convert import wflw98_to_300w68

SPLITS = wflw.SPLITS

# Section 3.4: "reduce the top by 20 %" of a box grown by 1.2. The top ends a tenth below that of the detected box.
CROP = CropRule(scale=1.2, top_shift=0.2)


def read(root: Path, split: str, bad: BadSamples, *, official_weights: bool = False) -> FaceData:
    """WFLW (see ``wflw.read``) with converted labels; self-training takes "train" as if it had none.

    Args:
        root: see ``wflw.read``.
        split: one of ``SPLITS``.
        bad: what to do with lines that are damaged or without an image.
        official_weights: eyelids as the official code has them, up to 0.1 % of the crop towards its corner.

    Raises:
        DataError: see ``wflw.read``.
    """
    data = wflw.read(root, split, bad)
    data = replace(data, name=f"wflw68/{split}", layout=load_layout("300w68"), crop=CROP)

    def convert(sample: Sample, crop_box: Points) -> Sample:
        corner = crop_box[:2] if official_weights else np.zeros(2)
        points = wflw98_to_300w68(np.asarray(sample.landmarks) - corner, official=official_weights)
        return replace(sample, landmarks=np.asarray(points + corner, dtype=np.float64))

    return replace(data, samples=[convert(*pair) for pair in zip(data.samples, data.crop_boxes(), strict=True)])
