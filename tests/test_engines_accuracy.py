"""The C++ engine on real faces: it finds what torch finds, on every instruction set, to digits that no error shows."""

import argparse

import pytest

import pipnet_fast as pf
from tests.commands import ROOT, bench

if pf.engines()["cpp"]:
    from pipnet_fast import _C

YTF68 = [path for path in (parent / "shared/data/ytf68" for parent in ROOT.parents) if path.is_dir()]
ISAS = [isa for isa in _C.isas() if isa != "scalar"] if pf.engines()["cpp"] else []

pytestmark = [
    pytest.mark.skipif(not pf.engines()["cpp"], reason=str(pf.engines().reasons.get("cpp"))),
    pytest.mark.skipif(not YTF68, reason="shared/data/ytf68 is not beside the repository"),
]


def agreement(*options: str) -> dict[str, dict[str, float]]:
    """The case of that name: by subject, medians by metric."""
    agreement = bench("agreement")
    parser = argparse.ArgumentParser()
    agreement.add_arguments(parser)
    found: dict[str, dict[str, float]] = {}
    for record in agreement.measure(parser.parse_args(["--data", str(YTF68[0]), *options])):
        assert record.median is not None
        found.setdefault(record.subject, {})[record.metric] = record.median
    return found


@pytest.fixture(scope="module")
def in_the_box() -> dict[str, dict[str, float]]:
    return agreement("--faces", "64", "--random")


@pytest.fixture(scope="module")
def random_network() -> dict[str, dict[str, float]]:
    return agreement("--faces", "8", "--model", "--random", "resnet18", "--weight-storage", "float32")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("storage", "cells", "near", "typical", "largest"),
    [
        # Rounding of float32 is 1e-7 of the crop.
        ("float32", 99.9, 100, 1e-6, 1e-4),
        # Weights of 11 bits move a landmark by a hundredth of a pixel, but where two cells score nearly alike the other
        # one wins: then the landmark moves, and those that it votes for, by a pixel or two.
        ("float16", 99.8, 99.5, 4e-5, 0.02),
    ],
)
def test_the_model_in_the_box_finds_the_same_landmarks(
    in_the_box: dict[str, dict[str, float]],
    isa: str,
    storage: str,
    cells: float,
    near: float,
    typical: float,
    largest: float,
) -> None:
    found = in_the_box[f"model in the box, C++ {isa}, {storage} weights"]
    assert found["winning cells as in torch"] >= cells
    assert found["landmarks within 0.001 of the crop"] >= near
    assert found["distance from torch's landmarks"] < typical
    assert found["distance from torch's landmarks, largest"] < largest
    assert found["NME, difference from torch"] < 0.01


@pytest.mark.parametrize("isa", ISAS)
def test_a_random_network_finds_the_same_landmarks(random_network: dict[str, dict[str, float]], isa: str) -> None:
    found = random_network[f"random resnet18, C++ {isa}, float32 weights"]
    assert found["winning cells as in torch"] >= 99.9
    assert found["landmarks within 0.001 of the crop"] >= 99.9
