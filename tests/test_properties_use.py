"""Properties of what is made of landmarks and around them: aligned crops, poses, others' calls, tracks, tables."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pipnet_fast as pf
from pipnet_fast.compat.official import forward_pip, get_meanface
from pipnet_fast.crop import fit_crop_rule, transform
from pipnet_fast.data import FaceData, ImageFile, Sample
from pipnet_fast.evaluate import hold_against, read_predictions, write_predictions
from pipnet_fast.geometry import head_pose, norm_crop, to_5pts
from pipnet_fast.layouts import layout_names, load_layout, load_mean_shape
from pipnet_fast.models import LandmarkModel
from pipnet_fast.neighbors import nearest_neighbors
from pipnet_fast.tracking.one_euro import OneEuroFilter
from tests.inputs import Shape
from tests.soak import landmarker
from tests.strategies import boxes, head_maps, mean_shapes, outcome, seeds
from tests.test_geometry import turned
from tests.tolerances import assert_landmarks_close

bounded = settings(max_examples=20, deadline=None)
IMAGE = np.zeros((24, 32, 3), np.uint8)

finite = st.floats(-1e4, 1e4, width=32)
any_number = st.one_of(finite, st.floats(width=32))
similarities = st.tuples(st.floats(-180, 180), st.floats(0.1, 10), st.tuples(finite, finite))


@functools.cache
def model() -> LandmarkModel:
    return landmarker("torch").model


@bounded
@given(st.lists(st.tuples(any_number, any_number), min_size=5, max_size=5), similarities)
def test_aligned_crops_follow_the_face_or_say_why_not(points: Any, similarity: Any) -> None:
    """However a face lies in the image, its points come to the same places of the crop."""
    five = np.array(points, dtype=np.float64)
    found = outcome(lambda: norm_crop(IMAGE, five), ValueError)
    if isinstance(found, Exception):
        assert str(found).startswith("norm_crop: landmarks: expected")
        return
    assert found.crops.shape == (112, 112, 3)
    again = outcome(lambda: norm_crop(IMAGE, turned(five, *similarity)), ValueError)
    if not isinstance(again, Exception):
        there = transform(again.affines, turned(five, *similarity))
        # Shifts of 1e4 px leave that much of a px.
        np.testing.assert_allclose(there, transform(found.affines, five), atol=0.05)


@bounded
@given(st.sampled_from(("300w68", "wflw98", "lapa106", "cofw29", "aflw19")), seeds, similarities)
def test_the_mirrored_face_has_the_mirrored_pose(layout: str, seed: int, similarity: Any) -> None:
    mean = load_mean_shape(layout)
    shape = (mean + np.random.default_rng(seed).normal(0, 0.01, mean.shape)) * 200
    size = (480, 640)
    points = turned(shape - shape.mean(axis=0), similarity[0] / 4, min(similarity[1], 3), (320, 240))
    pose = head_pose(points, size, layout)
    other = head_pose(points[load_layout(layout).flip] * [-1, 1] + [size[1], 0], size, layout)
    np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-9)
    expected = np.array([-pose.yaw_deg, pose.pitch_deg, -pose.roll_deg])
    assert np.array([other.yaw_deg, other.pitch_deg, other.roll_deg]) == pytest.approx(expected, abs=0.01)


@bounded
@given(st.lists(any_number, min_size=38, max_size=38), st.sampled_from(((480, 640), (1, 1), (0, 5), (float("nan"), 3))))
def test_any_points_have_a_pose_or_are_refused(values: list[float], size: Any) -> None:
    pose = outcome(lambda: head_pose(np.array(values).reshape(19, 2), size, "aflw19"), ValueError)
    if isinstance(pose, Exception):
        assert str(pose).startswith("head_pose: ")
    else:
        assert all(np.isfinite(values).all() for values in pose)


@bounded
@given(st.sampled_from(layout_names()), seeds, similarities)
def test_five_points_move_with_the_face(layout: str, seed: int, similarity: Any) -> None:
    points = np.random.default_rng(seed).random((2, load_layout(layout).num_landmarks, 2))
    np.testing.assert_allclose(
        to_5pts(turned(points, *similarity), layout), turned(to_5pts(points, layout), *similarity)
    )


@bounded
@given(st.data())
def test_the_official_functions_merge_as_our_table_does(data: st.DataObject) -> None:
    """The demo's arithmetic on what ``forward_pip`` and ``get_meanface`` return."""
    count = data.draw(st.integers(2, 12))
    neighbors = data.draw(st.integers(1, count - 1))
    shape = Shape(data.draw(st.integers(1, 2)), count, neighbors, 4, 4, 1)
    mean_shape = data.draw(mean_shapes(count))
    maps = data.draw(head_maps(shape, torch.float32, special=False))
    table = outcome(lambda: get_meanface(mean_shape, neighbors), ValueError)
    if isinstance(table, Exception):
        assert len(np.unique(nearest_neighbors(load_mean_shape(mean_shape), neighbors))) < count
        return
    indices, first, second, most = table
    np.testing.assert_array_equal(indices, nearest_neighbors(load_mean_shape(mean_shape), neighbors))

    class Given(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return tuple(maps)

    x, y, near_x, near_y, _, best = forward_pip(Given(), torch.zeros(shape.B, 3, 128, 128), None, 128, 32, neighbors)
    merged = []
    for own, near in ((x, near_x), (y, near_y)):
        votes = near.view(shape.B, count, neighbors)[:, first, second].view(shape.B, count, most)
        merged.append(torch.cat((own.view(shape.B, count, 1), votes), dim=2).mean(dim=2))
    expected = pf.ops.decode(maps, pf.neighbor_table(mean_shape, neighbors, "official"), backend="reference")
    assert_landmarks_close(torch.stack(merged, dim=2), expected.points_frac, "points_frac")
    assert torch.equal(best.view(shape.B, count), expected.scores)


@bounded
@given(
    st.lists(st.tuples(seeds, st.one_of(st.just([]), boxes()), st.floats(-1, 2)), min_size=1, max_size=6),
    st.sampled_from((0, 0.5, 1, True, -1, float("nan"))),
    st.sampled_from((1, 3, 0, 1.5)),
)
def test_any_frames_are_followed_or_refused(frames: list[Any], smoothing: Any, detect_every: Any) -> None:
    """Whatever the detector says and the clock: ids are each one's own, in order, and numbers are numbers."""
    found: list[list[float]] = []
    one = pf.FaceLandmarker(model(), lambda image: np.array(found, np.float32).reshape(-1, 5), "cpu", "torch")
    tracker = outcome(lambda: pf.Tracker(one, smoothing=smoothing, detect_every=detect_every), ValueError)
    if isinstance(tracker, Exception):
        assert str(tracker).startswith("Tracker: ")
        return
    time_s = 0.0
    for seed, given_boxes, step in frames:
        image = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        found[:] = given_boxes
        time_s += step
        faces = outcome(lambda now=time_s, frame=image: tracker.update(frame, now), ValueError)
        if isinstance(faces, Exception):
            assert str(faces).startswith(("Tracker: time_s: expected", "FaceLandmarker: boxes: expected"))
            continue
        assert faces.ids is not None
        assert (np.diff(faces.ids) > 0).all()
        assert np.isfinite(faces.landmarks).all()
        assert np.isfinite(faces.boxes).all()


@bounded
@given(
    st.lists(st.tuples(st.floats(1e-3, 10), finite, finite), min_size=1, max_size=20),
    st.floats(1e-3, 100),
    st.floats(0, 100),
)
def test_smoothed_points_stay_among_those_seen(path: list[Any], cutoff: float, beta: float) -> None:
    smooth, time_s, seen = OneEuroFilter(cutoff, beta), 0.0, []
    for step, x, y in path:
        time_s += step
        seen.append([x, y])
        (point,) = smooth(np.array([[x, y]]), time_s, 50.0)
        assert (point >= np.min(seen, axis=0) - 1e-6).all()
        assert (point <= np.max(seen, axis=0) + 1e-6).all()


@bounded
@given(seeds, st.floats(0.6, 3), st.floats(-0.5, 0.4))
def test_the_rule_of_crops_is_found_again(seed: int, scale: float, top_shift: float) -> None:
    tight = np.random.default_rng(seed).random((5, 4)) * 50 + [0, 0, 60, 60]
    rule = pf.CropRule(scale, top_shift)
    found = fit_crop_rule(tight, rule.apply(tight))
    assert (found.scale, found.top_shift) == pytest.approx((scale, top_shift))


@bounded
@given(seeds, st.sampled_from(("csv", "json")), st.lists(st.booleans(), min_size=1, max_size=5), st.booleans())
def test_predictions_come_back_from_their_file(seed: int, ending: str, seen: list[bool], scored: bool) -> None:
    random = np.random.default_rng(seed)
    truth = random.random((len(seen), 68, 2)) * 100
    faces = [Sample(ImageFile(f"{i}.jpg"), points, np.zeros(4)) for i, points in enumerate(truth)]
    data = FaceData("made/up", load_layout("300w68"), faces, pf.CropRule(), tight=True)
    points = np.where(np.array(seen)[:, None, None], truth + random.normal(0, 10, truth.shape), np.nan)
    scores = random.random(points.shape[:2]) if scored else np.full(points.shape[:2], np.nan)
    evaluation = hold_against("one", data, points, scores)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"found.{ending}")
        write_predictions(evaluation, path)
        again = read_predictions(path, data, name="one")
    np.testing.assert_allclose(again.points, evaluation.points, atol=6e-5)
    np.testing.assert_allclose(again.scores[seen], evaluation.scores[seen], atol=6e-6)
    assert again.missed.tolist() == evaluation.missed.tolist()
