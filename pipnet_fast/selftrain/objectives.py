"""Losses on labelled and unlabelled faces together: self-training by tasks (section 3.3), and DANN."""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipnet_fast.models import PIPNet
from pipnet_fast.ops import HeadLoss
from pipnet_fast.selftrain.tasks import Task
from pipnet_fast.train.config import OptimizationConfig
from pipnet_fast.train.objective import Objective

ScoreMean = Literal["cells", "faces"]


class TaskLoss(Objective):
    """Equation 5 for labelled faces, and what the round's task takes of it for pseudo-labelled ones.

    The score term is one mean over the maps of all levels:

        score            = sum over levels, their faces, landmarks and cells of (score - label)^2 / number of addends
        offset, neighbor = as in ``ops.head_loss``, over the faces that train them

    So a face in a coarse map, which has a quarter or a sixteenth of the cells, counts that much less: the official
    code's weighting. With ``score_mean="faces"`` each map is averaged over its cells first, and all faces count alike.
    """

    model: PIPNet
    _addends: Tensor

    def __init__(
        self,
        model: PIPNet,
        options: OptimizationConfig,
        labelled: int,
        task: Task,
        score_mean: ScoreMean = "cells",
    ) -> None:
        """The first ``labelled`` faces of the data set are labelled by hand, the others by a model.

        Raises:
            ValueError: a grid that cannot be pooled as often as the task asks for.
        """
        super().__init__(model, options)
        self._labelled, self._task = labelled, task
        task.check_grid(model.config.input_size, model.config.stride)
        side = model.config.input_size // model.config.stride
        self._levels = sorted({0, *task.levels})
        # For how much a label of each level stands in the three means; on the device, not copied there in every step.
        cells = [(side >> level) ** 2 if score_mean == "cells" else 1 for level in self._levels]
        self.register_buffer("_addends", torch.tensor([[c, 1.0, 1.0] for c in cells]), persistent=False)

    def counts(self, points_frac: Tensor, index: Tensor) -> Tensor:
        """(3,): addends of the score term, landmarks, and pairs of neighbors."""
        labels = [self.model.label_counts(points_frac, weights) for weights in self._weights(index)]
        return (torch.stack(labels) * self._addends).sum(dim=0)

    def forward(self, x: Tensor, points_frac: Tensor, index: Tensor, counts: Tensor | None) -> HeadLoss:
        """See ``Objective``."""
        features = self.model.forward_features(x)
        counts = self.counts(points_frac, index) if counts is None else counts
        parts = []
        for level, weights, addends in zip(self._levels, self._weights(index), self._addends, strict=True):
            maps = F.max_pool2d(features, 2**level) if level else features
            shared = counts / addends
            part = self.model.loss_of_features(
                maps, points_frac, sample_weights=weights, counts=shared, **self._balance
            )
            parts.append(part)
        return HeadLoss(*(torch.stack(terms).sum() for terms in zip(*parts, strict=True)))

    def _weights(self, index: Tensor) -> list[Tensor]:
        """(B, 3) for each level: whether a face counts there in the terms score, offset and neighbor."""
        by_hand = (index < self._labelled).float()
        pseudo, nobody = 1 - by_hand, torch.zeros_like(by_hand)
        found = []
        for level in self._levels:
            score = pseudo if level in self._task.levels else nobody
            votes = pseudo if level == 0 and self._task.offsets else nobody
            found.append(torch.stack((score, votes, votes), dim=1))
        found[0] = found[0] + by_hand.unsqueeze(1)
        return found


class DomainTerms(NamedTuple):
    """The terms of ``DomainLoss``, scalars."""

    total: Tensor
    """The total of ``HeadLoss`` and the weighted term of the domain."""
    score: Tensor
    """As in ``HeadLoss``."""
    offset: Tensor
    """As in ``HeadLoss``."""
    neighbor: Tensor
    """As in ``HeadLoss``."""
    domain: Tensor
    """Mean binary cross-entropy of the set that a face is from; ln 2 = 0.69 where features do not tell."""


class DomainLoss(Objective):
    """Domain-adversarial training (DANN): the loss of labelled faces, by features that do not tell the sets apart.

    A classifier of the features' means over the grid learns which set a face is from; its gradient reaches the
    backbone reversed, times a factor that rises with the run's progress p from 0 to 1: 2 / (1 + exp(-10 p)) - 1.
    """

    model: PIPNet
    # Units of the classifier's hidden layer.
    HIDDEN = 256

    def __init__(self, model: PIPNet, options: OptimizationConfig, labelled: int, weight: float = 0.1) -> None:
        """The first ``labelled`` faces of the data set are of one domain, the others, without labels, of another."""
        super().__init__(model, options)
        self._labelled, self._weight = labelled, weight
        channels = model.get_parameter("cls_layer.weight").shape[1]
        self.classifier = nn.Sequential(nn.Linear(channels, self.HIDDEN), nn.ReLU(), nn.Linear(self.HIDDEN, 1))
        self._reversal = 0.0

    def begin_step(self, progress: float) -> None:
        """Set how much of the gradient comes back reversed."""
        self._reversal = 2 / (1 + math.exp(-10 * progress)) - 1

    def counts(self, points_frac: Tensor, index: Tensor) -> Tensor:
        """(4,): those of the labels, and the faces."""
        return torch.cat((super().counts(points_frac, index), points_frac.new_full((1,), len(index))))

    def forward(self, x: Tensor, points_frac: Tensor, index: Tensor, counts: Tensor | None) -> DomainTerms:
        """See ``Objective``."""
        features = self.model.forward_features(x)
        counts = self.counts(points_frac, index) if counts is None else counts
        loss = self.model.loss_of_features(features, points_frac, counts=counts[:3], **self._balance)
        means: Any = _Reversed.apply(features.mean(dim=(2, 3)), self._reversal)  # type: ignore[no-untyped-call]
        logits = self.classifier(means).squeeze(1).float()
        elsewhere = (index >= self._labelled).float()
        domain = F.binary_cross_entropy_with_logits(logits, elsewhere, reduction="sum") / counts[3]
        return DomainTerms(loss.total + self._weight * domain, loss.score, loss.offset, loss.neighbor, domain)


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient comes back times ``-factor``."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return -ctx.factor * grad, None
