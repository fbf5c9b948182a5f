"""What the demo of the official PIPNet repository (jhb86253817/PIPNet) calls, with its arguments and results.

In the demo, replace the imports of ``networks``, ``functions`` and ``faceboxes_detector`` by this module, and
torchvision's transforms by ``preprocessing``. The merge in the same call: ``load_official`` and ``predict``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipnet_fast._errors import require_int
from pipnet_fast.compat._faceboxes import LooseDetector
from pipnet_fast.crop import CropRule, Image, warp
from pipnet_fast.layouts import load_mean_shape
from pipnet_fast.models import PIPNet
from pipnet_fast.neighbors import nearest_neighbors
from pipnet_fast.ops import HeadMaps
from pipnet_fast.ops._merge import result_dtype, votes_at, winning_cells
from pipnet_fast.pipeline.detectors import Detector
from pipnet_fast.pipeline.images import as_rgb, normalize

Indices = npt.NDArray[np.int64]
# Parts of ImageNet networks that a PIPNet has no use for.
_CLASSIFIERS = ("fc.", "classifier.")


def get_meanface(meanface_file: Any, num_nb: int) -> tuple[list[Indices], list[int], list[int], int]:
    """Neighbors of every landmark, and where each landmark's predictions by others stand, padded to equal length.

    Args:
        meanface_file: the path of a ``meanface.txt``, a layout's name (``"wflw98"``), or an (N, 2) array.
        num_nb: K, 1 to N - 1.

    Returns:
        meanface_indices: N arrays (K,) of int64, the landmark's neighbors, nearest first.
        reverse_index1, reverse_index2: N * max_len indices each: predictions (N, K) at them are, max_len a landmark,
            those of this landmark by others, repeated cyclically up to max_len.
        max_len: how many landmarks at most have one and the same neighbor.

    Raises:
        ValueError: a bad mean shape or K; or a landmark that is nobody's neighbor, which such a table has no place for.
            ``pipnet_fast.neighbor_table`` has one.
    """
    points = load_mean_shape(meanface_file)
    if isinstance(num_nb, bool) or not isinstance(num_nb, int) or not 1 <= num_nb < len(points):
        raise ValueError(
            f"get_meanface: num_nb: expected 1 to {len(points) - 1} for {len(points)} landmarks, got {num_nb!r}"
        )
    neighbors = nearest_neighbors(points, num_nb)
    voters = [np.argwhere(neighbors == landmark) for landmark in range(len(points))]
    alone = [landmark for landmark, entries in enumerate(voters) if not len(entries)]
    if alone:
        raise ValueError(
            f"get_meanface: num_nb: expected every landmark to be among the {num_nb} nearest ones of another, but "
            f"{alone[0]} is not; raise num_nb, or merge by pipnet_fast.neighbor_table, which lets it keep its own"
        )
    max_len = max(map(len, voters))
    padded = np.concatenate([np.resize(entries, (max_len, 2)) for entries in voters])
    return list(neighbors), padded[:, 0].tolist(), padded[:, 1].tolist(), max_len


def forward_pip(
    net: nn.Module, inputs: Tensor, preprocess: Any, input_size: int, net_stride: int, num_nb: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run a network that gives the five maps, and read its predictions off them, not merged yet.

    The official function takes one face. Here B may be any, 0 included: rows of a face follow those of the one before,
    row b * N + n is landmark n of face b. ``.view(B, N, -1)`` parts them.

    Args:
        net: a ``PIPNet``, or any module that gives the five maps; it is put in eval mode.
        inputs: (B, 3, S, S), normalized.
        preprocess: not used, as in the official function.
        input_size, net_stride: S in px and px per cell.
        num_nb: K.

    Returns:
        lms_pred_x, lms_pred_y: (B * N, 1) in fractions of the crop.
        lms_pred_nb_x, lms_pred_nb_y: (B * N, K), what each landmark predicts of its neighbors.
        outputs_cls: (B * N, H * W), the score maps.
        max_cls: (B * N,), the winning scores.

    Raises:
        TypeError, ValueError: maps that do not fit each other, K, or the grid of input_size / net_stride.
    """
    for name, value in (("input_size", input_size), ("net_stride", net_stride)):
        require_int("forward_pip", name, value, 1)
    require_int("forward_pip", "num_nb", num_nb, 0)
    net.eval()
    with torch.no_grad():
        maps = _as_maps(net(inputs), input_size / net_stride, num_nb)
        max_cls, cell = winning_cells(maps.score)
        votes = votes_at(maps, cell).to(result_dtype(maps.score.dtype))
        width = maps.score.shape[3]
        corner = torch.stack((cell % width, cell // width), dim=2).to(votes.dtype)
        points = (votes + corner.unsqueeze(2)) / (input_size / net_stride)
        x, y = points.flatten(0, 1).unbind(dim=2)
        return x[:, :1], y[:, :1], x[:, 1:], y[:, 1:], maps.score.flatten(2).flatten(0, 1), max_cls.flatten()


def _as_maps(outputs: Any, grid: float, num_nb: int) -> HeadMaps:
    if not isinstance(outputs, (tuple, list)) or len(outputs) != 5 or not all(isinstance(o, Tensor) for o in outputs):
        raise TypeError(f"forward_pip: net: expected it to give five maps, got {type(outputs).__name__}")
    maps = HeadMaps(*outputs)
    if maps.score.ndim != 4 or maps.score.shape[2:] != (grid, grid):
        raise ValueError(
            f"forward_pip: net: expected score maps (B, N, {grid:g}, {grid:g}), input_size / net_stride, got "
            f"{tuple(maps.score.shape)}"
        )
    batch, landmarks, height, width = maps.score.shape
    for name, channels in (
        ("offset_x", landmarks),
        ("offset_y", landmarks),
        ("neighbor_x", landmarks * num_nb),
        ("neighbor_y", landmarks * num_nb),
    ):
        if getattr(maps, name).shape != (batch, channels, height, width):
            raise ValueError(
                f"forward_pip: net: expected {name} {(batch, channels, height, width)} for num_nb={num_nb}, got "
                f"{tuple(getattr(maps, name).shape)}"
            )
    return maps


def preprocessing(input_size: int) -> Callable[[Any], Tensor]:
    """What the demo composes of torchvision's transforms: resize, scale to 0..1, normalize.

    The function that is returned takes an RGB image, of PIL or as an array (h, w, 3) of uint8, and gives
    (3, input_size, input_size) of float32.
    """
    require_int("preprocessing", "input_size", input_size, 1)

    def preprocess(image: Any) -> Tensor:
        rgb: Image = as_rgb(np.asarray(image), "rgb", "preprocess")
        height, width = rgb.shape[:2]
        affine = CropRule().affine(np.array([[0, 0, width, height]], dtype=np.float64), input_size)[0]
        return normalize(torch.from_numpy(warp(rgb, affine, input_size)).unsqueeze(0))[0]

    return preprocess


class FaceBoxesDetector:
    """Stands in for the demo's detector, with its arguments and results; it is another one, OpenCV's Haar cascade.

    Args:
        model_arch, model_weights, use_gpu, device: not used; the weights of FaceBoxesV2 are not read.
        detector: which of ours, as ``FaceLandmarker`` takes it: "yunet:PATH" finds small and turned faces, too.
    """

    def __init__(
        self, model_arch: str, model_weights: Any, use_gpu: bool, device: Any, *, detector: str | Detector = "auto"
    ) -> None:
        """See the class."""
        self._detector = LooseDetector("FaceBoxesDetector", detector)

    def detect(self, image: Any, thresh: float = 0.6, im_scale: float | None = None) -> tuple[list[list[Any]], float]:
        """Faces of a BGR image: ``["face", score, xmin, ymin, width, height]`` each, in whole px, and the scale 1.

        The crop that the demo makes of such a box is that of ``CropRule()``, but for its rounding. The detector chooses
        the size that it searches images at by itself; ``im_scale`` is not used.
        """
        boxes = self._detector(image, thresh)
        whole = boxes[:, :4].astype(np.int64)
        return [
            ["face", float(score), x0, y0, x1 - x0, y1 - y0]
            for (x0, y0, x1, y1), score in zip(whole.tolist(), boxes[:, 4], strict=True)
        ], 1.0


def Pip_resnet18(  # noqa: N802, the official name
    resnet: nn.Module | None, num_nb: int, num_lms: int = 68, input_size: int = 256, net_stride: int = 32
) -> PIPNet:
    """A ``PIPNet`` by the official arguments.

    Args:
        resnet: torchvision's network, whose weights are copied, or None.
        num_nb, num_lms, input_size, net_stride: K, N, side of the crop and px per cell.
    """
    return _network("resnet18", resnet, num_nb, num_lms, input_size, net_stride)


def Pip_resnet50(  # noqa: N802
    resnet: nn.Module | None, num_nb: int, num_lms: int = 68, input_size: int = 256, net_stride: int = 32
) -> PIPNet:
    """See ``Pip_resnet18``."""
    return _network("resnet50", resnet, num_nb, num_lms, input_size, net_stride)


def Pip_resnet101(  # noqa: N802
    resnet: nn.Module | None, num_nb: int, num_lms: int = 68, input_size: int = 256, net_stride: int = 32
) -> PIPNet:
    """See ``Pip_resnet18``."""
    return _network("resnet101", resnet, num_nb, num_lms, input_size, net_stride)


def Pip_mbnetv2(  # noqa: N802
    mbnet: nn.Module | None, num_nb: int, num_lms: int = 68, input_size: int = 256, net_stride: int = 32
) -> PIPNet:
    """See ``Pip_resnet18``."""
    return _network("mobilenet_v2", mbnet, num_nb, num_lms, input_size, net_stride)


def Pip_mbnetv3(  # noqa: N802
    mbnet: nn.Module | None, num_nb: int, num_lms: int = 68, input_size: int = 256, net_stride: int = 32
) -> PIPNet:
    """See ``Pip_resnet18``."""
    return _network("mobilenet_v3", mbnet, num_nb, num_lms, input_size, net_stride)


def _network(
    backbone: str, trunk: nn.Module | None, num_nb: int, num_lms: int, input_size: int, net_stride: int
) -> PIPNet:
    model = PIPNet(backbone, num_lms, num_nb, net_stride, input_size, merge="official")
    if trunk is None:
        return model
    own = model.state_dict()
    state = {key: value for key, value in trunk.state_dict().items() if not key.startswith(_CLASSIFIERS)}
    wrong = [key for key, value in state.items() if key not in own or own[key].shape != value.shape]
    if wrong or not state:
        raise ValueError(
            f"{backbone}: expected torchvision's network of this name or None, got {type(trunk).__name__}"
            + (f", whose {wrong[0]!r} has no place in it" if wrong else " without weights")
        )
    model.load_state_dict(state, strict=False)
    return model
