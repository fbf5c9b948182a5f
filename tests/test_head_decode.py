"""Every backend of head_decode against the reference, and the reference against the dense head."""

import sys

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import pipnet_fast as pf
from pipnet_fast.ops import HeadMaps, HeadWeights, Landmarks, pack_head
from tests.conftest import BackendCase
from tests.inputs import LARGE, LAYOUTS, SMALL, Shape, features, head_weights, in_layout, second_best_gap, table
from tests.tolerances import ROUNDING, assert_landmarks_close

module = sys.modules["pipnet_fast.ops.head_decode"]


def run_reference(x: Tensor, head: HeadWeights, neighbors: pf.NeighborTable) -> Landmarks:
    """The reference without the public door's search for NaN."""
    return Landmarks(*module.reference(x, *head, neighbors.starts, neighbors.sources, neighbors.weights))


def run(x: Tensor, head: HeadWeights, neighbors: pf.NeighborTable, case: BackendCase) -> Landmarks:
    if case.device != "cpu":
        # Packed where it runs: the panels differ.
        x, head = x.to(case.device), repack(head, case.device)
    return pf.ops.head_decode(x, head, neighbors, backend=case.name)


def repack(head: HeadWeights, device: str) -> HeadWeights:
    landmarks, rows, _ = head.vote_weight.shape

    def maps(score: Tensor, votes: Tensor) -> HeadMaps:
        votes = votes.unflatten(1, (rows // 2, 2))
        near = votes[:, 1:].flatten(0, 1)
        return HeadMaps(*(t.to(device) for t in (score, votes[:, 0, 0], votes[:, 0, 1], near[:, 0], near[:, 1])))

    score = head.score_weight.transpose(1, 2).flatten(0, 1)[:landmarks]
    return pack_head(maps(score, head.vote_weight), maps(head.score_bias[:landmarks], head.vote_bias))


def check(x: Tensor, head: HeadWeights, neighbors: pf.NeighborTable, case: BackendCase) -> None:
    got, expected = run(x, head, neighbors, case), run_reference(x, head, neighbors)
    assert_landmarks_close(got.scores, expected.scores, "scores")
    assert_landmarks_close(got.points_frac, expected.points_frac, "points")


def no_near_ties(x: Tensor, head: HeadWeights) -> bool:
    """Whether rounding cannot change a winner, so that points may be compared."""
    score = module.score_map(x.double(), head)
    return second_best_gap(score) > 4 * ROUNDING * max(1.0, float(score.abs().max()) if score.numel() else 1.0)


def draw(shape: Shape, dtype: torch.dtype = torch.float32) -> tuple[Tensor, HeadWeights]:
    """Random features and weights without near-ties."""
    for _ in range(20):
        x, head = features(shape, dtype), head_weights(shape, dtype)
        if no_near_ties(x, head):
            return x, head
    raise AssertionError(f"20 draws of {shape} all had near-ties")


@pytest.mark.parametrize("merge", ["mean", "official"])
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_small_shapes(shape: Shape, merge: str, backend: BackendCase) -> None:
    check(*draw(shape), table(shape, merge), backend)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_shapes(shape: Shape, layout: str, backend: BackendCase) -> None:
    if backend.name == "triton" and backend.device == "cpu":
        # The interpreter takes a fraction of a second a landmark.
        shape = shape._replace(B=min(shape.B, 2), N=5, K=min(shape.K, 4))
    x, head = draw(shape)
    check(in_layout(x, layout), head, table(shape), backend)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, backend: BackendCase) -> None:
    shape = Shape(2, 5, 3, 6, 7, 19)
    x, head = draw(shape)
    check(in_layout(x, layout), head, table(shape), backend)


def test_expanded_batch(backend: BackendCase) -> None:
    shape = Shape(1, 5, 3, 4, 4, 9)
    x, head = draw(shape)
    check(x.expand(3, -1, -1, -1), head, table(shape), backend)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: torch.dtype, backend: BackendCase) -> None:
    if backend.name == "cpp":
        shape = Shape(1, 3, 2, 4, 4)
        with pytest.raises(TypeError, match=r"head_decode: backend 'cpp' expects float32, got torch\.(b?)float16"):
            pf.ops.head_decode(features(shape, dtype), head_weights(shape, dtype), table(shape), backend="cpp")
        return
    for shape in SMALL:
        check(*draw(shape, dtype), table(shape), backend)


