"""Images at the door: arrays and files."""

import io
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import pipnet_fast as pf
from pipnet_fast.pipeline.image_size import image_size
from pipnet_fast.pipeline.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    ImageError,
    PlanarNormalizer,
    as_rgb,
    decode_rgb,
    normalize,
    read_rgb,
)
from tests.memory import peak_growth

Pixels = npt.NDArray[np.uint8]
ORIENTATION = 0x0112


@pytest.fixture
def rgb() -> Pixels:
    return np.random.randint(0, 256, (6, 9, 3), dtype=np.uint8)


def smooth_photo() -> Pixels:
    """Of unlike corners, and without the detail that JPEG loses."""
    y, x = np.mgrid[:48, :64]
    return np.stack((x * 4, y * 5, 255 - x * 2 - y), axis=2).astype(np.uint8)


def test_bgr_and_rgb_are_told_apart(rgb: Pixels) -> None:
    np.testing.assert_array_equal(as_rgb(rgb, "rgb"), rgb)
    np.testing.assert_array_equal(as_rgb(rgb[..., ::-1].copy(), "bgr"), rgb)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_alpha_is_dropped(rgb: Pixels, color: Any) -> None:
    colors = rgb if color == "rgb" else rgb[..., ::-1]
    alpha = np.full((6, 9, 1), 7, dtype=np.uint8)
    np.testing.assert_array_equal(as_rgb(np.concatenate((colors, alpha), axis=2), color), rgb)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("shape", [pytest.param((6, 9), id="flat"), pytest.param((6, 9, 1), id="one-channel")])
def test_gray_becomes_three_equal_channels(rgb: Pixels, shape: tuple[int, ...], color: Any) -> None:
    gray = rgb[..., 0]
    image = as_rgb(gray.reshape(shape), color)
    np.testing.assert_array_equal(image, np.stack((gray, gray, gray), axis=2))


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(np.s_[::-1], id="upside-down"),
        pytest.param(np.s_[:, ::2], id="every-other-column"),
        pytest.param(np.s_[1:4, 2:5], id="window"),
        pytest.param(np.s_[..., ::-1], id="channels-reversed"),
    ],
)
def test_views_count_as_their_copies(rgb: Pixels, view: Any) -> None:
    image = as_rgb(rgb[view], "rgb")
    np.testing.assert_array_equal(image, rgb[view].copy())
    assert image.flags.c_contiguous


def test_transposed_and_read_only_arrays(rgb: Pixels) -> None:
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    np.testing.assert_array_equal(as_rgb(planes.transpose(1, 2, 0), "rgb"), rgb)
    rgb.flags.writeable = False
    np.testing.assert_array_equal(as_rgb(rgb, "rgb"), rgb)


