"""The loss's C++ passes against the torch ones, and when they are taken."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import pipnet_fast as pf
from pipnet_fast.ops import HeadMaps, _head_loss_cpp, head_loss
from tests.conftest import poisoned
from tests.head_loss_cases import Case, as_quarters
from tests.inputs import LAYOUTS, Shape, in_layout

needs_cpp = pytest.mark.skipif(not pf.ops.backends()["cpp"], reason="the C++ extension is not built")
pytestmark = needs_cpp

# Sums of some thousand numbers in float32, relative to the largest of a tensor.
CLOSE = 1e-5
SHAPES = [
    Shape(0, 5, 2, 4, 4, 8),
    Shape(1, 1, 0, 1, 1, 1),
    Shape(1, 19, 1, 2, 2, 512),
    Shape(2, 5, 1, 1, 9, 5),
    Shape(3, 19, 10, 5, 3, 33),
    Shape(4, 98, 0, 2, 2, 70),
    Shape(5, 98, 10, 2, 2, 67),
    Shape(7, 1, 0, 16, 16, 24),
    Shape(2, 98, 1, 13, 7, 31),
    Shape(9, 19, 10, 16, 16, 48),
    # Enough for two threads and more.
    Shape(16, 98, 10, 2, 1, 515),
]


def isas() -> list[str]:
    if not pf.ops.backends()["cpp"]:
        return []
    from pipnet_fast import _C

    return _C.isas()


@pytest.fixture(params=isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each instruction set in turn, on memory filled with NaN."""
    from pipnet_fast import _C

    for owner, name in ((Tensor, "new_empty"), (torch, "empty_like")):
        monkeypatch.setattr(owner, name, nan_filled(getattr(owner, name)))
    before = _C.isa()
    _C.use_isa(request.param)
    yield request.param
    _C.use_isa(before)


