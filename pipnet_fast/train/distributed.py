"""Many processes as one: torchrun's group, averaged gradients, BatchNorm over the global batch."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipnet_fast.train.objective import Objective


@dataclass(frozen=True)
class World:
    """Which process this is, of how many, and what it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on each."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            # Not dist.barrier, which guesses a device: a sum must wait for every addend.
            self.sum(torch.zeros(1, device=self.device))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes ahead, so that what it downloads is there for the others."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()


@contextmanager
def join(device: str) -> Iterator[World]:
    """The group that torchrun tells of in the environment; without torchrun a world of one.

    NCCL on CUDA, where each process takes the device of its local rank, else Gloo. After an error the group is left as
    it is: the others may be waiting in it, and torchrun ends them.

    Raises:
        ValueError: a device that is none, or not here.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", 0)) if size > 1 else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    yield World(rank, size, chosen)
    if size > 1:
        dist.destroy_process_group()


def _device(name: str, local_rank: int | None) -> torch.device:
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(f'system.device: expected "auto" or a torch device, got {name!r}: {error}') from None
    if device.type == "cuda":
        if ":" not in str(device):
            device = torch.device("cuda", local_rank or 0)
        if device.index >= torch.cuda.device_count():
            raise ValueError(f"system.device: expected one of {torch.cuda.device_count()} CUDA devices, got {device}")
    elif device.type != "cpu":
        raise ValueError(f"system.device: expected a CPU or CUDA device, got {name!r}")
    return device


def parallel(objective: Objective, world: World) -> tuple[nn.Module, Any]:
    """The objective with gradients averaged over the processes, and what keeps a backward pass from averaging.

    BatchNorm takes its moments over the batches of all processes, and the learner the loss' means over the labels of
    all. So the result is that of one process up to rounding.
    """
    if world.size == 1:
        return objective, nullcontext
    synchronize_batchnorm(objective.model, world.device)
    devices = [world.device] if world.device.type == "cuda" else None
    wrapped = DistributedDataParallel(objective, device_ids=devices, broadcast_buffers=False)

    def unsynchronized() -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = wrapped.no_sync()
        return context

    return wrapped, unsynchronized


def synchronize_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm compute over all processes, in place; parameters and buffers stay the same tensors."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(model, name, SyncBatchNorm2d.like(child))
        else:
            synchronize_batchnorm(child, device)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, in plain torch: torch's own SyncBatchNorm has no CPU version."""

    @classmethod
    def like(cls, other: nn.BatchNorm2d) -> "SyncBatchNorm2d":
        """With the parameters and buffers of ``other``, not copies."""
        module = cls(other.num_features, other.eps, other.momentum, device="meta").train(other.training)
        module._parameters, module._buffers = other._parameters, other._buffers
        return module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), same shape out; every process must take part."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        values = x.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        total = all_reduce(torch.cat((values.sum(dim=(0, 2, 3)), count)))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centered = values - mean.view(1, -1, 1, 1)
        variance = all_reduce(centered.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def all_reduce(values: Tensor) -> Tensor:
    """The sum over all processes; its gradient is the sum of theirs."""
    result: Tensor = _AllReduce.apply(values)  # type: ignore[no-untyped-call]
    return result
