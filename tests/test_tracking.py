"""Faces through frames: ids, calls of the detector, what ends a track, and that calls do not disturb each other."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.crop import tight_boxes
from pipnet_fast.pipeline.images import read_rgb
from pipnet_fast.tracking.tracker import MEMORY_S, Tracker
from tests.tracked import HEIGHT, SHAPE, WIDTH, Detector, Floats, Pixels, dot_landmarker, face_points, frame, ids, near

BLACK = frame()
# Two scenes that no correlation takes for one, dark beside the dots.
SCENES = [
    np.kron(np.random.default_rng(seed).integers(0, 60, (5, 5, 1)), np.ones((24, 32, 3))).astype(np.uint8)
    for seed in range(2)
]


def path(count: int, *, x: float = 40, y: float = 60, dx: float = 0.5, dy: float = 0.1) -> list[Floats]:
    return [face_points(x + dx * i, y + dy * i) for i in range(count)]


def test_two_faces_keep_their_ids() -> None:
    left, right = path(40, x=30, dx=0.8, y=40), path(40, x=130, dx=-0.6, y=80)
    landmarker = dot_landmarker()
    found = list(landmarker.track(map(frame, left, right), smoothing=0))
    assert ids(found) == [[0, 1]] * 40
    first = found[0].landmarks[:, 0, 0].argsort()
    for faces, a, b in zip(found, left, right, strict=True):
        np.testing.assert_allclose(faces.landmarks[first], np.stack((a, b)), atol=0.5)
        np.testing.assert_allclose(faces.boxes[:, :4], tight_boxes(faces.landmarks), atol=1e-4)
        np.testing.assert_allclose(faces.boxes[:, 4], faces.scores.mean(axis=1), atol=1e-6)
        assert (faces.landmarks.dtype, faces.boxes.dtype, faces.ids.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.parametrize("detect_every", [1, 4, 10, 100])
def test_the_detector_is_asked_every_n_frames(detect_every: int) -> None:
    detector = Detector()
    found = list(dot_landmarker(detector).track(map(frame, path(31)), detect_every=detect_every))
    assert ids(found) == [[0]] * 31
    assert detector.calls == 1 + 30 // detect_every


def test_without_a_face_it_is_asked_always_and_the_arrays_are_empty() -> None:
    detector = Detector()
    found = list(dot_landmarker(detector).track([BLACK] * 5))
    assert detector.calls == 5
    shapes = {(f.landmarks.shape, f.scores.shape, f.boxes.shape, f.ids.shape) for f in found}
    assert shapes == {((0, 3, 2), (0, 3), (0, 5), (0,))}


def test_a_new_face_is_found_within_n_frames() -> None:
    old, new = path(25), path(25, x=120, dx=0)
    frames = [frame(a, b) if i >= 7 else frame(a) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    found = list(dot_landmarker().track(frames, smoothing=0, detect_every=5))
    assert ids(found) == [[0]] * 10 + [[0, 1]] * 15
    near(found[-1], old[-1], new[-1])


def test_a_face_that_comes_back_soon_keeps_its_id() -> None:
    faces = path(60, dx=0.1)
    detector = Detector()
    found = list(
        dot_landmarker(detector).track(
            [BLACK if 20 <= i < 30 else frame(f) for i, f in enumerate(faces)], detect_every=100, fps=30
        )
    )
    assert ids(found) == [[0]] * 20 + [[]] * 10 + [[0]] * 30
    assert detector.calls == 1 + 11  # until it was there again
    near(found[30], faces[30])  # and not drawn back to where it was


@pytest.mark.parametrize(
    ("gone", "jump"), [pytest.param(MEMORY_S + 0.1, 0.0, id="later"), pytest.param(0.2, 60.0, id="elsewhere")]
)
def test_another_face_gets_another_id(gone: float, jump: float) -> None:
    tracker = Tracker(dot_landmarker())
    face, other = face_points(40, 60), face_points(40 + jump, 60)
    assert tracker.update(frame(face), 0.0).ids.tolist() == [0]
    assert len(tracker.update(BLACK, 0.01)) == 0
    assert tracker.update(frame(other), gone).ids.tolist() == [1]
    # Nor is the first one used again.
    assert len(tracker.update(BLACK, gone + 5)) == 0
    assert tracker.update(frame(face), gone + 10).ids.tolist() == [2]


@pytest.mark.parametrize(("gone", "same"), [(0.4, True), (0.6, False)])
def test_a_face_is_remembered_for_half_a_second(gone: float, same: bool) -> None:
    tracker, face = Tracker(dot_landmarker()), frame(face_points(40, 60))
    assert tracker.update(face, 0.0).ids.tolist() == [0]
    tracker.update(BLACK, 0.01)
    tracker.update(BLACK, gone - 0.05)
    assert tracker.update(face, gone).ids.tolist() == [0 if same else 1]


@pytest.mark.parametrize(("moved", "same"), [(10.0, True), (16.0, False)])
def test_a_face_is_found_again_where_it_was(moved: float, same: bool) -> None:
    """Moved by 10 of 24 px its box overlaps the old one by 14 / 34, 0.41; by 16 px it is 8 / 40, 0.2."""
    tracker = Tracker(dot_landmarker())
    assert tracker.update(frame(face_points(40, 60)), 0.0).ids.tolist() == [0]
    tracker.update(BLACK, 0.01)
    assert tracker.update(frame(face_points(40 + moved, 60)), 0.2).ids.tolist() == [0 if same else 1]


def test_after_a_loss_the_detector_is_asked_until_it_is_forgotten() -> None:
    detector = Detector()
    stay, gone = face_points(40, 60), face_points(120, 60)
    frames = [frame(stay, gone)] * 5 + [frame(stay)] * 40
    found = list(dot_landmarker(detector).track(frames, detect_every=1000, fps=30))
    assert ids(found) == [[0, 1]] * 5 + [[0]] * 40 or ids(found) == [[0, 1]] * 5 + [[1]] * 40
    assert detector.calls == 1 + round(MEMORY_S * 30)


def test_a_face_that_leaves_the_image_is_lost() -> None:
    faces = [face_points(140 + 1.5 * i, 60) for i in range(25)]
    found = list(dot_landmarker().track(map(frame, faces), smoothing=0))
    assert found[0].ids.tolist() == [0]
    assert len(found[-1]) == 0
    for result in found:
        assert not len(result) or (result.boxes[:, [0, 2]].mean(axis=1) <= WIDTH).all()


def seeing(box: list[float], shape: Any = SHAPE, scores: Any = (1.0,), boxes: int = 1) -> pf.FaceLandmarker:
    """A landmarker that sees a shape, in sides of the crop's middle, in whatever crop, and detects a box always."""
    landmarker = dot_landmarker(lambda image: [box] * boxes)
    # The crop is 1.4 times the box.
    points = torch.from_numpy((np.asarray(shape) / 1.4 + 0.5).astype(np.float32))

    def run(crops: Any) -> pf.Landmarks:
        values = torch.tensor([scores[i % len(scores)] for i in range(len(crops))])
        return pf.Landmarks(points.expand(len(crops), 3, 2), values[:, None].expand(-1, 3))

    landmarker.runtime = run  # type: ignore[assignment]
    return landmarker


