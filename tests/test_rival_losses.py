"""The losses of CoordNet, MapNet and G-RMI: formulas, what is not labelled, gradients, and that perfect maps win."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pipnet_fast as pf
from pipnet_fast.models._labels import Labels, read_labels
from pipnet_fast.models.coordnet import Coordinates
from pipnet_fast.models.grmi import VotingMaps, hough_votes, upsample, voting_loss
from pipnet_fast.models.mapnet import Heatmaps, decode_heatmaps, gaussians, heatmap_loss

N = 3
SIZE = 32
NAN = float("nan")


def small(kind: str, size: int = SIZE, **options: Any) -> Any:
    if kind == "coordnet":
        model: nn.Module = pf.CoordNet("resnet18", N, size, width=0.0625)
    elif kind == "mapnet":
        model = pf.MapNet("resnet18", N, options.get("stride", 4), size, width=0.0625)
    else:
        model = pf.GRMI("resnet18", N, options.get("radius_px", 6.0), size, width=0.0625)
    return model.eval()


def labels_of(points: Tensor) -> Labels:
    return read_labels("test", points, points, points.shape[1])


def partly_labelled(batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points in and around the crop, some with one or both coordinates missing."""
    points = torch.rand(batch, N, 2, dtype=dtype) * 1.4 - 0.2
    points[0, 1, 0], points[1, 2] = NAN, NAN
    return points


KINDS = ("coordnet", "mapnet", "grmi")


@pytest.mark.parametrize("kind", KINDS)
def test_total_is_first_and_a_scalar(kind: str) -> None:
    loss = small(kind).loss(torch.randn(2, 3, SIZE, SIZE), torch.rand(2, N, 2))
    assert loss._fields[0] == "total"
    assert all(term.shape == () and term.dtype == torch.float32 for term in loss)
    loss.total.backward()


