"""The official functions: shapes and types as theirs, and the demo's arithmetic on what they return."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pipnet_fast as pf
from pipnet_fast.backbones import create_backbone
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.compat import official
from pipnet_fast.compat.official import FaceBoxesDetector, forward_pip, get_meanface, preprocessing
from pipnet_fast.crop import CropRule
from pipnet_fast.pipeline.images import IMAGENET_MEAN, IMAGENET_STD, read_rgb
from pipnet_fast.weights import default_model
from tests.inputs import randomized
from tests.test_landmarker import FACE, PARTS

# How many landmarks at most have one and the same neighbor, of ten; figures of the official code.
LONGEST = {"300w68": 22, "cofw29": 19, "aflw19": 18, "wflw98": 17, "lapa106": 20}


def small(**options: Any) -> pf.PIPNet:
    values = {"num_landmarks": 98, "mean_shape": "wflw98", "width": 0.0625, "input_size": 128, "merge": "official"}
    return randomized(**{**values, **options})


class Elsewhere(nn.Module):
    """Any network that gives the five maps."""

    def __init__(self, model: pf.PIPNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.model(x))


def merged(outputs: tuple[Tensor, ...], meanface: Any) -> npt.NDArray[np.floating[Any]]:
    """(N, 2): what the demo does with the six tensors of one face, in NumPy."""
    x, y, near_x, near_y = (values.numpy() for values in outputs[:4])
    _, first, second, longest = meanface
    all_x = np.concatenate((x, near_x[first, second].reshape(-1, longest)), axis=1)
    all_y = np.concatenate((y, near_y[first, second].reshape(-1, longest)), axis=1)
    return np.stack((all_x.mean(axis=1), all_y.mean(axis=1)), axis=1)


@pytest.mark.parametrize("layout", LONGEST)
def test_meanface(layout: str) -> None:
    indices, first, second, longest = get_meanface(layout, 10)
    count = len(pf.neighbor_table(layout, 10).neighbors)
    assert longest == LONGEST[layout]
    assert isinstance(indices, list)
    assert np.stack(indices).shape == (count, 10)
    assert indices[0].dtype == np.int64
    assert [type(index) for index in (first[0], second[0])] == [int, int]
    assert len(first) == len(second) == count * longest
    # Every prediction of a landmark by another is in the landmark's row.
    rows = np.reshape(np.stack(indices)[first, second], (count, longest))
    assert np.array_equal(rows, np.repeat(np.arange(count)[:, None], longest, axis=1))
    assert len(set(zip(first, second, strict=True))) == count * 10


def test_meanface_of_a_file(tmp_path: Any) -> None:
    points = np.random.default_rng(0).random((5, 2))
    (tmp_path / "meanface.txt").write_text(" ".join(map(str, points.ravel().tolist())))
    got = get_meanface(str(tmp_path / "meanface.txt"), 4)
    # Of five landmarks each is a neighbor of the four others, so nothing is repeated.
    assert got[3] == 4
    assert np.reshape(got[1], (5, 4)).tolist() == [[n for n in range(5) if n != i] for i in range(5)]


def test_meanface_repeats_cyclically() -> None:
    # On a line every landmark's one neighbor is the one to its left, but for the first one's.
    points = np.array([[0, 0], [1, 0], [2.1, 0], [1, 5], [1, 5.5]])
    indices, first, second, longest = get_meanface(points[:, :], 2)
    votes = np.argwhere(np.stack(indices) == 4)
    assert longest > len(votes)
    row = list(zip(first, second, strict=True))[4 * longest : 5 * longest]
    assert row == [tuple(votes[i % len(votes)]) for i in range(longest)]


@pytest.mark.parametrize(
    ("points", "num_nb", "message"),
    [
        pytest.param(np.eye(7)[:, :2], 10, "expected 1 to 6 for 7 landmarks, got 10", id="too many"),
        pytest.param("wflw98", 0, "expected 1 to 97 for 98 landmarks, got 0", id="none"),
        pytest.param("wflw98", 2, "among the 2 nearest ones of another, but [0-9]+ is not", id="nobody's"),
    ],
)
def test_meanfaces_that_are_none(points: Any, num_nb: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"get_meanface: num_nb: .*{message}"):
        get_meanface(points, num_nb)


@pytest.mark.parametrize("wrap", [lambda model: model, Elsewhere], ids=["PIPNet", "any module"])
def test_the_demos_merge_gives_our_points(wrap: Any) -> None:
    model = small()
    x = torch.randn(1, 3, 128, 128)
    outputs = forward_pip(wrap(model), x, None, 128, 32, 10)
    shapes = [tuple(values.shape) for values in outputs]
    assert shapes == [(98, 1), (98, 1), (98, 10), (98, 10), (98, 16), (98,)]
    expected = model.predict(x)
    points = merged(outputs, get_meanface("wflw98", 10))
    assert points == pytest.approx(expected.points_frac[0].numpy(), rel=1e-4, abs=1e-4)
    assert torch.allclose(outputs[5], expected.scores[0])
    assert torch.equal(outputs[4].max(dim=1).values, outputs[5])


def test_rows_of_a_batch_follow_each_other() -> None:
    model, x = small(), torch.randn(3, 3, 128, 128)
    together = forward_pip(model, x, None, 128, 32, 10)
    apart = [forward_pip(model, x[i : i + 1], None, 128, 32, 10) for i in range(3)]
    for index, values in enumerate(together):
        assert torch.allclose(values, torch.cat([one[index] for one in apart]), rtol=1e-4, atol=1e-4)
    none = forward_pip(model, x[:0], None, 128, 32, 10)
    assert [tuple(values.shape) for values in none] == [(0, 1), (0, 1), (0, 10), (0, 10), (0, 16), (0,)]


def test_it_is_for_inference() -> None:
    model = small(num_neighbors=0).train()
    outputs = forward_pip(model, torch.randn(1, 3, 128, 128), None, 128, 32, 0)
    assert not model.training
    assert not any(values.requires_grad for values in outputs)
    assert outputs[2].shape == (98, 0)


@pytest.mark.parametrize(
    ("options", "arguments", "error", "message"),
    [
        pytest.param(None, (64, 32, 10), TypeError, "net: expected it to give five maps, got Tensor", id="one map"),
        pytest.param(
            {}, (256, 32, 10), ValueError, r"net: expected score maps \(B, N, 8, 8\).*got \(1, 98, 4, 4\)", id="grid"
        ),
        pytest.param({}, (128, 32, 8), ValueError, r"net: expected neighbor_x \(1, 784, 4, 4\) for num_nb=8", id="K"),
        pytest.param({}, (128, 0, 10), ValueError, "net_stride: expected an integer >= 1, got 0", id="stride"),
        pytest.param({}, (128, 32, -1), ValueError, "num_nb: expected an integer >= 0, got -1", id="negative K"),
    ],
)
def test_networks_that_do_not_fit(
    options: dict[str, Any] | None, arguments: tuple[int, int, int], error: type[Exception], message: str
) -> None:
    net = nn.Identity() if options is None else small(**options)
    with pytest.raises(error, match=f"forward_pip: {message}"):
        forward_pip(net, torch.zeros(1, 3, 128, 128), None, *arguments)


def test_preprocessing_normalizes() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    expected = (rgb / 255 - IMAGENET_MEAN) / IMAGENET_STD
    for image in (rgb, Image.fromarray(rgb)):
        got = preprocessing(64)(image)
        assert (got.shape, got.dtype) == ((3, 64, 64), torch.float32)
        assert got.permute(1, 2, 0).numpy() == pytest.approx(expected, abs=1e-5)
    assert preprocessing(32)(Image.fromarray(rgb)).shape == (3, 32, 32)


def test_networks_by_the_official_names() -> None:
    trunk = create_backbone("mobilenet_v2", 32)
    trunk.classifier = nn.Linear(8, 1)
    model = official.Pip_mbnetv2(trunk, 10, num_lms=19, input_size=256, net_stride=32)
    assert torch.equal(model.get_parameter("features.0.0.weight"), trunk.get_parameter("features.0.0.weight"))
    assert (model.config.merge, model.config.num_landmarks, model.config.num_neighbors) == ("official", 19, 10)
    builders = {
        "resnet18": official.Pip_resnet18,
        "resnet50": official.Pip_resnet50,
        "resnet101": official.Pip_resnet101,
        "mobilenet_v3": official.Pip_mbnetv3,
    }
    with torch.device("meta"):
        for name, build in builders.items():
            assert build(None, 10).config.backbone == name
        with pytest.raises(
            ValueError, match="resnet18: expected torchvision's network .* 'features.0.0.weight' has no"
        ):
            official.Pip_resnet18(trunk, 10)


def demo_crop(detection: list[Any], height: int, width: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 that the demo cuts for a detection."""
    _, _, x0, y0, w, h = detection
    x1, y1 = x0 + w - 1, y0 + h - 1
    grow_x, grow_y = int(w * (1.2 - 1) / 2), int(h * (1.2 - 1) / 2)
    return max(x0 - grow_x, 0), max(y0 + grow_y, 0), min(x1 + grow_x, width - 1), min(y1 + grow_y, height - 1)