@pytest.mark.parametrize(
    ("box", "is_face"),
    [
        pytest.param([-11, 40, 13, 64], True, id="center inside on the left"),
        pytest.param([-14, 40, 10, 64], False, id="left"),
        pytest.param([40, -11, 64, 13], True, id="center inside at the top"),
        pytest.param([40, -14, 64, 10], False, id="top"),
        pytest.param([WIDTH - 10, 40, WIDTH + 14, 64], False, id="right"),
        pytest.param([40, HEIGHT - 10, 64, HEIGHT + 14], False, id="bottom"),
        pytest.param([40, 40, 49, 49], True, id="9 px"),
        pytest.param([40, 40, 47, 47], False, id="7 px"),
    ],
)
def test_what_may_be_a_face(box: list[float], is_face: bool) -> None:
    assert Tracker(seeing(box)).update(BLACK, 0).ids.tolist() == [0] * is_face


@pytest.mark.parametrize(("stretch", "is_face"), [(2.8, True), (3.2, False)])
def test_landmarks_may_be_three_times_as_flat_as_the_detectors_box(stretch: float, is_face: bool) -> None:
    # Each of two looks makes it flatter by so much.
    flat = 1 / stretch**0.5
    for sides in ((1, flat), (flat, 1)):
        for box in ([20, 20, 100, 100], [20, 60, 140, 80]):
            expected = is_face or (sides[0] < 1 and box[3] == 80)
            assert len(Tracker(seeing(box, SHAPE * sides)).update(BLACK, 0)) == expected