def test_one_pixel_is_an_image() -> None:
    np.testing.assert_array_equal(as_rgb(np.array([[[1, 2, 3]]], dtype=np.uint8), "bgr"), [[[3, 2, 1]]])


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        pytest.param(np.zeros((4, 4, 3), np.float32), TypeError, "got float32; scale it to 0..255", id="float"),
        pytest.param(
            np.zeros((4, 4, 3), np.uint16), TypeError, "expected uint8 values 0..255, got uint16", id="16-bit"
        ),
        pytest.param(np.zeros((4, 4, 3), bool), TypeError, "expected uint8 values 0..255, got bool", id="bool"),
        pytest.param(np.zeros((4, 4, 3), np.int64), TypeError, "expected uint8 values 0..255, got int64", id="int"),
        pytest.param(
            torch.zeros(4, 4, 3, dtype=torch.uint8), TypeError, r"got a torch tensor; pass image\.cpu", id="tensor"
        ),
        pytest.param(Image.new("RGB", (4, 4)), TypeError, r'got Image; pass numpy\.asarray.*color="rgb"', id="pillow"),
        pytest.param([[[1, 2, 3]]], TypeError, "or a path, got list", id="list"),
        pytest.param(None, TypeError, "or a path, got NoneType", id="none"),
        pytest.param(b"photo.jpg", TypeError, "or a path, got bytes", id="bytes"),
        pytest.param(np.zeros(12, np.uint8), ValueError, r"expected \(h, w, 3\).* got \(12,\)", id="one-dimension"),
        pytest.param(np.zeros((1, 4, 4, 3), np.uint8), ValueError, r"got \(1, 4, 4, 3\)", id="batch"),
        pytest.param(np.zeros((4, 4, 2), np.uint8), ValueError, r"got \(4, 4, 2\)", id="two-channels"),
        pytest.param(np.zeros((4, 4, 5), np.uint8), ValueError, r"got \(4, 4, 5\)", id="five-channels"),
        pytest.param(np.zeros((3, 8, 8), np.uint8), ValueError, r"got \(3, 8, 8\)", id="channels-first"),
        pytest.param(np.zeros((4, 4, 0), np.uint8), ValueError, r"got \(4, 4, 0\)", id="no-channels"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), ValueError, "pixels, got 0x4", id="no-rows"),
        pytest.param(np.zeros((4, 0), np.uint8), ValueError, "pixels, got 4x0", id="no-columns"),
        pytest.param(
            # A broadcast view: gigantic, and without memory of its own.
            np.broadcast_to(np.uint8(0), (1 << 14, (MAX_PIXELS >> 14) + 1, 3)),
            ValueError,
            f"expected 1 to {MAX_PIXELS} pixels",
            id="gigantic",
        ),
    ],
)
def test_other_things_are_refused(image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        as_rgb(image, "rgb", operation="Operation")
    assert str(caught.value).startswith("Operation: image: expected")


def test_path_and_string_name_the_same_file(tmp_path: Path, rgb: Pixels) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    for name in (path, str(path)):
        np.testing.assert_array_equal(as_rgb(name, "bgr"), rgb)
        np.testing.assert_array_equal(as_rgb(name, "rgb"), rgb)
        np.testing.assert_array_equal(read_rgb(name), rgb)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        pytest.param(1, lambda stored: stored, id="as-stored"),
        pytest.param(3, lambda stored: stored[::-1, ::-1], id="half-a-turn"),
        pytest.param(6, lambda stored: np.rot90(stored, -1), id="a-quarter-clockwise"),
        pytest.param(8, lambda stored: np.rot90(stored, 1), id="a-quarter-counterclockwise"),
        pytest.param(2, lambda stored: stored[:, ::-1], id="mirrored"),
    ],
)
def test_exif_orientation_of_jpeg(tmp_path: Path, orientation: int, turned: Any) -> None:
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(smooth_photo()).save(path, exif=exif, quality=95, subsampling=0)
    with Image.open(path) as file:
        stored = np.asarray(file.convert("RGB"))
    image, expected = read_rgb(path), turned(stored)
    assert image.shape == expected.shape
    # Two JPEG decoders may differ by a rounding.
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=2)


def test_16_bit_png_is_read_as_8_bit(tmp_path: Path) -> None:
    values = (np.arange(48).reshape(6, 8) * 1365).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    image = read_rgb(path)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, (values / 257)[..., None].repeat(3, axis=2), atol=1.0)


