"""A whole network as the C++ engine takes it, and the bytes of its file; ``csrc/engine/plan_file.h`` says which.

Tensor 0 is the normalized crop (B, 3, S, S); layer i reads earlier tensors and writes tensor i + 1:

    output = activation(operation(input) + residual)
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipnet_fast.crop import PixelBase
from pipnet_fast.engines._types import WEIGHT_STORAGES, WeightStorage
from pipnet_fast.ops import BoundHead
from pipnet_fast.ops.types import CPU_PANEL, STORAGES

MAGIC = b"pipnet\n\0"
VERSION = 1
ALIGNMENT = 64
HEADER = struct.Struct("<8sIIQIIffIIIII4x")
LAYER = struct.Struct("<IIIiIIIII28x")
# The checksum is of all that follows it.
_CHECKED_FROM = 16


class LayerKind(IntEnum):
    """What a layer computes."""

    CONVOLUTION = 1
    DEPTHWISE = 2
    DECONVOLUTION = 3
    MAX_POOL = 4
    GATE = 5


class Activation(IntEnum):
    """What follows the operation and its residual."""

    NONE = 0
    RELU = 1
    RELU6 = 2
    HARD_SWISH = 3


@dataclass(frozen=True)
class PlanLayer:
    """One layer."""

    kind: LayerKind
    input: int
    """The tensor it reads."""
    channels: int
    """Of its output."""
    arrays: tuple[Tensor, ...] = ()
    """Weight and bias, of a gate W1, b1, W2 and b2, in the shapes that ``csrc/engine/layer_type.h`` gives."""
    kernel: int = 0
    stride: int = 0
    padding: int = 0
    squeezed: int = 0
    """S of a gate."""
    activation: Activation = Activation.NONE
    residual: int = -1
    """The tensor to add before the activation, or -1."""

    def side(self, source: int) -> int:
        """Height or width of the output, px, from the input's."""
        if self.kind == LayerKind.GATE:
            return source
        if self.kind == LayerKind.DECONVOLUTION:
            return 2 * source
        return (source + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class PlanNetwork:
    """A network: what a plan is made from."""

    input_size: int
    """Side of the square crop in px, a multiple of 32."""
    layers: tuple[PlanLayer, ...]
    head: BoundHead | None = None
    """Reads the last layer's output; packed on the CPU."""
    crop_scale: float = 1.0
    crop_top_shift: float = 0.0
    crop_pixel_base: PixelBase = "continuous"
    weight_storage: WeightStorage = "float32"
    """What a plan keeps the layers' weights as; in the file they are float32 always."""


def serialize(network: PlanNetwork) -> npt.NDArray[np.uint8]:
    """The file's bytes, at an address of the file's alignment, so that the engine reads them where they are.

    Raises:
        ValueError: an unknown weight storage, weights that it cannot hold, or a head that is not packed for the CPU.
    """
    _check(network)
    # Sizes first: the arrays together are the largest thing there is, and are copied once, one at a time.
    arrays = (*_layer_arrays(network), *_head_arrays(network))
    ends = [HEADER.size + LAYER.size * len(network.layers)]
    for tensor, dtype in arrays:
        ends.append(-(-ends[-1] // ALIGNMENT) * ALIGNMENT + tensor.numel() * dtype.itemsize)
    data = _aligned_zeros(ends[-1])
    data[HEADER.size : ends[0]] = np.frombuffer(b"".join(map(_layer, network.layers)), np.uint8)
    for (tensor, dtype), end in zip(arrays, ends[1:], strict=True):
        array = tensor.to("cpu", dtype).contiguous().numpy()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        data[end - little.nbytes : end] = little.reshape(-1).view(np.uint8)
    _write_header(data, network, checksum=0)
    _write_header(data, network, zlib.crc32(data[_CHECKED_FROM:].data))
    return data


def _aligned_zeros(size: int) -> npt.NDArray[np.uint8]:
    room = np.zeros(size + ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    return room[begin : begin + size]


def _write_header(data: npt.NDArray[np.uint8], network: PlanNetwork, checksum: int) -> None:
    data[: HEADER.size] = np.frombuffer(_header(network, data.size, checksum), np.uint8)


def _check(network: PlanNetwork) -> None:
    storage = network.weight_storage
    if storage not in WEIGHT_STORAGES:
        raise ValueError(f"serialize: weight_storage: expected one of {list(WEIGHT_STORAGES)}, got {storage!r}")
    limit = torch.finfo(torch.float16).max
    for number, layer in enumerate(network.layers if storage == "float16" else ()):
        # Biases stay float32.
        for weight in layer.arrays[::2]:
            most = float(weight.abs().max())
            if not most <= limit:
                raise ValueError(
                    f"serialize: layers: expected weights that float16 can hold, got a magnitude of {most} in layer "
                    f"{number}"
                )
    if network.head is not None and network.head.head.score_weight.shape[2] != CPU_PANEL:
        raise ValueError(
            f"serialize: head: expected score rows in panels of {CPU_PANEL}, got "
            f"{network.head.head.score_weight.shape[2]}; pack the head on the CPU"
        )


def _header(network: PlanNetwork, size: int, checksum: int) -> bytes:
    weight_storage, head = WEIGHT_STORAGES.index(network.weight_storage), (0, 0, 0)
    if network.head is not None:
        weights = network.head.head
        storage = list(STORAGES.values()).index(weights.vote_weight.dtype)
        head = weights.num_landmarks, weights.num_neighbors, storage
    return HEADER.pack(
        MAGIC,
        VERSION,
        checksum,
        size,
        network.input_size,
        len(network.layers),
        network.crop_scale,
        network.crop_top_shift,
        weight_storage,
        *head,
        get_args(PixelBase).index(network.crop_pixel_base),
    )


def _layer(layer: PlanLayer) -> bytes:
    return LAYER.pack(
        layer.kind,
        layer.activation,
        layer.input,
        layer.residual,
        layer.channels,
        layer.kernel,
        layer.stride,
        layer.padding,
        layer.squeezed,
    )


def _layer_arrays(network: PlanNetwork) -> Iterator[tuple[Tensor, torch.dtype]]:
    """Tensors, and what they are in the file."""
    for layer in network.layers:
        for tensor in layer.arrays:
            yield tensor, torch.float32


def _head_arrays(network: PlanNetwork) -> Iterator[tuple[Tensor, torch.dtype]]:
    if network.head is None:
        return
    table = network.head.table
    for tensor in (*network.head.head, table.starts, table.sources, table.weights):
        if tensor is not None:
            yield tensor, tensor.dtype
