"""Both paths of the Triton head_decode with any blocks, the choice between them, and CUDA graphs.

``test_head_decode.py`` holds the tuned choice against the reference; here small shapes are forced through every path.
"""

import pytest
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.ops import HeadMaps, HeadWeights, Landmarks, pack_head
from tests.conftest import poisoned
from tests.inputs import LAYOUTS, SMALL, Shape, features, in_layout, table
from tests.test_head_decode import draw, exact_inputs, repack, run_reference
from tests.tolerances import ROUNDING, assert_landmarks_close

pytest.importorskip("triton")
from pipnet_fast.kernels import head_decode
from pipnet_fast.kernels.merge import merge
from pipnet_fast.kernels.tuning import HALF, SINGLE, BatchBlocks, Blocks, LatencyBlocks, tuned_blocks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Least sides, so that small shapes have several tiles of everything; then tiles with several images.
BLOCKS = {
    "latency-small": LatencyBlocks(16, 16, 1, 1),
    "latency-wide": LatencyBlocks(64, 32, 4, 3),
    "batch-small": BatchBlocks(16, 16, 16, 4, 2, 16, 16, 4, 2),
    "batch-several-images": BatchBlocks(32, 64, 32, 4, 3, 32, 64, 4, 3),
}
any_blocks = pytest.mark.parametrize("blocks", [pytest.param(b, id=name) for name, b in BLOCKS.items()])


def launch(x: Tensor, head: HeadWeights, neighbors: pf.NeighborTable, blocks: Blocks | None) -> Landmarks:
    """The launcher itself, into outputs full of NaN."""
    head, neighbors = repack(head, DEVICE), neighbors.to(DEVICE)
    points = torch.full((len(x), head.num_landmarks, 2), torch.nan, device=DEVICE)
    scores = torch.full((len(x), head.num_landmarks), torch.nan, device=DEVICE)
    head_decode(
        x.to(DEVICE), *head[:4], neighbors.starts, neighbors.sources, neighbors.weights, points, scores, blocks=blocks
    )
    return Landmarks(points, scores)


def check(x: Tensor, head: HeadWeights, neighbors: pf.NeighborTable, blocks: Blocks | None) -> None:
    got, expected = launch(x, head, neighbors, blocks), run_reference(x, head, neighbors)
    assert_landmarks_close(got.scores, expected.scores, "scores", sum_tolerance(x))
    assert_landmarks_close(got.points_frac, expected.points_frac, "points", sum_tolerance(x))


def sum_tolerance(x: Tensor) -> float:
    """Tensor cores truncate where others round: 16 channels at a time, each time up to one in the last place."""
    return ROUNDING if x.dtype == torch.float32 else ROUNDING + x.shape[1] / 16 * 2**-22


@pytest.fixture(autouse=True)
def poisoned_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: poisoned(empty(*a, **k)))


@any_blocks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SMALL[:5], ids=str)
def test_every_path(shape: Shape, dtype: torch.dtype, blocks: Blocks) -> None:
    if DEVICE == "cpu" and dtype == torch.bfloat16 and isinstance(blocks, BatchBlocks):
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16")
    if DEVICE == "cpu" and dtype != torch.float32 and shape not in SMALL[2:4]:
        pytest.skip("in the interpreter other types are other arithmetic, not other paths")
    check(*draw(shape, dtype), table(shape), blocks)


@any_blocks
def test_more_images_than_a_tile(blocks: Blocks) -> None:
    shape = Shape(19, 3, 2, 3, 2, 20)
    check(*draw(shape), table(shape), blocks)


@any_blocks
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: str, blocks: Blocks) -> None:
    shape = Shape(2, 5, 3, 6, 7, 19)
    x, head = draw(shape)
    check(in_layout(x, layout), head, table(shape), blocks)


@any_blocks
def test_more_votes_than_a_tile(blocks: Blocks) -> None:
    # 68 rows, and every landmark receives 34 votes.
    shape = Shape(1, 34, 33, 2, 3, 5)
    check(*draw(shape), table(shape), blocks)


@any_blocks
@pytest.mark.parametrize("winners", [[0], [34], [15, 16], [3, 17, 33], [7, 8], [31, 32]], ids=str)
def test_first_of_equal_scores_wins(winners: list[int], blocks: Blocks) -> None:
    shape = Shape(2, 3, 2, 5, 7, 6)
    x, head = exact_inputs(shape, winners)
    check(x, head, table(shape), blocks)
    losers = x.clone()
    losers[:, 0].flatten(1)[:, winners[1:]] = 1
    assert_landmarks_close(
        launch(x, head, table(shape), blocks).points_frac,
        run_reference(losers, head, table(shape)).points_frac,
        "points of the first winner alone",
    )


