"""What a step of training makes smaller, as a module: DistributedDataParallel has its hooks in a forward pass."""

from typing import Any

from torch import Tensor, nn

from pipnet_fast.models import LandmarkModel
from pipnet_fast.train.config import OptimizationConfig


class Objective(nn.Module):
    """The loss of a model on a batch; has parameters of its own where more than the model is learned.

    Here that of labelled faces. Others read more out of ``index``, the numbers of the faces in the data set.
    """

    def __init__(self, model: LandmarkModel, options: OptimizationConfig) -> None:
        """Of ``options``, the weights of the loss' terms count."""
        super().__init__()
        self.model = model
        names = ("alpha", "beta")
        self._balance: dict[str, Any] = {n: getattr(options, n) for n in names if getattr(options, n) is not None}

    def begin_step(self, progress: float) -> None:
        """Before each step, with the share of the run that lies behind it, 0..1."""

    def counts(self, points_frac: Tensor, index: Tensor) -> Tensor:
        """What the means in the loss are over, float32: parts of a batch are weighed by those of the whole one.

        Args:
            points_frac: (B, N, 2) labels in fractions of the crop, NaN where not labelled.
            index: (B,) int64, which faces of the data set they are.
        """
        return self.model.label_counts(points_frac)

    def forward(self, x: Tensor, points_frac: Tensor, index: Tensor, counts: Tensor | None) -> tuple[Tensor, ...]:
        """The terms of the loss, a named tuple of scalars, of which the first, ``total``, is differentiated.

        Args:
            x: (B, 3, S, S) normalized crops.
            points_frac: as for ``counts``.
            index: as for ``counts``.
            counts: ``counts`` of a larger batch that this one is a part of; by default its own.
        """
        return self.model.loss(x, points_frac, counts=counts, **self._balance)