def test_a_new_face_is_looked_at_in_the_crop_of_its_landmarks() -> None:
    """Once in the detector's box and once in that of what was found there, which later crops follow from."""
    found = Tracker(seeing([40, 40, 80, 80], SHAPE * 0.9)).update(BLACK, 0)
    np.testing.assert_allclose(found.boxes[0, 2:4] - found.boxes[0, :2], [40 * 0.9**2] * 2, rtol=1e-4)


def test_of_two_detections_on_a_face_the_better_look_counts() -> None:
    found = Tracker(seeing([40, 40, 80, 80], scores=(0.6, 0.9), boxes=2)).update(BLACK, 0)
    assert found.boxes[:, 4].tolist() == pytest.approx([0.9])


def test_a_low_score_is_a_loss() -> None:
    dim = (frame(face_points(40, 60)) * 0.5).astype(np.uint8)
    found = list(dot_landmarker().track([frame(face_points(40, 60)), dim, dim], min_score=0.7))
    assert ids(found) == [[0], [], []]
    assert ids(list(dot_landmarker().track([frame(face_points(40, 60)), dim, dim], min_score=0.3))) == [[0]] * 3


def test_scores_count_by_their_mean() -> None:
    dim = frame(face_points(40, 60))
    dim[..., :2] //= 2
    for least, ids_of in ((0.6, [[0]] * 3), (0.75, [[0], [], []])):
        assert ids(list(dot_landmarker().track([frame(face_points(40, 60)), dim, dim], min_score=least))) == ids_of


def test_two_tracks_on_one_face_are_one() -> None:
    # One face goes behind the other, which stands still, and comes out again much later.
    still = face_points(80, 60)
    passing = [face_points(40 + 1.5 * i, 60) for i in range(70)]
    frames = [frame(still) if 44 < p[2, 0] < 116 else frame(still, p) for p in passing]
    found = list(dot_landmarker().track(frames, smoothing=0, detect_every=5))
    assert len(found[0]) == 2
    distances = [np.abs(faces.landmarks - still).max(axis=(1, 2)) for faces in found]
    (number,) = found[0].ids[distances[0] < 1]
    for faces, distance in zip(found, distances, strict=True):
        assert faces.ids[distance < 1].tolist() == [number]
    assert {len(faces) for faces in found} == {1, 2}
    assert len(found[-1]) == 2


def test_a_cut_ends_all_tracks() -> None:
    face = face_points(80, 60)
    frames = [frame(face, background=SCENES[i >= 6]) for i in range(12)]
    assert ids(list(dot_landmarker().track(frames, detect_every=100))) == [[0]] * 6 + [[1]] * 6


def test_a_flash_ends_none() -> None:
    face = face_points(80, 60)
    plain = frame(face, background=SCENES[0])
    flash = np.full_like(plain, 255)
    found = list(dot_landmarker().track([plain, plain, flash, plain, plain]))
    assert found[-1].ids.tolist() == [0]


