"""The network as it is deployed without the fused head: five dense maps out, for whole-graph engines.

It is the official one to the last operation. So of MobileNetV3 engines get the activations in pieces, as they would
from the official code, while our own runtimes put one operation in their place; what that alone is worth shows in the
engines of ours with a dense head, which have it too.
"""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

import pipnet_fast as pf
from bench.task import Task
from pipnet_fast.engines._onnx import quiet_export
from pipnet_fast.models.pipnet import HEAD_LAYERS
from pipnet_fast.ops import HeadMaps

INPUT = "crops"


class DenseNetwork(nn.Module):
    """A PIPNet's backbone and five convolutions without its checks, which tracers would write down."""

    def __init__(self, model: pf.PIPNet) -> None:
        """Share the layers of ``model``."""
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normalized crops (B, 3, S, S) to the five maps (B, N or N * K, H, W)."""
        features = self.model.forward_features(x)
        return tuple(getattr(self.model, name)(features) for name in HEAD_LAYERS)


def dense_network(task: Task) -> DenseNetwork:
    """The task's network, in eval mode, without gradients."""
    return DenseNetwork(task.model()).eval().requires_grad_(False)


def example(task: Task, batch: int | None = None) -> Tensor:
    """An input of the task's shape, for those who trace."""
    return torch.zeros(batch or task.batch, 3, task.size, task.size, device=task.device)


def dense_onnx(task: Task, batch: int | None = None) -> Path:
    """The dense network as an ONNX file of static shape, its maps named as in ``HeadMaps``; exported once a folder."""
    batch = batch or task.batch
    path = task.file(f"dense-{batch}.onnx")
    if not path.exists():
        whole = path.with_suffix(".part")
        with quiet_export():
            torch.onnx.export(
                dense_network(task).cpu(),
                (example(task, batch).cpu(),),
                whole,
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=[INPUT],
                output_names=list(HeadMaps._fields),
            )
        os.replace(whole, path)
    return path
