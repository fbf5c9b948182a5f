"""Augmentation of crops: one matrix for where things lie, then what happens to the finished pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

import cv2
import cv2.typing
import numpy as np

from pipnet_fast.crop import Affine, Floats, Image, about_center, transform
from pipnet_fast.pipeline.draw import SHIFT, fixed_points

Border = Literal["image", "black"]

# Share of red, green and blue in gray, as in BT.601 and in cv2.COLOR_RGB2GRAY.
LUMA = np.array([0.299, 0.587, 0.114])
# The official code keeps so many px of 256 free of occlusion at the right and the bottom.
OCCLUSION_MARGIN_FRAC = 10 / 256

# What is allowed, beside the probabilities.
RANGES = {
    "translation_frac": (0.0, 1.0),
    "occlusion_frac": (0.0, 1.0),
    "rotation_deg": (0.0, 180.0),
    "blur_frac": (0.0, 0.25),
    "scale_max": (1.0, 4.0),
    "erasing_patches": (1, 100),
    "erasing_frac": (0.0, 1.0),
    "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "saturation": (0.0, 1.0),
    "resolution_min": (0.01, 1.0),
    "jpeg_quality_min": (1, 95),
}


class Patch(NamedTuple):
    """A rectangle of one color: its corners (4, 2) in px of the finished crop, which may be turned; RGB."""

    corners: Floats
    color: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Change:
    """What was drawn for one crop.

    Attributes:
        affine: (2, 3), from px of the crop as its rule says to px of the crop as it is shown.
        flipped: whether left and right changed places, and landmarks with them.
        shown: (4, 2) corners in px of the crop, outside of which it is black; None if it shows the image everywhere.
        patches: what is painted over it.
        color: factors of brightness, contrast and saturation.
        blur_px: standard deviation of the blur, 0 for none.
        resolution_px: side that the crop is shrunk to before it is enlarged again, None for none.
        gray: whether colors are taken away.
        jpeg_quality: of its compression, None for none.
    """

    affine: Affine
    flipped: bool = False
    shown: Floats | None = None
    patches: Sequence[Patch] = ()
    color: tuple[float, float, float] | None = None
    blur_px: float = 0.0
    resolution_px: int | None = None
    gray: bool = False
    jpeg_quality: int | None = None

    def finish(self, crop: Image) -> Image:
        """The crop (S, S, 3), RGB, that was cut with ``affine``, with all the rest done to it; may overwrite it."""
        if self.shown is not None:
            inside = cv2.fillConvexPoly(np.zeros(crop.shape[:2], np.uint8), fixed_points(self.shown), 1, shift=SHIFT)
            crop[inside == 0] = 0
        for patch in self.patches:
            cv2.fillConvexPoly(crop, fixed_points(patch.corners), patch.color, shift=SHIFT)
        result: cv2.typing.MatLike = crop
        if self.color is not None:
            result = _recolor(crop, *self.color)
        if self.blur_px > 0:
            result = _blur(result, self.blur_px)
        if self.resolution_px is not None:
            small = cv2.resize(result, (self.resolution_px, self.resolution_px), interpolation=cv2.INTER_AREA)
            result = cv2.resize(small, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        if self.gray:
            result = cv2.cvtColor(cv2.cvtColor(result, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if self.jpeg_quality is not None:
            bgr = cv2.cvtColor(result, cv2.COLOR_RGB2BGR)
            _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
            decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
            assert decoded is not None
            result = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return result.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Augmentation:
    """How crops are changed in training: the paper's section 4.1.2 and the grayscale of the official code.

    Each change happens with its own probability (``_p``), in the order of the attributes. Lengths are fractions of the
    crop's side, and the defaults are the paper's pixels of 256. The paper changes crops that are finished, so that
    black moves in where they are shifted or turned; here the image itself is sampled, and more of it moves in, which
    is what a crop shows of a face that a detector found a little off. ``border="black"`` is the paper's way. Other
    differences: shifts are no whole pixels, turning is bilinear.

    Attributes:
        translation_p: shift along x and y, each drawn from -``translation_frac`` to ``translation_frac``.
        translation_frac: see above.
        occlusion_p: a rectangle of one random color, drawn on the crop before it is mirrored and turned.
        occlusion_frac: its longest side.
        flip_p: left and right change places; landmarks are renamed by the layout.
        rotation_p: about the crop's center, by -``rotation_deg`` to ``rotation_deg``.
        rotation_deg: see above.
        blur_p: Gaussian.
        blur_frac: its largest standard deviation (what Pillow calls the radius).
        gray_p: no colors.
        border: what is beyond the unchanged crop: "image", what the image shows there, or "black".
        scale_p: enlarge or shrink about the center, by 1/``scale_max`` to ``scale_max``, evenly in the logarithm.
        scale_max: see above.
        erasing_p: one to ``erasing_patches`` rectangles as those of the occlusion.
        erasing_patches: see above.
        erasing_frac: their longest side.
        color_p: brightness, contrast and saturation times factors of 1 - amount to 1 + amount.
        brightness: amount.
        contrast: amount.
        saturation: amount.
        resolution_p: shrink the crop to ``resolution_min`` to 1 of its side, and enlarge it again.
        resolution_min: see above.
        jpeg_p: compress as JPEG with quality ``jpeg_quality_min`` to 95.
        jpeg_quality_min: see above.
    """

    translation_p: float = 0.5
    translation_frac: float = 30 / 256
    occlusion_p: float = 0.5
    occlusion_frac: float = 0.4
    flip_p: float = 0.5
    rotation_p: float = 0.5
    rotation_deg: float = 30.0
    blur_p: float = 0.3
    blur_frac: float = 5 / 256
    gray_p: float = 0.2
    border: Border = "image"
    # Not the paper's, and off.
    scale_p: float = 0.0
    scale_max: float = 1.2
    erasing_p: float = 0.0
    erasing_patches: int = 3
    erasing_frac: float = 0.2
    color_p: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    resolution_p: float = 0.0
    resolution_min: float = 0.25
    jpeg_p: float = 0.0
    jpeg_quality_min: int = 30

    def __post_init__(self) -> None:
        """Check types and ranges."""
        for name in (field.name for field in fields(self) if field.name != "border"):
            value, whole = getattr(self, name), name in ("erasing_patches", "jpeg_quality_min")
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "an integer" if whole else "a number"
                raise TypeError(f"Augmentation: {name}: expected {kind}, got {value!r}")
            low, high = (0.0, 1.0) if name.endswith("_p") else RANGES[name]
            if not low <= value <= high:
                raise ValueError(f"Augmentation: {name}: expected {low:g} to {high:g}, got {value!r}")
        if self.border not in get_args(Border):
            raise ValueError(f"Augmentation: border: expected one of {get_args(Border)}, got {self.border!r}")

    @property
    def reach(self) -> float:
        """How far beyond the unchanged crop a changed one may show the image on each side, in fractions of its side."""
        angle = math.radians(min(self.rotation_deg, 45.0)) if self.rotation_p else 0.0
        half = 0.5 * (math.cos(angle) + math.sin(angle)) * self.zoom
        return half - 0.5 + (self.translation_frac if self.translation_p else 0.0)

    @property
    def zoom(self) -> float:
        """How much larger, and how much smaller, than the unchanged crop a changed one may show the image."""
        return self.scale_max if self.scale_p else 1.0

    def draw(self, random: np.random.Generator, size: int) -> Change:
        """What happens to a crop of ``size`` px."""

        def chance(probability: float) -> bool:
            return bool(random.random() < probability)

        def amount(largest: float) -> float:
            return float(random.uniform(-largest, largest))

        shift_px = (0.0, 0.0)
        if chance(self.translation_p):
            shift_px = amount(self.translation_frac * size), amount(self.translation_frac * size)
        boxes = [self._rectangle(random, size, self.occlusion_frac)] if chance(self.occlusion_p) else []
        flip = chance(self.flip_p)
        rotation_deg = amount(self.rotation_deg) if chance(self.rotation_p) else 0.0
        blur_px = random.uniform(0, self.blur_frac) * size if chance(self.blur_p) else 0.0
        gray = chance(self.gray_p)
        scale = self.scale_max ** amount(1.0) if chance(self.scale_p) else 1.0
        if chance(self.erasing_p):
            count = random.integers(1, self.erasing_patches, endpoint=True)
            boxes += [self._rectangle(random, size, self.erasing_frac) for _ in range(count)]
        affine = about_center(size, shift_px=shift_px, flip=flip, rotation_deg=rotation_deg, scale=scale)
        turn = about_center(size, shift_px=(0.0, 0.0), flip=flip, rotation_deg=rotation_deg, scale=scale)
        shown = None
        if self.border == "black":
            low, high = np.maximum(shift_px, 0), size + np.minimum(shift_px, 0.0)
            shown = transform(turn, _outline(low, high))
        colors = random.integers(0, 256, (len(boxes), 3)).tolist()
        color = None
        if chance(self.color_p):
            color = (1 + amount(self.brightness), 1 + amount(self.contrast), 1 + amount(self.saturation))
        resolution_px = None
        if chance(self.resolution_p):
            resolution_px = max(1, round(size * self.resolution_min ** random.random()))
        quality = int(random.integers(self.jpeg_quality_min, 95, endpoint=True)) if chance(self.jpeg_p) else None
        return Change(
            affine=affine,
            flipped=flip,
            shown=shown,
            patches=[Patch(transform(turn, box), rgb) for box, rgb in zip(boxes, colors, strict=True)],
            color=color,
            blur_px=blur_px,
            resolution_px=resolution_px,
            gray=gray,
            jpeg_quality=quality,
        )

    @staticmethod
    def _rectangle(random: np.random.Generator, size: int, longest_frac: float) -> Floats:
        sides = random.uniform(0, longest_frac, 2)
        low = random.random(2) * np.maximum(0, 1 - sides - OCCLUSION_MARGIN_FRAC)
        return _outline(low * size, (low + sides) * size)


def _outline(low: Floats, high: Floats) -> Floats:
    """(4, 2) corners, in turn, of what to draw for the rectangle from ``low`` (2,) to ``high``.

    OpenCV paints the outline too, so that it runs through the centers of the outermost pixels.
    """
    x0, y0 = low + 0.5
    x1, y1 = np.maximum(low, high - 1) + 0.5
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _recolor(crop: Image, brightness: float, contrast: float, saturation: float) -> cv2.typing.MatLike:
    """The crop with its colors scaled about their gray, about its mean gray, and about black; one product a pixel."""
    mean = float(LUMA @ np.array(cv2.mean(crop)[:3]))
    matrix = saturation * np.eye(3) + (1 - saturation) * LUMA
    shift = np.full((3, 1), (1 - contrast) * mean)
    return cv2.transform(crop, brightness * np.hstack((contrast * matrix, shift)))


def _blur(crop: cv2.typing.MatLike, deviation_px: float) -> cv2.typing.MatLike:
    """Gaussian; a wide one at half the resolution, where it takes a fraction of the time."""
    if deviation_px < 2:
        return cv2.GaussianBlur(crop, (0, 0), deviation_px)
    height, width = crop.shape[:2]
    half = cv2.resize(crop, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    # Averaging two pixels and interpolating between such pairs blur, too, with variances of 1/4 and 2/3.
    half = cv2.GaussianBlur(half, (0, 0), math.sqrt(deviation_px**2 - 11 / 12) / 2)
    return cv2.resize(half, (width, height), interpolation=cv2.INTER_LINEAR)