@pytest.mark.parametrize("storage", ["float16", "int8"])
@pytest.mark.parametrize("shape", [*SMALL, *LARGE], ids=str)
def test_smaller_storage(shape: Shape, storage: str, backend: BackendCase) -> None:
    """The stored numbers are what counts: their rounding is not the kernels' to judge."""
    if backend.name == "triton":
        pytest.skip("weights are stored smaller on the CPU only")
    for _ in range(20):
        x, head = features(shape), head_weights(shape).stored_as(storage)  # type: ignore[arg-type]
        if no_near_ties(x, head):
            break
    check(in_layout(x, "channels_last"), head, table(shape), backend)


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("landmarks", [*range(1, 25), 98, 106])
def test_every_remainder_of_a_panel(landmarks: int, storage: str, backend: BackendCase) -> None:
    if backend.name != "cpp":
        pytest.skip("its landmarks are alike")
    shape = Shape(2, landmarks, 0, 3, 5, 11)
    for _ in range(20):
        x, head = features(shape), head_weights(shape).stored_as(storage)  # type: ignore[arg-type]
        if no_near_ties(x, head):
            break
    check(in_layout(x, "channels_last"), head, table(shape), backend)


@pytest.mark.parametrize(("storage", "steps"), [("float16", 2.0**-11), ("int8", 0.5 / 127)])
def test_storage_rounds_each_row_by_half_a_step(storage: str, steps: float) -> None:
    head = head_weights(LARGE[1])
    stored = head.stored_as(storage)  # type: ignore[arg-type]
    for name, dim in (("score", 1), ("vote", 2)):
        was, now = getattr(head, f"{name}_weight"), getattr(stored, f"{name}_weight")
        assert now.element_size() == {"float16": 2, "int8": 1}[storage]
        scale = getattr(stored, f"{name}_scale")
        now = now.float() * (
            1.0 if scale is None else scale.reshape(*was.shape[:dim], *was.shape[dim + 1 :]).unsqueeze(dim)
        )
        size = was.abs() if storage == "float16" else was.abs().amax(dim, keepdim=True)
        assert bool(((now - was).abs() <= 1.001 * steps * size + 1e-7).all())
    assert torch.equal(stored.vote_bias, head.vote_bias)


def test_storage_of_rows_of_zeros_and_of_float32() -> None:
    head = head_weights(SHAPE)
    head.vote_weight[2, 3] = 0
    stored = head.stored_as("int8")
    assert stored.vote_scale is not None
    assert stored.vote_scale[2, 3] == 1
    assert head.stored_as("float32") is head


def test_bad_storage() -> None:
    head = head_weights(SHAPE)
    with pytest.raises(
        ValueError, match=r"stored_as: storage: expected one of \['float32', 'float16', 'int8'\], got 'int4'"
    ):
        head.stored_as("int4")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"stored_as: expected a head in float32 on the CPU, got torch.float16"):
        head.stored_as("float16").stored_as("int8")
    head.vote_weight[0, 0, 0] = 7e4
    with pytest.raises(
        ValueError, match=r"stored_as: expected vote_weight that float16 can hold, got a magnitude of 70000"
    ):
        head.stored_as("float16")
    head.vote_weight[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"expected vote_weight that int8 can hold, got a magnitude of nan"):
        head.stored_as("int8")
    x, head = features(SHAPE), head_weights(SHAPE).stored_as("int8")
    with pytest.raises(ValueError, match=r"expected vote_scale beside weights in torch.int8, got None"):
        pf.ops.head_decode(x, head._replace(vote_scale=None), table(SHAPE))
    with pytest.raises(ValueError, match=r"expected score_weight in torch.int8 on cpu"):
        pf.ops.head_decode(x, head._replace(score_weight=head.score_weight.half()), table(SHAPE))
    with pytest.raises(ValueError, match=r"expected score_weight in torch.float64 on cpu"):
        pf.ops.head_decode(x.double(), head, table(SHAPE), backend="reference")


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_thread_counts_agree(threads: int) -> None:
    if not pf.ops.backends()["cpp"]:
        pytest.skip("no C++ extension")
    # Large enough to be worth several threads.
    shape = LARGE[0]._replace(B=17)
    x, head = features(shape), head_weights(shape)
    before = torch.get_num_threads()
    expected = pf.ops.head_decode(x, head, table(shape), backend="cpp")
    try:
        torch.set_num_threads(threads)
        got = pf.ops.head_decode(x, head, table(shape), backend="cpp")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got.points_frac, expected.points_frac)


