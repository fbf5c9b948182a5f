"""Inputs of the training loss, and how losses and gradients are compared."""

from typing import Any

import torch
from torch import Tensor

from pipnet_fast.ops import HeadLoss, HeadMaps, head_loss
from tests.inputs import Shape, features, table

# Of the largest value, float64: the order of sums is all that differs.
EXACT = 1e-12


class Case:
    """Inputs of the loss: points reach beyond the crop, and some are missing if asked for."""

    def __init__(self, shape: Shape, missing: bool = False, dtype: torch.dtype = torch.float64) -> None:
        rows = (shape.N, shape.N, shape.N, shape.N * shape.K, shape.N * shape.K)
        self.shape, self.table = shape, table(shape)
        self.features = features(shape, dtype)
        self.weights = HeadMaps(*(torch.randn(r, shape.C).to(dtype) / shape.C**0.5 for r in rows))
        self.biases = HeadMaps(*(torch.randn(r).to(dtype) for r in rows))
        self.points = torch.rand(shape.B, shape.N, 2, dtype=torch.float64) * 1.6 - 0.3
        if missing:
            self.points[torch.rand(shape.B, shape.N) < 0.3] = torch.nan
            self.points[0, 0, 1] = torch.nan
        for tensor in self.inputs:
            tensor.requires_grad_()

    @property
    def inputs(self) -> list[Tensor]:
        return [self.features, *self.weights, *self.biases]

    def loss(self, **options: Any) -> HeadLoss:
        return head_loss(self.features, self.weights, self.biases, self.points, self.table, **options)

    def gradients(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, self.inputs, retain_graph=True, materialize_grads=True))


def assert_equal(got: list[Tensor], expected: list[Tensor], tolerance: float = EXACT) -> None:
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        atol = tolerance * max(1.0, float(b.detach().abs().max()) if b.numel() else 0.0)
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=atol)


def as_quarters(case: Case) -> Case:
    """The same case in float32 of small multiples of a quarter and points of a 64th.

    Votes are exact then, whatever the order of their sums, and so are the signs of their errors; some errors are 0.
    """
    with torch.no_grad():
        for tensor in case.inputs:
            tensor.copy_(torch.randint(-3, 4, tensor.shape) / 4)
        case.points.copy_((case.points * 64).round() / 64)
    return case
