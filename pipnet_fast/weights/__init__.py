"""The model in the box; MODEL_CARD.md beside this file says what it is and is not good for."""

from importlib import resources
from pathlib import Path

DEFAULT = "r18w50_ytf68.safetensors"


def default_model() -> Path:
    """Path of the model that ``FaceLandmarker`` uses when none is named."""
    return Path(str(resources.files(__name__).joinpath(DEFAULT)))