@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_landmarks_count_nowhere(kind: str) -> None:
    model, x = small(kind).double(), torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64)
    points = partly_labelled()
    expected = model.loss(x, points)
    # Whether one coordinate is missing or both.
    both = torch.where(points.isnan().any(2, keepdim=True), NAN, points)
    assert torch.equal(model.loss(x, both).total, expected.total)
    none = model.loss(x, torch.full_like(points, NAN))
    assert [term.item() for term in none] == [0.0] * len(none)
    none.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    # The mean over a batch is the mean of its samples, weighted by what is labelled.
    counts = (~points.isnan().any(2)).sum(1)
    singles = [model.loss(x[i : i + 1], points[i : i + 1]).total * counts[i] for i in range(4)]
    torch.testing.assert_close(sum(singles) / counts.sum(), expected.total)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_has_gradients(kind: str) -> None:
    """As a process has whose part of a batch was left out."""
    model = small(kind)
    model.loss(torch.zeros(0, 3, SIZE, SIZE), torch.zeros(0, N, 2)).total.backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_parts_add_up_to_the_whole(kind: str) -> None:
    model, x, points = small(kind).double(), torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64), partly_labelled()
    counts = model.label_counts(points)
    assert counts.tolist() == [10]
    whole = model.loss(x, points)
    parts = [model.loss(x[part], points[part], counts=counts) for part in ([0], [1, 2, 3])]
    for got, expected in zip(zip(*parts, strict=True), whole, strict=True):
        torch.testing.assert_close(sum(got), expected)
    for wrong in (10, torch.ones(3)):
        with pytest.raises(ValueError, match="^(CoordNet|MapNet|GRMI): counts: expected one number as label_counts"):
            model.loss(x, points, counts=wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    model = small(kind).double()
    for p in model.parameters():
        p.requires_grad_(False)
    if kind != "coordnet":
        # Of the usual size: it starts too close to zero to be told from rounding.
        nn.init.normal_(model.final_layer.weight)
    x = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    points = partly_labelled(2)
    assert torch.autograd.gradcheck(lambda x: model.loss(x, points).total, x, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_under_autocast_is_in_float32(kind: str) -> None:
    model, x, points = small(kind), torch.randn(2, 3, SIZE, SIZE), partly_labelled(2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.loss(x, points)
    assert {term.dtype for term in half} == {torch.float32}
    torch.testing.assert_close(half.total, model.loss(x, points).total, rtol=0.05, atol=1e-3)


def test_coordnet_loss_is_l1(monkeypatch: pytest.MonkeyPatch) -> None:
    model, points = small("coordnet"), partly_labelled(dtype=torch.float32)
    predicted = torch.rand(4, N, 2)
    monkeypatch.setattr(model, "forward", lambda x: Coordinates(predicted))
    present = ~points.isnan().any(2)
    expected = np.abs(predicted.numpy() - points.numpy())[present.numpy()].mean()
    assert model.loss(torch.zeros(4, 3, SIZE, SIZE), points).total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("stride", "sigma"), [(1, 4.0), (2, 2.0), (4, 1.0)])
def test_mapnet_loss_is_l2_on_gaussians(stride: int, sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, points = small("mapnet", stride=stride), partly_labelled()
    side = SIZE // stride
    maps = torch.randn(4, N, side, side, dtype=torch.float64)
    monkeypatch.setattr(model, "forward", lambda x: Heatmaps(maps))
    errors = []
    for b, n in np.ndindex(4, N):
        px, py = points[b, n].tolist()
        if not (math.isnan(px) or math.isnan(py)):
            for row, column in np.ndindex(side, side):
                square = (column + 0.5 - px * side) ** 2 + (row + 0.5 - py * side) ** 2
                errors.append((float(maps[b, n, row, column]) - math.exp(-square / (2 * sigma**2))) ** 2)
    got = model.loss(torch.zeros(4, 3, SIZE, SIZE, dtype=torch.float64), points).total
    assert float(got) == pytest.approx(np.mean(errors), rel=1e-12)


def test_grmi_loss_is_cross_entropy_on_disks_and_smooth_l1_in_them() -> None:
    stride, radius = 2, 3.5
    points = partly_labelled()
    maps = VotingMaps(*(torch.randn(4, N, 6, 8, dtype=torch.float64) * scale for scale in (1, 3, 3)))
    disk, offset = voting_loss(maps, labels_of(points), stride, radius)
    pixels = upsample(maps, stride)
    entropies, errors, labelled = [], 0.0, 0
    for b, n in np.ndindex(4, N):
        px, py = float(points[b, n, 0]) * 16, float(points[b, n, 1]) * 12
        if math.isnan(px) or math.isnan(py):
            continue
        labelled += 1
        for row, column in np.ndindex(12, 16):
            logit, dx, dy = (float(m[b, n, row, column]) for m in pixels)
            to_x, to_y = px - column - 0.5, py - row - 0.5
            inside = math.hypot(to_x, to_y) <= radius
            entropies.append(math.log1p(math.exp(-logit if inside else logit)))
            if inside:
                for error in (abs(dx - to_x), abs(dy - to_y)):
                    errors += error**2 / 2 if error < 1 else error - 0.5
    assert float(disk) == pytest.approx(np.mean(entropies), rel=1e-9)
    assert float(offset) == pytest.approx(errors / (labelled * 2 * math.pi * radius**2), rel=1e-9)


def test_grmi_weighs_its_terms_as_section_4_6() -> None:
    loss = small("grmi").loss(torch.randn(1, 3, SIZE, SIZE), torch.rand(1, N, 2))
    torch.testing.assert_close(loss.total, 4 * loss.disk + loss.offset)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_perfect_heatmaps_have_no_loss_and_decode_to_the_points(stride: int) -> None:
    height, width = 96 // stride, 128 // stride
    points = 0.1 + 0.8 * torch.rand(4, 20, 2)
    maps = gaussians(points, height, width, 4 / stride)
    assert float(heatmap_loss(maps, labels_of(points), 4 / stride)) == 0.0
    decoded = decode_heatmaps(maps, quarter_offset=stride > 1).points_frac
    cells = (decoded - points).abs() * torch.tensor([width, height])
    assert float(cells.max()) <= 0.5 + 1e-3


def test_perfect_votes_have_no_loss_and_decode_to_the_points() -> None:
    size, radius = 64, 9.0
    points = 0.25 + 0.5 * torch.rand(2, 5, 2)
    x, y = (points[..., axis, None] * size - torch.arange(size) - 0.5 for axis in (0, 1))
    inside = x.square().unsqueeze(2) + y.square().unsqueeze(3) <= radius**2
    maps = VotingMaps(
        torch.where(inside, 30.0, -30.0), x.unsqueeze(2).expand_as(inside), y.unsqueeze(3).expand_as(inside)
    )
    disk, offset = voting_loss(maps, labels_of(points), 1, radius)
    assert (float(disk), float(offset)) == pytest.approx((0.0, 0.0), abs=1e-6)
    decoded = decode_heatmaps(hough_votes(maps, radius), quarter_offset=False).points_frac
    assert float((decoded - points).abs().max()) * size <= 0.5 + 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        pytest.param(None, TypeError, "points_frac: expected a tensor, got NoneType", id="none"),
        pytest.param(torch.zeros(2, N), ValueError, r"floating-point \(2, 3, 2\), got \(2, 3\)", id="shape"),
        pytest.param(torch.zeros(1, N, 2), ValueError, r"floating-point \(2, 3, 2\), got \(1, 3, 2\)", id="batch"),
        pytest.param(torch.zeros(2, N, 2, dtype=torch.int64), ValueError, "floating-point .*torch.int64", id="dtype"),
        pytest.param(torch.zeros(2, N, 2, device="meta"), ValueError, "expected cpu as x, got meta", id="device"),
    ],
)
def test_refused_points(kind: str, points: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(kind).loss(torch.zeros(2, 3, SIZE, SIZE), points)