def nan_filled(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **options: poisoned(allocate(*args, **options))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the C++ passes, as they run."""
    from pipnet_fast import _C

    calls: list[str] = []

    def counted(name: str) -> Callable[..., None]:
        run = getattr(_C, f"head_loss_{name}")

        def call(*args: Any) -> None:
            calls.append(name)
            run(*args)

        return call

    for name in ("forward", "backward"):
        monkeypatch.setattr(_C, f"head_loss_{name}", counted(name))
    return calls


def in_torch(monkeypatch: pytest.MonkeyPatch, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
    """What the torch passes give."""
    with monkeypatch.context() as patch:
        patch.setattr(_head_loss_cpp, "takes", lambda *tensors: False)
        return compute()


def assert_close(got: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        atol = CLOSE * float(b.detach().abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def case_of(shape: Shape, missing: bool = False) -> Case:
    return as_quarters(Case(shape, missing, torch.float32))


def everything(case: Case, **options: Any) -> list[Tensor]:
    """The loss, its terms, and the gradients of each of the four."""
    loss = case.loss(**options)
    return [term.detach() for term in loss] + [grad for term in loss for grad in case.gradients(term)]


@pytest.mark.parametrize("missing", [False, True], ids=["all-labelled", "some-missing"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_torch(shape: Shape, missing: bool, isa: str, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(shape, missing and shape.B > 0)
    options = {"alpha": 0.3, "beta": 0.7, "sample_weights": torch.rand(shape.B, 3) if missing else None}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    got = everything(case, **options)
    assert taken == ["forward"] + ["backward"] * 4
    assert_close(got, in_torch(monkeypatch, lambda: everything(case, **options)))
    assert len(taken) == 5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_all_inputs(layout: str, isa: str, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(Shape(3, 19, 4, 6, 7, 35))
    case.features = in_layout(case.features.detach(), layout).requires_grad_()
    case.weights = HeadMaps(*(strided(w) for w in case.weights))
    case.biases = HeadMaps(*(strided(b) for b in case.biases))
    case.points = strided(case.points)
    got = everything(case)
    assert len(taken) == 5
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert got[4].is_contiguous(memory_format=memory)
    assert_close(got, in_torch(monkeypatch, lambda: everything(case)))


def strided(tensor: Tensor) -> Tensor:
    """The same values with NaN between them."""
    wide = torch.full((*tensor.shape, 2), torch.nan, dtype=tensor.dtype)
    wide[..., 1] = tensor.detach()
    return wide[..., 1].requires_grad_(tensor.requires_grad)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, 1e30, -1e30], ids=str)
def test_labels_far_away(value: float, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(Shape(2, 5, 2, 4, 4, 6))
    case.points[0, 3, 0] = value
    assert_close(everything(case), in_torch(monkeypatch, lambda: everything(case)))


def test_a_network_that_diverged(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(Shape(2, 5, 2, 2, 2, 6))
    with torch.no_grad():
        case.biases.offset_x[1] = torch.nan
        case.biases.neighbor_y[3] = torch.inf
    for a, b in zip(everything(case), in_torch(monkeypatch, lambda: everything(case)), strict=True):
        assert torch.equal(a.isfinite(), b.isfinite())


FREEZING = {
    "features": ["features"],
    "head": ["weights", "biases"],
    "weights": ["weights"],
    "all-but-the-score's-weights": ["features", "biases", "votes"],
}


@pytest.mark.parametrize("frozen", FREEZING.values(), ids=FREEZING)
def test_gradients_only_where_needed(frozen: list[str], isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(Shape(3, 19, 4, 4, 4, 21))
    parts = {"features": [case.features], "weights": case.weights, "biases": case.biases, "votes": case.weights[1:]}
    for tensor in (t for part in frozen for t in parts[part]):
        tensor.requires_grad_(False)
    inputs = [t for t in case.inputs if t.requires_grad]

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(case.loss().total, inputs))

    assert_close(gradients(), in_torch(monkeypatch, gradients))


def test_frozen_parts_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipnet_fast import _C

    written: list[tuple[bool, bool]] = []
    run = _C.head_loss_backward

    def backward(*args: Any) -> None:
        *_, weights, biases, features, _ = args
        assert any(weights) == any(biases)
        written.append((any(weights), bool(features)))
        run(*args)

    monkeypatch.setattr(_C, "head_loss_backward", backward)
    for inputs in (slice(0, 1), slice(1, None)):
        case = case_of(Shape(2, 5, 2, 4, 4, 6))
        for tensor in case.inputs:
            tensor.requires_grad_(False)
        for tensor in case.inputs[inputs]:
            tensor.requires_grad_()
        case.loss().total.backward()
    assert written == [(False, True), (True, False)]


def test_same_bits_from_any_number_of_threads(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(SHAPES[-1])
    results = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(everything(case))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_many_callers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    cases = [case_of(SHAPES[-1]), case_of(SHAPES[4])]
    expected = [everything(case) for case in cases]
    with ThreadPoolExecutor(6) as pool:
        for i, got in enumerate(pool.map(everything, cases * 6)):
            assert all(torch.equal(a, b) for a, b in zip(got, expected[i % 2], strict=True))


def test_backward_twice() -> None:
    case = case_of(Shape(2, 5, 2, 4, 4, 6))
    loss = case.loss().total
    first, second = case.gradients(loss), case.gradients(loss)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_loss_may_be_scaled_in_place() -> None:
    case = case_of(Shape(2, 5, 2, 4, 4, 6))
    expected = [grad / 4 for grad in case.gradients(case.loss().total)]
    loss = case.loss().total
    loss /= 4
    assert_close(case.gradients(loss), expected)


@pytest.mark.parametrize("neighbor", [-1, 5])
def test_neighbors_that_do_not_exist(neighbor: int) -> None:
    case = case_of(Shape(2, 5, 2, 4, 4, 6))
    neighbors = case.table.neighbors.clone()
    neighbors[3, 1] = neighbor
    case.table = replace(case.table, neighbors=neighbors)
    with pytest.raises(ValueError, match="table: expected indices from 0 to 4"):
        case.loss()


def test_neighbors_of_another_integer_type() -> None:
    case = case_of(Shape(2, 5, 2, 4, 4, 6))
    expected = everything(case)
    case.table = replace(case.table, neighbors=case.table.neighbors.int())
    assert all(torch.equal(a, b) for a, b in zip(everything(case), expected, strict=True))


def under_autocast(case: Case) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        case.loss().total.backward()


def without_gradients(case: Case) -> None:
    with torch.inference_mode():
        case.loss()


def through_hooks(case: Case) -> None:
    with torch.autograd.graph.save_on_cpu():
        case.loss().total.backward()


@pytest.mark.parametrize(
    ("use", "passes"),
    [
        (lambda case: case.loss().total.backward(), ["forward", "backward"]),
        (without_gradients, ["forward"]),
        (under_autocast, ["forward", "backward"]),
        (through_hooks, ["forward", "backward"]),
    ],
    ids=["train", "inference-mode", "autocast", "save-on-cpu"],
)
def test_taken(use: Callable[[Case], None], passes: list[str], taken: list[str]) -> None:
    use(Case(Shape(2, 5, 2, 4, 4, 6), dtype=torch.float32))
    assert taken == passes


class Watched(Tensor):
    pass


def half_features(case: Case) -> None:
    case.features = case.features.detach().bfloat16().requires_grad_()
    case.loss().total.backward()


def double_weights(case: Case) -> None:
    case.weights = HeadMaps(*(w.detach().double().requires_grad_() for w in case.weights))
    case.loss().total.backward()


def subclass(case: Case) -> None:
    case.features = case.features.detach().as_subclass(Watched)
    case.loss().total.backward()


def fake(case: Case) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        case.loss().total.backward()


def counted_flops(case: Case) -> None:
    with FlopCounterMode(display=False) as counter:
        case.loss().total.backward()
    of_scores = 6 * case.shape.B * case.shape.N * case.shape.H * case.shape.W * case.shape.C
    assert counter.get_total_flops() > of_scores


def traced(case: Case) -> None:
    def loss(features: Tensor) -> Tensor:
        return head_loss(features, case.weights, case.biases, case.points, case.table).total

    graph = make_fx(loss)(case.features)
    twice = 2 * case.features.detach()
    torch.testing.assert_close(graph(twice), loss(twice))


def compiled(case: Case) -> None:
    torch.compile(Case.loss, backend="aot_eager", fullgraph=True)(case).total.backward()


def exported(case: Case) -> None:
    class Loss(torch.nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return head_loss(features, case.weights, case.biases, case.points, case.table).total

    for tensor in case.inputs:
        tensor.requires_grad_(False)
    torch.export.export(Loss(), (case.features,), strict=False)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    "use", [half_features, double_weights, subclass, fake, counted_flops, traced, compiled, exported]
)
def test_not_taken(use: Callable[[Case], None], taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(Shape(2, 5, 2, 4, 4, 6), dtype=torch.float32)
    if use is traced:
        # Its run beside the traced one is no matter of the trace.
        use(case)
        assert taken == ["forward"]
        return
    use(case)
    assert taken == []


def test_not_taken_without_the_extension(taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["pipnet_fast.ops._backends"], "_cpp_missing", lambda: "not built")
    Case(Shape(2, 5, 2, 4, 4, 6), dtype=torch.float32).loss().total.backward()
    assert taken == []
