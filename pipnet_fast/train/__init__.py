"""Supervised training of every model of the package: ``train(TrainConfig(...))``, or ``pipnet-fast train``."""

from pipnet_fast.train.config import DataConfig, ModelConfig, OptimizationConfig, SystemConfig, TrainConfig
from pipnet_fast.train.loop import TrainError, TrainResult, train

__all__ = [
    "DataConfig",
    "ModelConfig",
    "OptimizationConfig",
    "SystemConfig",
    "TrainConfig",
    "TrainError",
    "TrainResult",
    "train",
]
