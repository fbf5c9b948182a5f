"""Images at the door: what is accepted, and how it becomes RGB."""

import os
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from pipnet_fast.crop import Image
from pipnet_fast.ops import backends
from pipnet_fast.pipeline.image_size import FORMATS, image_size

Color = Literal["bgr", "rgb"]

# Of the ImageNet images that backbones are trained on, RGB, in units of 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# More is no photo: the largest sensors of cameras and phones have fewer. As RGB it is 800 MB.
MAX_PIXELS = 1 << 28
# So many pixels with 16 bits a channel would be more, but nobody stores photos without compressing them.
MAX_FILE_BYTES = 1 << 30


class ImageError(ValueError):
    """An image file that cannot be read."""


def check_color(color: str) -> None:
    """Raise unless ``color`` is one of the channel orders there are."""
    if color not in get_args(Color):
        raise ValueError(f"color: expected one of {get_args(Color)}, got {color!r}")


def as_rgb(image: Any, color: Color, operation: str = "FaceLandmarker") -> Image:
    """Return an image as contiguous uint8 RGB (h, w, 3).

    Args:
        image: a path, or an array of uint8: (h, w, 3) or (h, w, 4) in the order of ``color``, a fourth
            channel, alpha, being dropped; or gray, (h, w) or (h, w, 1). Files are read by ``read_rgb``, and ``color``
            does not matter for them.
        color: channel order of arrays.
        operation: whose argument it is, for messages.

    Raises:
        ImageError: a file that is missing or no image.
        TypeError: no array, or not of uint8.
        ValueError: an array of another shape, an empty or a gigantic one.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_rgb(image)
    if isinstance(image, Tensor):
        raise TypeError(
            f"{operation}: image: expected a NumPy array or a path, got a torch tensor; pass image.cpu().numpy(), "
            "uint8, height x width x channels"
        )
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"{operation}: image: expected a NumPy array (h, w, 3) of uint8 or a path, got {type(image).__name__}"
            + ('; pass numpy.asarray(image.convert("RGB")) with color="rgb"' if hasattr(image, "convert") else "")
        )
    if image.dtype != np.uint8:
        hint = "; scale it to 0..255 and convert it" if np.issubdtype(image.dtype, np.floating) else ""
        raise TypeError(f"{operation}: image: expected uint8 values 0..255, got {image.dtype}{hint}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ValueError(f"{operation}: image: expected (h, w, 3), (h, w, 4), (h, w, 1) or (h, w), got {image.shape}")
    height, width = image.shape[:2]
    if not 1 <= height * width <= MAX_PIXELS:
        raise ValueError(f"{operation}: image: expected 1 to {MAX_PIXELS} pixels, got {height}x{width}")
    if channels == 1:
        return np.ascontiguousarray(np.repeat(image.reshape(height, width, 1), 3, axis=2))
    rgb = image[:, :, :3] if color == "rgb" else image[:, :, 2::-1]
    return np.ascontiguousarray(rgb)


def read_rgb(path: str | os.PathLike[str]) -> Image:
    """Read an image file, as ``decode_rgb`` decodes it.

    Raises:
        ImageError: missing, unreadable, no image, or one of more than ``MAX_PIXELS`` pixels or ``MAX_FILE_BYTES``.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # A device or a pipe has no size, and perhaps no end.
            data = b"" if size > MAX_FILE_BYTES else file.read((size or MAX_FILE_BYTES) + 1)
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}") from None
    except ValueError as error:  # a name with a zero character
        raise ImageError(f"{name!r}: {error}") from None
    if max(size, len(data)) > MAX_FILE_BYTES:
        raise ImageError(f"{name}: expected a file of at most {MAX_FILE_BYTES} bytes")
    return decode_rgb(data, name)


def decode_rgb(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image file's bytes as RGB (h, w, 3), turned as its EXIF orientation says; AVIF's own is not looked at.

    Args:
        data: a file in one of ``image_size.FORMATS``.
        name: whose bytes they are, for messages.
        max_pixels: a picture of more is refused by its header, before anything of its size is allocated.

    Raises:
        ImageError: no image of these formats, damaged, or too large.
    """
    size = image_size(data)
    if size is None:
        raise ImageError(f"{name}: not an image that OpenCV can read, or none of {FORMATS}")
    if size[0] * size[1] > max_pixels:
        raise ImageError(f"{name}: {size[0]}x{size[1]} is more than {max_pixels} pixels")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{name}: {error.err}") from None
    if image is None:
        raise ImageError(f"{name}: not an image that OpenCV can read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def scale_and_shift() -> tuple[Tensor, Tensor]:
    """What normalizing multiplies a byte of each color by, and then adds: (3,) each, float32."""
    mean, std = (torch.tensor(values, dtype=torch.float64) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (1 / std).float(), (-mean / std).float()


class Normalizer:
    """Crops (B, S, S, 3) of uint8 RGB as the network takes them: (B, 3, S, S), channels-last in memory.

    Multiplies and adds along whole rows of pixels, which is several times faster than along their three channels.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        """Prepare for crops of ``size`` px on ``device``, to be computed in float32 and returned in ``dtype``."""
        scale, shift = scale_and_shift()
        self._scale = scale.repeat(size).to(device)
        self._shift = shift.repeat(size).to(device)
        self._dtype = dtype

    def __call__(self, crops: Tensor) -> Tensor:
        """Normalize a batch; B may be 0."""
        rows = crops.flatten(2).float()
        torch.addcmul(self._shift, rows, self._scale, out=rows)
        return rows.view(crops.shape).to(self._dtype).permute(0, 3, 1, 2)


class PlanarNormalizer:
    """The same for engines that take (B, 3, S, S) contiguous float32 on the CPU, in one pass on the calling thread.

    torch's own threads go on spinning after each of its operations, and for several milliseconds keep an engine's
    threads from the cores. So none of its operations stands before such an engine.
    """

    def __init__(self) -> None:
        """Lay out what every byte becomes."""
        ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 256, 1).expand(-1, -1, -1, 3)
        self._table = normalize(ramp).contiguous().view(3, 256)
        self._cpp = backends()["cpp"]

    def __call__(self, crops: Tensor) -> Tensor:
        """Normalize a batch; B may be 0."""
        if not self._cpp:
            return normalize(crops).contiguous()
        from pipnet_fast import _C

        crops = crops.contiguous()
        batch, height, width, channels = crops.shape
        out = torch.empty(batch, channels, height, width, dtype=torch.float32, device="cpu")
        _C.normalize(crops.data_ptr(), batch, height * width, self._table.data_ptr(), out.data_ptr())
        return out


def normalize(crops: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Crops (B, H, W, 3) of uint8 RGB as the network takes them: (B, 3, H, W), channels-last in memory."""
    return Normalizer(crops.shape[2], dtype, crops.device)(crops)
