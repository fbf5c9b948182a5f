"""A labelled or unlabelled face, and a data set of them: the one form that every reader returns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import CropRule, fit_crop_rule, tight_boxes
from pipnet_fast.data.sources import BlackImage, ImageSource
from pipnet_fast.layouts import Layout

Points = npt.NDArray[np.float64]

# What an error in px is divided by: the distance of the outer eye corners; the square root of the area of the face
# box that the data set gives; the diagonal of the tight box of the labels.
Norm = Literal["inter_ocular", "box", "diagonal"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One face in one image. Coordinates are continuous px: readers add 0.5 to 0-based ones, take it off 1-based ones.

    Attributes:
        image: where the picture is.
        landmarks: (N, 2) float64, NaN where not labelled; None if the face is not labelled at all.
        box: (4,) float64, x0, y0, x1, y1: the face box that the set's crop rule grows; may leave the image.
        subsets: names of the parts of a test set that it belongs to, as "pose" of WFLW.
    """

    image: ImageSource
    landmarks: Points | None
    box: Points
    subsets: tuple[str, ...] = ()

    @property
    def has_box(self) -> bool:
        """Whether it is known where the face is; else the box is NaN, and a detector is to find it."""
        return bool(np.isfinite(self.box).all())

    @property
    def is_complete(self) -> bool:
        """Whether every landmark is labelled."""
        return self.landmarks is not None and bool(np.isfinite(self.landmarks).all())


@dataclass(frozen=True, eq=False)
class BadSample:
    """What was left out under ``skip_bad``, and why."""

    where: str
    reason: str


@dataclass(frozen=True, eq=False)
class FaceData:
    """The faces of one split of a data set.

    Attributes:
        name: as "wflw/test".
        layout: what the landmarks are.
        samples: the faces, in the order of the data set's own list.
        crop: how the crop follows from a sample's box.
        norm: what errors are divided by, by the data set's convention.
        tight: whether the boxes are the tight boxes of the labels, as a model's own crop rule expects them.
        bad: what was left out.
    """

    name: str
    layout: Layout
    samples: Sequence[Sample]
    crop: CropRule
    norm: Norm = "inter_ocular"
    tight: bool = False
    bad: Sequence[BadSample] = ()

    def __len__(self) -> int:
        """How many faces."""
        return len(self.samples)

    def subset(self, name: str) -> "FaceData":
        """The faces of one subset.

        Raises:
            ValueError: none has that name.
        """
        chosen = [sample for sample in self.samples if name in sample.subsets]
        if not chosen:
            raise ValueError(f"{self.name}: subset: expected one of {list(self.subset_names())}, got {name!r}")
        return replace(self, name=f"{self.name}/{name}", samples=chosen)

    def subset_names(self) -> tuple[str, ...]:
        """Names of the subsets, in the order of their first face."""
        return tuple(dict.fromkeys(name for sample in self.samples for name in sample.subsets))

    def with_tight_boxes(self, crop: CropRule) -> "FaceData":
        """The same faces with the tight boxes of their labels, which ``crop`` grows.

        Raises:
            ValueError: a face without a labelled landmark.
        """
        samples = [replace(sample, box=tight_box(sample.landmarks, str(sample.image))) for sample in self.samples]
        return replace(self, samples=samples, crop=crop, tight=True)

    def tight_rule(self) -> CropRule:
        """How the crops follow from tight boxes: by ``crop``, if the boxes are tight.

        Otherwise by the rule that leads best from the labels' tight boxes to the crops; faces that are labelled in
        part, whose tight boxes are too small, do not count if there are others.

        Raises:
            ValueError: boxes that have nothing to do with the faces, or no labelled face.
        """
        if self.tight:
            return self.crop
        labelled = [s for s in self.samples if s.landmarks is not None]
        faces = replace(self, samples=[s for s in labelled if s.is_complete] or labelled)
        if not len(faces):
            raise ValueError(f"{self.name}: crops of tight boxes: expected labelled faces, got none")
        try:
            tight = np.array([sample.box for sample in faces.with_tight_boxes(self.crop).samples])
            return fit_crop_rule(tight, faces.crop_boxes())
        except ValueError as error:
            raise ValueError(
                f"{self.name}: no rule leads from the tight boxes of the labels to the crops ({error})"
            ) from None

    def crop_boxes(self) -> npt.NDArray[np.float64]:
        """(n, 4) crop boxes of all faces, x0, y0, x1, y1 in px."""
        return self.crop.apply(np.array([sample.box for sample in self.samples]).reshape(-1, 4))

    def mean_shape(self) -> Points:
        """(N, 2), the mean of the labels in fractions of their crops, as the official meanface.txt; NaNs do not count.

        Raises:
            ValueError: no labelled face, or a landmark that is labelled nowhere.
        """
        pairs = zip(self.samples, self.crop_boxes(), strict=True)
        shapes = [(s.landmarks - box[:2]) / (box[2:] - box[:2]) for s, box in pairs if s.landmarks is not None]
        if not shapes:
            raise ValueError(f"{self.name}: mean shape: expected labelled faces, got none")
        stacked = np.array(shapes)
        labelled = np.isfinite(stacked).all(axis=2, keepdims=True)
        counts = labelled.sum(axis=0)
        if not counts.all():
            missing = np.flatnonzero(counts == 0).tolist()
            raise ValueError(f"{self.name}: mean shape: landmarks {missing} are labelled in no face")
        return np.asarray(np.where(labelled, stacked, 0.0).sum(axis=0) / counts)


def blackened(data: FaceData) -> FaceData:
    """The same faces in black pictures: a model trained on them knows of nothing but positions (Figure 9a)."""
    samples = [replace(sample, image=BlackImage(sample.image)) for sample in data.samples]
    return replace(data, name=f"{data.name}, blackened", samples=samples)


def tight_box(landmarks: npt.NDArray[np.floating[Any]] | None, where: str) -> Points:
    """(4,) tight box of the labelled ones of landmarks (N, 2).

    Raises:
        ValueError: there is none, or the box has no area.
    """
    labelled = np.empty((0, 2)) if landmarks is None else landmarks[np.isfinite(landmarks).all(axis=1)]
    if not len(labelled):
        raise ValueError(f"{where}: box: expected at least one labelled landmark to take the tight box of, got none")
    box: Points = tight_boxes(labelled[None])[0]
    if not (box[2:] > box[:2]).all():
        raise ValueError(f"{where}: box: expected landmarks that span an area, got the box {box.tolist()}")
    return box
