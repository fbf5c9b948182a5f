"""The neighbor table: who is whose neighbor, and both merges of their votes."""

import hashlib
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pipnet_fast as pf
from pipnet_fast.layouts import load_mean_shape

# SHA-1 of the N x 10 table as row-major little-endian int32, and the least and greatest number of landmarks
# that predict one; of the mean shapes that the official code ships.
TABLES = {
    "300w68": ("22b6a87507b310eefc6e5cbd0208fc2ac0d1b311", 4, 22),
    "300w68_gssl": ("1aad6b61be0b6a879961fd05eb4bc9ccfa8fd868", 4, 22),
    "cofw29": ("74cf9b7fa3d675cedbc7d64b8df53b283c46ac62", 6, 19),
    "wflw98": ("aab32176af4ba4a2c77cf0f28ab364ca854050f2", 3, 17),
    "aflw19": ("f652ebfd327048d10b8879271a716c47b1bc2e75", 3, 18),
    "lapa106": ("0702bf6600f1bf0064e3b05511f6439db1890abd", 5, 20),
}
# Rows, nearest first.
ROWS = [
    ("300w68", 0, [17, 1, 36, 18, 41, 37, 2, 19, 40, 38]),
    ("300w68", 34, [35, 33, 30, 52, 32, 51, 53, 63, 50, 62]),
    ("300w68_gssl", 34, [35, 33, 30, 52, 32, 51, 53, 50, 63, 62]),
    ("cofw29", 28, [27, 26, 25, 24, 23, 22, 21, 19, 20, 18]),
    ("wflw98", 49, [43, 69, 48, 50, 70, 42, 44, 97, 68, 75]),
    ("wflw98", 97, [70, 74, 71, 73, 75, 69, 48, 72, 49, 68]),
    ("aflw19", 9, [10, 3, 11, 4, 8, 2, 5, 13, 14, 7]),
    ("lapa106", 105, [83, 77, 81, 78, 76, 82, 80, 79, 75, 49]),
]
# How many landmarks nobody predicts; the official code's padding crashes there.
UNPREDICTED = [
    ("300w68", 1, 21),
    ("300w68", 2, 2),
    ("cofw29", 1, 5),
    ("cofw29", 2, 5),
    ("cofw29", 3, 3),
    ("wflw98", 1, 17),
    ("wflw98", 2, 1),
    ("aflw19", 1, 7),
    ("aflw19", 2, 1),
    ("aflw19", 5, 1),
    ("lapa106", 1, 30),
    ("lapa106", 2, 4),
]
# The least K at which every landmark is predicted by another.
FIRST_SAFE = {"300w68": 3, "300w68_gssl": 3, "cofw29": 4, "wflw98": 3, "aflw19": 6, "lapa106": 3}
# The longest list of predictions on WFLW by K.
LONGEST_WFLW = {1: 3, 2: 4, 3: 6, 5: 9, 10: 17, 15: 26, 20: 36, 30: 56}

Floats = npt.NDArray[np.float64]


def predicted_by(table: pf.NeighborTable) -> npt.NDArray[np.int64]:
    """How many landmarks predict each one."""
    return np.bincount(table.neighbors.numpy().ravel(), minlength=table.num_landmarks)


def dense(table: pf.NeighborTable) -> Floats:
    """The merge as a dense matrix (N, N * (1 + K))."""
    matrix = np.zeros((table.num_landmarks, table.sources.numel()))
    rows = np.repeat(np.arange(table.num_landmarks), table.starts.diff().numpy())
    np.add.at(matrix, (rows, table.sources.numpy()), table.weights.numpy())
    return matrix


def official_padding(neighbors: list[list[int]]) -> Floats:
    """The same matrix by the rule of the official code, word for word: lists repeated to the longest, then a mean."""
    count, votes = len(neighbors), 1 + len(neighbors[0])
    lists: list[list[int]] = [[] for _ in range(count)]
    for voter, row in enumerate(neighbors):
        for k, target in enumerate(row):
            lists[target].append(voter * votes + 1 + k)
    longest = max(len(received) for received in lists)
    matrix = np.zeros((count, count * votes))
    for landmark, received in enumerate(lists):
        padded = (received * longest)[:longest]
        for vote in [landmark * votes, *padded]:
            matrix[landmark, vote] += 1 / (1 + longest)
    return matrix


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_ten(name: str) -> None:
    sha, least, greatest = TABLES[name]
    table = pf.neighbor_table(name, 10)
    assert hashlib.sha1(table.neighbors.numpy().astype("<i4").tobytes()).hexdigest() == sha
    assert (predicted_by(table).min(), predicted_by(table).max()) == (least, greatest)


@pytest.mark.parametrize(("name", "landmark", "row"), ROWS)
def test_rows(name: str, landmark: int, row: list[int]) -> None:
    assert pf.neighbor_table(name, 10).neighbors[landmark].tolist() == row


