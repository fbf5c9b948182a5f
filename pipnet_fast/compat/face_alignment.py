"""face_alignment's ``FaceAlignment``, with its arguments and results.

    import pipnet_fast.compat.face_alignment as face_alignment

    fa = face_alignment.FaceAlignment(face_alignment.LandmarksType.TWO_D, flip_input=False)
    landmarks = fa.get_landmarks(image)  # RGB; a list of (68, 2), or None where there is no face

What differs: the network is a PIPNet and the detector one of ours; boxes, given or returned, are tight about the
landmarks, from the brows to the chin; all faces go through the network at once.
"""

import os
import warnings
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from pipnet_fast.crop import Image
from pipnet_fast.layouts import load_layout
from pipnet_fast.models import LandmarkModel
from pipnet_fast.pipeline.detectors import Detector, YuNetDetector
from pipnet_fast.pipeline.faces import Faces
from pipnet_fast.pipeline.images import as_rgb
from pipnet_fast.pipeline.landmarker import FaceLandmarker, as_model

Arrays = list[npt.NDArray[np.float32]]

_LAYOUT = "300w68"


class LandmarksType(IntEnum):
    """What landmarks are; ``TWO_D`` alone is found here. The names of versions before 1.4 are kept."""

    TWO_D = 1
    TWO_HALF_D = 2
    THREE_D = 3
    _2D = 1
    _2halfD = 2
    _3D = 3


class NetworkSize(IntEnum):
    """Size of face_alignment's network; it has one."""

    LARGE = 4


