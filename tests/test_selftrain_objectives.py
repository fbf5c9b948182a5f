"""Losses of self-training against sums over dense maps, written as the official code masks them; DANN's gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import pipnet_fast as pf
from pipnet_fast.selftrain import DomainLoss, Task, TaskLoss
from pipnet_fast.selftrain.tasks import SEQUENCES, TASKS
from pipnet_fast.train import OptimizationConfig

N, K, SIDE, LABELLED = 5, 2, 128, 10
OPTIONS = OptimizationConfig(alpha=0.3, beta=0.7)


@pytest.fixture
def model() -> pf.PIPNet:
    torch.manual_seed(0)
    return pf.PIPNet("resnet18", N, K, input_size=SIDE, mean_shape=torch.rand(N, 2).numpy(), width=0.0625).eval()


def batch(missing: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Crops, points and numbers of faces, of which those from ``LABELLED`` on have pseudo-labels."""
    random = torch.Generator().manual_seed(1)
    x, points = torch.randn(6, 3, SIDE, SIDE, generator=random), torch.rand(6, N, 2, generator=random) * 1.2 - 0.1
    points[torch.rand(6, N, generator=random) < missing] = torch.nan
    return x, points, torch.tensor([3, 40, 0, 11, 9, 10])


def target_maps(model: pf.PIPNet, points: Tensor, side: int) -> pf.ops.HeadMaps:
    """Dense target maps and, where they are not read, NaN: sums over the maps of which the loss is made."""
    maps = [torch.full((len(points), c, side, side), torch.nan) for c in (N, N, N, N * K, N * K)]
    neighbors = model.table.neighbors
    for b in range(len(points)):
        for n in range(N):
            if points[b, n].isnan().any():
                continue
            x, y = (points[b, n] * side).tolist()
            column, row = min(max(int(x // 1), 0), side - 1), min(max(int(y // 1), 0), side - 1)
            maps[0][b, n] = 0.0
            maps[0][b, n, row, column] = 1.0
            maps[1][b, n, row, column], maps[2][b, n, row, column] = x - column, y - row
            for k in range(K):
                near = points[b, neighbors[n, k]] * side
                maps[3][b, n * K + k, row, column] = near[0] - column
                maps[4][b, n * K + k, row, column] = near[1] - row
    return pf.ops.HeadMaps(*maps)


@torch.no_grad()
def dense(model: pf.PIPNet, task: Task, x: Tensor, points: Tensor, index: Tensor, mean: str) -> list[float]:
    """Score, offset and neighbor term, by masks over dense maps of every level."""
    features = model.forward_features(x)
    by_hand = index < LABELLED
    squares, scores = 0.0, 0.0
    votes: dict[str, list[Tensor]] = {"offset": [], "neighbor": []}
    for level in range(3):
        grid = F.max_pool2d(features, 2**level)
        side = grid.shape[2]
        labels = target_maps(model, points, side)
        shown = (by_hand & (level == 0)) | (~by_hand & (level in task.levels))
        error = (model.get_submodule("cls_layer")(grid) - labels.score)[shown]
        counted = ~error.isnan()
        share = 1.0 if mean == "cells" else 1 / side**2
        squares += float(error[counted].square().sum()) * share
        scores += int(counted.sum()) * share
        if level == 0:
            full = by_hand | (~by_hand & task.offsets)
            layers = {"x_layer": "offset", "y_layer": "offset", "nb_x_layer": "neighbor", "nb_y_layer": "neighbor"}
            for (name, term), wanted in zip(layers.items(), labels[1:], strict=True):
                difference = (model.get_submodule(name)(grid) - wanted)[full]
                votes[term].append(difference[~difference.isnan()].abs())
    return [squares / scores, *(float(torch.cat(parts).mean()) for parts in votes.values())]


def test_tasks_are_figure_8s() -> None:
    """Strides 128, 64 and 32: maps pooled twice, once, and the network's own with all that is trained by hand."""
    found = {task.name: (task.levels, task.offsets, task.labels) for task in TASKS.values()}
    assert found == {
        "task1": ((2,), False, True),
        "task2": ((1,), False, True),
        "task3": ((0,), True, True),
        "dann": ((), False, False),
    }


@pytest.mark.parametrize("mean", ["cells", "faces"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("task", ["task1", "task2", "task3"])
def test_tasks_are_masks_over_dense_maps(model: pf.PIPNet, task: str, missing: float, mean: Any) -> None:
    x, points, index = batch(missing)
    objective = TaskLoss(model, OPTIONS, LABELLED, TASKS[task], mean)
    loss = objective(x, points, index, None)
    expected = dense(model, TASKS[task], x, points, index, mean)
    assert [term.item() for term in loss[1:]] == pytest.approx(expected, rel=1e-4)
    assert loss.total.item() == pytest.approx(expected[0] + 0.3 * expected[1] + 0.7 * expected[2], rel=1e-4)


def test_task_3_alone_is_the_supervised_loss(model: pf.PIPNet) -> None:
    x, points, index = batch(0.3)
    loss = TaskLoss(model, OPTIONS, LABELLED, TASKS["task3"])(x, points, index, None)
    torch.testing.assert_close(loss, model.loss(x, points, alpha=0.3, beta=0.7))


@pytest.mark.parametrize("task", ["task1", "task3"])
def test_pseudo_labels_reach_what_their_task_trains(model: pf.PIPNet, task: str) -> None:
    """Only pseudo-labelled faces: then the gradient of the offsets' layers is the task's alone."""
    x, points, _ = batch()
    TaskLoss(model, OPTIONS, LABELLED, TASKS[task])(x, points, torch.arange(6) + LABELLED, None).total.backward()
    norms = {
        name: float(model.get_parameter(f"{name}.weight").grad.norm())
        for name in ("cls_layer", "x_layer", "nb_y_layer")
    }
    assert norms["cls_layer"] > 0
    assert (norms["x_layer"] > 0, norms["nb_y_layer"] > 0) == (TASKS[task].offsets,) * 2


@pytest.mark.parametrize("objective", ["task1", "task2", "dann"])
def test_parts_add_up_to_the_batch(model: pf.PIPNet, objective: str) -> None:
    x, points, index = batch(0.3)
    whole: Any = DomainLoss(model, OPTIONS, LABELLED) if objective == "dann" else None
    whole = whole or TaskLoss(model, OPTIONS, LABELLED, TASKS[objective])
    whole.begin_step(0.5)
    expected = whole(x, points, index, None)
    counts = whole.counts(points, index)
    parts = [whole(x[i::3], points[i::3], index[i::3], counts) for i in range(3)]
    for total, *terms in zip(expected, *parts, strict=True):
        torch.testing.assert_close(torch.stack(terms).sum(), total, rtol=1e-4, atol=1e-6)


def test_batch_without_labelled_or_without_pseudo_labelled_faces(model: pf.PIPNet) -> None:
    x, points, _ = batch()
    objective = TaskLoss(model, OPTIONS, LABELLED, TASKS["task1"])
    alone = objective(x, points, torch.arange(6), None)
    torch.testing.assert_close(alone, model.loss(x, points, alpha=0.3, beta=0.7))
    pseudo = objective(x, points, torch.arange(6) + LABELLED, None)
    assert (pseudo.offset.item(), pseudo.neighbor.item()) == (0.0, 0.0)
    assert pseudo.score.item() > 0


def test_grids_that_cannot_be_pooled() -> None:
    model = pf.PIPNet("resnet18", N, K, input_size=192, mean_shape=torch.rand(N, 2).numpy(), width=0.0625)
    message = r"task1: expected a grid whose side is a multiple of 4, .*got 6 cells of input_size = 192 at stride = 32"
    with pytest.raises(ValueError, match=message):
        TaskLoss(model, OPTIONS, LABELLED, TASKS["task1"])
    TaskLoss(model, OPTIONS, LABELLED, TASKS["task2"])


def test_sequences_are_the_papers() -> None:
    assert SEQUENCES["stc"] == ("task1", "task2", "task3", "task3", "task3")
    assert SEQUENCES["selftraining"] == ("task3",) * 3


def test_domain_gradient_comes_back_reversed(model: pf.PIPNet) -> None:
    """The classifier learns to tell the domains apart, and the backbone to make it fail."""
    x, points, index = batch()
    points = points.masked_fill((index >= LABELLED).view(-1, 1, 1), torch.nan)
    objective = DomainLoss(model, OPTIONS, LABELLED, weight=0.5)

    def gradients(progress: float) -> tuple[Tensor, Tensor]:
        objective.zero_grad()
        objective.begin_step(progress)
        objective(x, points, index, None).domain.backward()
        of_backbone, of_classifier = model.get_parameter("conv1.weight").grad, objective.classifier[0].weight.grad
        assert of_backbone is not None
        return of_backbone.clone(), of_classifier.clone()

    features = model.forward_features(x).mean(dim=(2, 3))
    wanted = (index >= LABELLED).float()
    objective.zero_grad()
    F.binary_cross_entropy_with_logits(objective.classifier(features).squeeze(1), wanted).backward()
    plain = model.get_parameter("conv1.weight").grad
    assert plain is not None
    plain, of_classifier = plain.clone(), objective.classifier[0].weight.grad.clone()
    for progress, factor in ((0.0, 0.0), (0.1, 0.46212), (1.0, 0.99991)):
        reversed_, own = gradients(progress)
        torch.testing.assert_close(reversed_, -factor * plain, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(own, of_classifier)


def test_domain_loss_is_the_labelled_faces_and_the_domains(model: pf.PIPNet) -> None:
    x, points, index = batch()
    points = points.masked_fill((index >= LABELLED).view(-1, 1, 1), torch.nan)
    terms = DomainLoss(model, OPTIONS, LABELLED, weight=0.5)(x, points, index, None)
    labelled = model.loss(x, points, alpha=0.3, beta=0.7)
    torch.testing.assert_close(terms.score, labelled.score)
    torch.testing.assert_close(terms.total, labelled.total + 0.5 * terms.domain)
