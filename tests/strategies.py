"""What properties are drawn from: shapes, mean shapes, boxes and values on every edge there is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.ops import HeadMaps
from tests.inputs import LAYOUTS, Shape, in_layout

SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 3e38, -3e38, float("inf"), -float("inf"), float("nan"))
NOT_FINITE = (float("inf"), -float("inf"), float("nan"))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Of a head and its features: small, odd, no image, no neighbor, one cell."""
    landmarks = draw(st.integers(1, 19))
    return Shape(
        draw(st.integers(0, 3)),
        landmarks,
        draw(st.integers(0, min(landmarks - 1, 6))),
        draw(st.integers(1, 7)),
        draw(st.integers(1, 7)),
        draw(st.integers(1, 18)),
    )


@st.composite
def mean_shapes(draw: st.DrawFn, count: int) -> np.ndarray[Any, Any]:
    """(N, 2) in any unit, landmarks in one place and on one line among them."""
    few = st.sampled_from((0.0, 0.25, 0.5, 1.0))
    any_ = st.floats(-1, 1, width=32)
    values = draw(st.lists(few if draw(st.booleans()) else any_, min_size=2 * count, max_size=2 * count))
    unit = draw(st.sampled_from((1.0, 256.0, 1e-200, 1e200, 2.0**-1060)))
    return np.array(values).reshape(count, 2) * unit


merges = st.sampled_from(("mean", "official"))
layouts = st.sampled_from(LAYOUTS)
seeds = st.integers(0, 2**16)


@st.composite
def tables(draw: st.DrawFn, shape: Shape) -> pf.NeighborTable:
    """Of any mean shape, for N and K."""
    return pf.neighbor_table(draw(mean_shapes(shape.N)), shape.K, draw(merges))


def whole_numbers(*size: int, dtype: torch.dtype = torch.float32, most: int = 3) -> Tensor:
    """A random tensor of small whole numbers: all arithmetic with them is exact, and equal scores are many."""
    return torch.randint(-most, most + 1, size).to(dtype)


def rows_of(shape: Shape) -> tuple[int, ...]:
    """Channels of the five maps."""
    return (shape.N,) * 3 + (shape.N * shape.K,) * 2


@st.composite
def head_maps(draw: st.DrawFn, shape: Shape, dtype: torch.dtype, special: bool) -> HeadMaps:
    """Five maps; some with values that no network should give."""
    torch.manual_seed(draw(seeds))
    maps = [whole_numbers(shape.B, rows, shape.H, shape.W, dtype=dtype) for rows in rows_of(shape)]
    for _ in range(draw(st.integers(0, 4)) if special else 0):
        plane = draw(st.sampled_from(maps))
        if plane.numel():
            plane.view(-1)[draw(st.integers(0, plane.numel() - 1))] = draw(st.sampled_from(SPECIAL))
    layout = draw(layouts)
    return HeadMaps(*(in_layout(plane, layout) for plane in maps))


@st.composite
def heads(draw: st.DrawFn, shape: Shape) -> tuple[HeadMaps, HeadMaps]:
    """Weights and biases of the five convolutions."""
    torch.manual_seed(draw(seeds))
    weights = HeadMaps(*(whole_numbers(rows, shape.C) for rows in rows_of(shape)))
    return weights, HeadMaps(*(whole_numbers(rows) for rows in rows_of(shape)))


# Coordinates of boxes: usual ones, far ones, ones so close that float32 hardly tells them apart, and none.
coordinates = st.one_of(
    st.floats(-300, 300, width=32),
    st.integers(-50, 150).map(float),
    st.sampled_from((*SPECIAL, 2.0**24, -(2.0**24), 2.0**24 - 1, 1e9, 0.5, 100.0)),
)


@st.composite
def boxes(draw: st.DrawFn) -> list[list[float]]:
    """One to three boxes, most of them sound: drawn as a corner and sides."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        x0, y0 = draw(coordinates), draw(coordinates)
        sides = [draw(st.one_of(st.floats(2.0**-10, 400, width=32), coordinates)) for _ in range(2)]
        found.append([x0, y0, x0 + sides[0], y0 + sides[1], *draw(st.lists(st.floats(0, 1), min_size=1, max_size=1))])
    return found


def outcome(call: Callable[[], Any], *errors: type[Exception]) -> Any:
    """What a call returns, or the documented error that it raises; any other goes on."""
    try:
        return call()
    except errors as error:
        return error
