"""Fitted merges: what the fit recovers, and that its errors are those of the model."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.data import FaceData, ImageFile, Sample
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.evaluate import evaluate
from pipnet_fast.layouts import Layout
from tests.commands import bench

SHAPE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
STARTS = np.array([0, 3, 4], dtype=np.int32)


@pytest.fixture
def merge() -> Any:
    return bench("merge")


def test_fit_weighs_votes_by_the_inverse_of_their_variance(merge: Any) -> None:
    deviations = np.array([1.0, 2.0, 4.0, 3.0])
    errors = np.random.default_rng(0).normal(size=(20000, 4, 2)) * deviations[:, None]
    inverse = deviations[:3] ** -2.0
    weights = merge.fit(STARTS, errors, ridge=0)
    np.testing.assert_allclose(weights, [*(inverse / inverse.sum()), 1], atol=0.01)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 1e6])
def test_fitted_weights_sum_to_one_and_grow_equal(merge: Any, ridge: float) -> None:
    errors = np.random.default_rng(0).normal(size=(50, 4, 2)) + np.arange(4)[:, None]
    weights = merge.fit(STARTS, errors, ridge)
    assert [weights[start:end].sum() for start, end in pairwise(STARTS)] == pytest.approx([1, 1])
    if ridge == 1e6:
        np.testing.assert_allclose(weights, [1 / 3, 1 / 3, 1 / 3, 1], atol=1e-4)


def test_scores_weigh_votes(merge: Any) -> None:
    votes = merge.Votes(np.array([[[1.0, 0], [2, 0], [4, 8], [3, 3]]]), np.array([[1.0, 0.5, 0.25, 0.1]]))
    equal = np.array([1 / 3] * 3 + [1])
    np.testing.assert_allclose(merge.merged(STARTS, votes, equal), [[[7 / 3, 8 / 3], [3, 3]]])
    np.testing.assert_allclose(merge.merged(STARTS, votes, equal, 1.0), [[[3 / 1.75, 2 / 1.75], [3, 3]]])


def test_errors_are_those_of_the_model(merge: Any, tmp_path: Path) -> None:
    samples = []
    for i in range(3):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.random.RandomState(i).randint(0, 256, (80, 90, 3), dtype=np.uint8))
        box = np.array([10.0, 10.0, 70.0, 60.0 + i])
        samples.append(Sample(ImageFile(path), box[:2] + SHAPE * (box[2:] - box[:2]), box))
    layout = Layout("mine", np.array([1, 0, 2, 4, 3]), (0, 1))
    data = FaceData("mine/test", layout, samples, pf.CropRule(), tight=True)
    model = pf.PIPNet(num_landmarks=5, num_neighbors=2, width=0.125, input_size=64, mean_shape=SHAPE).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    starts, weights = model.table.starts.numpy(), model.table.weights.numpy()
    plain = merge.collect(model, data, Augmentation(**merge.NO_CHANGE))
    errors = np.linalg.norm(merge.merged(starts, plain, weights), axis=2)
    np.testing.assert_allclose(errors, evaluate(model, data).errors, atol=1e-3)
    # A mirrored crop's landmarks are the image's, renamed.
    flipped = merge.collect(model, data, Augmentation(**merge.SHIFTS["mirrored"]))
    both = (merge.merged(starts, plain, weights) + merge.merged(starts, flipped, weights)[:, layout.flip]) / 2
    averaged = evaluate(model, data, flip_average=True)
    np.testing.assert_allclose(np.linalg.norm(both, axis=2), averaged.errors, atol=1e-3)
