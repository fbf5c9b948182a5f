"""The sparse loss against dense maps with dense targets, its gradients, its masks, and what it keeps in memory."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.ops import HeadLoss, HeadMaps, default_balance, head_loss, label_counts, pack_head
from tests.head_loss_cases import Case, assert_equal
from tests.inputs import LAYOUTS, Shape, in_layout, randomized

SHAPES = [
    Shape(1, 1, 0, 1, 1, 1),
    Shape(2, 7, 3, 1, 9, 5),
    Shape(3, 5, 4, 5, 3, 33),
    Shape(4, 19, 18, 2, 2, 16),
    Shape(2, 17, 0, 4, 4, 7),
    Shape(2, 29, 10, 16, 16, 12),
    # A batch from which on the weights of the votes are joined.
    Shape(33, 5, 2, 3, 3, 4),
]


def dense_loss(case: Case, alpha: float = 0.2, beta: float = 0.2, sample_weights: Tensor | None = None) -> HeadLoss:
    """Equations 1 to 6 word by word: target and weight maps filled in loops, then masked means over whole maps."""
    batch, landmarks, neighbors, height, width, _ = case.shape
    maps = [
        torch.einsum("nc,bchw->bnhw", w, case.features) + b[:, None, None]
        for w, b in zip(case.weights, case.biases, strict=True)
    ]
    targets, masks = [torch.zeros_like(m) for m in maps], [torch.zeros_like(m) for m in maps]
    of = torch.ones(batch, 3) if sample_weights is None else sample_weights
    for b in range(batch):
        for n in range(landmarks):
            if case.points[b, n].isnan().any():
                continue
            x, y = (case.points[b, n] * torch.tensor([width, height])).tolist()
            i, j = min(max(math.floor(x), 0), width - 1), min(max(math.floor(y), 0), height - 1)
            masks[0][b, n] = of[b, 0]
            targets[0][b, n, j, i] = 1
            for axis, value in enumerate((x - i, y - j)):
                masks[1 + axis][b, n, j, i] = of[b, 1]
                targets[1 + axis][b, n, j, i] = value
            for k, m in enumerate(case.table.neighbors[n].tolist()):
                if case.points[b, m].isnan().any():
                    continue
                other_x, other_y = (case.points[b, m] * torch.tensor([width, height])).tolist()
                for axis, value in enumerate((other_x - i, other_y - j)):
                    masks[3 + axis][b, n * neighbors + k, j, i] = of[b, 2]
                    targets[3 + axis][b, n * neighbors + k, j, i] = value

    def mean(errors: list[Tensor], weights: list[Tensor]) -> Tensor:
        total = sum(float(w.sum()) for w in weights)
        return sum(((e * w).sum() for e, w in zip(errors, weights, strict=True)), torch.zeros(())) / (total or 1)

    score = mean([(maps[0] - targets[0]).square()], masks[:1])
    absolute = [(m - t).abs() for m, t in zip(maps, targets, strict=True)]
    offset, neighbor = mean(absolute[1:3], masks[1:3]), mean(absolute[3:], masks[3:])
    return HeadLoss(score + alpha * offset + beta * neighbor, score, offset, neighbor)


@pytest.mark.parametrize("missing", [False, True], ids=["all-labelled", "some-missing"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_dense_loss(shape: Shape, missing: bool) -> None:
    case = Case(shape, missing)
    got, expected = case.loss(alpha=0.3, beta=0.7), dense_loss(case, alpha=0.3, beta=0.7)
    assert_equal(list(got), list(expected))
    for term, reference in zip(got, expected, strict=True):
        if reference.requires_grad:
            assert_equal(case.gradients(term), case.gradients(reference))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_features(layout: str) -> None:
    case = Case(Shape(2, 5, 3, 6, 7, 19))
    expected = case.gradients(dense_loss(case).total)
    case.features = in_layout(case.features.detach(), layout).requires_grad_()
    got = case.gradients(case.loss().total)
    assert_equal(got, expected)
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert got[0].is_contiguous(memory_format=memory)


@pytest.mark.parametrize("term", HeadLoss._fields)
def test_gradcheck(term: str) -> None:
    case = Case(Shape(2, 4, 2, 3, 2, 5), missing=True)
    sample_weights = torch.tensor([[1.0, 0.5, 2.0], [0.3, 1.0, 0.0]])

    def loss(*inputs: Tensor) -> Tensor:
        maps = HeadMaps(*inputs[1:6]), HeadMaps(*inputs[6:])
        terms = head_loss(inputs[0], *maps, case.points, case.table, sample_weights=sample_weights)
        return getattr(terms, term)

    assert torch.autograd.gradcheck(loss, case.inputs)


def test_there_is_no_second_derivative() -> None:
    case = Case(Shape(1, 3, 1, 2, 2, 4))
    (gradient,) = torch.autograd.grad(case.loss().total, case.features, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


def zero_network(points: list[list[float]], neighbors: int, grid: int) -> HeadLoss:
    case = Case(Shape(1, len(points), neighbors, grid, grid, 3))
    with torch.no_grad():
        for tensor in (*case.weights, *case.biases):
            tensor.zero_()
    case.points = torch.tensor([points])
    return HeadLoss(*(term.detach() for term in case.loss()))


def test_the_example_of_figure_4() -> None:
    # Offsets of 30% and 80%; the neighbor at 180% and 70% of the same cell. All of it both ways, so two landmarks:
    # from the neighbor's cell, one to the right, its own offsets are 0.8 and 0.7, the other's -0.7 and 0.8.
    loss = zero_network([[2.3 / 8, 3.8 / 8], [3.8 / 8, 3.7 / 8]], neighbors=1, grid=8)
    assert float(loss.score) == pytest.approx(1 / 64)
    assert float(loss.offset) == pytest.approx((0.3 + 0.8 + 0.8 + 0.7) / 4)
    assert float(loss.neighbor) == pytest.approx((1.8 + 0.7 + 0.7 + 0.8) / 4)
    assert float(loss.total) == pytest.approx(1 / 64 + 0.2 * 0.65 + 0.2 * 1.0)


@pytest.mark.parametrize(("x", "offset"), [(-0.25, -1.0), (0.0, 0.0), (0.999, 0.996), (1.0, 1.0), (1.25, 2.0)], ids=str)
def test_cells_are_clamped_and_offsets_are_not(x: float, offset: float) -> None:
    loss = zero_network([[x, 0.5]], neighbors=0, grid=4)
    assert float(loss.score) == pytest.approx(1 / 16)
    assert float(loss.offset) == pytest.approx(abs(offset) / 2)


@pytest.mark.parametrize(("stride", "paper"), [(16, 0.02), (32, 0.1), (64, 0.125), (128, 0.25)])
def test_balance_is_twice_the_papers(stride: int, paper: float) -> None:
    assert default_balance(stride) == 2 * paper


def test_balance_of_another_stride() -> None:
    with pytest.raises(ValueError, match=r"default_balance: stride: expected one of \(16, 32, 64, 128\), got 8"):
        default_balance(8)


def test_official_weighting() -> None:
    """10 * score + x + y + neighbor x + neighbor y, each a mean of its own, is ten times ours at stride 32."""
    case = Case(Shape(3, 5, 2, 4, 4, 6))
    maps = [torch.einsum("nc,bchw->bnhw", w, case.features) for w in case.weights]
    maps = [m + b[:, None, None] for m, b in zip(maps, case.biases, strict=True)]
    position = case.points * 4
    corner = position.floor().clamp(0, 3)
    cell = (corner[..., 1] * 4 + corner[..., 0]).long()
    target = torch.zeros(3, 5, 16, dtype=torch.float64).scatter_(2, cell[..., None], 1.0)
    official = 10 * torch.nn.functional.mse_loss(maps[0].flatten(2), target)
    for axis in (0, 1):
        own = maps[1 + axis].flatten(2).gather(2, cell[..., None])[..., 0]
        official = official + (own - (position - corner)[..., axis]).abs().mean()
        near = maps[3 + axis].view(3, 5, 2, 16).gather(3, cell[..., None, None].expand(-1, -1, 2, 1))[..., 0]
        goal = position[:, case.table.neighbors] - corner[:, :, None]
        official = official + (near - goal[..., axis]).abs().mean()
    assert_equal([10 * case.loss().total], [official])


def test_a_sample_without_labels_counts_for_nothing() -> None:
    case = Case(Shape(3, 5, 2, 4, 4, 6))
    case.points[1] = torch.nan
    got = case.loss()
    others = [0, 2]
    rest = head_loss(case.features[others], case.weights, case.biases, case.points[others], case.table)
    assert_equal(list(got), list(rest))
    assert_equal(case.gradients(got.total), case.gradients(rest.total))


@pytest.mark.parametrize("shape", [Shape(2, 5, 2, 4, 4, 6), Shape(0, 5, 2, 4, 4, 6)], ids=["missing", "empty-batch"])
def test_without_any_label_the_loss_and_its_gradients_are_zero(shape: Shape) -> None:
    case = Case(shape)
    case.points.fill_(torch.nan)
    loss = case.loss()
    assert [term.item() for term in loss] == [0, 0, 0, 0]
    assert all(not g.any() for g in case.gradients(loss.total))


@pytest.mark.parametrize("missing", [False, True], ids=["all-labelled", "some-missing"])
def test_sample_weights(missing: bool) -> None:
    case = Case(Shape(3, 5, 2, 4, 4, 6), missing)
    sample_weights = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.25, 3.0, 0.5]])
    got, expected = case.loss(sample_weights=sample_weights), dense_loss(case, sample_weights=sample_weights)
    assert_equal(list(got), list(expected))
    assert_equal(case.gradients(got.total), case.gradients(expected.total))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "sample-weights"])
@pytest.mark.parametrize("neighbors", [0, 2])
def test_parts_add_up_to_the_whole(neighbors: int, weighted: bool) -> None:
    case = Case(Shape(4, 5, neighbors, 4, 4, 6), missing=True)
    # A part without any label; the others differ in how many landmarks and pairs have one.
    case.points[3] = torch.nan
    weights = torch.rand(4, 3) if weighted else None
    counts = label_counts(case.points, case.table, weights)
    whole, parts = case.loss(sample_weights=weights), []
    for part in ([0], [1, 2], [3]):
        options = {"counts": counts, "sample_weights": weights if weights is None else weights[part]}
        inputs = case.features[part], case.weights, case.biases, case.points[part], case.table
        parts.append(head_loss(*inputs, **options))
    total = sum(part.total for part in parts)
    # The counts are in float32.
    assert_equal([sum(terms) for terms in zip(*parts, strict=True)], list(whole), 1e-6)
    assert_equal(case.gradients(total), case.gradients(whole.total), 1e-6)


def test_label_counts() -> None:
    case = Case(Shape(2, 5, 2, 4, 4, 6))
    case.points[0, 1, 0] = torch.nan
    neighbors = case.table.neighbors.tolist()
    present = [[True, False, True, True, True], [True] * 5]
    pairs = sum(here[n] and here[m] for here in present for n in range(5) for m in neighbors[n])
    assert label_counts(case.points, case.table).tolist() == [9, 9, pairs]
    weights = torch.tensor([[1, 2, 0], [0, 0.5, 0]])
    assert label_counts(case.points, case.table, weights).tolist() == [4, 10.5, 0]
    assert label_counts(case.points.double(), case.table, weights.double()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"label_counts: points_frac: expected floating-point \(5, 5, 2\) .*\(5, 2\)"):
        label_counts(case.points[0], case.table)
    with pytest.raises(TypeError, match="label_counts: table: expected a NeighborTable, got Tensor"):
        label_counts(case.points, case.table.neighbors)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"label_counts: sample_weights: expected floating-point \(2, 3\)"):
        label_counts(case.points, case.table, weights[0])


@pytest.mark.parametrize("inside", [False, True], ids=["backward-outside", "backward-inside"])
def test_autocast_computes_in_float32(inside: bool) -> None:
    case = Case(Shape(2, 19, 4, 8, 8, 64), dtype=torch.float32)
    half = case.features.detach().bfloat16()
    case.features = half.float().requires_grad_()
    expected = case.loss()
    gradients = case.gradients(expected.total)

    case.features = half.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = case.loss()
        if inside:
            result = case.gradients(got.total)
    if not inside:
        result = case.gradients(got.total)
    assert all(term.dtype == torch.float32 for term in got)
    assert [g.dtype for g in result] == [torch.bfloat16] + [torch.float32] * 10
    assert_equal(list(got), list(expected), 1e-6)
    assert_equal(result[1:], gradients[1:], 1e-6)
    assert_equal(result[:1], [gradients[0].bfloat16()], 1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    case = Case(Shape(2, 19, 4, 8, 8, 64), dtype=dtype)
    got = case.loss()
    gradients = case.gradients(got.total)
    assert all(g.dtype == dtype for g in gradients)
    wide = Case(case.shape)
    wide.points = case.points
    wide.features, wide.weights, wide.biases = (
        case.features.detach().double().requires_grad_(),
        HeadMaps(*(w.detach().double().requires_grad_() for w in case.weights)),
        HeadMaps(*(b.detach().double().requires_grad_() for b in case.biases)),
    )
    expected = wide.loss()
    assert_equal(list(got), list(expected), 1e-5)
    assert_equal(gradients, [g.to(dtype) for g in wide.gradients(expected.total)], 1e-2)


def test_compiles_into_one_graph() -> None:
    case = Case(Shape(2, 5, 2, 4, 4, 6), missing=True)
    expected = case.loss()
    compiled = torch.compile(Case.loss, backend="aot_eager", fullgraph=True)(case)
    assert_equal(list(compiled), list(expected))
    assert_equal(case.gradients(compiled.total), case.gradients(expected.total))


def test_frozen_backbone() -> None:
    case = Case(Shape(2, 5, 2, 4, 4, 6))
    expected = case.gradients(case.loss().total)[1:]
    case.features = case.features.detach()
    assert_equal(list(torch.autograd.grad(case.loss().total, case.inputs[1:])), expected)


def test_same_bits_every_time() -> None:
    # Many landmarks in one cell, whose gradients meet.
    case = Case(Shape(8, 98, 10, 2, 2, 64), dtype=torch.float32)
    first, second = (case.gradients(case.loss().total) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_keeps_a_score_map_and_no_other() -> None:
    shape = Shape(4, 29, 10, 8, 8, 16)
    case = Case(shape, dtype=torch.float32)
    inputs = {tensor.data_ptr() for tensor in case.inputs}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in inputs:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        case.loss()
    cells, votes = shape.B * shape.N * shape.H * shape.W, shape.B * shape.N * (2 + 2 * shape.K)
    assert 4 * cells < sum(kept.values()) <= 4 * (cells + votes) + 8 * shape.B * shape.N + 64


def test_decoding_reads_what_the_loss_trains() -> None:
    shape = Shape(4, 19, 5, 4, 4, 64)
    case = Case(shape, dtype=torch.float32)
    case.points = torch.rand(shape.B, shape.N, 2)
    optimizer = torch.optim.Adam([*case.weights, *case.biases], lr=0.03)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 300)
        optimizer.zero_grad()
        case.loss(alpha=1.0, beta=1.0).total.backward()
        optimizer.step()
    maps = HeadMaps(*(w.detach() for w in case.weights)), HeadMaps(*(b.detach() for b in case.biases))
    found = pf.ops.head_decode(case.features, pack_head(*maps), case.table)
    assert float((found.points_frac - case.points).abs().max()) < 0.01
    assert float((found.scores - 1).abs().mean()) < 0.2


def replaced(**changes: Any) -> Callable[[], HeadLoss]:
    case = Case(Shape(2, 5, 2, 4, 4, 6))
    arguments = {
        "features": case.features,
        "weights": case.weights,
        "biases": case.biases,
        "points_frac": case.points,
        "table": case.table,
    }
    arguments.update({key: value(case) for key, value in changes.items()})
    return lambda: head_loss(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": lambda c: [1]}, TypeError, "features: expected a tensor, got list"),
        ({"features": lambda c: c.features[0]}, ValueError, r"features: expected floating-point \(B, C, H, W\)"),
        ({"features": lambda c: c.features[:, :, :0]}, ValueError, "features: expected a grid of 1 to"),
        ({"weights": lambda c: list(c.weights)}, TypeError, "weights: expected HeadMaps of five tensors, got list"),
        ({"biases": lambda c: c.weights}, ValueError, r"biases: score: expected floating-point \(5,\) .* got \(5, 6\)"),
        (
            {"weights": lambda c: c.weights._replace(neighbor_y=c.weights.offset_y)},
            ValueError,
            r"weights: neighbor_y: expected floating-point \(10, 6\) for B=2, C=6, N=5, K=2, got \(5, 6\)",
        ),
        (
            {"weights": lambda c: c.weights._replace(score=c.weights.score.to("meta"))},
            ValueError,
            "weights: score: expected cpu as the features, got meta",
        ),
        (
            {"weights": lambda c: c.weights._replace(score=None)},
            TypeError,
            "weights: score: expected a tensor, got None",
        ),
        ({"points_frac": lambda c: c.points[:, :4]}, ValueError, r"points_frac: expected floating-point \(2, 5, 2\)"),
        ({"points_frac": lambda c: c.points.long()}, ValueError, "points_frac: expected floating-point .* torch.int64"),
        ({"table": lambda c: c.table.neighbors}, TypeError, "table: expected a NeighborTable, got Tensor"),
        (
            {"sample_weights": lambda c: torch.ones(2)},
            ValueError,
            r"sample_weights: expected floating-point \(2, 3\) .* got \(2,\)",
        ),
        ({"counts": lambda c: torch.ones(1)}, ValueError, r"counts: expected floating-point \(3,\) .* got \(1,\)"),
        ({"counts": lambda c: 3}, TypeError, "counts: expected a tensor, got int"),
        ({"alpha": lambda c: -0.1}, ValueError, "alpha: expected a number >= 0, got -0.1"),
        ({"beta": lambda c: math.nan}, ValueError, "beta: expected a number >= 0, got nan"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^head_loss: {message}"):
        replaced(**change)()


def small(stride: int = 32, num_neighbors: int = 4) -> pf.PIPNet:
    return randomized(
        width=0.25, num_landmarks=19, num_neighbors=num_neighbors, stride=stride, input_size=128, mean_shape="aflw19"
    )


@pytest.mark.parametrize(("stride", "num_neighbors"), [(16, 4), (32, 0), (64, 4), (128, 4)])
def test_loss_of_the_model_is_that_of_its_maps(stride: int, num_neighbors: int) -> None:
    model = small(stride, num_neighbors).double()
    x, points = torch.randn(2, 3, 128, 128, dtype=torch.float64), torch.rand(2, 19, 2)
    case = Case(Shape(2, 19, num_neighbors, 128 // stride, 128 // stride, 1))
    # The dense maps as one-channel features of themselves would not do: take the layers of the model.
    weights, biases = model._head_layers()
    empty = [] if num_neighbors else [weights[0][:0]] * 2
    case.weights = HeadMaps(*(w.flatten(1) for w in (*weights, *empty)))
    case.biases = HeadMaps(*biases, *([] if num_neighbors else [biases[0][:0]] * 2))
    case.features, case.points, case.table = model.forward_features(x), points.double(), model.table
    balance = default_balance(stride)
    expected = dense_loss(case, balance, balance)
    got = model.loss(x, points)
    assert_equal(list(got), list(expected), 1e-9)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(got.total, parameters)
    assert_equal(list(gradients), list(torch.autograd.grad(expected.total, parameters)), 1e-9)
    assert_equal(
        [model.loss(x, points, alpha=1, beta=2).total], [expected.score + expected.offset + 2 * expected.neighbor]
    )


def test_the_model_trains_under_autocast() -> None:
    model = small().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(torch.randn(2, 3, 128, 128), torch.rand(2, 19, 2)).total
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_loss_needs_the_mean_shape() -> None:
    model = pf.PIPNet(width=0.25, num_landmarks=19, num_neighbors=4)
    with pytest.raises(ValueError, match="mean_shape: the neighbors' votes cannot be merged without it"):
        model.loss(torch.randn(1, 3, 64, 64), torch.rand(1, 19, 2))
