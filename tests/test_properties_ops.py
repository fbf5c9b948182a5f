"""Properties of the operations: whatever fits together gives the reference's answer, whatever does not is refused."""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.ops import HeadMaps, HeadWeights, Landmarks, default_balance, head_loss, label_counts, pack_head
from pipnet_fast.ops.decode import reference as decode_reference
from tests.inputs import in_layout
from tests.strategies import head_maps, heads, layouts, mean_shapes, merges, outcome, shapes, tables, whole_numbers
from tests.tolerances import assert_landmarks_close

bounded = settings(max_examples=15, deadline=None)
BACKENDS = [name for name in ("cpp", "reference") if pf.ops.backends()[name]]
float_types = st.sampled_from((torch.float32, torch.float64, torch.float16, torch.bfloat16))


def merge_tensors(table: pf.NeighborTable) -> tuple[Tensor, Tensor, Tensor]:
    return table.starts, table.sources, table.weights


@bounded
@given(st.data())
def test_decode_is_the_reference_or_says_where_the_nan_is(data: st.DataObject) -> None:
    shape, dtype = data.draw(shapes()), data.draw(float_types)
    maps, table = data.draw(head_maps(shape, dtype, special=True)), data.draw(tables(shape))
    backend = data.draw(st.sampled_from((*BACKENDS, "auto")))
    expected = Landmarks(*decode_reference(*maps, *merge_tensors(table)))
    found = outcome(lambda: pf.ops.decode(maps, table, backend), ValueError, TypeError)
    if isinstance(found, TypeError):
        assert (backend, dtype != torch.float32) == ("cpp", True)
        assert "decode: backend 'cpp' expects float32" in str(found)
    elif isinstance(found, ValueError):
        assert maps.score.isnan().any()
        assert "decode: expected scores without NaN" in str(found)
    else:
        assert_landmarks_close(found.scores, expected.scores, "scores")
        assert_landmarks_close(found.points_frac, expected.points_frac, "points")


def dense(x: Tensor, weights: HeadMaps, biases: HeadMaps) -> HeadMaps:
    """The head's five convolutions; exact, for these are small whole numbers."""
    return HeadMaps(
        *(torch.einsum("nc,bchw->bnhw", w, x) + b[:, None, None] for w, b in zip(weights, biases, strict=True))
    )


@bounded
@given(st.data())
def test_head_decode_is_decoding_the_dense_maps(data: st.DataObject) -> None:
    """With equal scores all over, in every layout, bound and unbound, and with smaller storage of what it can hold."""
    shape = data.draw(shapes())
    (weights, biases), table = data.draw(heads(shape)), data.draw(tables(shape))
    x = in_layout(whole_numbers(shape.B, shape.C, shape.H, shape.W), data.draw(layouts))
    expected = pf.ops.decode(dense(x, weights, biases), table, "reference")
    head = pack_head(weights, biases)
    assert (head.num_landmarks, head.num_neighbors) == (shape.N, shape.K)
    found = [pf.ops.head_decode(x, head, table, backend) for backend in (*BACKENDS, "auto")]
    found += [pf.ops.BoundHead(head, table)(x), pf.ops.head_decode(x, head.stored_as("float16"), table)]
    for landmarks in found:
        assert torch.equal(landmarks.scores, expected.scores)
        assert_landmarks_close(landmarks.points_frac, expected.points_frac, "points")


@bounded
@given(data=st.data(), magnitude=st.sampled_from((1e-40, 1.0, 6e4, 7e4, 1e30, math.inf, math.nan)))
def test_heads_are_stored_smaller_or_refused(data: st.DataObject, magnitude: float) -> None:
    shape = data.draw(shapes())
    weights, biases = data.draw(heads(shape))
    head = pack_head(weights._replace(score=weights.score * magnitude), biases)
    storage = data.draw(st.sampled_from(("float32", "float16", "int8", "int4")))
    stored = outcome(lambda: head.stored_as(storage), ValueError)  # type: ignore[arg-type]
    most = float(head.score_weight.abs().max())
    limit = {"float32": math.inf, "float16": 65504.0, "int8": 3.4e38}.get(storage, 0.0)
    if storage == "float32":
        assert stored is head
    elif isinstance(stored, ValueError):
        assert "stored_as: " in str(stored)
        assert storage == "int4" or not most <= limit
    else:
        assert most <= limit
        assert all(t is None or t.isfinite().all() for t in stored)