def test_palette_gray_and_alpha_png(tmp_path: Path, rgb: Pixels) -> None:
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))

    Image.fromarray(rgb[..., 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "gray.png"), rgb[..., :1].repeat(3, axis=2))

    Image.fromarray(np.dstack((rgb, np.full((6, 9), 9, np.uint8)))).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "alpha.png"), rgb)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("my photo.png", id="space"),
        pytest.param("Jörg ścięty 顔 😀.png", id="non-ascii"),
        pytest.param("a.b.c.PNG", id="dots"),
        pytest.param("no suffix", id="no-suffix"),
    ],
)
def test_file_names(tmp_path: Path, rgb: Pixels, name: str) -> None:
    Image.fromarray(rgb).save(tmp_path / name, format="PNG")
    np.testing.assert_array_equal(read_rgb(tmp_path / name), rgb)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not an image that OpenCV can read", id="empty"),
        pytest.param(b"no photo at all\n" * 50, "not an image that OpenCV can read", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "not an image that OpenCV can read", id="png-of-nothing"),
        pytest.param(b"\xff\xd8\xff\xe0" + b"\0" * 40, "not an image that OpenCV can read", id="jpeg-of-nothing"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_rgb(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.jpg: No such file or directory"):
        read_rgb(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match=f"{tmp_path.name}: "):
        read_rgb(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("percent", [3, 30, 60, 95])
def test_truncated_files_never_crash(tmp_path: Path, suffix: str, percent: int) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"part.{suffix}"
    Image.fromarray(smooth_photo()).save(whole)
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])
    # Libraries differ in what they still make of it.
    try:
        shape = read_rgb(path).shape
    except ImageError:
        shape = None
    assert shape in (None, (48, 64, 3))


def encoded(image: Pixels, suffix: str) -> bytes:
    """A file of an RGB image; lossless where the format can be."""
    if suffix == ".gif":
        options: dict[str, Any] = {"format": "GIF"}
    elif suffix == ".avif":
        options = {"format": "AVIF", "quality": 100, "subsampling": "4:4:4"}
    else:
        flags = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
        return cv2.imencode(suffix, image if image.ndim == 2 else image[..., ::-1], flags)[1].tobytes()
    file = io.BytesIO()
    Image.fromarray(image).save(file, **options)
    return file.getvalue()


SUFFIXES = [".avif", ".bmp", ".gif", ".jp2", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("width", "height"), [(64, 48), (33, 300)])
def test_headers_tell_the_size(suffix: str, width: int, height: int) -> None:
    photo = np.resize(smooth_photo(), (height, width, 3))
    data = encoded(photo[..., 0] if suffix == ".pgm" else photo, suffix)
    assert image_size(data) == (width, height)
    image = decode_rgb(data, "photo")
    if suffix in (".avif", ".gif", ".jpg"):
        assert image.shape == (height, width, 3)
    else:
        np.testing.assert_array_equal(image, photo[..., :1].repeat(3, axis=2) if suffix == ".pgm" else photo)
    with pytest.raises(ImageError, match=f"^photo: {width}x{height} is more than {width * height - 1} pixels$"):
        decode_rgb(data, "photo", max_pixels=width * height - 1)


def with_size(suffix: str, width: int, height: int) -> bytes:
    """A small picture's file whose header claims another size."""
    data = bytearray(encoded(smooth_photo(), suffix))
    big = struct.pack(">II", width, height)
    if suffix == ".png":
        data[16:24] = big
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif suffix == ".jpg":
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif suffix == ".bmp":
        data[18:26] = struct.pack("<ii", width, -height)
    elif suffix == ".gif":
        data[6:10] = struct.pack("<HH", width, height)
    elif suffix == ".ppm":
        data = data.replace(b"64 48", f"{width} # wide\n{height}".encode())
    elif suffix == ".webp":
        extended = struct.pack("<4sIB3xHBHB", b"VP8X", 10, 0, *(v for n in (width, height) for v in (n - 1, 0)))
        data[12:12] = extended
        data[4:8] = struct.pack("<I", len(data) - 8)
    elif suffix == ".avif":
        data = data.replace(b"ispe\0\0\0\0" + struct.pack(">II", 64, 48), b"ispe\0\0\0\0" + big)
    elif suffix == ".jp2":
        start = data.index(b"\xff\x4f\xff\x51") + 8
        data[start : start + 8] = big
    return bytes(data)


def tiff(big: bool, order: str, **tags: int) -> bytes:
    """A TIFF's header and directory, of one number a tag."""
    numbers = {"width": 256, "height": 257, "bits": 258, "tile_width": 322, "tile_height": 323}
    entry, mark = (order + "HHQQ", 43) if big else (order + "HHII", 42)
    entries = b"".join(struct.pack(entry, numbers[name], 16 if big else 4, 1, value) for name, value in tags.items())
    start = b"II" if order == "<" else b"MM"
    if big:
        return start + struct.pack(order + "HHHQQ", mark, 8, 0, 16, len(tags)) + entries + bytes(8)
    return start + struct.pack(order + "HIH", mark, 8, len(tags)) + entries + bytes(4)


BOMBS: dict[str, Callable[[int, int], bytes]] = {
    **{suffix: lambda w, h, s=suffix: with_size(s, w, h) for suffix in SUFFIXES if suffix not in (".pgm", ".tif")},
    ".tif": lambda w, h: tiff(False, "<", width=w, height=h, bits=8),
    ".tif big-endian": lambda w, h: tiff(False, ">", width=w, height=h, bits=8),
    "BigTIFF": lambda w, h: tiff(True, "<", width=w, height=h, bits=8),
    ".tif of one large tile": lambda w, h: tiff(False, "<", width=9, height=9, bits=8, tile_width=w, tile_height=h),
}


@pytest.mark.parametrize("bomb", BOMBS)
# OpenCV itself would take the smaller one.
@pytest.mark.parametrize("side", [30_000, 60_000])
def test_gigantic_pictures_are_refused_before_they_are_decoded(bomb: str, side: int, tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(BOMBS[bomb](side, side - 1))

    def refused() -> None:
        with pytest.raises(ImageError, match=f"photo: {side}x{side - 1} is more than {MAX_PIXELS} pixels"):
            read_rgb(path)

    assert peak_growth(refused) < 16 << 20


def test_gigantic_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(smooth_photo(), ".png"))
    assert read_rgb(path).shape == (48, 64, 3)
    # A hole, which takes no room on the disk.
    os.truncate(path, 1 << 40)

    def refused() -> None:
        with pytest.raises(ImageError, match=f"photo.png: expected a file of at most {MAX_FILE_BYTES} bytes"):
            read_rgb(path)

    assert peak_growth(refused) < 16 << 20


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_read_to_their_end(tmp_path: Path, rgb: Pixels) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(encoded(rgb, ".png"),))
    writer.start()
    np.testing.assert_array_equal(read_rgb(pipe), rgb)
    writer.join()


