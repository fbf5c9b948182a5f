"""Triton kernels of the operations in ``pipnet_fast.ops``; this package imports torch and triton only."""

from .decode import decode
from .head_decode import head_decode

__all__ = ["decode", "head_decode"]