@pytest.mark.parametrize(("num_neighbors", "longest"), LONGEST_WFLW.items())
def test_longest_list_sets_the_own_weight(num_neighbors: int, longest: int) -> None:
    table = pf.neighbor_table("wflw98", num_neighbors, "official")
    assert predicted_by(table).max() == longest
    predicted = predicted_by(table) > 0
    own = table.weights[table.starts[:-1].long()].numpy()
    assert own[predicted] == pytest.approx(1 / (longest + 1))


def test_structure() -> None:
    table = pf.neighbor_table("wflw98", 10)
    assert (table.num_landmarks, table.num_neighbors) == (98, 10)
    assert table.device == torch.device("cpu")
    assert [t.dtype for t in (table.neighbors, table.starts, table.sources, table.weights)] == [
        torch.int64,
        torch.int32,
        torch.int32,
        torch.float32,
    ]
    assert [tuple(t.shape) for t in (table.neighbors, table.starts, table.sources, table.weights)] == [
        (98, 10),
        (99,),
        (98 * 11,),
        (98 * 11,),
    ]


@pytest.mark.parametrize("merge", ["mean", "official"])
@pytest.mark.parametrize("num_neighbors", [0, 1, 5, 10, 18])
@pytest.mark.parametrize("name", TABLES)
def test_every_vote_counts_once(name: str, num_neighbors: int, merge: Any) -> None:
    table = pf.neighbor_table(name, num_neighbors, merge)
    votes = 1 + num_neighbors
    assert sorted(table.sources.tolist()) == list(range(table.num_landmarks * votes))
    assert (table.starts[0], table.starts[-1]) == (0, table.num_landmarks * votes)
    assert table.starts.diff().tolist() == (1 + predicted_by(table)).tolist()
    assert (table.weights > 0).all()
    assert dense(table).sum(axis=1) == pytest.approx(np.ones(table.num_landmarks), abs=1e-6)
    # Each row reads the own vote and those meant for its landmark.
    rows = np.repeat(np.arange(table.num_landmarks), table.starts.diff().numpy())
    voter, vote = np.divmod(table.sources.numpy(), votes)
    targets = np.concatenate((np.arange(table.num_landmarks)[:, None], table.neighbors.numpy()), axis=1)
    assert targets[voter, vote].tolist() == rows.tolist()


@pytest.mark.parametrize("num_neighbors", [0, 1, 3, 10])
@pytest.mark.parametrize("name", TABLES)
def test_mean_weighs_all_received_votes_equally(name: str, num_neighbors: int) -> None:
    table = pf.neighbor_table(name, num_neighbors, "mean")
    count = predicted_by(table)
    assert table.weights.numpy() == pytest.approx(np.repeat(1 / (count + 1), count + 1), rel=1e-6)


@pytest.mark.parametrize("more", [0, 1, 4, 9, 12])
@pytest.mark.parametrize("name", TABLES)
def test_official_is_cyclic_padding(name: str, more: int) -> None:
    # From the first K at which the official code does not crash.
    table = pf.neighbor_table(name, FIRST_SAFE[name] + more, "official")
    assert predicted_by(table).min() >= 1
    assert dense(table) == pytest.approx(official_padding(table.neighbors.tolist()), abs=1e-7)


def test_merges_differ() -> None:
    # Cyclic padding is exact for 5 of WFLW's 98 landmarks: where the count divides the longest list.
    mean, official = pf.neighbor_table("wflw98", 10), pf.neighbor_table("wflw98", 10, "official")
    same = np.isclose(dense(mean), dense(official), atol=1e-7).all(axis=1)
    assert np.flatnonzero(same).tolist() == [62, 70, 78, 79, 90]


@pytest.mark.parametrize("merge", ["mean", "official"])
@pytest.mark.parametrize(("name", "num_neighbors", "count"), UNPREDICTED)
def test_unpredicted_landmarks_keep_their_own_vote(name: str, num_neighbors: int, count: int, merge: Any) -> None:
    table = pf.neighbor_table(name, num_neighbors, merge)
    unpredicted = np.flatnonzero(predicted_by(table) == 0)
    assert len(unpredicted) == count
    starts, ends = table.starts[unpredicted], table.starts[unpredicted + 1]
    assert (ends - starts).tolist() == [1] * count
    assert table.weights[starts.long()].tolist() == [1.0] * count
    assert table.sources[starts.long()].tolist() == (unpredicted * (1 + num_neighbors)).tolist()


@pytest.mark.parametrize("merge", ["mean", "official"])
def test_one_landmark(merge: Any) -> None:
    table = pf.neighbor_table([[3, 4]], 0, merge)
    assert table.neighbors.shape == (1, 0)
    assert (table.starts.tolist(), table.sources.tolist(), table.weights.tolist()) == ([0, 1], [0], [1.0])


