"""Numbers of the official network, which ours must give from the same weights.

golden/official.npz was made by running the official repository (jhb86253817/PIPNet at b9eab58) in float64:
its networks with weights by the formula of ``fill`` below, its decoding and the merge of its demo, on one
input of random numbers. The file holds numbers and parameter names only, none of that code is here:

    keys/<backbone>/s<stride>          names of the state dict
    <backbone>/s<stride>/N<N>/K<K>/
        score, offset_x, ...           of each map 16 samples, the mean, the mean and the greatest absolute value
        own, merged, scores, params    points in fractions of the crop, before and after the merge; sizes
    crashed                            what the official code could not run, and why
"""

import functools
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import pipnet_fast as pf

with np.load(Path(__file__).parent / "golden" / "official.npz") as file:
    GOLDEN = {name: file[name] for name in file}

LAYOUTS = {19: "aflw19", 29: "cofw29", 68: "300w68", 98: "wflw98", 106: "lapa106"}
HEAD = ("cls_layer.", "x_layer.", "y_layer.", "nb_x_layer.", "nb_y_layer.")
# Of the sums of float64, relative to the largest value.
ROUNDING = 1e-9
# The table's weights are float32, each off by up to half a unit in its last place.
FLOAT32_WEIGHTS = 2.0**-24


class Case(NamedTuple):
    backbone: str
    stride: int
    N: int
    K: int

    def __str__(self) -> str:
        return f"{self.backbone}/s{self.stride}/N{self.N}/K{self.K}"


def read_case(name: str) -> Case:
    backbone, stride, landmarks, neighbors = name.split("/")[:4]
    return Case(backbone, int(stride[1:]), int(landmarks[1:]), int(neighbors[1:]))


# One backbone after the other, for its features are kept until the next one's turn.
CASES = sorted({read_case(name) for name in GOLDEN if name.endswith("/merged")})
# "N19/K1: why" is of a ResNet-18; others say their whole name.
CRASHED = [line.split(":")[0] for line in GOLDEN["crashed"].tolist()]
NO_ANSWER = [read_case(f"resnet18/s32/{name}") for name in CRASHED if not name.startswith("resnet")]


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    """The weights by their name: the same numbers wherever numpy runs."""
    random = np.random.RandomState(zlib.crc32(key.encode()))
    values: npt.NDArray[Any]
    if key.endswith("num_batches_tracked"):
        values = np.zeros(shape, np.int64)
    elif key.endswith("running_var") or (key.endswith(".weight") and len(shape) == 1):
        values = random.uniform(0.5, 1.5, shape)
    elif key.endswith(("running_mean", ".bias")):
        values = 0.1 * random.standard_normal(shape)
    else:
        values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values))


def build(case: Case) -> pf.PIPNet:
    """Our network without memory."""
    with torch.device("meta"):
        return pf.PIPNet(
            case.backbone, case.N, min(case.K, case.N - 1), case.stride, mean_shape=LAYOUTS[case.N], merge="official"
        ).eval()


