"""A picture of crops with their labels, in which wrong boxes, labels and mirrors are seen at a glance."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import CropRule, Image
from pipnet_fast.data._crops import Batch
from pipnet_fast.data.samples import FaceData
from pipnet_fast.pipeline.draw import SHIFT, fixed_point

# RGB of the landmarks of the image's left side, its right one, and those that are their own mirror image.
LEFT, RIGHT, MIDDLE = (86, 180, 233), (230, 159, 0), (0, 220, 120)
# Crops are enlarged to at least so many px, to make numbers readable.
TILE_PX = 320
# Landmarks that are numbered, at most.
NUMBERED = 10
GAP_PX = 4


def sides(data: FaceData) -> npt.NDArray[np.int64]:
    """(N,): -1 for landmarks that lie left of their mirror image in most faces, 1 right, 0 for those without."""
    labelled = [sample.landmarks for sample in data.samples if sample.landmarks is not None]
    x = np.array(labelled).reshape(len(labelled), data.layout.num_landmarks, 2)[:, :, 0]
    side = np.sign(np.nansum(np.sign(x - x[:, data.layout.flip]), axis=0)).astype(np.int64)
    side[data.layout.flip == np.arange(len(side))] = 0
    return side


def numbered(data: FaceData) -> list[int]:
    """Landmarks worth a number: the outer eye corners, and others evenly over the list, with their mirror images."""
    count, flip = data.layout.num_landmarks, data.layout.flip
    spread = np.linspace(0, count - 1, NUMBERED // 2).round().astype(int)
    chosen = dict.fromkeys([*(data.layout.outer_eyes or ()), *(int(i) for n in spread for i in (n, flip[n]))])
    return list(chosen)[:NUMBERED]


def draw_sheet(batch: Batch, data: FaceData, rule: CropRule, columns: int | None = None) -> Image:
    """The crops of a batch side by side, with labels, some of their numbers, and the sample's number.

    Landmarks of the left side are blue, of the right side orange, those in the middle green, as they are named: in a
    mirrored crop, too, blue has to be on the left.

    Args:
        batch: B >= 1 crops.
        data: what they were taken from.
        rule: how they were cut.
        columns: crops in a row; as many rows as columns by default.

    Raises:
        ValueError: no crops, or no columns.
    """
    count, size = batch.crops.shape[:2]
    columns = int(np.ceil(np.sqrt(count))) if columns is None else columns
    if count < 1 or columns < 1:
        raise ValueError(f"draw_sheet: expected at least one crop and one column, got {count} and {columns}")
    scale = max(1, -(-TILE_PX // size))
    points_px = rule.crop_px(batch.points_frac.numpy(), size) * scale
    side, chosen = sides(data), numbered(data)
    rows, pitch = -(-count // columns), size * scale + GAP_PX
    sheet = np.full((rows * pitch - GAP_PX, min(columns, count) * pitch - GAP_PX, 3), 255, np.uint8)
    for place, (crop, points, index) in enumerate(
        zip(batch.crops.numpy(), points_px, batch.index.tolist(), strict=True)
    ):
        tile = np.ascontiguousarray(crop.repeat(scale, axis=0).repeat(scale, axis=1))
        _draw_points(tile, points, side, chosen)
        _write(tile, f"#{index}", (4, 14), (255, 255, 255))
        y, x = place // columns * pitch, place % columns * pitch
        sheet[y : y + len(tile), x : x + len(tile)] = tile
    return sheet


def _draw_points(
    tile: Image, points: npt.NDArray[np.floating], side: npt.NDArray[np.int64], chosen: Sequence[int]
) -> None:
    colors = {-1: LEFT, 0: MIDDLE, 1: RIGHT}
    radius = round(len(tile) / 130 * 2**SHIFT)
    seen = np.isfinite(points).all(axis=1)
    for n in np.flatnonzero(seen).tolist():
        cv2.circle(tile, fixed_point(*points[n]), radius, colors[int(side[n])], cv2.FILLED, cv2.LINE_AA, SHIFT)
    for n in (n for n in chosen if seen[n]):
        x, y = (round(float(v)) for v in points[n].clip(-1e4, 1e4))
        _write(tile, str(n), (x + 3, y - 3), colors[int(side[n])])


def _write(tile: Image, text: str, at: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Text with a dark rim, readable on skin and on white."""
    for ink, thickness in (((0, 0, 0), 3), (color, 1)):
        cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, thickness, cv2.LINE_AA)
