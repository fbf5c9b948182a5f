"""What ``compile`` returns: crops in, landmarks out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipnet_fast.engines._types import Prepared, Spec
from pipnet_fast.engines.batching import split
from pipnet_fast.ops import Landmarks


class Runtime:
    """A compiled model; made by ``pipnet_fast.compile``, called as often as wanted, from any number of threads.

    It is a snapshot: what later happens to the model does not change it.

    Attributes:
        engine: the name of the engine that runs.
        batch_size: what it was prepared for.
        dtype: what it computes in.
        device: where it computes, and where its results lie.
        milliseconds: with ``engine="auto"``, what each engine took for one batch when they were measured.
    """

    def __init__(self, engine: str, prepared: Prepared, spec: Spec, milliseconds: Mapping[str, float]) -> None:
        """See ``pipnet_fast.compile``."""
        self.engine = engine
        self.batch_size, self.dtype, self.device = spec.batch_size, spec.dtype, spec.device
        self.milliseconds = dict(milliseconds)
        self._prepared, self._spec = prepared, spec

    # Dropping the caller's modes: a graph compiled under one mode is compiled anew under another.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, x: Tensor | np.ndarray[Any, Any]) -> Landmarks:
        """Landmarks of a batch of crops.

        Args:
            x: a tensor on any device or an array, S the model's input size: uint8 RGB crops (B, S, S, 3), or
                crops normalized with the ImageNet mean and deviation (B, 3, S, S) in any floating-point type.
                B >= 0; more than ``batch_size`` are taken in turns where the engine has static shapes.

        Returns:
            Landmarks: points (B, N, 2) in fractions of the crop and scores (B, N), new float32 tensors.

        Raises:
            TypeError, ValueError: another type or shape.
        """
        x = self._checked(x)
        if torch.is_autocast_enabled(self.device.type):
            with torch.autocast(self.device.type, enabled=False):
                return self._run(x)
        return self._run(x)

    def __repr__(self) -> str:
        """``Runtime(engine='openvino', batch_size=1, dtype=torch.float32, device='cpu')``."""
        return (
            f"Runtime(engine={self.engine!r}, batch_size={self.batch_size}, dtype={self.dtype}, "
            f"device={str(self.device)!r})"
        )

    def _run(self, x: Tensor) -> Landmarks:
        count = len(x)
        if count == 0:
            landmarks = self._spec.num_landmarks
            like: Any = {"dtype": torch.float32, "device": self.device}
            return Landmarks(torch.zeros(0, landmarks, 2, **like), torch.zeros(0, landmarks, **like))
        if self._prepared.sizes is None or count in self._prepared.sizes:
            return self._prepared.run(x)
        runs = split(count, self._prepared.sizes, self._prepared.pads)
        parts = [self._prepared.run(part) for part in torch.split(x, runs)]
        return parts[0] if len(parts) == 1 else Landmarks(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def _checked(self, x: Tensor | np.ndarray[Any, Any]) -> Tensor:
        size = self._spec.input_size
        expected = f"uint8 crops (B, {size}, {size}, 3) or floating-point (B, 3, {size}, {size})"
        if isinstance(x, np.ndarray):
            if x.dtype != np.uint8 and x.dtype not in (np.float16, np.float32, np.float64):
                raise TypeError(f"runtime: x: expected {expected}, got an array of {x.dtype}")
            # torch takes neither negative strides nor, without a warning, memory that must not be written.
            x = torch.from_numpy(x if x.flags.writeable and min(x.strides, default=0) >= 0 else x.copy())
        elif not isinstance(x, Tensor):
            raise TypeError(f"runtime: x: expected a tensor or an array, {expected}, got {type(x).__name__}")
        elif x.dtype != torch.uint8 and not x.is_floating_point():
            raise TypeError(f"runtime: x: expected {expected}, got {x.dtype}")
        shape = (size, size, 3) if x.dtype == torch.uint8 else (3, size, size)
        if x.ndim != 4 or x.shape[1:] != shape:
            raise ValueError(f"runtime: x: expected {expected}, got {tuple(x.shape)} {x.dtype}")
        return x.detach() if x.dtype == torch.uint8 else x.detach().to(self.dtype)