def test_the_demos_crop_is_that_of_tight_boxes() -> None:
    detector = FaceBoxesDetector("FaceBoxes", "not read.pth", False, "cpu", detector=lambda image: [[*FACE, 0.7]])
    image = np.zeros((400, 500, 3), np.uint8)
    (detection,), scale = detector.detect(image, 0.6, 1)
    assert (detection[0], scale) == ("face", 1.0)
    assert detection[1] == pytest.approx(0.7)
    assert demo_crop(detection, 400, 500) == pytest.approx(CropRule().apply(np.array([FACE]))[0], abs=2.5)
    assert detector.detect(image, 0.8)[0] == []


def test_the_demo_on_a_photo() -> None:
    bgr = read_rgb(astronaut())[..., ::-1].copy()
    height, width = bgr.shape[:2]
    model = pf.load(default_model())
    assert isinstance(model, pf.PIPNet)
    config = model.config
    (detection,), _ = FaceBoxesDetector("FaceBoxes", None, False, "cpu").detect(bgr, 0.6, 1)
    x0, y0, x1, y1 = demo_crop(detection, height, width)
    preprocess = preprocessing(config.input_size)
    inputs = preprocess(Image.fromarray(bgr[y0:y1, x0:x1, ::-1])).unsqueeze(0)
    outputs = forward_pip(model, inputs, preprocess, config.input_size, config.stride, config.num_neighbors)
    points = merged(outputs, get_meanface(model.mean_shape, config.num_neighbors))
    points = points * (x1 - x0 + 1, y1 - y0 + 1) + (x0, y0)
    for indices, position in PARTS.values():
        np.testing.assert_allclose(points[list(indices)].mean(axis=0), position, atol=6)