def spoiled(tensor: Tensor) -> st.SearchStrategy[Any]:
    """What may come in a tensor's place by mistake."""
    return st.sampled_from(
        (
            *(None, 3, "tensor", tensor.numpy(), tensor.tolist()),
            *(tensor[..., None], tensor.flatten(), tensor[:0], torch.cat((tensor, tensor))),
            *(tensor.to(torch.int64), tensor.to(torch.complex64), tensor.to(torch.bool)),
            *(tensor.to("meta"), tensor.double(), tensor.half()),
        )
    )


@bounded
@given(st.data())
def test_decode_refuses_what_does_not_fit(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    maps, table = data.draw(head_maps(shape, torch.float32, special=False)), data.draw(tables(shape))
    arguments: list[Any] = [*maps]
    place = data.draw(st.integers(0, 4))
    arguments[place] = data.draw(spoiled(maps[place]))
    found = outcome(lambda: pf.ops.decode(tuple(arguments), table), ValueError, TypeError)  # type: ignore[arg-type]
    # A single row may be none at all: with K = 0 or B = 0 the same map in another type has no other shape.
    if isinstance(found, Exception):
        assert str(found).startswith("decode: ")
    else:
        assert found.points_frac.shape == (len(arguments[0]), shape.N, 2)


@bounded
@given(st.data())
def test_head_decode_refuses_what_does_not_fit(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    head = pack_head(*data.draw(heads(shape)))
    table, x = data.draw(tables(shape)), whole_numbers(shape.B, shape.C, shape.H, shape.W)
    place = data.draw(st.integers(-1, 3))
    features: Any = data.draw(spoiled(x)) if place < 0 else x
    if place >= 0:
        entries: list[Any] = [*head]
        entries[place] = data.draw(spoiled(head[place]).filter(lambda value: isinstance(value, Tensor)))
        head = HeadWeights(*entries)
    found = outcome(lambda: pf.ops.head_decode(features, head, table), ValueError, TypeError)
    if isinstance(found, Exception):
        assert str(found).startswith("head_decode: ")
    else:
        assert found.points_frac.shape == (len(features), shape.N, 2)
    bound = outcome(lambda: pf.ops.BoundHead(head, table)(features), ValueError, TypeError)
    assert type(bound) is type(found)


@bounded
@given(st.data())
def test_loss_does_not_hang_on_the_order_or_the_parts_of_a_batch(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    assume(shape.B > 0)
    (weights, biases), table = data.draw(heads(shape)), data.draw(tables(shape))
    x = whole_numbers(shape.B, shape.C, shape.H, shape.W).requires_grad_()
    points = whole_numbers(shape.B, shape.N, 2, most=9) / 8
    for _ in range(data.draw(st.integers(0, 3))):
        points[data.draw(st.integers(0, shape.B - 1)), data.draw(st.integers(0, shape.N - 1))] = math.nan
    whole = head_loss(x, weights, biases, points, table)
    assert all(term.isfinite() and term >= 0 for term in whole)
    (gradient,) = torch.autograd.grad(whole.total, x)
    assert gradient.isfinite().all()

    order = torch.tensor(data.draw(st.permutations(range(shape.B))))
    turned = head_loss(x[order], weights, biases, points[order], table)
    counts = label_counts(points, table)
    split = data.draw(st.integers(0, shape.B))
    parts = [
        head_loss(x[part], weights, biases, points[part], table, counts=counts)
        for part in (slice(0, split), slice(split, None))
    ]
    for term, other, first, second in zip(whole, turned, *parts, strict=True):
        torch.testing.assert_close(other, term, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(first + second, term, rtol=1e-5, atol=1e-5)


@bounded
@given(st.data())
def test_loss_refuses_what_does_not_fit(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    (weights, biases), table = data.draw(heads(shape)), data.draw(tables(shape))
    arguments: dict[str, Any] = {
        "features": whole_numbers(shape.B, shape.C, shape.H, shape.W),
        "points_frac": whole_numbers(shape.B, shape.N, 2),
    }
    name = data.draw(st.sampled_from((*arguments, "alpha", "weights")))
    values: dict[str, Callable[[], Any]] = {
        "alpha": lambda: data.draw(st.sampled_from((-1.0, math.nan, math.inf, 0, 0.5))),
        "weights": lambda: weights._replace(offset_x=data.draw(spoiled(weights.offset_x))),
    }
    arguments = {"weights": weights, "biases": biases, "table": table, **arguments}
    arguments[name] = values[name]() if name in values else data.draw(spoiled(arguments[name]))
    found = outcome(lambda: head_loss(**arguments), ValueError, TypeError)
    if isinstance(found, Exception):
        assert str(found).startswith("head_loss: ")
    else:
        assert found.total.isfinite()


@given(st.one_of(st.integers(), st.floats(), st.none(), st.text(max_size=3)))
@settings(max_examples=30, deadline=None)
def test_balance_is_known_for_the_papers_strides(stride: Any) -> None:
    found = outcome(lambda: default_balance(stride), ValueError)
    assert isinstance(found, ValueError) == (stride not in (16, 32, 64, 128))


@bounded
@given(st.data())
def test_neighbors_are_the_nearest_and_votes_count_once(data: st.DataObject) -> None:
    """In any unit, and with landmarks in one place: then the lower index is the nearer one."""
    count = data.draw(st.integers(1, 12))
    points, neighbors = data.draw(mean_shapes(count)), data.draw(st.integers(0, count - 1))
    merge = data.draw(merges)
    table = pf.neighbor_table(points, neighbors, merge)
    exact = [[Fraction(value) for value in point] for point in points.tolist()]
    for landmark, row in enumerate(table.neighbors.tolist()):
        (x, y), others = exact[landmark], [n for n in range(count) if n != landmark]
        squared = {n: (exact[n][0] - x) ** 2 + (exact[n][1] - y) ** 2 for n in others}
        chosen = [squared[n] for n in row]
        assert len({*row, landmark}) == neighbors + 1
        # Rounding may order what differs in the last digits.
        for (a, near), (b, far) in pairwise(zip(row, chosen, strict=True)):
            assert near <= far * Fraction(1 + 1e-12)
            assert near != far or a < b
        left = [squared[n] for n in others if n not in row]
        assert not chosen or not left or max(chosen) <= min(left) * Fraction(1 + 1e-12)

    assert sorted(table.sources.tolist()) == list(range(count * (1 + neighbors)))
    rows = np.repeat(np.arange(count), table.starts.diff().numpy())
    np.testing.assert_allclose(np.bincount(rows, table.weights.numpy(), count), 1, atol=1e-6)
    assert (table.weights > 0).all()
    # What every vote agrees on is what comes of it.
    truth = np.random.default_rng(0).random(count)
    targets = np.concatenate((np.arange(count)[:, None], table.neighbors.numpy()), axis=1)
    votes = truth[targets].ravel()[table.sources.numpy()]
    np.testing.assert_allclose(np.bincount(rows, votes * table.weights.numpy(), count), truth, atol=1e-6)


@pytest.mark.filterwarnings("ignore:num_neighbors=")
@bounded
@given(
    mean_shape=st.one_of(
        st.text(max_size=4),
        st.none(),
        st.lists(st.floats(), max_size=5),
        st.lists(st.tuples(st.floats(), st.floats()), max_size=5),
        st.lists(st.tuples(st.text(max_size=2), st.floats()), min_size=1, max_size=2),
    ),
    num_neighbors=st.one_of(st.integers(-2, 10**20), st.floats(), st.none(), st.booleans()),
    merge=st.sampled_from(("mean", "official", "median", None, 3)),
)
def test_tables_of_anything_are_sound_or_refused(mean_shape: Any, num_neighbors: Any, merge: Any) -> None:
    table = outcome(lambda: pf.neighbor_table(mean_shape, num_neighbors, merge), ValueError)
    if isinstance(table, ValueError):
        assert str(table).split(":")[0] in ("mean_shape", "num_neighbors", "neighbor_table")
    else:
        assert np.isfinite(mean_shape).all()
        assert table.num_landmarks == len(mean_shape)
        assert table.num_neighbors == min(num_neighbors, len(mean_shape) - 1)