def exact_inputs(shape: Shape, winners: list[int]) -> tuple[Tensor, HeadWeights]:
    """Small integers, whose sums are exact in any order: every landmark scores 2 at ``winners`` and 1 elsewhere."""
    x = torch.randint(-3, 4, (shape.B, shape.C, shape.H, shape.W)).float()
    x[:, 0] = 1
    x[:, 0].flatten(1)[:, winners] = 2
    rows = (shape.N, shape.N, shape.N, shape.N * shape.K, shape.N * shape.K)
    weights = HeadMaps(*(torch.randint(-2, 3, (r, shape.C)).float() for r in rows))
    weights.score.zero_()
    weights.score[:, 0] = 1
    return x, pack_head(weights, HeadMaps(*(torch.zeros(r) for r in rows)))


@pytest.mark.parametrize("winners", [[0], [34], [6, 28], [3, 17, 33], [7, 8], [5, 6], [11, 12, 13], [33, 34]], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_first_of_equal_scores_wins(winners: list[int], layout: str, backend: BackendCase) -> None:
    shape = Shape(2, 19, 2, 5, 7, 6) if backend.name == "cpp" else Shape(1, 3, 2, 5, 7, 6)
    x, head = exact_inputs(shape, winners)
    x = in_layout(x, layout)
    got = run(x, head, table(shape), backend)
    assert torch.equal(got.scores.cpu(), torch.full((shape.B, shape.N), 2.0))
    expected = run_reference(x, head, table(shape))
    assert_landmarks_close(got.points_frac, expected.points_frac, "points")
    # The winner itself: with all but the first made to lose, nothing may change.
    x = x.clone()
    x[:, 0].flatten(1)[:, winners[1:]] = 1
    alone = run_reference(x, head, table(shape))
    assert_landmarks_close(got.points_frac, alone.points_frac, "points of the first winner alone")


# NumPy warns of infinity times zero in Triton's interpreter; that product is what is tested.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("cells", [[0], [3, 4, 20], list(range(1, 35)), list(range(35))], ids=len)
def test_special_features(value: float, cells: list[int], backend: BackendCase) -> None:
    # 19 landmarks: a panel, and three that are scored row by row.
    shape = Shape(1, 19 if backend.name == "cpp" else 3, 2, 5, 7, 9)
    x, head = draw(shape)
    x[:, 4].flatten(1)[:, cells] = value
    # Where NaN covers the grid, cell 0 wins with minus infinity and its votes are NaN.
    check(x, head, table(shape), backend)


@pytest.mark.parametrize("shape", [*SMALL, LARGE[2]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_reference_equals_dense_convolutions_and_decode(shape: Shape, dtype: torch.dtype) -> None:
    rows = (shape.N, shape.N, shape.N, shape.N * shape.K, shape.N * shape.K)
    weights = HeadMaps(*(torch.randn(r, shape.C, dtype=dtype) for r in rows))
    biases = HeadMaps(*(torch.randn(r, dtype=dtype) for r in rows))
    x = features(shape, dtype)
    maps = HeadMaps(
        *(torch.einsum("nc,bchw->bnhw", w, x) + b[:, None, None] for w, b in zip(weights, biases, strict=True))
    )
    got = pf.ops.head_decode(x, pack_head(weights, biases), table(shape), backend="reference")
    expected = pf.ops.decode(maps, table(shape), backend="reference")
    assert_landmarks_close(got.points_frac, expected.points_frac, "points")
    assert_landmarks_close(got.scores, expected.scores, "scores")


@pytest.mark.parametrize("shape", [SMALL[0], SMALL[3]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck(shape: Shape, dtype: torch.dtype) -> None:
    neighbors = table(shape)
    args = (features(shape, dtype), *head_weights(shape, dtype), neighbors.starts, neighbors.sources, neighbors.weights)
    torch.library.opcheck(torch.ops.pipnet_fast.head_decode.default, args)


@pytest.mark.cuda
@pytest.mark.parametrize("operation", ["decode", "head_decode"])
def test_opcheck_on_cuda(operation: str) -> None:
    from tests.inputs import head_maps

    shape = SMALL[3]
    neighbors = table(shape).to("cuda")
    inputs = (*head_maps(shape),) if operation == "decode" else (features(shape), *repack(head_weights(shape), "cuda"))
    args = (*(t.cuda() for t in inputs), neighbors.starts, neighbors.sources, neighbors.weights)
    torch.library.opcheck(getattr(torch.ops.pipnet_fast, operation).default, args)


@pytest.mark.cuda
def test_auto_on_cuda_takes_triton_and_follows_the_device() -> None:
    model = pf.PIPNet("resnet18", 19, 5, mean_shape="aflw19").eval().cuda()
    x = torch.randn(2, 3, 128, 128, device="cuda")
    got = model.predict(x)
    assert got.points_frac.is_cuda
    expected = pf.ops.decode(model(x), model.table, backend="reference")
    torch.testing.assert_close(got.points_frac, expected.points_frac, rtol=0, atol=1e-3)


def test_compiles_without_graph_breaks() -> None:
    shape = SMALL[3]
    x, head = draw(shape)
    neighbors = table(shape)
    compiled = torch.compile(lambda f: pf.ops.head_decode(f, head, neighbors), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x).points_frac, pf.ops.head_decode(x, head, neighbors).points_frac)


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bound_head_is_head_decode(layout: str, storage: str) -> None:
    shape = SMALL[3]
    head, neighbors = head_weights(shape).stored_as(storage), table(shape)  # type: ignore[arg-type]
    bound = pf.ops.BoundHead(head, neighbors)
    for batch in (3, 0, 1):
        x = in_layout(features(shape._replace(B=batch)), layout)
        expected = pf.ops.head_decode(x, head, neighbors)
        for got, want in zip(bound(x), expected, strict=True):
            assert torch.equal(got, want)
            assert not got.requires_grad
    # Its own references keep the weights alive.
    expected = bound(x)
    del head, neighbors
    junk = [torch.randn(1000) for _ in range(100)]
    assert torch.equal(bound(x).points_frac, expected.points_frac)
    del junk


def test_bound_head_compiles() -> None:
    x, bound = features(SHAPE), pf.ops.BoundHead(head_weights(SHAPE), table(SHAPE))
    compiled = torch.compile(bound, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x).points_frac, bound(x).points_frac)


def test_bound_head_under_what_replaces_operations() -> None:
    x, head, neighbors = features(SHAPE), head_weights(SHAPE), table(SHAPE)
    bound = pf.ops.BoundHead(head, neighbors)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert isinstance(bound(x).scores, FakeTensor)
    mapped = torch.func.vmap(lambda image: bound(image).points_frac)(x.unsqueeze(1))
    torch.testing.assert_close(mapped.squeeze(1), bound(x).points_frac)
    negative = torch.complex(x, x).conj().imag
    assert negative.is_neg()
    for got, want in zip(bound(negative), bound(-x), strict=True):
        assert torch.equal(got, want)


def test_bound_head_has_a_table_of_its_own() -> None:
    x, neighbors = features(SHAPE), table(SHAPE)
    bound = pf.ops.BoundHead(head_weights(SHAPE), neighbors)
    expected = bound(x)
    neighbors.sources.fill_(2**31 - 8)
    assert torch.equal(bound(x).points_frac, expected.points_frac)


def test_heads_of_parameters_give_results_without_gradients(backend: BackendCase) -> None:
    head = HeadWeights(*(None if t is None else t.requires_grad_() for t in head_weights(SHAPE)))
    found = pf.ops.head_decode(features(SHAPE).requires_grad_(), head, table(SHAPE), backend=backend.name)
    assert not any(t.requires_grad for t in found)


def test_reference_is_exact_under_autocast() -> None:
    x, head, neighbors = features(SHAPE), head_weights(SHAPE), table(SHAPE)
    expected = pf.ops.head_decode(x, head, neighbors, backend="reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pf.ops.head_decode(x, head, neighbors, backend="reference")
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got, want)


def test_tensors_without_numbers() -> None:
    """Shapes come out of meta and fake tensors of every type, though NaNs cannot be looked for."""
    model = pf.PIPNet(num_landmarks=5, num_neighbors=2, width=0.0625, mean_shape=torch.rand(5, 2)).eval()
    found = model.to("meta").predict(torch.zeros(2, 3, 256, 256, device="meta"))
    assert [t.shape for t in found] == [(2, 5, 2), (2, 5)]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(features(SHAPE).double())
        head = HeadWeights(*(None if t is None else mode.from_tensor(t.double()) for t in head_weights(SHAPE)))
        found = pf.ops.head_decode(x, head, table(SHAPE))
    assert [t.shape for t in found] == [(SHAPE.B, SHAPE.N, 2), (SHAPE.B, SHAPE.N)]


def test_bound_head_has_the_errors_of_head_decode() -> None:
    head, neighbors = head_weights(SHAPE), table(SHAPE)
    with pytest.raises(TypeError, match="table: expected a NeighborTable, got NoneType"):
        pf.ops.BoundHead(head, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"head: expected vote_bias of shape \(5, 8\) for N=5, C=6, got \(5, 6\)"):
        pf.ops.BoundHead(head._replace(vote_bias=torch.zeros(5, 6)), neighbors)
    bound = pf.ops.BoundHead(head, neighbors)
    with pytest.raises(ValueError, match=r"head_decode: features: expected floating-point \(B, 6, H, W\)"):
        bound(torch.zeros(2, 7, 4, 4))
    with pytest.raises(ValueError, match="head_decode: features: expected a grid of 1 to"):
        bound(torch.zeros(2, 6, 4, 0))
    with pytest.raises(TypeError, match="head_decode: features: expected a tensor, got list"):
        bound([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="head: expected score_weight in torch.float64 on cpu"):
        bound(torch.zeros(2, 6, 4, 4).double())


SHAPE = Shape(2, 5, 3, 4, 4, 6)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 7, 4, 4), ValueError, r"head_decode: features: expected floating-point \(B, 6, H, W\)"),
        (torch.zeros(6, 4, 4), ValueError, r"head_decode: features: expected .* got \(6, 4, 4\)"),
        (torch.zeros(2, 6, 4, 4).int(), ValueError, "got .* torch.int32"),
        (torch.zeros(2, 6, 4, 4).double(), ValueError, "head: expected score_weight in torch.float64 on cpu"),
        (torch.zeros(2, 6, 4, 0), ValueError, "head_decode: features: expected a grid of 1 to"),
        ([1.0], TypeError, "head_decode: features: expected a tensor, got list"),
    ],
)
@pytest.mark.parametrize("backend_name", ["auto", "reference"])
def test_bad_features(x: Tensor, error: type[Exception], message: str, backend_name: str) -> None:
    with pytest.raises(error, match=message):
        pf.ops.head_decode(x, head_weights(SHAPE), table(SHAPE), backend=backend_name)  # type: ignore[arg-type]


