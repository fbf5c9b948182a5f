"""How good predictions are: the paper's measures, for models and for files of predictions."""

from pipnet_fast.evaluate.boxes import detected_boxes, label_boxes
from pipnet_fast.evaluate.evaluation import THRESHOLD, Evaluation, hold_against
from pipnet_fast.evaluate.files import read_predictions, write_predictions, write_summary
from pipnet_fast.evaluate.predict import crop_rule, evaluate, unfused

__all__ = [
    "THRESHOLD",
    "Evaluation",
    "crop_rule",
    "detected_boxes",
    "evaluate",
    "hold_against",
    "label_boxes",
    "read_predictions",
    "unfused",
    "write_predictions",
    "write_summary",
]
