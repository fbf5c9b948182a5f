"""What tells a model from all others."""

import hashlib
import json

import torch

from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.pipnet import PIPNet


def model_digest(model: LandmarkModel) -> str:
    """SHA-256, in hexadecimal digits, of all that the predictions of a model follow from, its crops apart."""
    mean_shape = model.mean_shape if isinstance(model, PIPNet) else None
    settings = [type(model).__name__, model.config.to_dict(), None if mean_shape is None else mean_shape.tolist()]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        # As bytes: NumPy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