def test_bad_heads_tables_and_backends() -> None:
    x, head = features(SHAPE), head_weights(SHAPE)
    with pytest.raises(TypeError, match=r"head: expected HeadWeights \(model.head\), got tuple"):
        pf.ops.head_decode(x, tuple(head), table(SHAPE))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="table: expected a NeighborTable, got NoneType"):
        pf.ops.head_decode(x, head, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"head: expected vote_weight of shape \(N, 2 \+ 2K, C\), got \(5, 7, 6\)"):
        pf.ops.head_decode(x, head._replace(vote_weight=torch.zeros(5, 7, 6)), table(SHAPE))
    with pytest.raises(ValueError, match=r"head: expected vote_bias of shape \(5, 8\) for N=5, C=6, got \(5, 6\)"):
        pf.ops.head_decode(x, head._replace(vote_bias=torch.zeros(5, 6)), table(SHAPE))
    with pytest.raises(ValueError, match=r"head: expected score_weight of shape \(1, 6, 16\)"):
        pf.ops.head_decode(x, head._replace(score_weight=torch.zeros(2, 6, 16)), table(SHAPE))
    with pytest.raises(ValueError, match=r"head_decode: table: expected starts of shape \(6,\)"):
        pf.ops.head_decode(x, head, table(SHAPE._replace(N=4)))
    with pytest.raises(ValueError, match='head_decode: backend: expected "auto" or one of'):
        pf.ops.head_decode(x, head, table(SHAPE), backend="gpu")  # type: ignore[arg-type]


def test_reference_refuses_nan_scores() -> None:
    x = features(SHAPE)
    x[1, 0, 2, 3] = torch.nan
    with pytest.raises(
        ValueError, match=r"head_decode: expected scores without NaN, got one at image 1, .* cell \(3, 2\)"
    ):
        pf.ops.head_decode(x, head_weights(SHAPE), table(SHAPE), backend="reference")


def test_bad_arguments_of_the_operation_itself_do_not_crash() -> None:
    x, head, neighbors = features(SHAPE), head_weights(SHAPE), table(SHAPE)
    op = torch.ops.pipnet_fast.head_decode
    rest = (neighbors.starts, neighbors.sources, neighbors.weights)
    with pytest.raises(ValueError, match="expected score_bias"):
        op(x, *head._replace(score_bias=head.score_bias[:3]), *rest)
    if pf.ops.backends()["cpp"]:
        with pytest.raises(ValueError, match="table: expected increasing starts from 0 to 20 and sources below it"):
            op(x, *head, neighbors.starts, neighbors.sources + 100, neighbors.weights)
