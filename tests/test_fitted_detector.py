"""Detectors fitted to landmarks that do not span the face."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipnet_fast as pf
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.data import DataError
from pipnet_fast.evaluate import fit_detector as fit_module
from pipnet_fast.evaluate.fit_detector import fit_detector
from pipnet_fast.pipeline.detectors import BoxStyle, HaarDetector, create_detector
from pipnet_fast.pipeline.fitted_detector import FORMAT, FittedDetector, load_detector
from pipnet_fast.pipeline.images import read_rgb
from tests.pictures import data, face

# Three points that lie in a box of 60 by 48 px.
POINTS = np.array([[60.0, 70.0], [120.0, 70.0], [90.0, 118.0]])
STYLE = BoxStyle(scale_x=0.6, scale_y=0.4, shift_x=0.05, shift_y=-0.1)


def around(points: Any) -> list[float]:
    """The box that ``STYLE`` turns into the tight one of points."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low) / (STYLE.scale_x, STYLE.scale_y)
    center = (low + high) / 2 - side * (STYLE.shift_x, STYLE.shift_y)
    return [*(center - side / 2), *(center + side / 2), 1.0]


def test_the_style_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [np.array([8.0 * i, 3.0 * i]) for i in range(3)]
    samples = [face(f"{i}.png", POINTS + step) for i, step in enumerate(steps)]
    # A face beside the one that is labelled, and one face that is not found; another is labelled in part.
    boxes = {i: [around(POINTS + step + 300), around(POINTS + step)] for i, step in enumerate(steps)}
    samples += [face("missed.png", POINTS), face("partly.png", np.where(POINTS == 118, np.nan, POINTS))]
    boxes[3] = []
    shown = iter(range(5))

    def find(image: Any) -> Any:
        return np.array(boxes[next(shown)]).reshape(-1, 5)

    monkeypatch.setattr(fit_module, "create_detector", lambda name: find)
    fit = fit_detector("haar", data(samples))
    assert (fit.faces, fit.found) == (4, 3)
    assert asdict(fit.detector.style) == pytest.approx(asdict(STYLE))
    assert fit.after == pytest.approx(1.0)
    assert fit.before < 0.3


def test_broken_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "create_detector", lambda name: lambda image: np.array([around(POINTS)]))
    faces = data([face("a.png", POINTS), face("b.png", POINTS, readable=False)])
    with pytest.raises(DataError, match=r"b\.png"):
        fit_detector("haar", faces)
    fit = fit_detector("haar", faces, skip_bad=True)
    assert (fit.faces, fit.found, [bad.where for bad in fit.bad]) == (1, 1, ["b.png"])


def test_no_face_to_fit_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "create_detector", lambda name: lambda image: np.zeros((0, 5)))
    with pytest.raises(ValueError, match="expected faces labelled in full that haar finds, got 1 labelled in full"):
        fit_detector("haar", data([face("a.png", POINTS)]))


def test_a_file_gives_the_same_detector(tmp_path: Path) -> None:
    fitted = FittedDetector("haar", STYLE)
    fitted.save(tmp_path / "mine.json")
    loaded = create_detector(str(tmp_path / "mine.json"))
    assert isinstance(loaded, FittedDetector)
    assert (loaded.name, loaded.style) == ("haar", STYLE)
    photo = read_rgb(astronaut())
    (box,), (own,) = loaded(photo), HaarDetector()(photo)
    assert box.dtype == np.float32
    assert around(np.reshape(box[:4], (2, 2))) == pytest.approx(own.tolist(), abs=1e-2)
    assert loaded(np.zeros((50, 60, 3), np.uint8)).shape == (0, 5)
    assert pf.FaceLandmarker(detector=str(tmp_path / "mine.json"), device="cpu").detector.name == "haar"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "not a readable detector file", id="no JSON"),
        pytest.param("[" * 100000, "not a readable detector file", id="deep"),
        pytest.param("{}", "expected a detector file in format", id="another file"),
        pytest.param({"detector": "mine.json"}, "name: expected haar or yunet:PATH, got 'mine.json'", id="itself"),
        pytest.param({"detector": "dlib"}, 'detector: expected "auto"', id="unknown"),
        pytest.param({"style": {"scale_x": 1}}, "style: expected finite numbers for scale_x, scale_y", id="missing"),
        pytest.param({"scale_x": "1"}, "style: expected finite numbers", id="text"),
        pytest.param({"scale_x": 0}, "style: expected scales above 0 and up to 10", id="zero"),
        pytest.param({"shift_y": 11}, "style: expected scales above 0 and up to 10", id="far"),
        pytest.param({"scale_y": float("nan")}, "style: expected finite numbers", id="NaN"),
    ],
)
def test_files_that_are_none(text: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    if isinstance(text, dict):
        style = {"scale_x": 1, "scale_y": 1, "shift_x": 0, "shift_y": 0}
        style |= {name: value for name, value in text.items() if name in style}
        whole = {"format": FORMAT, "detector": "haar", "style": style}
        text = json.dumps(whole | {name: value for name, value in text.items() if name in whole})
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_detector(path)


def test_names_of_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such detector file"):
        create_detector(str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.json"):
        FittedDetector("haar", STYLE).save(tmp_path / "mine.txt")
