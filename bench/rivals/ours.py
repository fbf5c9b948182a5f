"""This package: ``pf.compile`` with each of its engines, and the same engines with a dense head for comparison."""

import torch
from torch import Tensor, nn

import pipnet_fast as pf
from bench.networks import Crops
from bench.task import Built, Points, Task
from pipnet_fast.engines._types import WeightStorage
from pipnet_fast.models.pipnet import HEAD_LAYERS
from pipnet_fast.ops import HeadMaps, Landmarks

# The engines of pf.compile on each device.
ENGINES = {
    "cpu": ("torch", "cpp", "inductor", "onnxruntime", "openvino"),
    "cuda": ("torch", "inductor", "cudagraph"),
}


def build(task: Task, engine: str, dense: bool = False, weight_storage: WeightStorage | None = None) -> Built:
    """A runtime of ``engine``; with ``dense`` it runs the whole dense head, and ``pf.ops.decode`` is behind it."""
    model = task.model()
    runtime = pf.compile(
        DenseModel(model) if dense else model,
        engine=engine,
        batch_size=task.batch,
        dtype=task.dtype,
        weight_storage=weight_storage,
    )

    def run(crops: Crops) -> Points:
        points: Points = runtime(crops).points_frac.cpu().numpy()
        return points * task.size

    return Built(run, (engine,))


class DenseModel(nn.Module):
    """A PIPNet whose trunk ends in the dense maps, so that an engine runs its five convolutions, as one."""

    def __init__(self, model: pf.PIPNet) -> None:
        """Share the backbone of ``model`` and stack its head."""
        super().__init__()
        self.config = model.config
        self.model = model
        layers = [model.get_submodule(name) for name in HEAD_LAYERS]
        weight = torch.cat([layer.get_parameter("weight") for layer in layers])
        self.rows = [len(layer.get_parameter("weight")) for layer in layers]
        self.head = nn.Conv2d(weight.shape[1], len(weight), kernel_size=1, device=weight.device)
        self.head.load_state_dict(
            {"weight": weight, "bias": torch.cat([layer.get_parameter("bias") for layer in layers])}
        )
        self.table = model.table
        self.eval()

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalized crops (B, 3, S, S) to all maps, one behind the other (B, N * (3 + 2 * K), H, W)."""
        maps: Tensor = self.head(self.model.forward_features(x))
        return maps

    def landmarks(self, features: Tensor) -> Landmarks:
        """Decode them where they lie: in C++ or Triton, as the fused head is."""
        return pf.ops.decode(HeadMaps(*torch.split(features, self.rows, dim=1)), self.table)
