"""Every backend of decode against the reference, on and beside its decision edges."""

import sys

import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.ops import HeadMaps, Landmarks
from tests.conftest import BackendCase
from tests.inputs import LARGE, LAYOUTS, SMALL, Shape, head_maps, in_layout, table
from tests.tolerances import assert_landmarks_close

reference = sys.modules["pipnet_fast.ops.decode"].reference


def run_reference(maps: HeadMaps, neighbors: pf.NeighborTable) -> Landmarks:
    """The reference without the public door's search for NaN."""
    return Landmarks(*reference(*maps, neighbors.starts, neighbors.sources, neighbors.weights))


def check(maps: HeadMaps, neighbors: pf.NeighborTable, case: BackendCase) -> None:
    got = pf.ops.decode(HeadMaps(*(m.to(case.device) for m in maps)), neighbors, backend=case.name)
    expected = run_reference(maps, neighbors)
    assert torch.equal(got.scores.cpu(), expected.scores), "scores are copies and must be exact"
    assert_landmarks_close(got.points_frac, expected.points_frac, "points")


@pytest.mark.parametrize("merge", ["mean", "official"])
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_small_shapes(shape: Shape, merge: str, backend: BackendCase) -> None:
    check(head_maps(shape), table(shape, merge), backend)


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_shapes(shape: Shape, backend: BackendCase) -> None:
    if backend.name == "triton" and backend.device == "cpu" and shape.B * shape.N > 300:
        shape = shape._replace(B=1, N=20, K=min(shape.K, 19))
    check(head_maps(shape), table(shape), backend)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, backend: BackendCase) -> None:
    shape = Shape(2, 5, 3, 6, 7)
    check(HeadMaps(*(in_layout(m, layout) for m in head_maps(shape))), table(shape), backend)


def test_expanded_batch(backend: BackendCase) -> None:
    shape = Shape(1, 5, 3, 4, 4)
    maps = HeadMaps(*(m.expand(3, -1, -1, -1) for m in head_maps(shape)))
    check(maps, table(shape), backend)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: torch.dtype, backend: BackendCase) -> None:
    if backend.name == "cpp":
        shape = Shape(1, 3, 2, 4, 4)
        with pytest.raises(TypeError, match=r"decode: backend 'cpp' expects float32, got torch\.(b?)float16"):
            pf.ops.decode(head_maps(shape, dtype), table(shape), backend="cpp")
        return
    for shape in SMALL:
        check(head_maps(shape, dtype), table(shape), backend)


def planted(cells: list[int], value: float, shape: Shape, background: float = 0.0) -> HeadMaps:
    maps = head_maps(shape)
    maps.score.fill_(background)
    maps.score.flatten(2)[:, :, cells] = value
    return maps


@pytest.mark.parametrize(
    ("cells", "winner"),
    [([0], 0), ([34], 34), ([6], 6), ([28], 28), ([33, 3, 17], 3), ([8, 16, 24], 8), ([34, 33], 33)],
    ids=lambda v: f"{v}",
)
def test_first_of_equal_scores_wins(cells: list[int], winner: int, backend: BackendCase) -> None:
    shape = Shape(2, 3, 2, 5, 7)
    maps = planted(cells, 1.0, shape)
    check(maps, table(shape), backend)
    single = planted([winner], 1.0, shape)._replace(
        offset_x=maps.offset_x, offset_y=maps.offset_y, neighbor_x=maps.neighbor_x, neighbor_y=maps.neighbor_y
    )
    got = pf.ops.decode(HeadMaps(*(m.to(backend.device) for m in maps)), table(shape), backend=backend.name)
    assert torch.equal(got.points_frac.cpu(), run_reference(single, table(shape)).points_frac)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("cells", [[0], [3, 4], list(range(1, 35)), list(range(35))], ids=len)
def test_special_scores(value: float, cells: list[int], backend: BackendCase) -> None:
    shape = Shape(1, 3, 2, 5, 7)
    maps = head_maps(shape)
    maps.score.flatten(2)[:, :, cells] = value
    check(maps, table(shape), backend)
    assert not run_reference(maps, table(shape)).scores.isnan().any()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan], ids=str)
def test_special_offsets_reach_those_they_vote_for_only(value: float, backend: BackendCase) -> None:
    shape = Shape(1, 9, 2, 3, 3)
    maps, neighbors = head_maps(shape), table(shape)
    maps.neighbor_x[:, 4 * shape.K + 1] = value
    check(maps, neighbors, backend)
    got = pf.ops.decode(HeadMaps(*(m.to(backend.device) for m in maps)), neighbors, backend=backend.name)
    touched = ~got.points_frac[0].isfinite().cpu()
    expected = torch.zeros(9, 2, dtype=torch.bool)
    expected[neighbors.neighbors[4, 1], 0] = True
    assert torch.equal(touched, expected)


