"""The parts of training: learning rate, moving average, checkpoints, curves, crop rules, BatchNorm over processes."""

import csv
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import pipnet_fast as pf
from pipnet_fast import _files as files_module
from pipnet_fast.crop import fit_crop_rule
from pipnet_fast.data import Batch, FaceData, ImageFile, Sample
from pipnet_fast.layouts import Layout
from pipnet_fast.train import OptimizationConfig, TrainConfig
from pipnet_fast.train.checkpoint import read_checkpoint, write_atomically, write_checkpoint
from pipnet_fast.train.distributed import World, join
from pipnet_fast.train.learner import Learner
from pipnet_fast.train.log import Log, Progress, duration
from pipnet_fast.train.objective import Objective
from pipnet_fast.train.optimization import Average, create_optimizer, learning_rate, set_moment
from pipnet_fast.train.setup import create_loader, create_model, model_crop

CPU = World(0, 1, torch.device("cpu"))


def options(**changes: Any) -> OptimizationConfig:
    return OptimizationConfig(**changes)


def test_step_schedule_is_that_of_section_4_1_2() -> None:
    rates = [learning_rate(options(), epoch) for epoch in (0, 29.9, 30, 49.9, 50, 59.9)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])


def test_one_cycle_is_torchs() -> None:
    epochs, steps = 10, 100
    config = options(schedule="onecycle", epochs=epochs, warmup_epochs=3, learning_rate=1e-3)
    weight = nn.Parameter(torch.zeros(1))
    theirs, ours = (torch.optim.Adam([weight], lr=1e-3) for _ in range(2))
    # Theirs reaches the ends at its first and last step.
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, 1e-3, total_steps=epochs * steps + 1, pct_start=0.3)
    for step in range(epochs * steps):
        set_moment(ours, config, step / steps)
        (expected,), (got,) = theirs.param_groups, ours.param_groups
        assert got["lr"] == pytest.approx(expected["lr"], rel=0.03, abs=1e-9)
        assert got["betas"] == pytest.approx(expected["betas"], rel=1e-3)
        theirs.step()
        schedule.step()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        pytest.param("constant", [0.0, 0.5, 1.0, 1.0, 1.0], id="constant"),
        pytest.param("cosine", [0.0, 0.5, 1.0, 0.5, 0.0], id="cosine"),
    ],
)
def test_warm_up_and_cosine(schedule: Any, expected: list[float]) -> None:
    config = options(schedule=schedule, epochs=10, warmup_epochs=2, learning_rate=1.0)
    assert [learning_rate(config, epoch) for epoch in (0, 1, 2, 6, 10)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "pretrained", "expected"), [(None, False, 5e-4), (None, True, 0.0), (0.1, True, 0.1), (0.0, False, 0.0)]
)
def test_weight_decay_as_in_the_official_code(given: float | None, pretrained: bool, expected: float) -> None:
    (group,) = create_optimizer(nn.Linear(2, 2), options(weight_decay=given), pretrained).param_groups
    assert (group["weight_decay"], group["lr"]) == (expected, 1e-4)


def test_adamw_spares_vectors() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = create_optimizer(model, options(optimizer="adamw", weight_decay=0.1), pretrained=False)
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0
    }  # fmt: skip


def tiny() -> pf.CoordNet:
    return pf.CoordNet("resnet18", 2, 32, width=0.0625)