@pytest.mark.parametrize(
    ("dtype", "atol"),
    [
        pytest.param(torch.float32, 1e-5, id="float32"),
        pytest.param(torch.float16, 2e-3, id="float16"),
        pytest.param(torch.bfloat16, 2e-2, id="bfloat16"),
    ],
)
def test_normalize(dtype: torch.dtype, atol: float) -> None:
    crops = np.random.randint(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    crops[0, 0, 0], crops[0, 0, 1] = 0, 255
    tensor = normalize(torch.from_numpy(crops), dtype)
    assert tensor.dtype == dtype
    assert tensor.shape == (3, 3, 4, 6)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    expected = (crops / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(tensor.float().permute(0, 2, 3, 1).numpy(), expected, atol=atol)


@pytest.mark.parametrize("cpp", [True, False])
def test_planar_normalizer_is_the_same_in_another_layout(cpp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not cpp:
        monkeypatch.setattr("pipnet_fast.pipeline.images.backends", lambda: {"cpp": False})
    elif not pf.ops.backends()["cpp"]:
        pytest.skip("no C++ extension")
    planar = PlanarNormalizer()
    crops = torch.randint(0, 256, (3, 6, 6, 3), dtype=torch.uint8)
    for batch in (crops, crops[:0], crops.flip(2), crops[::2], crops.transpose(1, 2)):
        got = planar(batch)
        assert got.is_contiguous()
        torch.testing.assert_close(got, normalize(batch), rtol=0, atol=1e-6)


def test_normalize_has_the_numbers_of_imagenet() -> None:
    black, white = normalize(torch.tensor([[[[0, 0, 0], [255, 255, 255]]]], dtype=torch.uint8))[0, :, 0].T.tolist()
    assert black == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-4)
    assert white == pytest.approx([2.2489, 2.4286, 2.6400], abs=1e-4)