def test_false_detections_make_no_track() -> None:
    def detector(image: Pixels) -> list[list[float]]:
        x, y = 80.0, 60.0
        return [
            [5, 5, 30, 30],
            [x - 12, y - 12, x + 12, y + 12],
            [x - 11, y - 10, x + 13, y + 12],
            [x, y, x + 9, y + 9],
        ]

    found = list(dot_landmarker(detector).track([frame(face_points(80, 60))] * 4, detect_every=1))
    assert ids(found) == [[0]] * 4


def test_flat_landmarks_are_followed() -> None:
    """As those of a model of the eyes alone are, in boxes much longer than wide."""
    shape = np.array([[0.0, 1.0], [100.0, 0.0], [50.0, 6.0]])
    faces = [np.array([20.0 + 0.4 * i, 50.0 + 0.2 * i]) + shape for i in range(20)]
    boxes = (tight_boxes(points[None]) for points in faces)
    found = list(dot_landmarker(lambda image: next(boxes)).track(map(frame, faces), smoothing=0, detect_every=100))
    assert ids(found) == [[0]] * 20
    near(found[-1], faces[-1], atol=1.5)


def test_what_is_flat_is_no_face_where_boxes_are_not() -> None:
    """Dots in one line, in the box of a face: no track, whatever the score."""
    line = np.array([[40.0, 60.0], [80.0, 60.5], [60.0, 61.0]])
    found = list(dot_landmarker(lambda image: [[40, 40, 80, 80]]).track([frame(line)] * 3, smoothing=0))
    assert ids(found) == [[]] * 3


def test_smoothing_calms_noise_and_0_has_none() -> None:
    random = np.random.default_rng(0)
    faces = [face_points(80, 60) + random.normal(0, 0.4, (3, 2)) for _ in range(40)]

    def jitter(smoothing: float) -> float:
        found = list(dot_landmarker().track(map(frame, faces), smoothing=smoothing))
        return float(np.diff(np.concatenate([f.landmarks for f in found]), axis=0)[20:].std())

    raw, crisp, calm = jitter(0), jitter(0.25), jitter(1)
    assert calm < crisp < raw
    assert raw == pytest.approx(0.4 * 2**0.5, rel=0.2)
    landmarker = dot_landmarker()
    found = list(landmarker.track(map(frame, faces), smoothing=0))
    for faces_now, before, points in zip(found[1:], found, faces[1:], strict=False):
        np.testing.assert_array_equal(faces_now.landmarks, landmarker(frame(points), before.boxes).landmarks)


def test_smoothing_follows_the_times() -> None:
    def lag(fps: float) -> float:
        frames = [frame(face_points(40 + 30 * i / fps, 60)) for i in range(int(fps))]
        found = list(dot_landmarker().track(frames, fps=fps, smoothing=1))
        return float(face_points(40 + 30 * (len(frames) - 1) / fps, 60)[0, 0] - found[-1].landmarks[0, 0, 0])

    # The same motion in the same time, so the same lag, if nearly.
    assert lag(60) == pytest.approx(lag(30), rel=0.25)
    assert lag(30) > 0.3


def test_frames_are_taken_as_they_are_asked_for() -> None:
    taken = itertools.count()

    def endless() -> Iterator[Pixels]:
        while True:
            next(taken)
            yield BLACK

    tracked = dot_landmarker().track(endless(), timestamps=itertools.count())
    next(tracked), next(tracked)
    assert next(taken) == 2


def test_many_tracks_share_a_landmarker() -> None:
    landmarker = dot_landmarker()

    def run(index: int) -> list[pf.Faces]:
        return list(landmarker.track(map(frame, path(20, x=30 + 10 * index, y=40 + 4 * index))))

    alone = [run(index) for index in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, range(4)))
    for found, expected in zip(together, alone, strict=True):
        assert ids(found) == ids(expected) == [[0]] * 20
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.landmarks, b.landmarks)


