"""What learns: model, optimizer, moving average, and one step of them on a batch."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pipnet_fast.data import Batch
from pipnet_fast.pipeline.images import Normalizer
from pipnet_fast.train.config import TrainConfig
from pipnet_fast.train.distributed import World, parallel
from pipnet_fast.train.objective import Objective
from pipnet_fast.train.optimization import Average, create_optimizer, set_moment

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Learner:
    """A model in training; the same for every kind and recipe, which differ in their objective only."""

    def __init__(self, objective: Objective, config: TrainConfig, world: World) -> None:
        """Take the objective and its model over to the device of ``world``."""
        options = config.optimization
        self.options, self.world = options, world
        self.objective = objective.to(world.device).train()
        self.model = objective.model
        if options.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.model, options.ema)
        self.optimizer = create_optimizer(objective, options, pretrained=config.model.weights is not None)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "float16")
        self._loss, self._unsynchronized = parallel(objective, world)
        self._normalize = Normalizer(config.model.input_size, torch.float32, world.device)

    def step(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        """One step of the optimizer.

        Args:
            batch: this process' share of the batch.
            epoch: the moment that the learning rate is taken of.

        Returns:
            The terms of the loss by name, the total as ``"loss"``: scalars, detached, on the device; their means over
            the processes are the terms of the whole batch.
        """
        set_moment(self.optimizer, self.options, epoch)
        self.objective.begin_step(epoch / self.options.epochs)
        parts = self.options.accumulate
        points_frac, index = (t.to(self.world.device, non_blocking=True) for t in (batch.points_frac, batch.index))
        counts = self._counts(points_frac, index)
        sums: dict[str, Tensor] = {}
        for part in range(parts):
            with self._unsynchronized() if part + 1 < parts else nullcontext():
                # Of the whole batch the same faces, however many processes share it.
                share = slice(part, None, parts)
                terms = self._terms(batch.crops[share], points_frac[share], index[share], counts)
                self.scaler.scale(terms["loss"]).backward()  # type: ignore[no-untyped-call]
            sums = {name: sums.get(name, 0) + term.detach() for name, term in terms.items()}
        if self.options.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.step()
        return sums

    def _counts(self, points_frac: Tensor, index: Tensor) -> Tensor | None:
        """What the means in the loss are over, for the parts' losses to add up to the whole batch's; None for one part.

        Gradients are averaged over the processes, not added up: so it is all labels over the number of processes.
        """
        if self.options.accumulate == 1 and self.world.size == 1:
            return None
        return self.world.sum(self.objective.counts(points_frac, index)) / self.world.size

    def _terms(self, crops: Tensor, points_frac: Tensor, index: Tensor, counts: Tensor | None) -> dict[str, Tensor]:
        device, half = self.world.device, HALVES.get(self.options.precision)
        # Channels-last, as the bytes are.
        x = self._normalize(crops.to(device, non_blocking=True))
        if not self.options.channels_last:
            x = x.contiguous()
        with torch.autocast(device.type, half, enabled=half is not None):
            loss: Any = self._loss(x, points_frac, index, counts)
        total, *others = loss._fields
        return {"loss": getattr(loss, total), **{f"loss_{name}": getattr(loss, name) for name in others}}

    def state(self) -> dict[str, Any]:
        """All that changes, for a checkpoint. The learning rate is a function of the epoch, so no schedule is in it."""
        return {
            "objective": self.objective.state_dict(),
            "average": self.average.model.state_dict(),
            "average_steps": self.average.steps,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Set what ``state`` has; in place, for others hold on to these tensors."""
        self.objective.load_state_dict(state["objective"])
        self.average.model.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