def test_average_without_decay_is_the_last_weights() -> None:
    model = tiny().train()
    average = Average(model, 0.0)
    with torch.no_grad():
        model.fc3.bias.fill_(7.0)
        model.bn1.num_batches_tracked.fill_(3)
    average.step()
    assert not average.model.fc3.bias.eq(7).any()
    average.end_epoch()
    assert all(
        torch.equal(a, b) for a, b in zip(average.model.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert not average.model.training


def test_average_follows_the_weights() -> None:
    model = tiny().train()
    average = Average(model, 0.9)
    expected = model.fc3.bias.detach().clone().double()
    for step in range(1, 200):
        with torch.no_grad():
            model.fc3.bias.fill_(float(step))
            model.bn1.running_mean.fill_(float(step))
        average.step()
        decay = min(0.9, step / (step + 9))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.model.fc3.bias, expected.float())
    # The average of a ramp lags by decay / (1 - decay) steps.
    assert float(average.model.bn1.running_mean[0]) == pytest.approx(199 - 9, abs=0.1)
    average.end_epoch()
    torch.testing.assert_close(average.model.fc3.bias, expected.float())


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    content = {"epoch": 3, "model": {"a": torch.randn(3)}, "history": [{"loss": 0.1, "val_nme": float("inf")}]}
    write_checkpoint(tmp_path / "last.pt", content)
    got = read_checkpoint(tmp_path / "last.pt")
    assert (got["epoch"], got["history"]) == (3, content["history"])
    assert torch.equal(got["model"]["a"], content["model"]["a"])  # type: ignore[index, call-overload]
    assert os.listdir(tmp_path) == ["last.pt"]


class FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 5000], ids=lambda room: f"{room} bytes")
def test_full_disk_leaves_the_older_checkpoint(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint(path, {"epoch": 1})
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        full = lambda *arguments: FullDisk(open(*arguments), room)  # noqa: E731, SIM115
        patch.setattr(files_module, "open", full, raising=False)
        with pytest.raises(OSError, match=r"No space left on device: '.*last\.pt'") as caught:
            write_checkpoint(path, {"epoch": 2, "model": torch.randn(10_000)})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "last.pt.tmp").write_bytes(b"half a checkpoint")
    write_checkpoint(tmp_path / "last.pt", {"epoch": 1})
    assert os.listdir(tmp_path) == ["last.pt"]


def test_errors_that_are_not_the_disks_stay_what_they_are(tmp_path: Path) -> None:
    def fail(file: IO[bytes]) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        write_atomically(tmp_path / "a", fail)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not a readable checkpoint", id="empty"),
        pytest.param(b"no checkpoint", "not a readable checkpoint", id="text"),
        pytest.param({"epoch": 1}, "expected a checkpoint in format 'pipnet_fast.train/3', got None", id="other"),
        pytest.param([1], "expected a checkpoint in format .* got 'list'", id="list"),
        pytest.param({"evil": Path}, "not a readable checkpoint", id="code"),
    ],
)
def test_no_checkpoint(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=rf"last\.pt: {message}"):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "nothing.pt")


def test_log_has_a_row_an_epoch_and_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [
        {
            "epoch": e,
            "learning_rate": 1e-3 / e,
            "loss": 1 / e,
            "loss_neighbor": 0.0,
            **({"val_nme": 9.0 - e} if e % 2 else {}),
        }
        for e in range(1, 5)
    ]
    log = Log(tmp_path)
    log.write([], last=True)
    assert not os.listdir(tmp_path)
    log.write(history[:1], last=False)
    assert not (tmp_path / "curves.png").exists()
    with monkeypatch.context() as patch:
        patch.setattr("pipnet_fast.train.log.SECONDS_BETWEEN_DRAWINGS", -1.0)
        log.write(history[:1], last=False)
    drawn = (tmp_path / "curves.png").read_bytes()
    log.write(history, last=False)
    assert (tmp_path / "curves.png").read_bytes() == drawn
    log.write(history, last=True)
    assert (tmp_path / "curves.png").read_bytes() != drawn
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 5
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["val_nme"] for row in rows] == ["8.0", "", "6.0", ""]
    assert float(rows[2]["loss"]) == 1 / 3


def test_progress_tells_speed_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 160.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress(10, 2, silent=False)
    progress.line({"epoch": 4, "loss": 0.5, "learning_rate": 1e-4, "samples_per_second": 812.3, "val_nme": 4.25})
    # Two epochs took a minute, six are left.
    assert capsys.readouterr().out == "epoch 4/10  loss 0.50000  val 4.250%  lr 1.00e-04  812 faces/s  ETA 0:03:00\n"
    assert duration(3723.4) == "1:02:03"