class FaceAlignment:
    """Finds 68 landmarks a face. One instance serves many threads.

    Args:
        landmarks_type: ``LandmarksType.TWO_D``; there is no depth here.
        network_size: not used.
        device: "cpu", "cuda", "cuda:1" ...; "auto" is CUDA where there is one.
        dtype: float32, or on CUDA float16 and bfloat16; a CPU computes in float32 whatever it is.
        flip_input: average with the mirrored image, at twice the time.
        face_detector: "sfd", their default, is not in this package and stands for ours, "auto"; or "haar",
            "yunet:PATH", a callable, "yunet" with ``{"path_to_detector": PATH}``. Their others are refused.
        face_detector_kwargs: of "yunet": path_to_detector, score_threshold.
        verbose: not used.
        compile: use the engine that ``pf.compile`` found the fastest here, if it was ever run; False for plain torch.
        max_batch_size: not used; the network takes all faces at once, up to 256.
        model: the path of a ``.safetensors`` model or a model, of 68 landmarks; by default the one in the box.

    Raises:
        NotImplementedError: another type of landmarks.
        ValueError, FileNotFoundError, RuntimeError: a bad argument, as for ``FaceLandmarker``.
    """

    def __init__(
        self,
        landmarks_type: LandmarksType | int,
        network_size: NetworkSize | int = NetworkSize.LARGE,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        flip_input: bool = True,
        face_detector: str | Detector = "sfd",
        face_detector_kwargs: dict[str, Any] | None = None,
        verbose: bool = False,
        compile: bool = True,
        max_batch_size: int = 1,
        *,
        model: str | os.PathLike[str] | LandmarkModel | None = None,
    ) -> None:
        """See the class."""
        if landmarks_type != LandmarksType.TWO_D:
            raise NotImplementedError(
                "FaceAlignment: landmarks_type: expected LandmarksType.TWO_D, which alone is here, got "
                f"{landmarks_type!r}"
            )
        if dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(f"FaceAlignment: dtype: expected float32, float16 or bfloat16, got {dtype!r}")
        model = as_model("FaceAlignment", model)
        if model.config.num_landmarks != 68:
            raise ValueError(
                f"FaceAlignment: model: expected one of 68 landmarks, got one of {model.config.num_landmarks}; use "
                "FaceLandmarker"
            )
        if torch.cuda.is_available() and str(device) != "cpu":
            model = model.to(dtype)
        self.flip_input, self.landmarks_type = flip_input, LandmarksType.TWO_D
        detector = _detector(face_detector, face_detector_kwargs or {})
        engine = "auto" if compile else "torch"
        self.landmarker = FaceLandmarker(model, detector, device, engine, color="rgb")
        self.device = str(self.landmarker.device)
        self.face_detector = FaceDetector(self.landmarker)
        self._flip = load_layout(_LAYOUT).flip

    def get_landmarks(
        self,
        image_or_path: Any,
        detected_faces: Any = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """See ``get_landmarks_from_image``."""
        return self.get_landmarks_from_image(image_or_path, detected_faces, return_bboxes, return_landmark_score)

    def get_landmarks_from_image(
        self,
        image_or_path: Any,
        detected_faces: Any = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """Landmarks of all faces of an image.

        Args:
            image_or_path: RGB (h, w, 3), gray (h, w), as an array or tensor of 0 to 255; or the path of a file.
            detected_faces: n tight boxes, x0, y0, x1, y1 and maybe a score, px; without them the detector runs.
            return_bboxes, return_landmark_score: return a tuple.

        Returns:
            A list of (68, 2) float32, px; None and a warning where there is no face. With a flag or both (landmarks,
            scores, boxes), lists of (68, 2), (68,) and (5,); None for what was not asked for, and three of them where
            there is no face.

        Raises:
            TypeError, ValueError: a bad image or box; ``ImageError``, a ValueError, for a file.
        """
        given = None if detected_faces is None else [detected_faces]
        faces = self._faces([_as_image(image_or_path)], given)[0]
        return _asked(_lists(faces), return_bboxes, return_landmark_score)

    def get_landmarks_from_batch(
        self,
        image_batch: Any,
        detected_faces: Any = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """Landmarks of all faces of many images of one size.

        Args:
            image_batch: (B, 3, h, w), RGB of 0 to 255, as a tensor or array.
            detected_faces: for every image its boxes.
            return_bboxes, return_landmark_score: return a tuple.

        Returns:
            For each image its landmarks, (n * 68, 2): those of its faces one after the other; an empty list where there
            is no face. With a flag: (landmarks, scores, boxes), the others lists of n arrays for each image, None for
            the scores of one without a face.
        """
        images = [_as_image(np.moveaxis(image, 0, -1)) for image in _as_batch(image_batch)]
        found = [_lists(faces) for faces in self._faces(images, detected_faces)]
        landmarks: list[Any] = [np.concatenate(points) if points else [] for points, _, _ in found]
        if not images:
            return _asked(([], [], []), return_bboxes, return_landmark_score)
        if not return_bboxes and not return_landmark_score:
            return landmarks
        scores = [scores or None for _, scores, _ in found] if return_landmark_score else None
        return landmarks, scores, [boxes for _, _, boxes in found] if return_bboxes else None

    def get_landmarks_from_directory(
        self,
        path: str | os.PathLike[str],
        extensions: Sequence[str] = (".jpg", ".png"),
        recursive: bool = True,
        show_progress_bar: bool = True,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> dict[str, Any]:
        """What ``get_landmarks_from_image`` returns, by path, of a folder's images in the order of their names.

        Images are read one by one, and the first one that cannot be read ends it. ``pipnet-fast detect`` passes over
        such files and lists them.

        Raises:
            ImageError: an image that cannot be read.
            ValueError: no folder, or no extensions.
        """
        folder = Path(path)
        if not folder.is_dir() or not extensions:
            raise ValueError(f"FaceAlignment: path: expected a folder, and extensions, got {path!r}, {extensions!r}")
        files = sorted(
            file
            for file in (folder.rglob("*") if recursive else folder.glob("*"))
            if file.name.endswith(tuple(extensions)) and file.is_file()
        )
        return {
            str(file): self.get_landmarks_from_image(file, None, return_bboxes, return_landmark_score)
            for file in tqdm(files, unit="image", disable=not show_progress_bar)
        }

    def _faces(self, images: list[Image], detected_faces: Any) -> list[Faces]:
        boxes = None if detected_faces is None else [_as_face_boxes(faces) for faces in detected_faces]
        faces = self.landmarker.predict_batch(images, boxes)
        if not self.flip_input:
            return faces
        widths = [image.shape[1] for image in images]
        mirrored = self.landmarker.predict_batch(
            [np.ascontiguousarray(image[:, ::-1]) for image in images],
            [_mirrored_boxes(found.boxes, width) for found, width in zip(faces, widths, strict=True)],
        )
        return [self._average(*both) for both in zip(faces, mirrored, widths, strict=True)]

    def _average(self, faces: Faces, mirrored: Faces, width: int) -> Faces:
        back = mirrored.landmarks[:, self._flip] * (-1.0, 1.0) + (float(width), 0.0)
        landmarks = ((faces.landmarks + back) / 2).astype(np.float32)
        scores = ((faces.scores + mirrored.scores[:, self._flip]) / 2).astype(np.float32)
        return Faces(landmarks, scores, faces.boxes, faces.ids)


class FaceDetector:
    """What ``FaceAlignment.face_detector`` is asked for: boxes alone."""

    def __init__(self, landmarker: FaceLandmarker) -> None:
        """The detector of ``landmarker``."""
        self._landmarker = landmarker

    def detect_from_image(self, tensor_or_path: Any) -> Arrays:
        """Boxes (5,), tight about the landmarks, of the faces of an image as ``get_landmarks`` takes it."""
        return list(self._landmarker.detect_rgb(as_rgb(_as_image(tensor_or_path), "rgb", "FaceAlignment")))

    def detect_from_batch(self, tensor: Any) -> list[Arrays]:
        """The same for every image of a batch (B, 3, h, w)."""
        return [self.detect_from_image(np.moveaxis(image, 0, -1)) for image in _as_batch(tensor)]


def _detector(detector: str | Detector, options: dict[str, Any]) -> str | Detector:
    """A detector as ``FaceLandmarker`` takes it, by their name and options."""
    names = ("sfd", "auto", "haar", "yunet")
    known = ("path_to_detector", "score_threshold") if detector == "yunet" else ()
    for name in options:
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise ValueError(f"FaceAlignment: face_detector_kwargs: expected {allowed} for {detector!r}, got {name!r}")
    if detector == "yunet":
        if "path_to_detector" not in options:
            raise ValueError(
                "FaceAlignment: face_detector_kwargs: expected path_to_detector, YuNet's ONNX file, for 'yunet', for "
                "nothing is downloaded here"
            )
        return YuNetDetector(options["path_to_detector"], options.get("score_threshold", 0.8))
    if callable(detector) or (isinstance(detector, str) and detector.startswith("yunet:")):
        return detector
    if detector not in names:
        wanted = f"{', '.join(names)}, yunet:PATH or a callable"
        raise ValueError(f"FaceAlignment: face_detector: expected one of {wanted}, got {detector!r}")
    return "haar" if detector == "haar" else "auto"


def _as_image(image: Any) -> Any:
    """An image as ``FaceLandmarker`` takes it: a path, or an array of uint8."""
    if isinstance(image, (str, os.PathLike)):
        return as_rgb(image, "rgb")
    return _as_bytes(image.detach().cpu().numpy() if isinstance(image, Tensor) else image)


def _as_bytes(values: Any) -> Any:
    """Floats 0 to 255 as uint8; everything else as it is, for the landmarker to judge."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        return values
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    # NaN compares as false.
    if not (low >= 0 and high <= 255) or 0 < high <= 1:
        raise ValueError(
            f"FaceAlignment: image: expected 0 to 255, got floats of {low:g} to {high:g}"
            + ("; multiply them by 255" if 0 < high <= 1 and low >= 0 else "")
        )
    return values.round().astype(np.uint8)


def _as_batch(batch: Any) -> npt.NDArray[Any]:
    values = batch.detach().cpu().numpy() if isinstance(batch, Tensor) else batch
    if not isinstance(values, np.ndarray) or values.ndim != 4 or values.shape[1] not in (1, 3):
        got = values.shape if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(f"FaceAlignment: image_batch: expected a tensor or array (B, 3, h, w), got {got}")
    return values


def _as_face_boxes(faces: Any) -> npt.NDArray[Any]:
    """Boxes (n, 4 or 5) of a list of arrays, tensors or lists."""
    rows = [np.asarray(face.detach().cpu() if isinstance(face, Tensor) else face) for face in faces]
    return np.array(rows) if rows else np.zeros((0, 5), dtype=np.float32)


def _mirrored_boxes(boxes: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    x0, y0, x1, y1, scores = boxes.T
    return np.stack((width - x1, y0, width - x0, y1, scores), axis=1).astype(np.float32)


def _lists(faces: Faces) -> tuple[Arrays, Arrays, Arrays]:
    return list(faces.landmarks), list(faces.scores), list(faces.boxes)


def _asked(found: tuple[Arrays, Arrays, Arrays], bboxes: bool, scores: bool) -> Any:
    """Landmarks, or the tuple of what was asked for; None and a warning where there is no face."""
    if not found[0]:
        warnings.warn("No faces were detected.", stacklevel=3)
        return (None, None, None) if bboxes or scores else None
    if not (bboxes or scores):
        return found[0]
    return found[0], found[1] if scores else None, found[2] if bboxes else None
