"""From gradients to weights: optimizer, learning rate as a function of the epoch, moving average."""

import copy
import math

import torch
from torch import nn

from pipnet_fast.models import LandmarkModel
from pipnet_fast.train.config import OptimizationConfig

# One-cycle as Smith and Topin (2019) and fast.ai have it: where the learning rate begins and ends, as shares of its
# highest, and the first moment's decay, which moves against it.
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25e4
ONE_CYCLE_BETAS = (0.95, 0.85)


def create_optimizer(model: nn.Module, config: OptimizationConfig, pretrained: bool) -> torch.optim.Optimizer:
    """Adam or AdamW; without a given weight decay the official code's, which pretrained weights are spared.

    AdamW, whose decay is apart from the gradient, leaves vectors alone: biases and BatchNorm.
    """
    decay = config.weight_decay
    if decay is None:
        decay = 0.0 if pretrained else 5e-4
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.learning_rate, weight_decay=decay)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learning_rate(config: OptimizationConfig, epoch: float) -> float:
    """The learning rate at a moment, ``epoch`` from 0 to ``config.epochs``; a function, with no state to lose."""
    rise, end = config.warmup_epochs, config.epochs
    if config.schedule == "onecycle":
        if epoch < rise:
            factor = _cosine(ONE_CYCLE_START, 1.0, epoch / rise)
        else:
            factor = _cosine(1.0, ONE_CYCLE_END, (epoch - rise) / (end - rise))
        return config.learning_rate * factor
    if config.schedule == "cosine":
        factor = _cosine(1.0, 0.0, max(0.0, epoch - rise) / (end - rise))
    elif config.schedule == "step":
        factor = config.decay_factor ** sum(epoch >= decay for decay in config.decay_epochs)
    else:
        factor = 1.0
    return config.learning_rate * factor * (min(1.0, epoch / rise) if rise else 1.0)


def set_moment(optimizer: torch.optim.Optimizer, config: OptimizationConfig, epoch: float) -> float:
    """Set the learning rate of a moment, and what moves with it; returns the rate."""
    rate, rise = learning_rate(config, epoch), config.warmup_epochs
    for group in optimizer.param_groups:
        group["lr"] = rate
        if config.schedule == "onecycle":
            high, low = ONE_CYCLE_BETAS
            share = epoch / rise if epoch < rise else (config.epochs - epoch) / (config.epochs - rise)
            group["betas"] = (_cosine(high, low, share), group["betas"][1])
    return rate


def _cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


class Average:
    """A copy of the model that is evaluated and saved: with the moving average of its weights, or the last ones.

    The average's decay rises from a tenth to ``decay``, so that the first steps are soon forgotten. BatchNorm's running
    moments are averaged too.
    """

    def __init__(self, model: LandmarkModel, decay: float) -> None:
        """Copy ``model``, which may then be changed in place only; 0 for the last weights."""
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0
        # Detached views: what is done to the weights later is seen here.
        self._pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))

    @torch.no_grad()
    def step(self) -> None:
        """After each step of the optimizer."""
        if self.decay:
            self.steps += 1
            self._approach(1 - min(self.decay, self.steps / (self.steps + 9)))

    @torch.no_grad()
    def end_epoch(self) -> LandmarkModel:
        """After the last step of an epoch: the model to evaluate."""
        if not self.decay:
            self._approach(1.0)
        return self.model.eval()

    def _approach(self, share: float) -> None:
        for own, latest in self._pairs:
            if own.is_floating_point():
                own.lerp_(latest, share)
            else:
                own.copy_(latest)