@pytest.mark.parametrize(("count", "num_neighbors"), [(1, 1), (2, 2), (5, 5), (5, 98)])
def test_more_neighbors_than_there_are(count: int, num_neighbors: int) -> None:
    message = f"num_neighbors={num_neighbors} is more than the {count - 1} neighbors .* using {count - 1}$"
    points = np.arange(2.0 * count).reshape(count, 2)
    with pytest.warns(UserWarning, match=message) as caught:
        table = pf.neighbor_table(points, num_neighbors)
    assert table.neighbors.shape == (count, count - 1)
    assert caught[0].filename == __file__, "the warning points at the caller"


def test_as_many_as_there_are_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = pf.neighbor_table([[0, 0], [2, 0], [3, 0]], 2)
    assert table.neighbors.tolist() == [[1, 2], [2, 0], [1, 0]]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([[5, 5]] * 4, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]], id="all coincident"),
        pytest.param([[1, 0], [0, 0], [0, 0], [-1, 0]], [[1, 2, 3], [2, 0, 3], [1, 0, 3], [1, 2, 0]], id="a pair"),
        pytest.param([[0, 0], [1, 0], [0, 1], [1, 1]], [[1, 2, 3], [0, 3, 2], [0, 3, 1], [1, 2, 0]], id="square"),
    ],
)
def test_ties_go_to_the_lower_index(points: Any, expected: list[list[int]]) -> None:
    assert pf.neighbor_table(points, 3).neighbors.tolist() == expected


def test_unit_and_place_do_not_matter() -> None:
    points = load_mean_shape("wflw98")
    assert torch.equal(pf.neighbor_table(points * 256 + 31, 10).neighbors, pf.neighbor_table(points, 10).neighbors)


def test_distances_are_in_float64() -> None:
    # Float32 cannot tell these two distances apart, and would take the lower index.
    table = pf.neighbor_table([[0, 0], [1 + 1e-9, 0], [1, 0]], 1)
    assert table.neighbors[0].tolist() == [2]


@settings(max_examples=60, deadline=None, database=None)
@given(
    # Whole numbers on a small grid: many ties and coincident landmarks, and exact distances.
    points=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12),
    data=st.data(),
)
def test_any_shape(points: list[tuple[int, int]], data: st.DataObject) -> None:
    count = len(points)
    num_neighbors = data.draw(st.integers(0, count - 1))
    table = pf.neighbor_table(points, num_neighbors, "official")
    expected = []
    for n, (x, y) in enumerate(points):
        others = sorted(((px - x) ** 2 + (py - y) ** 2, m) for m, (px, py) in enumerate(points) if m != n)
        expected.append([m for _, m in others[:num_neighbors]])
    assert table.neighbors.tolist() == expected

    official = official_padding(expected)
    # The official rule has no answer where nobody predicts a landmark; its own vote stands then.
    unpredicted = np.flatnonzero(predicted_by(table) == 0)
    official[unpredicted] = 0
    official[unpredicted, unpredicted * (1 + num_neighbors)] = 1
    assert dense(table) == pytest.approx(official, abs=1e-6)
    assert dense(pf.neighbor_table(points, num_neighbors)).sum(axis=1) == pytest.approx(np.ones(count), abs=1e-6)


@pytest.mark.parametrize(
    ("num_neighbors", "got"),
    [
        pytest.param(-1, "-1", id="negative"),
        pytest.param(True, "True", id="bool"),
        pytest.param(2.0, "2.0", id="float"),
        pytest.param("2", "'2'", id="text"),
        pytest.param(None, "None", id="none"),
    ],
)
def test_refused_counts(num_neighbors: Any, got: str) -> None:
    with pytest.raises(ValueError, match=f"num_neighbors: expected an integer >= 0, got {got}"):
        pf.neighbor_table("aflw19", num_neighbors)


@pytest.mark.parametrize("merge", ["median", "", None, "MEAN"])
def test_refused_merges(merge: Any) -> None:
    with pytest.raises(ValueError, match=rf"merge: expected one of \('mean', 'official'\), got {merge!r}"):
        pf.neighbor_table("aflw19", 3, merge)


def test_refused_mean_shape() -> None:
    with pytest.raises(ValueError, match=r"mean_shape: expected shape \(N, 2\)"):
        pf.neighbor_table(np.zeros((4, 3)), 1)


def test_moving() -> None:
    table = pf.neighbor_table("aflw19", 4)
    assert table.to("cpu") is table
    assert table.to(torch.device("cpu")) is table
    moved = table.to("meta")
    assert moved.device == torch.device("meta")
    assert [t.device.type for t in (moved.neighbors, moved.starts, moved.sources, moved.weights)] == ["meta"] * 4
    assert (moved.num_landmarks, moved.num_neighbors) == (19, 4)
    assert table.to("meta") is moved, "each copy is made once"
    assert table.device == torch.device("cpu")
