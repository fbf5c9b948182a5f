"""How good a model is while it is trained."""

from pipnet_fast.data import FaceData
from pipnet_fast.evaluate import evaluate
from pipnet_fast.models import LandmarkModel


def nme(model: LandmarkModel, data: FaceData, *, workers: int, skip_bad: bool) -> float:
    """Normalized mean error on labelled faces, in percent of the data set's norm.

    Raises:
        DataError: an image that cannot be read, unless ``skip_bad``.
    """
    return evaluate(model, data, workers=workers, skip_bad=skip_bad).nme
