"""Face detectors, each mapped to the same box style: tight about the 68 landmarks.

A detector is any callable from an RGB image (h, w, 3) of uint8 to boxes (n, 4 or 5), x0, y0, x1, y1[, score].
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import Image

Detector = Callable[[Image], Any]
Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BoxStyle:
    """How a detector's box turns into the tight one, in shares of the detector's own width and height.

    Attributes:
        scale_x, scale_y: tight side / detector's side.
        shift_x, shift_y: tight center - detector's center.
    """

    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float

    def to_tight(self, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Tight boxes (n, 4), x0, y0, x1, y1, of the detector's (n, 4), x, y, width, height."""
        x, y, width, height = boxes.T
        center_x = x + width * (0.5 + self.shift_x)
        center_y = y + height * (0.5 + self.shift_y)
        half_x, half_y = width * self.scale_x / 2, height * self.scale_y / 2
        return np.stack((center_x - half_x, center_y - half_y, center_x + half_x, center_y + half_y), axis=1)


class HaarDetector:
    """OpenCV 4's Haar cascade for frontal faces: it comes with OpenCV's wheels, so there is nothing to download.

    Finds upright, roughly frontal faces of at least 30 px and a twentieth of the image's shorter side; in images longer
    than 1024 px of as many more as they are longer. A cascade does not tell how sure it is in any common unit, so every
    score is 1.

    Raises:
        RuntimeError: an OpenCV without the cascade, as OpenCV 5 is.
    """

    # Medians over 1165 faces in video frames (bench/detector_boxes.py). The median of shift_x is 0 for faces
    # turned either way; one of them alone is off by up to 0.13.
    STYLE = BoxStyle(scale_x=0.887, scale_y=0.851, shift_x=0.0, shift_y=0.172)
    # Of OpenCV's frontal cascades the one with the fewest false faces.
    CASCADE = "haarcascade_frontalface_alt.xml"
    # Larger images are searched at this length of their longer side.
    MAX_SIDE = 1024

    def __init__(self) -> None:
        """See the class."""
        folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
        self._file = os.path.join(folder, self.CASCADE)
        if not hasattr(cv2, "CascadeClassifier") or not os.path.isfile(self._file):
            raise RuntimeError(
                f"detector 'haar': OpenCV {cv2.__version__} carries no Haar cascades; install "
                "'opencv-python-headless<5', or use a YuNet file (\"yunet:PATH\"), a detector of your own, or boxes"
            )
        # A cascade keeps scratch memory of its own, so every thread has one.
        self._local = threading.local()

    def __reduce__(self) -> Any:
        """Copies and pickles have cascades of their own."""
        return type(self), ()

    def __call__(self, image: Image) -> Boxes:
        """Tight face boxes (n, 5) of an RGB image, the largest first."""
        if not hasattr(self._local, "cascade"):
            self._local.cascade = cv2.CascadeClassifier(self._file)
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        gray, scale = _shrunk(gray, self.MAX_SIDE)
        smallest = max(30, min(gray.shape) // 20)
        found = self._local.cascade.detectMultiScale(
            gray, scaleFactor=1.1, minNeighbors=5, minSize=(smallest, smallest)
        )
        return _tight(np.asarray(found, dtype=np.float64).reshape(-1, 4) / scale, self.STYLE, None)


class YuNetDetector:
    """YuNet (Wu et al. 2023) by ``cv2.FaceDetectorYN``, from its ONNX file; finds small and turned faces too.

    Args:
        path: the ONNX file, such as face_detection_yunet_2023mar.onnx of OpenCV's model zoo.
        score_threshold: least score of a face, 0..1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a YuNet file, or a threshold out of its range.
    """

    # Medians over 1200 faces in video frames (bench/detector_boxes.py).
    STYLE = BoxStyle(scale_x=1.063, scale_y=0.774, shift_x=0.012, shift_y=0.137)
    # Larger images are searched at this length of their longer side: YuNet misses faces above some 600 px and
    # finds false ones inside them.
    MAX_SIDE = 640

    def __init__(self, path: str | os.PathLike[str], score_threshold: float = 0.8) -> None:
        """See the class."""
        if not os.path.isfile(path):
            raise FileNotFoundError(f"no such YuNet file: {os.fspath(path)}")
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"YuNetDetector: score_threshold: expected 0 to 1, got {score_threshold!r}")
        self._path, self._threshold = os.fspath(path), score_threshold
        self._local = threading.local()
        self._network()

    def __reduce__(self) -> Any:
        """Copies and pickles have networks of their own."""
        return type(self), (self._path, self._threshold)

    def __call__(self, image: Image) -> Boxes:
        """Tight face boxes (n, 5) of an RGB image, the largest first."""
        image, scale = _shrunk(image, self.MAX_SIDE)
        network = self._network()
        network.setInputSize((image.shape[1], image.shape[0]))
        _, found = network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        faces = np.zeros((0, 15)) if found is None else np.asarray(found, dtype=np.float64)
        return _tight(faces[:, :4] / scale, self.STYLE, faces[:, 14])

    def _network(self) -> Any:
        if not hasattr(self._local, "network"):
            try:
                self._local.network = cv2.FaceDetectorYN.create(
                    self._path, "", (320, 320), score_threshold=self._threshold
                )
            except cv2.error as error:
                raise ValueError(f"{self._path}: not a YuNet file that OpenCV can read: {error.err}") from None
        return self._local.network


def create_detector(detector: str | os.PathLike[str] | Detector | None) -> Detector | None:
    """A detector by name, "auto", "haar", "yunet:PATH" or "FILE.json"; a callable or None stays as it is."""
    if isinstance(detector, os.PathLike):
        detector = os.fspath(detector)
    if isinstance(detector, type):
        raise TypeError(f"FaceLandmarker: detector: expected an instance, got the class {detector.__name__}")
    if detector is None or (callable(detector) and not isinstance(detector, str)):
        return detector
    if detector in ("auto", "haar"):
        return HaarDetector()
    if isinstance(detector, str) and detector.startswith("yunet:"):
        return YuNetDetector(detector.removeprefix("yunet:"))
    if isinstance(detector, str) and detector.endswith(".json"):
        from pipnet_fast.pipeline.fitted_detector import load_detector  # which needs this module

        return load_detector(detector)
    raise ValueError(
        f'FaceLandmarker: detector: expected "auto", "haar", "yunet:PATH" (YuNet\'s ONNX file), "FILE.json" (from '
        f"`pipnet-fast data fit-detector`), a callable or None, got {detector!r}"
    )


def _shrunk(image: npt.NDArray[Any], max_side: int) -> tuple[Image, npt.NDArray[np.float64]]:
    """The image with its longer side at most ``max_side``, and its size over the original's, by x, y, x and y."""
    height, width = image.shape[:2]
    factor = min(1.0, max_side / max(height, width))
    target = max(1, round(width * factor)), max(1, round(height * factor))
    if factor < 1:
        image = cv2.resize(image, target, interpolation=cv2.INTER_AREA)
    return image.astype(np.uint8, copy=False), np.tile(np.divide(target, (width, height)), 2)


def _tight(boxes: npt.NDArray[np.float64], style: BoxStyle, scores: npt.NDArray[np.float64] | None) -> Boxes:
    tight = style.to_tight(boxes)
    if scores is None:
        scores = np.ones(len(tight))
    order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")
    return np.concatenate((tight, scores[:, None]), axis=1)[order].astype(np.float32)
