"""Photos in, faces out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipnet_fast._device import usable_device
from pipnet_fast.crop import Image, warp
from pipnet_fast.engines import compile, fastest_known
from pipnet_fast.models import LandmarkModel, load
from pipnet_fast.pipeline.detectors import Boxes, Detector, create_detector
from pipnet_fast.pipeline.faces import Faces
from pipnet_fast.pipeline.images import Color, as_rgb, check_color
from pipnet_fast.tracking.settings import DETECT_EVERY, MIN_SCORE, SMOOTHING
from pipnet_fast.weights import default_model

# Crops in one forward pass; more are taken in turns, so that memory stays bounded.
MAX_FORWARD = 256
# What engines with static shapes are prepared for. On a CPU faces in turns take as long as faces together.
BATCH_SIZES = {"cpu": 1, "cuda": 32}


class FaceLandmarker:
    """Finds the landmarks of all faces in an image.

    Instances share no state, and one instance may be called from many threads at once.

    Args:
        model: None for the model in the box, the path of a ``.safetensors`` model, or a ``PIPNet`` or rival, which is
            then moved to ``device`` and put in eval mode; later changes of its weights do not matter.
        detector: "auto" or "haar" (OpenCV 4's own, nothing to download), "yunet:PATH" with the path of YuNet's
            ONNX file, the path of a ``.json`` file that ``pipnet-fast data fit-detector`` wrote, a callable that maps
            an RGB image (h, w, 3) of uint8 to tight face boxes (n, 4 or 5), or None, when boxes are always given.
        device: "auto" (CUDA where there is one), or a torch device.
        engine: one of ``engines()``, or "auto": the one that ``compile(engine="auto")`` found the fastest here for
            such a model, with batch_size=1 on a CPU and 32 on CUDA, if that has been run before; else "torch",
            for a measurement takes longer than a constructor should. Construction takes as long as the engine
            needs to compile: a tenth of a second with "torch", seconds with most, up to a minute with "inductor".
        color: channel order of images given as arrays, "bgr" (OpenCV's) or "rgb".

    Raises:
        ValueError, TypeError: an argument out of its range.
        FileNotFoundError: no such model or detector file.
        RuntimeError: a detector or device that is not present here.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LandmarkModel | None = None,
        detector: str | os.PathLike[str] | Detector | None = "auto",
        device: str | torch.device = "auto",
        engine: str = "auto",
        color: Color = "bgr",
    ) -> None:
        """See the class."""
        check_color(color)
        self.color = color
        self.detector = create_detector(detector)
        self.device = usable_device("FaceLandmarker: device", device)
        self.model = as_model("FaceLandmarker", model).to(self.device).eval()
        batch_size = BATCH_SIZES.get(self.device.type, 1)
        dtype = _dtype(self.model)
        if engine == "auto":
            engine = fastest_known(self.model, batch_size, dtype)
        self.runtime = compile(self.model, engine, batch_size, dtype)
        self.engine = engine

    def __call__(self, image: Any, boxes: Any = None) -> Faces:
        """Landmarks of the faces of one image.

        Args:
            image: an array of uint8 (h, w, 3), also gray or with alpha, or the path of an image file.
            boxes: tight face boxes (n, 4 or 5), px: x0, y0, x1, y1 and optionally a score; without them the
                detector looks for faces. Boxes may reach beyond the image.
        """
        return self.predict_batch([image], None if boxes is None else [boxes])[0]

    def predict_batch(self, images: Sequence[Any], boxes: Sequence[Any] | None = None) -> list[Faces]:
        """Landmarks of the faces of many images, all faces in one forward pass.

        Args:
            images: images as for a single call.
            boxes: for each image its boxes, or None for the detector to find them.

        Returns:
            For each image its faces, in the order of its boxes.
        """
        if isinstance(images, (str, os.PathLike, np.ndarray)) or not isinstance(images, Sequence):
            raise TypeError(f"FaceLandmarker: images: expected a list of images, got {type(images).__name__}")
        if boxes is not None and (not hasattr(boxes, "__len__") or len(boxes) != len(images)):
            got = len(boxes) if hasattr(boxes, "__len__") else type(boxes).__name__
            raise ValueError(f"FaceLandmarker: boxes: expected {len(images)} entries, one an image, got {got}")
        found: list[Boxes] = []
        crops: list[Image] = []
        affines: list[npt.NDArray[np.float64]] = []
        for index, image in enumerate(images):
            rgb = as_rgb(image, self.color)
            given = None if boxes is None else boxes[index]
            found.append(self.detect_rgb(rgb) if given is None else as_boxes(given))
            self._cut(rgb, found[-1], crops, affines)
        return self._faces(found, crops, affines)

    def track(
        self,
        frames: Iterable[Any] | str | os.PathLike[str],
        *,
        fps: float | None = None,
        timestamps: Iterable[float] | None = None,
        smoothing: float = SMOOTHING,
        detect_every: int = DETECT_EVERY,
        min_score: float = MIN_SCORE,
    ) -> Iterator[Faces]:
        """Faces of a video, frame by frame as they are asked for: with ids that stay, and smoothed.

        ``pf.Tracker`` tells how, and takes frames one at a time, as a server or a camera has them. Each call tracks on
        its own; many may go on at once.

        Args:
            frames: images as for a single call, in order; or the path of a video, which ends where it cannot be read
                any further.
            fps: frames per second, > 0; by default 30, and a video's own times.
            timestamps: instead, a time for each frame, in seconds, each later than the one before.
            smoothing: 0, none, to 1, calm.
            detect_every: look for new faces at least every so many frames.
            min_score: a face whose landmarks' mean score falls below this is lost, 0..1.

        Returns:
            For each frame its faces, in the order of their ids.

        Raises:
            ValueError, TypeError: an argument out of its range, or, where it comes to it, a frame or time that is none.
            FileNotFoundError, VideoError: no such video, or none that can be read.
        """
        from pipnet_fast.tracking.stream import track  # which needs this module

        return track(
            self,
            frames,
            fps=fps,
            timestamps=timestamps,
            smoothing=smoothing,
            detect_every=detect_every,
            min_score=min_score,
        )

    def detect_rgb(self, rgb: Image) -> Boxes:
        """Boxes (n, 5) that the detector finds in an RGB image, checked."""
        if self.detector is None:
            raise ValueError("FaceLandmarker: boxes: expected boxes with every image, for there is no detector")
        found = self.detector(rgb)
        if found is None:
            raise TypeError("FaceLandmarker: detector: expected it to return boxes (n, 4 or 5), got None")
        return as_boxes(found)

    def predict_rgb(self, rgb: Image, boxes: Boxes) -> Faces:
        """Faces of an RGB image in boxes (n, 5) that need no check."""
        crops: list[Image] = []
        affines: list[npt.NDArray[np.float64]] = []
        self._cut(rgb, boxes, crops, affines)
        return self._faces([boxes], crops, affines)[0]

    def _cut(self, rgb: Image, boxes: Boxes, crops: list[Image], affines: list[npt.NDArray[np.float64]]) -> None:
        """Add the crops of an image, and the matrices that cut them."""
        rule, size = self.model.crop, self.model.config.input_size
        for affine in rule.affine(rule.apply(boxes), size):
            affines.append(affine)
            crops.append(warp(rgb, affine, size))

    def _faces(self, found: list[Boxes], crops: list[Image], affines: list[npt.NDArray[np.float64]]) -> list[Faces]:
        """The faces of images with the boxes ``found``, of all their crops in order."""
        points_frac, scores = self._predict(crops)
        points = np.zeros(points_frac.shape, dtype=np.float32)
        if crops:
            points[:] = self.model.crop.to_image(points_frac, np.stack(affines), self.model.config.input_size)
        ends = np.cumsum([len(b) for b in found])
        return [
            Faces(points[end - len(b) : end], scores[end - len(b) : end], b, np.full(len(b), -1, dtype=np.int64))
            for b, end in zip(found, ends, strict=True)
        ]

    def _predict(self, crops: list[Image]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Points (n, N, 2) in fractions of the crops, and scores (n, N) cut to 0..1."""
        landmarks = self.model.config.num_landmarks
        points = np.zeros((len(crops), landmarks, 2), dtype=np.float32)
        scores = np.zeros((len(crops), landmarks), dtype=np.float32)
        for start in range(0, len(crops), MAX_FORWARD):
            batch = np.stack(crops[start : start + MAX_FORWARD])
            result = self.runtime(batch)
            points[start : start + len(batch)] = result.points_frac.cpu().numpy()
            scores[start : start + len(batch)] = result.scores.clamp(0, 1).cpu().numpy()
        return points, scores


def as_model(operation: str, model: Any) -> LandmarkModel:
    """The model in the box for None, that of a path, or the model itself; ``operation`` stands in messages."""
    if model is None:
        return load(default_model())
    if isinstance(model, LandmarkModel):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"{operation}: model: expected a path or a PIPNet, got {type(model).__name__}")
    return load(model)


def as_boxes(boxes: Any) -> Boxes:
    """Check face boxes and return them as (n, 5) float32; a missing score is 1."""
    if isinstance(boxes, torch.Tensor):
        boxes = boxes.detach().cpu().numpy()
    try:
        given = np.asarray(boxes)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"got values of type {given.dtype}")
        # A copy: the result must not change with the caller's array.
        array = np.array(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"FaceLandmarker: boxes: expected numbers of shape (n, 4) or (n, 5): {error}") from None
    if array.shape == (0,):
        return np.zeros((0, 5), dtype=np.float32)
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise ValueError(f"FaceLandmarker: boxes: expected shape (n, 4) or (n, 5), got {array.shape}")
    if array.shape[1] == 4:
        array = np.concatenate((array, np.ones((len(array), 1), dtype=np.float32)), axis=1)
    x0, y0, x1, y1, _ = array.T
    # Below 2^24 px float32 still tells neighboring pixels apart.
    bad = ~(np.isfinite(array).all(axis=1) & (x1 > x0) & (y1 > y0) & (np.abs(array[:, :4]) < 1 << 24).all(axis=1))
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise ValueError(
            "FaceLandmarker: boxes: expected finite x0 < x1 and y0 < y1 below 2^24 px and a finite score, got "
            f"{array[index].tolist()} in box {index}"
        )
    return array


def _dtype(model: LandmarkModel) -> str:
    """A model in half precision stays so where engines have it."""
    parameter = next(model.parameters())
    halves = (torch.float16, torch.bfloat16)
    return str(parameter.dtype).removeprefix("torch.") if parameter.is_cuda and parameter.dtype in halves else "float32"