@functools.lru_cache(maxsize=1)
def trunk(backbone: str, stride: int) -> tuple[dict[str, Tensor], Tensor]:
    """The backbone's weights and its features of the golden input, both float64."""
    model = build(Case(backbone, stride, 19, 10))
    state = {key: fill(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    model.load_state_dict(state, strict=True, assign=True)
    x = torch.from_numpy(np.random.RandomState(2021).standard_normal((1, 3, 256, 256)))
    with torch.no_grad():
        features = model.forward_features(x)
    return {key: value for key, value in state.items() if not key.startswith(HEAD)}, features


def filled(case: Case) -> tuple[pf.PIPNet, Tensor]:
    """The whole network in float64, and the golden features, which stand in for its backbone's run."""
    weights, features = trunk(case.backbone, case.stride)
    model = build(case)
    head = {key: fill(key, tuple(v.shape)) for key, v in model.state_dict().items() if key.startswith(HEAD)}
    model.load_state_dict({**weights, **head}, strict=True, assign=True)
    model.forward_features = lambda x: features  # type: ignore[method-assign]
    return model, torch.empty(1, 3, 256, 256, dtype=torch.float64)


def digest(values: Tensor) -> npt.NDArray[np.float64]:
    flat = values.numpy().ravel()
    samples = flat[np.random.RandomState(7).randint(0, flat.size, 16)]
    return np.concatenate([samples, [flat.mean(), np.abs(flat).mean(), np.abs(flat).max()]])


def own_points(maps: pf.HeadMaps, num_landmarks: int) -> Tensor:
    """Each landmark's own vote: without neighbors nothing is merged."""
    none = maps.score[:, :0]
    table = pf.neighbor_table(LAYOUTS[num_landmarks], 0)
    return pf.ops.decode(maps._replace(neighbor_x=none, neighbor_y=none), table).points_frac[0]


def merged_exactly(maps: pf.HeadMaps, table: pf.NeighborTable) -> Tensor:
    """Points by the table's rows, with its weights made exact again: counts over 1 + the longest list."""
    longest = round(1 / float(table.weights[0])) - 1
    weights = (table.weights.double() * (longest + 1)).round() / (longest + 1)
    assert torch.equal(weights.float(), table.weights)
    landmarks, grid = maps.score.shape[1], maps.score.shape[3]
    n, cell = torch.arange(landmarks), maps.score.flatten(2).argmax(dim=2)[0]

    def merge(own: Tensor, others: Tensor, corner: Tensor) -> Tensor:
        votes = torch.cat((own.view(landmarks, 1, -1), others.view(landmarks, table.num_neighbors, -1)), dim=1)
        votes = votes[n, :, cell] + corner.unsqueeze(1)
        weighted = votes.flatten()[table.sources] * weights
        return torch.stack([row.sum() for row in weighted.split(table.starts.diff().tolist())]) / grid

    x = merge(maps.offset_x, maps.neighbor_x, cell % grid)
    y = merge(maps.offset_y, maps.neighbor_y, cell // grid)
    return torch.stack((x, y), dim=1)


def assert_close(got: Any, expected: npt.NDArray[np.float64], scale: float, tolerance: float, name: str) -> None:
    got = np.asarray(got, dtype=np.float64)
    assert got.shape == expected.shape, name
    worst = float(np.abs(got - expected).max() / scale)
    assert worst <= tolerance, f"{name}: off by {worst:.2e} of the largest value, allowed {tolerance:.0e}"


def test_the_file_is_complete() -> None:
    assert len(CASES) == 68
    assert len(CRASHED) == 19
    assert len(NO_ANSWER) == 15
    assert {(case.backbone, case.stride) for case in CASES} == {
        *((backbone, 32) for backbone in ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "mobilenet_v3")),
        *(("resnet18", stride) for stride in (16, 64, 128)),
    }


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("keys/")])
def test_names_of_the_state_dict(name: str) -> None:
    backbone, stride = name.removeprefix("keys/").split("/s")
    ours = list(build(Case(backbone, int(stride), 98, 10)).state_dict())
    assert sorted(ours) == sorted(GOLDEN[name].tolist())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_official_numbers(case: Case) -> None:
    model, x = filled(case)
    golden = {name.removeprefix(f"{case}/"): GOLDEN[name] for name in GOLDEN if name.startswith(f"{case}/")}
    assert sum(p.numel() for p in model.parameters()) == golden["params"]

    with torch.no_grad():
        maps = model(x)
    grid = 256 // case.stride
    assert maps.score.shape == (1, case.N, grid, grid)
    assert maps.neighbor_y.shape == (1, case.N * case.K, grid, grid)
    for name, values in maps._asdict().items():
        assert_close(digest(values), golden[name], golden[name][-1], ROUNDING, name)

    assert_close(own_points(maps, case.N), golden["own"], np.abs(golden["own"]).max(), ROUNDING, "own")
    exact = merged_exactly(maps, model.table)
    assert_close(exact, golden["merged"], np.abs(golden["merged"]).max(), ROUNDING, "merged points, exact weights")
    # Votes are larger than what they average to, and so is the rounding of their weights.
    votes = max(golden[name][-1] for name in ("offset_x", "offset_y", "neighbor_x", "neighbor_y")) / grid
    for name, got in (("decode", pf.ops.decode(maps, model.table)), ("predict", model.predict(x))):
        assert_close(got.scores[0], golden["scores"], np.abs(golden["scores"]).max(), ROUNDING, f"{name}, scores")
        assert_close(got.points_frac[0], golden["merged"], votes + 1, FLOAT32_WEIGHTS, f"{name}, merged points")


@pytest.mark.filterwarnings("ignore:num_neighbors=20 is more")
@pytest.mark.parametrize("case", NO_ANSWER, ids=str)
def test_where_the_official_code_crashes(case: Case) -> None:
    # Landmarks that nobody predicts keep their own vote; those crash the official padding.
    model, x = filled(case._replace(K=min(case.K, case.N - 1)))
    with torch.no_grad():
        maps = model(x)
    own = own_points(maps, case.N).numpy()
    predicted = np.zeros(case.N, dtype=bool)
    predicted[model.table.neighbors.numpy()] = True
    assert predicted.all() == (case.K == 20)
    got = model.predict(x).points_frac[0].numpy()
    moved = np.abs(got - own).max(axis=1) > ROUNDING * np.abs(own).max()
    assert np.array_equal(moved, predicted)


def test_float32_by_way_of_load_official() -> None:
    case = Case("resnet18", 32, 98, 10)
    weights, _ = trunk(case.backbone, case.stride)
    head = {key: fill(key, tuple(v.shape)) for key, v in build(case).state_dict().items() if key.startswith(HEAD)}
    state = {key: v.float() if v.is_floating_point() else v for key, v in {**weights, **head}.items()}
    model = pf.load_official(state, mean_shape="wflw98")
    assert model.config.merge == "official"
    x = torch.from_numpy(np.random.RandomState(2021).standard_normal((1, 3, 256, 256))).float()
    merged, scores = GOLDEN[f"{case}/merged"], GOLDEN[f"{case}/scores"]

    got = model.predict(x)
    assert got.points_frac.dtype == torch.float32
    assert_close(got.points_frac[0], merged, np.abs(merged).max(), 1e-4, "merged points")
    assert_close(got.scores[0], scores, np.abs(scores).max(), 1e-4, "scores")

    mean = pf.load_official(state, mean_shape="wflw98", merge="mean").predict(x)
    # Only where cyclic padding is exact do both merges agree.
    differs = np.abs(mean.points_frac[0].numpy() - merged).max(axis=1) > 1e-3 * np.abs(merged).max()
    assert not differs[[62, 70, 78, 79, 90]].any()
    assert differs.sum() > 80
    assert_close(mean.scores[0], scores, np.abs(scores).max(), 1e-4, "scores")
