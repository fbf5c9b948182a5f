"""Networks small enough to compile many times, and how engines' results are compared."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.engines._lower import lower
from pipnet_fast.engines._types import WeightStorage
from pipnet_fast.engines.fold import fold_trunk
from pipnet_fast.engines.plan_file import PlanNetwork
from pipnet_fast.ops import BoundHead
from tests.inputs import randomized
from tests.tolerances import ENGINE, assert_landmarks_close

MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {"backbone": "resnet18", "width": 0.125},
    "resnet18-stride16": {"backbone": "resnet18", "width": 0.125, "stride": 16},
    "resnet50": {"backbone": "resnet50", "width": 0.25},
    "mobilenet_v2-stride64": {"backbone": "mobilenet_v2", "stride": 64, "input_size": 128},
    "mobilenet_v3": {"backbone": "mobilenet_v3"},
}
N = 17


def tiny(name: str = "resnet18", **options: Any) -> pf.PIPNet:
    torch.manual_seed(1)
    mean_shape = np.random.RandomState(0).rand(N, 2)
    defaults = {"num_landmarks": N, "num_neighbors": 3, "input_size": 64, "mean_shape": mean_shape}
    return randomized(**{**defaults, **MODELS[name], **options})


def network_of(model: pf.PIPNet, storage: WeightStorage = "float32") -> PlanNetwork:
    layers = lower(fold_trunk(model), model.config.input_size)
    return PlanNetwork(model.config.input_size, layers, BoundHead(model.head, model.table), weight_storage=storage)


def crops_for(model: pf.PIPNet, batch: int) -> Tensor:
    size = model.config.input_size
    return torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)


def require(engine: str) -> None:
    if not pf.engines()[engine]:
        pytest.skip(f"{engine}: {pf.engines().reasons[engine]}")


def assert_same(got: pf.Landmarks, expected: pf.Landmarks, tolerance: float = ENGINE["resnet"]) -> None:
    assert_landmarks_close(got.points_frac, expected.points_frac, "points", tolerance)
    assert_landmarks_close(got.scores, expected.scores, "scores", tolerance)