def test_a_real_face_that_moves() -> None:
    photo = read_rgb(astronaut())
    landmarker = pf.FaceLandmarker(device="cpu")
    frames = [np.ascontiguousarray(photo[40 + i : 300 + i, 90 + 3 * i : 350 + 3 * i, ::-1]) for i in range(4)]
    found = list(landmarker.track(frames, smoothing=0, detect_every=100))
    assert ids(found) == [[0]] * 4
    (expected,) = landmarker(photo[..., ::-1]).landmarks
    for i, faces in enumerate(found):
        assert np.abs(faces.landmarks[0] + [90 + 3 * i, 40 + i] - expected).mean() < 1.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"smoothing": 1.5}, ValueError, "Tracker: smoothing: expected 0 to 1, got 1.5"),
        ({"smoothing": float("nan")}, ValueError, "smoothing: expected 0 to 1, got nan"),
        ({"smoothing": "calm"}, ValueError, "smoothing: expected 0 to 1, got 'calm'"),
        ({"min_score": -0.1}, ValueError, "min_score: expected 0 to 1, got -0.1"),
        ({"detect_every": 0}, ValueError, "detect_every: expected an integer >= 1, got 0"),
        ({"detect_every": 2.0}, ValueError, "detect_every: expected an integer >= 1, got 2.0"),
        ({"fps": 0}, ValueError, "track: fps: expected frames per second > 0, got 0"),
        ({"fps": "30"}, ValueError, "track: fps: .* got '30'"),
        ({"fps": 30, "timestamps": [0]}, ValueError, "track: expected fps or timestamps, got both"),
        ({"timestamps": 30}, TypeError, "track: timestamps: expected seconds for each frame, got int"),
        ({"frames": 5}, TypeError, "track: frames: expected images or the path of a video, got int"),
        ({"frames": BLACK}, ValueError, r"track: frames: .* got one of shape \(120, 160, 3\)"),
        ({"frames": "nosuch.mp4"}, FileNotFoundError, "no such video: nosuch.mp4"),
    ],
)
def test_bad_arguments_show_at_once(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dot_landmarker().track(**{"frames": [], **options})


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 0.0], "Tracker: time_s: expected finite seconds after 0, got 0.0"),
        ([1.0, 0.5], "expected finite seconds after 1, got 0.5"),
        ([0.0, float("nan")], "got nan"),
        ([0.0, float("inf")], "got inf"),
        ([0.0, "1"], "got '1'"),
        ([0.0], "track: timestamps: expected one for every frame, got 1"),
    ],
)
def test_bad_times(times: list[Any], message: str) -> None:
    tracked = dot_landmarker().track([BLACK, BLACK], timestamps=times)
    next(tracked)
    with pytest.raises(ValueError, match=message):
        next(tracked)


def test_bad_frames_leave_the_tracker_as_it_was() -> None:
    tracker = Tracker(dot_landmarker())
    face = frame(face_points(40, 60))
    tracker.update(face, 0.0)
    with pytest.raises(TypeError, match="Tracker: image: expected uint8 values"):
        tracker.update(face.astype(np.float32), 0.1)
    with pytest.raises(ValueError, match="Tracker: time_s"):
        tracker.update(BLACK, -1.0)
    assert tracker.update(face, 0.2).ids.tolist() == [0]


def test_trackers_need_a_landmarker_with_a_detector() -> None:
    with pytest.raises(TypeError, match="Tracker: landmarker: expected a FaceLandmarker, got str"):
        Tracker("model")  # type: ignore[arg-type]
    blind = dot_landmarker()
    blind.detector = None
    with pytest.raises(ValueError, match="Tracker: landmarker: expected one with a detector"):
        Tracker(blind)


def test_sizes_of_frames_may_change() -> None:
    small = frame(face_points(40, 60))
    large = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    large[:HEIGHT, :WIDTH] = small
    assert len(list(dot_landmarker().track([small, large, small]))) == 3