# NumPy warns of infinity times zero in Triton's interpreter; that product is what is tested.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@any_blocks
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("cells", [[0], [3, 4, 20], list(range(1, 35)), list(range(35))], ids=len)
def test_special_features(value: float, cells: list[int], blocks: Blocks) -> None:
    # In one of two images: the other must not notice.
    shape = Shape(2, 3, 2, 5, 7, 9)
    x, head = draw(shape)
    x[1, 4].flatten()[cells] = value
    check(x, head, table(shape), blocks)


def test_merge_stays_within_its_table() -> None:
    votes = torch.arange(24.0, device=DEVICE).view(1, 4, 3, 2)
    starts = torch.tensor([-3, 2, 2, 3, 99], dtype=torch.int32, device=DEVICE)
    sources = torch.tensor([1, -1, 12, 2, *range(8)], dtype=torch.int32, device=DEVICE)
    weights = torch.ones(12, device=DEVICE)
    points = torch.full((1, 4, 2), torch.nan, device=DEVICE)
    merge(votes, starts, sources, weights, points, 1, 1)
    flat = votes.view(12, 2).cpu()
    expected = torch.stack([flat[1], torch.zeros(2), torch.zeros(2), flat[2] + flat[:8].sum(0)])
    assert torch.equal(points[0].cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cells", [1, 4, 64, 256, 4096])
def test_one_image_takes_the_latency_path(cells: int, dtype: torch.dtype) -> None:
    assert isinstance(tuned_blocks(1, cells, dtype), LatencyBlocks)
    assert isinstance(tuned_blocks(256, cells, dtype), LatencyBlocks if cells == 1 else BatchBlocks)


@pytest.mark.parametrize("tuned", [SINGLE, HALF], ids=["single", "half"])
def test_tables_are_ordered_and_their_blocks_fit_matrix_products(tuned: tuple[tuple[int, Blocks], ...]) -> None:
    least = [row[0] for row in tuned]
    assert least[0] == 0
    assert least == sorted(set(least))
    for _, blocks in tuned:
        assert all(size > 0 for size in blocks)
        if isinstance(blocks, BatchBlocks):
            sides = (blocks.landmarks, blocks.columns, blocks.score_channels, blocks.images, blocks.vote_channels)
            assert all(side >= 16 and side & (side - 1) == 0 for side in sides)


def test_tuning_prints_what_the_tables_are() -> None:
    from bench.tune import as_table, score_candidates, vote_candidates

    for tuned in (SINGLE, HALF):
        again = [row for least, blocks in tuned for row in ((least, blocks), (least + 1, blocks))]
        text = as_table(again, "X").split(" = ")[1]
        assert eval(text, {"LatencyBlocks": LatencyBlocks, "BatchBlocks": BatchBlocks}) == tuned
    start = tuned_blocks(32, 64, torch.float32)
    assert start in set(score_candidates(start)) & set(vote_candidates(start))


def whole_numbers(shape: Shape, dtype: torch.dtype) -> tuple[Tensor, HeadWeights]:
    """Sums are exact in any order and precision, and equal scores abound."""
    rows = (shape.N, shape.N, shape.N, shape.N * shape.K, shape.N * shape.K)
    weights = HeadMaps(*(torch.randint(-2, 3, (r, shape.C)).to(dtype) for r in rows))
    x = torch.randint(-3, 4, (shape.B, shape.C, shape.H, shape.W)).to(dtype)
    return x, pack_head(weights, HeadMaps(*(torch.randint(-9, 9, (r,)).to(dtype) for r in rows)))


@pytest.mark.cuda
@pytest.mark.parametrize("batch", [1, 3, 5, 16, 33, 100, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_cuda_graph_replays_on_new_features(dtype: torch.dtype, batch: int) -> None:
    shape = Shape(batch, 98, 10, 8, 8, 512)
    x, head = whole_numbers(shape, dtype)
    head_there, table_there = repack(head, "cuda"), table(shape).to("cuda")
    static = x.cuda().to(memory_format=torch.channels_last)
    # Compiles, which a capture does not allow.
    pf.ops.head_decode(static, head_there, table_there)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = pf.ops.head_decode(static, head_there, table_there)
    for _ in range(2):
        x = x.flip(0, 1).roll(3, 2)
        static.copy_(x)
        graph.replay()
        expected = run_reference(x, head, table(shape))
        assert torch.equal(got.scores.cpu(), expected.scores)
        assert_landmarks_close(got.points_frac, expected.points_frac, "points")


@pytest.mark.cuda
@pytest.mark.parametrize("batch", [1, 5, 64, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_scores_of_the_tuned_blocks(dtype: torch.dtype, batch: int) -> None:
    # Points are another matter: among so many scores some are equal up to rounding.
    shape = Shape(batch, 98, 10, 8, 8, 512)
    head = draw(shape._replace(B=0), dtype)[1]
    x = features(shape, dtype)
    got, expected = launch(x, head, table(shape), None), run_reference(x, head, table(shape))
    assert_landmarks_close(got.scores, expected.scores, "scores", sum_tolerance(x))
