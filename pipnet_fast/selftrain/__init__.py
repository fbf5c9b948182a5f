"""Self-training with curriculum (section 3.3): ``selftrain(SelfTrainConfig(...))``, or ``pipnet-fast selftrain``."""

from pipnet_fast.selftrain.config import RoundsConfig, SelfTrainConfig, UnlabelledConfig
from pipnet_fast.selftrain.detect import BoxStatistics, box_statistics, read_boxes, write_boxes
from pipnet_fast.selftrain.labels import LabelStatistics, label_statistics, read_labels, write_labels
from pipnet_fast.selftrain.loop import SelfTrainResult, selftrain
from pipnet_fast.selftrain.objectives import DomainLoss, TaskLoss
from pipnet_fast.selftrain.tasks import Task

__all__ = [
    "BoxStatistics",
    "DomainLoss",
    "LabelStatistics",
    "RoundsConfig",
    "SelfTrainConfig",
    "SelfTrainResult",
    "Task",
    "TaskLoss",
    "UnlabelledConfig",
    "box_statistics",
    "label_statistics",
    "read_boxes",
    "read_labels",
    "selftrain",
    "write_boxes",
    "write_labels",
]
