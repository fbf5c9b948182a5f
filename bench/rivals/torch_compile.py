"""torch.compile of the dense network, and the official decoding in eager mode behind it."""

import torch

from bench.rivals.dense import dense_network
from bench.rivals.official import eager, one_by_one
from bench.task import Built, Task


def build(task: Task, mode: str = "default") -> Built:
    """Compile for the static shape of the task; ``mode`` as torch.compile has it."""
    network = dense_network(task).to(dtype=getattr(torch, task.dtype))
    return Built(eager(task, torch.compile(network, mode=mode, dynamic=False)), ("triton",), one_by_one(task))