@pytest.mark.parametrize(("scale", "top_shift"), [(1.3, 0.0), (1.2, 0.2), (0.9, -0.1)])
def test_crop_rule_is_found_again(scale: float, top_shift: float) -> None:
    random = np.random.RandomState(0)
    corner = random.rand(20, 2) * 100
    tight = np.hstack((corner, corner + 20 + random.rand(20, 2) * 50))
    crops = pf.CropRule(scale, top_shift).apply(tight)
    # Odd ones do not matter.
    crops[:3] += random.rand(3, 4) * 99
    rule = fit_crop_rule(tight, crops)
    assert (rule.scale, rule.top_shift) == pytest.approx((scale, top_shift), abs=1e-9)


TWO = Layout("two", np.array([1, 0]))


def face(points: Any, box: Any) -> Sample:
    return Sample(ImageFile("a.jpg"), np.array(points, np.float64), np.array(box, np.float64))


def test_model_crops_as_its_data_does() -> None:
    tight = FaceData("mine", TWO, [face([[2, 3], [6, 13]], (2, 3, 6, 13))], pf.CropRule(1.3), tight=True)
    assert model_crop(tight) == pf.CropRule(1.3)
    # Given boxes of twice the tight ones' sides, which are then grown by half: three times in all.
    whole = [face([[10, 10], [20, 30]], (5, 0, 25, 40)), face([[0, 0], [8, 8]], (-4, -4, 12, 12))]
    partly = face([[10, 10], [np.nan, 30]], (0, 0, 100, 100))
    given = FaceData("mine", TWO, [*whole, face([[1, 1], [3, 3]], (0, 0, 4, 4)), partly][:3], pf.CropRule(1.5))
    assert (model_crop(given).scale, model_crop(given).top_shift) == pytest.approx((3.0, 0.0))


def test_faces_labelled_in_part_do_not_shape_the_crop_rule() -> None:
    three = Layout("three", np.array([1, 0, 2]))
    whole = face([[10, 10], [20, 10], [15, 30]], (5, 0, 25, 40))
    partly = face([[10, 10], [20, 11], [np.nan, np.nan]], (5, 0, 25, 40))
    data = FaceData("mine", three, [whole, partly, partly], pf.CropRule(1.0))
    assert (model_crop(data).scale, model_crop(data).top_shift) == pytest.approx((2.0, 0.0))
    nearly = replace(partly, landmarks=np.array([[10, 10], [20, 25], [np.nan, np.nan]]))
    assert model_crop(replace(data, samples=[nearly])).top_shift == pytest.approx(0.5 - 10 / 15)


def test_boxes_that_have_nothing_to_do_with_the_faces() -> None:
    data = FaceData("mine", TWO, [face([[2, 3], [6, 13]], (0, 0, 4000, 3000))], pf.CropRule(1.0))
    with pytest.raises(ValueError, match=r"mine: no rule leads from .* \(CropRule: scale: .*\); set crop_scale"):
        model_crop(data)


@pytest.mark.parametrize("kind", ["pipnet", "coordnet", "mapnet", "grmi"])
def test_models_fit_their_data(kind: str) -> None:
    config = TrainConfig.from_dict({"model": {"kind": kind, "width": 0.0625, "num_neighbors": 1, "input_size": 64}})
    data = FaceData("mine", TWO, [face([[2, 3], [6, 13]], (2, 3, 6, 13))], pf.CropRule(2.0), tight=True)
    model = create_model(config.model, data, pretrained=False)
    assert (model.config.num_landmarks, model.config.input_size, model.crop) == (2, 64, pf.CropRule(2.0))
    if isinstance(model, pf.PIPNet):
        assert model.mean_shape.tolist() == [[0.25, 0.25], [0.75, 0.75]]
        named = create_model(replace(config.model, mean_shape="aflw19"), nineteen(), pretrained=False)
        assert isinstance(named, pf.PIPNet)
        assert np.array_equal(named.mean_shape, pf.PIPNet(num_landmarks=19, mean_shape="aflw19").mean_shape)