def test_units_and_merge_by_hand() -> None:
    # One landmark pair on a 2 x 4 grid (H x W): landmark 0 wins at (3, 1), landmark 1 at (0, 0).
    shape = Shape(1, 2, 1, 2, 4)
    maps = HeadMaps(*(torch.zeros(1, 2, 2, 4) for _ in range(5)))
    maps.score[0, 0, 1, 3] = maps.score[0, 1, 0, 0] = 0.75
    maps.offset_x[0, 0, 1, 3], maps.offset_y[0, 0, 1, 3] = 0.5, 0.25
    maps.neighbor_x[0, 0, 1, 3], maps.neighbor_y[0, 0, 1, 3] = -3.0, -1.0  # landmark 0 says 1 is at (0, 0)
    maps.offset_x[0, 1, 0, 0], maps.offset_y[0, 1, 0, 0] = 1.0, 0.5
    maps.neighbor_x[0, 1, 0, 0], maps.neighbor_y[0, 1, 0, 0] = 3.0, 1.0  # landmark 1 says 0 is at (3, 1)
    got = pf.ops.decode(maps, table(shape), backend="reference")
    expected = [[[(3.5 + 3.0) / 2 / 4, (1.25 + 1.0) / 2 / 2], [(1.0 + 0.0) / 2 / 4, (0.5 + 0.0) / 2 / 2]]]
    assert got.points_frac.tolist() == expected
    assert got.scores.tolist() == [[0.75, 0.75]]


def test_points_may_leave_the_crop(backend: BackendCase) -> None:
    shape = Shape(1, 2, 0, 2, 2)
    maps = head_maps(shape)
    maps.offset_x.fill_(-7.0), maps.offset_y.fill_(9.0)
    check(maps, table(shape), backend)


def test_float64_stays_float64() -> None:
    shape = SMALL[3]
    got = pf.ops.decode(head_maps(shape, torch.float64), table(shape))
    assert got.points_frac.dtype == got.scores.dtype == torch.float64


def test_plain_tuple_and_gradients_are_accepted() -> None:
    shape = SMALL[3]
    maps = head_maps(shape)
    got = pf.ops.decode(tuple(m.requires_grad_() for m in maps), table(shape))  # type: ignore[arg-type]
    assert not got.points_frac.requires_grad
    assert torch.equal(got.points_frac, pf.ops.decode(HeadMaps(*(m.detach() for m in maps)), table(shape)).points_frac)


@pytest.mark.parametrize("shape", [SMALL[0], SMALL[3]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck(shape: Shape, dtype: torch.dtype) -> None:
    neighbors = table(shape)
    args = (*head_maps(shape, dtype), neighbors.starts, neighbors.sources, neighbors.weights)
    torch.library.opcheck(torch.ops.pipnet_fast.decode.default, args)


def test_compiles_without_graph_breaks() -> None:
    shape = SMALL[3]
    maps, neighbors = head_maps(shape), table(shape)
    compiled = torch.compile(lambda m: pf.ops.decode(m, neighbors), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(maps).points_frac, pf.ops.decode(maps, neighbors).points_frac)


def changed(**replacements: torch.Tensor) -> HeadMaps:
    return head_maps(Shape(2, 5, 3, 4, 4))._replace(**replacements)


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        (changed(score=torch.zeros(5, 4, 4)), ValueError, r"decode: score: expected a floating-point map \(B, N"),
        (changed(score=torch.zeros(2, 5, 4, 4).int()), ValueError, r"got \(2, 5, 4, 4\) torch.int32"),
        (changed(offset_x=torch.zeros(2, 4, 4, 4)), ValueError, r"decode: offset_x: expected shape \(2, 5, 4, 4\)"),
        (changed(neighbor_y=torch.zeros(2, 14, 4, 4)), ValueError, r"neighbor_y: expected shape \(2, 15, 4, 4\)"),
        (changed(offset_y=torch.zeros(2, 5, 4, 4).double()), ValueError, "offset_y: expected torch.float32 on cpu"),
        (changed(score=torch.zeros(2, 0, 4, 4)), ValueError, "decode: score: expected N >= 1 channels, got 0"),
        (changed(score=torch.zeros(2, 5, 0, 4)), ValueError, "decode: score: expected a grid of 1 to 16777216 cells"),
        ((torch.zeros(1), 2), TypeError, "decode: maps: expected a tuple of 5 tensors .* got tuple of 2"),
        (None, TypeError, "decode: maps: expected a tuple of 5 tensors"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("backend_name", ["auto", "reference"])
def test_bad_maps(maps: HeadMaps, error: type[Exception], message: str, backend_name: str) -> None:
    with pytest.raises(error, match=message):
        pf.ops.decode(maps, table(Shape(2, 5, 3, 4, 4)), backend=backend_name)  # type: ignore[arg-type]


def test_bad_tables_and_backends() -> None:
    maps = changed()
    with pytest.raises(ValueError, match=r"decode: table: expected starts of shape \(6,\) .* for N=5, K=3"):
        pf.ops.decode(maps, table(Shape(2, 6, 3, 4, 4)))
    with pytest.raises(ValueError, match=r"decode: table: expected sources of shape \(20,\)"):
        pf.ops.decode(maps, table(Shape(2, 5, 2, 4, 4)))
    with pytest.raises(TypeError, match="decode: table: expected a NeighborTable, got list"):
        pf.ops.decode(maps, [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decode: backend: expected \"auto\" or one of .* got 'cuda'"):
        pf.ops.decode(maps, table(Shape(2, 5, 3, 4, 4)), backend="cuda")  # type: ignore[arg-type]


def test_reference_refuses_nan_scores() -> None:
    shape = Shape(2, 5, 3, 4, 4)
    maps = head_maps(shape)
    maps.score[1, 2, 3, 0] = torch.nan
    with pytest.raises(
        ValueError, match=r"decode: expected scores without NaN, got one at image 1, landmark 2, cell \(0, 3\)"
    ):
        pf.ops.decode(maps, table(shape), backend="reference")
