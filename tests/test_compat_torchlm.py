"""torchlm's calls: crops by its rule, results in its shapes, and refusals where it downloads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.compat import torchlm
from pipnet_fast.pipeline.images import read_rgb
from pipnet_fast.weights import default_model
from tests.inputs import randomized
from tests.test_landmarker import PARTS, known_model

IMAGE = np.zeros((200, 300, 3), np.uint8)


class Given:
    """A detector that finds what it is told to, and keeps what it was shown."""

    def __init__(self, *boxes: Any) -> None:
        self.boxes = np.array(boxes, np.float32).reshape(-1, 5)
        self.shown: Any = None

    def apply_detecting(self, image: Any, thresh: float = 0.6) -> Any:
        self.shown = image
        return self.boxes[self.boxes[:, 4] > thresh]


def bound(model: Any, *boxes: Any) -> torchlm.BoundRuntime:
    runtime = torchlm.BoundRuntime()
    runtime.bind(model)
    runtime.bind(Given(*boxes))
    return runtime


def checkpoint(tmp_path: Path, **options: Any) -> Path:
    """A .pth of a small network."""
    model = randomized(**{"num_landmarks": 19, "width": 0.0625, **options})
    torch.save(model.state_dict(), tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_a_photo_by_the_calls_of_torchlms_readme() -> None:
    runtime = torchlm.runtime
    runtime.bind(torchlm.faceboxesv2(device="cpu"))
    runtime.bind(
        torchlm.pipnet(
            backbone="resnet18",
            pretrained=True,
            num_nb=10,
            num_lms=68,
            net_stride=32,
            input_size=256,
            meanface_type="300w",
            map_location="cpu",
            checkpoint=str(default_model()),
        )
    )
    landmarks, bboxes = runtime.forward(read_rgb(astronaut())[..., ::-1])
    assert (landmarks.shape, landmarks.dtype) == ((1, 68, 2), np.float32)
    assert (bboxes.shape, bboxes.dtype) == ((1, 5), np.float32)
    for indices, position in PARTS.values():
        np.testing.assert_allclose(landmarks[0, list(indices)].mean(axis=0), position, atol=6)


def test_crops_by_torchlms_rule() -> None:
    # Of 41 by 51 and 41 by 50 px: 4 on the left and right, 5 and 4 down at top and bottom; cut at the image.
    runtime = bound(known_model(), [100.9, 50.2, 140.9, 100.7, 0.9], [-8, 150, 32, 199, 0.8])
    landmarks, bboxes = runtime.forward(IMAGE)
    assert bboxes.shape == (2, 5)
    # At a quarter and three eighths of crops from (96, 55) to (144, 105), and from (0, 154) to (36, 199).
    assert landmarks[0] == pytest.approx(np.array([[96 + 12, 55 + 18.75]] * 2), abs=1e-3)
    assert landmarks[1] == pytest.approx(np.array([[9, 154 + 16.875]] * 2), abs=1e-3)
    wider, _ = runtime.forward(IMAGE, extend=1.0)
    # 20 px on the left and the right, 25 down.
    assert wider[0] == pytest.approx(np.array([[80 + 20, 75 + 18.75]] * 2), abs=1e-3)
    assert runtime.forward(IMAGE, thresh=0.85)[0].shape == (1, 2, 2)


def test_rounding_is_torchlms() -> None:
    # A tenth of 10 px is a little less than 1 in its arithmetic.
    crops = torchlm.crop_boxes(np.array([[20, 20, 29, 29, 1]], np.float32), 0.2, IMAGE)
    assert crops.tolist() == [[20, 20, 29, 29]]


def test_no_face_gives_empty_arrays() -> None:
    landmarks, bboxes = bound(known_model()).forward(IMAGE)
    assert (landmarks.shape, bboxes.shape) == ((0, 2, 2), (0, 5))


def test_colors() -> None:
    image = IMAGE.copy()
    image[..., 0] = 200
    detector = Given([100, 50, 150, 110, 1])
    runtime = bound(randomized(num_landmarks=5, num_neighbors=0, width=0.0625, input_size=64))
    runtime.bind(detector)
    as_bgr, _ = runtime.forward(image)
    assert detector.shown[0, 0].tolist() == [200, 0, 0]
    as_rgb, _ = runtime.forward(image[..., ::-1], swapRB_before_face=True, swapRB_before_landmarks=False)
    assert detector.shown[0, 0].tolist() == [200, 0, 0]
    assert np.array_equal(as_bgr, as_rgb)
    assert not np.array_equal(as_bgr, runtime.forward(image[..., ::-1])[0])


def test_a_network_is_put_in_eval_mode() -> None:
    model = known_model().train()
    bound(model, [100, 50, 150, 110, 1]).forward(IMAGE)
    assert not model.training


def test_what_is_not_bound_yet() -> None:
    runtime = torchlm.BoundRuntime()
    with pytest.raises(RuntimeError, match="expected a detector, such as faceboxesv2"):
        runtime.forward(IMAGE)
    runtime.bind(Given())
    with pytest.raises(RuntimeError, match="expected a network, such as pipnet"):
        runtime.forward(IMAGE)


@pytest.mark.parametrize("base", [3, torchlm.faceboxesv2, torch.nn.Identity(), None])
def test_what_cannot_be_bound(base: Any) -> None:
    with pytest.raises(ValueError, match="runtime.bind: base: expected a network of this package or an object with"):
        torchlm.BoundRuntime().bind(base)


@pytest.mark.parametrize(
    ("box", "options", "error", "message"),
    [
        pytest.param([400, 50, 440, 90, 1], {}, ValueError, "a part in the image of 300x200 px", id="outside"),
        pytest.param([10, 10, 10, 40, 1], {}, ValueError, "finite x0 < x1", id="no width"),
        pytest.param([10, 10, 40, 40, 1], {"extend": -1}, ValueError, "extend: expected -1 < extend", id="extend"),
        pytest.param([10, 10, 40, 40, 1], {"color": 1}, TypeError, "unexpected keyword argument 'color'", id="option"),
    ],
)
def test_bad_calls(box: list[float], options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bound(known_model(), box).forward(IMAGE, **options)


def test_images_that_are_none() -> None:
    with pytest.raises(TypeError, match="torchlm.runtime.forward: image: expected uint8"):
        bound(known_model()).forward(IMAGE / 255)


def test_a_checkpoint_of_the_official_network(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    model = torchlm.pipnet(num_lms=19, meanface_type="AFLW", checkpoint=path)
    assert (model.config.merge, model.config.input_size) == ("official", 256)
    assert model.mean_shape == pytest.approx(pf.PIPNet(num_landmarks=19, mean_shape="aflw19", width=0.0625).mean_shape)
    # Where torchlm asks for CUDA without having it, it takes the CPU.
    again = torchlm.pipnet(num_lms=19, meanface_type="aflw19", map_location="cuda", checkpoint=path)
    assert next(again.parameters()).is_cuda == torch.cuda.is_available()


def test_a_new_network() -> None:
    model = torchlm.pipnet(
        backbone="mobilenet_v2", pretrained=False, num_nb=5, num_lms=29, meanface_type="COFW", backbone_pretrained=False
    )
    maps = model(torch.zeros(2, 3, 64, 64))
    assert [m.shape[1] for m in maps] == [29, 29, 29, 145, 145]
    assert len(model.table.neighbors) == 29


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param(
            {},
            ValueError,
            "nothing is downloaded here; pass checkpoint=FILE, .*_10x68x32x256_300w.pth",
            id="pretrained",
        ),
        pytest.param({"checkpoint": "none.pth"}, FileNotFoundError, "no such weights file: none.pth", id="missing"),
        pytest.param({"checkpoint": "model.pth"}, ValueError, "expected 19 landmarks, got 68", id="meanface"),
        pytest.param(
            {"checkpoint": "model.pth", "meanface_type": "aflw"}, ValueError, "num_lms=19, not 68; pass what", id="N"
        ),
        pytest.param(
            {"checkpoint": "model.pth", "meanface_type": None},
            ValueError,
            "meanface_type: expected one of aflw",
            id="no",
        ),
        pytest.param(
            {"pretrained": False, "backbone_pretrained": False, "meanface_type": "ibug"},
            ValueError,
            "mean_shape: expected one of 300w68.*got 'ibug'",
            id="unknown meanface",
        ),
    ],
)
def test_networks_that_cannot_be_had(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        torchlm.pipnet(**options)
