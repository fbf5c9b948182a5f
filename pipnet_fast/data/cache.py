"""Decoded parts of images, kept in memory that all worker processes share."""

import contextlib
import os
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import torch

from pipnet_fast.crop import Affine, Image

# Where shared memory lies on Linux. Writing beyond what is free there kills a process without a word.
SHARED = Path("/dev/shm")


class PartCache:
    """Parts of images and their matrices by the sample's number: whoever reads one first stores it, until it is full.

    Nothing is ever dropped: every epoch asks for every sample once, and then what was kept longest is as good as any.
    """

    def __init__(self, count: int, limit_bytes: int, context: BaseContext | None) -> None:
        """Reserve memory: all of it at once where workers share it, else as it is written to.

        Args:
            count: how many samples there are.
            limit_bytes: of parts.
            context: of the worker processes that share it; None for this process alone.

        Raises:
            ValueError: less shared memory is free.
        """
        if context is not None and SHARED.is_dir():
            space = os.statvfs(SHARED)
            free = space.f_bavail * space.f_frsize
            if limit_bytes > free:
                raise ValueError(
                    f"CropLoader: cache_mb: expected at most the {free >> 20} MiB that are free in {SHARED}, "
                    f"got {limit_bytes >> 20}"
                )
        self._bytes = torch.empty(limit_bytes, dtype=torch.uint8)
        self._used = torch.zeros(1, dtype=torch.int64)
        self._starts = torch.full((count,), -1, dtype=torch.int64)
        self._shapes = torch.zeros(count, 3, dtype=torch.int64)
        self._affines = torch.zeros(count, 2, 3, dtype=torch.float64)
        self._lock = contextlib.nullcontext() if context is None else context.Lock()
        if context is not None:
            for tensor in (self._bytes, self._used, self._starts, self._shapes, self._affines):
                tensor.share_memory_()  # type: ignore[no-untyped-call]

    def get(self, index: int) -> tuple[Image, Affine] | None:
        """What was stored of a sample, not to be written to; None if nothing was."""
        start = int(self._starts[index])
        if start < 0:
            return None
        shape = self._shapes[index].tolist()
        part = self._bytes.numpy()[start : start + int(np.prod(shape))].reshape(shape)
        return part, self._affines[index].numpy()

    def put(self, index: int, part: Image, affine: Affine) -> None:
        """Store a part (h, w, c) and its matrix (2, 3), if there is room and nobody else has."""
        with self._lock:
            start = int(self._used)
            if int(self._starts[index]) >= 0 or start + part.size > len(self._bytes):
                return
            self._bytes.numpy()[start : start + part.size] = part.ravel()
            self._shapes[index] = torch.tensor(part.shape)
            self._affines[index] = torch.from_numpy(affine)
            self._used += part.size
            # Last, for readers do not wait for the lock.
            self._starts[index] = start