def nineteen() -> FaceData:
    points = np.random.RandomState(0).rand(19, 2) * 50
    return FaceData("nineteen", Layout("n", np.arange(19)), [face(points, (0, 0, 50, 50))], pf.CropRule(1.0))


@pytest.mark.parametrize("kind", ["pipnet", "coordnet", "mapnet", "grmi"])
def test_parts_of_a_partly_labelled_batch_are_as_the_whole(kind: str) -> None:
    """The weights after a step: of plain descent, so that they tell the gradient's size, too."""
    model = {"kind": kind, "width": 0.0625, "num_neighbors": 4, "input_size": 64}
    crops, points = torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8), torch.rand(8, 19, 2)
    points[torch.rand(8, 19) < 0.4] = torch.nan
    # Faces of one part have few labels, those of another none.
    points[::4, 3:], points[1::4] = torch.nan, torch.nan
    found = []
    for parts in (1, 4):
        config = TrainConfig.from_dict({"model": model, "optimization": {"batch_size": 8, "accumulate": parts}})
        torch.manual_seed(0)
        network = create_model(config.model, nineteen(), pretrained=False)
        learner = Learner(Objective(network, config.optimization), config, CPU)
        # BatchNorm's moments are those of a part.
        learner.model.eval()
        learner.optimizer = torch.optim.SGD(learner.model.parameters(), lr=1.0)
        start = [p.detach().clone() for p in learner.model.parameters()]
        terms = learner.step(Batch(crops, points, torch.arange(8)), 0.0)
        found.append((terms, [p.detach() - q for p, q in zip(learner.model.parameters(), start, strict=True)]))
    (whole, steps), (parts_terms, parts_steps) = found
    torch.testing.assert_close(parts_terms, whole, rtol=1e-5, atol=1e-7)
    for got, expected in zip(parts_steps, steps, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_gradients_are_clipped_at_their_own_size(precision: str) -> None:
    """In float16 they are scaled up by 65,536 until then; plain descent goes as far as they are long."""
    model = {"width": 0.0625, "num_neighbors": 4, "input_size": 64}
    options = {"batch_size": 4, "precision": precision, "clip_norm": 0.01}
    config = TrainConfig.from_dict({"model": model, "optimization": options})
    learner = Learner(
        Objective(create_model(config.model, nineteen(), pretrained=False), config.optimization), config, CPU
    )
    learner.optimizer = torch.optim.SGD(learner.model.parameters(), lr=1.0)
    start = [p.detach().clone() for p in learner.model.parameters()]
    crops = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    learner.step(Batch(crops, torch.rand(4, 19, 2), torch.arange(4)), 0.0)
    steps = [(p.detach() - q).norm() for p, q in zip(learner.model.parameters(), start, strict=True)]
    length = float(torch.stack(steps).norm())
    assert length == pytest.approx(0.01 * learner.optimizer.param_groups[0]["lr"], rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        pytest.param({"batch_size": 2}, CPU, "mine has 1 face.s., less than a batch of 2; take a smaller", id="faces"),
        pytest.param(
            {"batch_size": 3},
            World(0, 2, CPU.device),
            "3 faces do not divide into 2 equal parts, for 2",
            id="processes",
        ),
        pytest.param(
            {"batch_size": 4, "accumulate": 4}, World(0, 2, CPU.device), "take a multiple of 8", id="accumulate"
        ),
    ],
)
def test_batches_that_cannot_be(changes: dict[str, Any], world: World, message: str) -> None:
    config = TrainConfig.from_dict({"optimization": changes})
    data = FaceData("mine", TWO, [face([[2, 3], [6, 13]], (2, 3, 6, 13))], pf.CropRule(2.0), tight=True)
    with pytest.raises(ValueError, match=f"optimization.batch_size: .*{message}"):
        create_loader(config, data, world)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", 'expected "auto" or a torch device'),
        ("meta", "CPU or CUDA device"),
        ("cuda:99", "CUDA devices, got cuda:99"),
    ],
)
def test_refused_devices(device: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"system.device: .*{message}"), join(device):
        pass
