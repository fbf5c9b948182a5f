"""The measures, on numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest
from scipy.integrate import simpson

from pipnet_fast.evaluate import metrics

NAN, INF = float("nan"), float("inf")


def points(*faces: Any) -> Any:
    return np.array(faces, dtype=np.float64)


# Two landmarks 10 px apart, 6 along x and 8 along y.
TRUTH = points([[1, 2], [7, 10]])


@pytest.mark.parametrize(
    ("norm", "options", "distance"),
    [
        pytest.param("inter_ocular", {"outer_eyes": (0, 1)}, 10.0, id="inter-ocular"),
        pytest.param("inter_ocular", {"outer_eyes": (1, 0)}, 10.0, id="inter-ocular, the other way"),
        pytest.param("box", {"boxes": np.array([[0, 0, 4, 9]])}, 6.0, id="box, of whole numbers"),
        pytest.param("diagonal", {}, 10.0, id="diagonal"),
    ],
)
def test_distances(norm: Any, options: dict[str, Any], distance: float) -> None:
    assert metrics.norm_distances(TRUTH, norm, **options).tolist() == [distance]


@pytest.mark.parametrize(
    ("truth", "norm", "options"),
    [
        pytest.param([[NAN, NAN], [1, 1]], "inter_ocular", {"outer_eyes": (0, 1)}, id="eye not labelled"),
        pytest.param([[1, NAN], [1, 1]], "inter_ocular", {"outer_eyes": (0, 1)}, id="eye half labelled"),
        pytest.param([[1, 1], [1, 1]], "inter_ocular", {"outer_eyes": (0, 1)}, id="eyes coincide"),
        pytest.param([[1, 1], [2, 2]], "box", {"boxes": np.array([[3, 0, 3, 9]])}, id="box without area"),
        pytest.param([[1, 1], [2, 2]], "box", {"boxes": np.array([[3, 0, NAN, 9]])}, id="no box"),
        pytest.param([[NAN, NAN], [NAN, NAN]], "diagonal", {}, id="no labels"),
        pytest.param([[4, 4], [NAN, NAN]], "diagonal", {}, id="one label"),
    ],
)
def test_faces_that_cannot_be_measured(truth: Any, norm: Any, options: dict[str, Any]) -> None:
    assert np.isnan(metrics.norm_distances(points(truth), norm, **options)).tolist() == [True]


def test_diagonal_of_what_is_labelled() -> None:
    truth = points([[1, 2], [NAN, NAN], [4, 6], [100, NAN]])
    assert metrics.norm_distances(truth, "diagonal").tolist() == [5.0]


def test_errors_are_percent_of_the_distance() -> None:
    truth = points([[0, 0], [10, 0], [NAN, NAN]], [[0, 0], [10, 0], [5, 5]])
    predicted = points([[3, 4], [10, 1], [1, 1]], [[0, 0], [NAN, NAN], [5, 6]])
    errors = metrics.normalized_errors(predicted, truth, np.array([10.0, 20.0]))
    np.testing.assert_allclose(errors, [[50, 10, NAN], [0, NAN, 5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: metrics.norm_distances(TRUTH, "eyes"), "norm: expected one of .*, got 'eyes'", id="norm"),  # type: ignore[arg-type]
        pytest.param(lambda: metrics.norm_distances(TRUTH, "inter_ocular"), "outer_eyes: expected two", id="no eyes"),
        pytest.param(
            lambda: metrics.norm_distances(TRUTH, "box"), r"expected shape \(1, 4\) .*, got None", id="no boxes"
        ),
        pytest.param(
            lambda: metrics.norm_distances(TRUTH, "box", boxes=np.zeros((2, 4))), r"got \(2, 4\)", id="other boxes"
        ),
        pytest.param(lambda: metrics.norm_distances(TRUTH[0], "diagonal"), r"truth: .* got \(2, 2\)", id="one face"),
        pytest.param(
            lambda: metrics.normalized_errors(TRUTH, TRUTH[:, :1], np.ones(1)), r"got \(1, 2, 2\), \(1, 1, 2\)", id="N"
        ),
        pytest.param(lambda: metrics.failure_rate(np.ones(1), 0), "threshold: expected percent .* got 0", id="zero"),
        pytest.param(lambda: metrics.auc(np.ones(1), NAN), "threshold: .* got nan", id="nan"),
    ],
)
def test_wrong_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# What was not measured has no part; what was not found fails, but has no part in the mean.
ERRORS = np.array([2.0, 4.0, 10.0, 12.0, INF, NAN])


def test_nme_and_failure_rate() -> None:
    assert metrics.nme(ERRORS) == 7.0
    assert metrics.failure_rate(ERRORS) == pytest.approx(40.0)
    assert metrics.failure_rate(ERRORS, 8) == pytest.approx(60.0)


def test_ced() -> None:
    assert metrics.ced(ERRORS, [0, 2, 3.9, 4, 10, 1e9]).tolist() == [0, 20, 20, 40, 60, 80]


def test_auc() -> None:
    # Of 10 percent, 8, 6, 0, 0 and 0 lie above the errors.
    assert metrics.auc(ERRORS) == pytest.approx(100 * (8 + 6) / 50)
    assert metrics.auc(ERRORS, 4) == pytest.approx(100 * 2 / 20)
    assert metrics.auc(np.zeros(3)) == 100.0


def test_auc_is_what_the_official_grid_comes_close_to() -> None:
    """1001 points and Simpson's rule, as the official code has it."""
    errors = np.random.default_rng(0).gamma(4, 1.2, 500)
    grid = np.linspace(0, 10, 1001)
    assert metrics.auc(errors) == pytest.approx(simpson(metrics.ced(errors, grid), x=grid) / 10, abs=0.1)


@pytest.mark.parametrize("errors", [[], [NAN]], ids=["no faces", "none measured"])
def test_nothing_measured_is_nan(errors: list[float]) -> None:
    values = np.array(errors)
    assert np.isnan([metrics.nme(values), metrics.failure_rate(values), metrics.auc(values)]).all()
    assert np.isnan(metrics.ced(values, [1.0])).all()


def test_point_var_of_two_landmarks() -> None:
    # Off by (1, 0) and (3, 4) px of 10: deviations from the mean (2, 2) are (-1, -2) and (1, 2), 5 px squared each.
    predicted = TRUTH + points([[1, 0], [3, 4]])
    assert metrics.point_var(predicted, TRUTH, np.array([10.0])) == pytest.approx([100 * 100 * 5 / 100])


def test_point_var_does_not_see_a_common_shift() -> None:
    shifted = TRUTH + np.array([30.0, -7.0])
    assert metrics.point_var(shifted, TRUTH, np.array([10.0])) == pytest.approx([0], abs=1e-20)


def test_point_var_leaves_out_what_is_not_labelled() -> None:
    truth = np.concatenate((TRUTH, points([[NAN, NAN]])), axis=1)
    predicted = np.concatenate((TRUTH + points([[1, 0], [3, 4]]), points([[99, 99]])), axis=1)
    assert metrics.point_var(predicted, truth, np.array([10.0])) == pytest.approx([500])
    assert np.isnan(metrics.point_var(predicted * NAN, truth, np.array([10.0]))).all()


def test_point_var_does_not_depend_on_rotation() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.normal(size=(2, 3, 5, 2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    plain, turned = (metrics.point_var(predicted @ m, truth @ m, np.ones(3)) for m in (np.eye(2), turn))
    np.testing.assert_allclose(plain, turned)
