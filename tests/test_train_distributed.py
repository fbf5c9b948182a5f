"""Training in two processes by Gloo: the result of one, BatchNorm over both, one's failure is the end of both."""

import copy
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import pipnet_fast as pf
from pipnet_fast.data._crops import generator
from pipnet_fast.train.distributed import SyncBatchNorm2d, synchronize_batchnorm
from tests.processes import two_ranks
from tests.slow import slow
from tests.training import arguments, launch, run, write_faces

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "accumulate": 2, "val_split": "train", "eval_every": 2}


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "missing",
    [
        pytest.param(0.0, marks=slow("torchrun takes most of a minute"), id="all-labelled"),
        pytest.param(0.4, id="some-missing"),
    ],
)
def test_two_processes_are_as_one(tmp_path: Path, missing: float) -> None:
    write_faces(tmp_path, "train", 16, missing=missing)
    words = arguments(tmp_path, tmp_path / "two", **OPTIONS)
    # torchrun itself takes as long as all the rest.
    ended = [launch(*words)] if missing == 0 else two_ranks(words)
    assert not any(done.returncode for done in ended), [done.stderr for done in ended]
    # One of them speaks and writes.
    assert "".join(done.stdout for done in ended).count("epoch 2/2") == 1
    assert run(tmp_path, tmp_path / "one", **OPTIONS) == 0
    two, one = table(tmp_path / "two"), table(tmp_path / "one")
    assert [row["epoch"] for row in two] == ["1", "2"]
    for got, expected in zip(two, one, strict=True):
        for name in ("loss", "loss_score", "loss_offset", "loss_neighbor", "learning_rate"):
            assert float(got[name]) == pytest.approx(float(expected[name]), rel=1e-4)
    assert float(two[-1]["val_nme"]) == pytest.approx(float(one[-1]["val_nme"]), rel=1e-3)
    states = [pf.load(tmp_path / name / "final.safetensors").state_dict() for name in ("two", "one")]
    # Adam's steps have the size of the learning rate even where the gradient is mostly rounding.
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-4)
    # Either may go on with what the other has written.
    resumed = run(tmp_path, tmp_path / "two", "--resume", **OPTIONS)
    assert resumed == 0


def test_one_that_fails_ends_both_with_its_message(tmp_path: Path) -> None:
    write_faces(tmp_path, "train", 16)
    order = generator(0, 0).permutation(16)
    # In the first step the second half of the batch is the second process'.
    (tmp_path / "images" / f"train{order[7]}.png").write_bytes(b"no image")
    done = launch(*arguments(tmp_path, tmp_path / "run", **OPTIONS))
    assert done.returncode != 0
    message = rf"pipnet-fast train: process 1: .*train{order[7]}\.png: not an image .*; no checkpoint was written yet"
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.usefixtures("alone")
def test_batchnorm_is_torchs() -> None:
    theirs = nn.BatchNorm2d(5)
    nn.init.uniform_(theirs.weight)
    nn.init.uniform_(theirs.bias)
    ours = nn.Sequential(copy.deepcopy(theirs))
    state = ours.state_dict(keep_vars=True)
    synchronize_batchnorm(ours, torch.device("cpu"))
    assert type(ours[0]) is SyncBatchNorm2d
    # The same tensors, which optimizers and averages hold on to.
    assert all(value is state[key] for key, value in ours.state_dict(keep_vars=True).items())
    for _ in range(3):
        x = 3 + 2 * torch.randn(4, 5, 3, 2)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        weights = torch.randn_like(x)
        (theirs(a) * weights).sum().backward()
        (ours(b) * weights).sum().backward()
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours[0].weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-5)
    expected = {f"0.{key}": value for key, value in theirs.state_dict().items()}
    torch.testing.assert_close(dict(ours.state_dict()), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.usefixtures("alone")
def test_batchnorm_in_half_precision() -> None:
    module = SyncBatchNorm2d.like(nn.BatchNorm2d(5))
    x = torch.randn(4, 5, 3, 2)
    got = module(x.bfloat16())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), nn.BatchNorm2d(5)(x), rtol=0.02, atol=0.02)
