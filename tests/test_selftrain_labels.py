"""Pseudo-labels: the model's own predictions, whoever is killed meanwhile, and the faces that filters keep."""

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from pyarrow import parquet

import pipnet_fast as pf
from pipnet_fast.crop import CropRule, Image, warp
from pipnet_fast.data import DataError, FaceData, Sample
from pipnet_fast.evaluate.predict import plain_crops, predicted
from pipnet_fast.layouts import Layout
from pipnet_fast.pipeline.images import normalize
from pipnet_fast.selftrain import label_statistics, read_labels, write_labels
from pipnet_fast.train.distributed import World
from tests.inputs import randomized
from tests.pictures import Picture, numbered

# Python warns of forking where there are threads, which torch always has; torch, of more workers than cores.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

SIZE = 64
SHAPE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.7]])
OPTIONS: dict[str, Any] = {"shard_size": 4, "batch_size": 3}


def make_model(seed: int = 1, **options: Any) -> pf.PIPNet:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"num_landmarks": 3, "num_neighbors": 2, "input_size": SIZE, "width": 0.0625}
    return randomized(**{**shape, "mean_shape": SHAPE, **options})


def make_faces(count: int = 10, broken: Sequence[int] = (), tight: bool = False) -> FaceData:
    """Without labels, each in a box of its own."""
    faces = numbered(count, broken)
    samples = [
        dataclasses.replace(sample, landmarks=None, box=sample.box + np.array([i, 0, 2 * i, -i]))
        for i, sample in enumerate(faces.samples)
    ]
    return dataclasses.replace(faces, samples=samples, tight=tight)


def rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in folder.iterdir() if path.suffix == ".parquet")
    return pa.concat_tables([parquet.read_table(path) for path in files]).to_pylist()


def points(faces: FaceData) -> Any:
    return np.array([sample.landmarks for sample in faces.samples])


def assert_same_but_rounding(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert [one[name] for name in ("index", "image", "box", "error")] == [
            other[name] for name in ("index", "image", "box", "error")
        ]
        for name in ("landmarks", "scores"):
            # Landmarks are hundreds of px away from each other.
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-2)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_labels(make_model(), make_faces(), folder, disagreement=True, **OPTIONS)
    return folder


@pytest.mark.parametrize("pixel_base", ["continuous", "center"])
@pytest.mark.parametrize("tight", [True, False], ids=["tight boxes, the model's crop", "the data's crop"])
def test_labels_are_the_models_predictions(tight: bool, pixel_base: Any, tmp_path: Path) -> None:
    model, faces = make_model(crop=CropRule(1.5, 0.1, pixel_base)), make_faces(tight=tight)
    write_labels(model, faces, tmp_path, **OPTIONS)
    labelled = read_labels(faces, tmp_path)
    rule = model.crop if tight else CropRule(1.2, 0.0, pixel_base)
    affines = rule.affine(rule.apply(np.array([sample.box for sample in faces.samples])), SIZE)
    crops = [warp(sample.image.read(), affine, SIZE) for sample, affine in zip(faces.samples, affines, strict=True)]
    found = model.predict(normalize(torch.from_numpy(np.stack(crops)), torch.float32))
    direct = rule.to_image(found.points_frac.numpy(), affines, SIZE)
    assert np.ptp(direct, axis=0).min() > 1
    np.testing.assert_allclose(points(labelled), direct, rtol=1e-4, atol=1e-2)
    assert points(labelled).dtype == np.float32
    table = rows(tmp_path)
    np.testing.assert_allclose([row["scores"] for row in table], found.scores, atol=1e-4)
    assert [row["index"] for row in table] == list(range(10))
    assert [row["image"] for row in table] == [f"{i}.png" for i in range(10)]
    np.testing.assert_array_equal([row["box"] for row in table], [sample.box for sample in faces.samples])
    assert {(row["disagreement"], row["error"]) for row in table} == {(None, None)}
    for before, after in zip(faces.samples, labelled.samples, strict=True):
        assert dataclasses.replace(after, landmarks=None).__dict__ == before.__dict__
    assert dataclasses.replace(labelled, samples=faces.samples, bad=()).__dict__ == faces.__dict__


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"shard_size": 3}, {"shard_size": 99}, {"workers": 2}], ids=str)
def test_batches_files_and_workers_change_nothing(options: dict[str, Any], expected: Path, tmp_path: Path) -> None:
    write_labels(make_model(), make_faces(), tmp_path, disagreement=True, **{**OPTIONS, **options})
    assert_same_but_rounding(rows(tmp_path), rows(expected))
    assert len(os.listdir(tmp_path)) == -(-10 // options.get("shard_size", 4))


def test_any_model_in_any_mode_by_any_runtime(tmp_path: Path) -> None:
    model, faces = pf.CoordNet(num_landmarks=3, input_size=SIZE, width=0.0625), make_faces(4)
    model.train()
    write_labels(model, faces, tmp_path / "a", **OPTIONS)
    assert model.training
    write_labels(model.eval(), faces, tmp_path / "b", run=pf.compile(model, "torch"), **OPTIONS)
    assert_same_but_rounding(rows(tmp_path / "a"), rows(tmp_path / "b"))


def test_between_batches_the_caller_has_gradients() -> None:
    model = make_model().train()
    loader = plain_crops(model, make_faces(4), batch_size=2)
    for batch in predicted(model, loader):
        assert torch.is_grad_enabled()
        assert (len(batch.index), batch.mirrored) == (2, None)
    assert model.training


def in_a_process(rank: int, folder: Path, store: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    write_labels(make_model(), make_faces(), folder, disagreement=True, world=world, **OPTIONS)
    # After the barrier the other one's files are there.
    assert len(read_labels(make_faces(), folder)) == 10
    dist.destroy_process_group()


@needs_fork
def test_two_processes_write_the_table_of_one(expected: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=in_a_process, args=(r, tmp_path / "two", tmp_path / "store")) for r in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    for path in expected.iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


@dataclass(frozen=True)
class Waiting:
    """An image that is long in coming."""

    name: str

    def read(self) -> Image:
        time.sleep(300)
        raise AssertionError

    def __str__(self) -> str:
        return self.name


def with_image(faces: FaceData, index: int, image: Any) -> FaceData:
    samples = list(faces.samples)
    samples[index] = dataclasses.replace(samples[index], image=image)
    return dataclasses.replace(faces, samples=samples)


@needs_fork
def test_a_killed_run_goes_on_to_the_same_table(expected: Path, tmp_path: Path) -> None:
    waiting = with_image(make_faces(), 5, Waiting("5.png"))

    def label() -> None:
        torch.set_num_threads(1)
        write_labels(make_model(), waiting, tmp_path, disagreement=True, **OPTIONS)

    first = tmp_path / "part-00000.parquet"
    killed = multiprocessing.get_context("fork").Process(target=label)
    killed.start()
    deadline = time.monotonic() + 60
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [first.name]
    before = first.stat()
    write_labels(make_model(), make_faces(), tmp_path, disagreement=True, **OPTIONS)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(expected))
    for path in expected.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@dataclass(frozen=True)
class Deadly:
    """An image whose reading kills the process that tries, so many times."""

    name: str
    image: Image
    folder: Path
    times: int

    def read(self) -> Image:
        if len(os.listdir(self.folder)) < self.times:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.image

    def __str__(self) -> str:
        return self.name


# As in test_loader.py: the signal of a death may come in a callback of the garbage collector, and is then only noted.
@needs_fork
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", [1, 2, 9])
def test_dead_workers_are_replaced_twice(times: int, expected: Path, tmp_path: Path) -> None:
    faces, deaths, out = make_faces(), tmp_path / "deaths", tmp_path / "out"
    deaths.mkdir()
    faces = with_image(faces, 5, Deadly("5.png", faces.samples[5].image.read(), deaths, times))
    if times > 2:
        with pytest.raises(RuntimeError, match="CropLoader: made/up: a worker process died"):
            write_labels(make_model(), faces, out, disagreement=True, workers=1, **OPTIONS)
        assert len(os.listdir(deaths)) == 3
        assert os.listdir(out) == ["part-00000.parquet"]
        return
    write_labels(make_model(), faces, out, disagreement=True, workers=1, **OPTIONS)
    assert len(os.listdir(deaths)) == times
    for path in expected.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_other_errors_are_not_tried_again(tmp_path: Path) -> None:
    calls = []

    def run(crops: torch.Tensor) -> pf.Landmarks:
        calls.append(len(crops))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_labels(make_model(), make_faces(), tmp_path, run=run, **OPTIONS)
    assert calls == [3]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_cannot_be_read(workers: int, tmp_path: Path) -> None:
    model, broken = make_model(), make_faces(broken=[1, 4, 5, 6, 7])
    intact = make_faces()
    later = dataclasses.replace(intact, samples=[*intact.samples[:4], *broken.samples[4:]])
    with pytest.raises(DataError, match=r"4\.png: the disk is gone"):
        write_labels(model, later, tmp_path, workers=workers, **OPTIONS)
    assert os.listdir(tmp_path) == ["part-00000.parquet"]
    (tmp_path / "part-00000.parquet").unlink()
    # A whole file of them, too.
    write_labels(model, broken, tmp_path, workers=workers, skip_bad=True, **OPTIONS)
    table = rows(tmp_path)
    assert [row["index"] for row in table if row["error"]] == [1, 4, 5, 6, 7]
    assert table[4]["error"] == "4.png: the disk is gone"
    assert np.isnan(table[4]["landmarks"]).all()
    labelled = read_labels(broken, tmp_path)
    assert [str(sample.image) for sample in labelled.samples] == ["0.png", "2.png", "3.png", "8.png", "9.png"]
    assert [(bad.where, bad.reason) for bad in labelled.bad][1] == ("4.png", "4.png: the disk is gone")
    statistics = label_statistics(tmp_path)
    assert (statistics.faces, statistics.unreadable, statistics.kept) == (10, 5, 5)
    scores = np.clip([row["scores"] for row in table if not row["error"]], 0, 1)
    assert statistics.mean_score == pytest.approx(scores.mean(), abs=1e-6)
    # Where every image is to count, one that could not be read is tried again.
    with pytest.raises(DataError, match=r"1\.png: the disk is gone"):
        write_labels(model, broken, tmp_path, **OPTIONS)
    write_labels(model, intact, tmp_path, **OPTIONS)
    assert label_statistics(tmp_path).unreadable == 0
    assert len(read_labels(intact, tmp_path)) == 10


def test_nothing_can_be_read(tmp_path: Path) -> None:
    faces = make_faces(3, broken=[0, 1, 2])
    write_labels(make_model(), faces, tmp_path, skip_bad=True, **OPTIONS)
    assert len(read_labels(faces, tmp_path)) == 0
    statistics = label_statistics(tmp_path)
    assert statistics[:3] == (3, 3, 0)
    assert np.isnan(statistics.mean_score)


def finder(points_frac: Any, scores: Any) -> Any:
    """What runs no model, but finds the landmarks at the same places of every crop."""
    place, sure = torch.tensor(points_frac), torch.tensor(scores)
    return lambda crops: pf.Landmarks(place.expand(len(crops), -1, -1), sure.expand(len(crops), -1))


@pytest.mark.parametrize("pixel_base", ["continuous", "center"])
def test_disagreement_of_a_crop_and_its_mirror_image(pixel_base: Any, tmp_path: Path) -> None:
    model, faces = make_model(crop=CropRule(pixel_base=pixel_base)), make_faces(2)
    # Symmetric about the middle of the crop, but for the first landmark, which is 0.1 too far right.
    middle = 0.5 if pixel_base == "continuous" else 0.5 - 0.5 / SIZE
    places = [[middle - 0.2, 0.3], [middle + 0.3, 0.3], [middle, 0.8]]
    write_labels(model, faces, tmp_path, disagreement=True, run=finder(places, [0.5, 0.9, 1.5]), **OPTIONS)
    boxes = faces.crop_boxes()
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    # The first and the second one disagree by 0.1, the third not at all.
    wanted = 0.2 * width / 3 / np.hypot(0.5 * width, 0.5 * height)
    np.testing.assert_allclose([row["disagreement"] for row in rows(tmp_path)], wanted, rtol=1e-5)
    assert wanted[0] < wanted[1]
    between = float(wanted.mean())
    assert points(read_labels(faces, tmp_path, max_disagreement=between)) == pytest.approx(
        points(read_labels(faces, tmp_path))[:1]
    )
    assert label_statistics(tmp_path, max_disagreement=between).kept == 1
    assert label_statistics(tmp_path, max_disagreement=1).kept == 2
    assert label_statistics(tmp_path, max_disagreement=0).kept == 0
    # A score above 1 is no surer than 1.
    assert label_statistics(tmp_path).mean_score == pytest.approx(0.8)
    assert label_statistics(tmp_path, min_score=0.79).kept == 2
    assert label_statistics(tmp_path, min_score=0.81, max_disagreement=1).kept == 0
    # What was kept by one filter is there for another: nothing is predicted twice.
    assert len(read_labels(faces, tmp_path, min_score=0.79, max_disagreement=between)) == 1


def test_landmarks_in_one_place_agree_with_nothing(tmp_path: Path) -> None:
    write_labels(
        make_model(), make_faces(1), tmp_path, disagreement=True, run=finder([[0.4, 0.4]] * 3, [1.0] * 3), **OPTIONS
    )
    assert rows(tmp_path)[0]["disagreement"] == np.inf
    assert label_statistics(tmp_path, max_disagreement=1e9).kept == 0


def test_faces_are_kept_by_their_mean_score(tmp_path: Path) -> None:
    def run(crops: torch.Tensor) -> pf.Landmarks:
        # As bright as a pixel, up to 1.5 and down to -0.5.
        return pf.Landmarks(torch.rand(len(crops), 3, 2), crops[:, 32, 32].double() / 127.5 - 0.5)

    write_labels(make_model(), make_faces(), tmp_path, run=run, **OPTIONS)
    table = rows(tmp_path)
    scores = np.array([np.clip(row["scores"], 0, 1).mean() for row in table])
    assert np.ptp([row["scores"] for row in table]) > 1
    least = float(np.median(scores))
    kept = read_labels(make_faces(), tmp_path, min_score=least)
    wanted = np.flatnonzero(scores >= least)
    assert [str(sample.image) for sample in kept.samples] == [f"{i}.png" for i in wanted]
    np.testing.assert_array_equal(points(kept), points(read_labels(make_faces(), tmp_path))[wanted])
    assert label_statistics(tmp_path, min_score=least).kept == len(kept) == 5
    assert label_statistics(tmp_path).mean_score == pytest.approx(scores.mean())


def with_box(box: Sequence[float]) -> FaceData:
    faces = make_faces(1)
    return dataclasses.replace(faces, samples=[dataclasses.replace(faces.samples[0], box=np.array(box))])


def reversed_faces() -> FaceData:
    faces = make_faces()
    return dataclasses.replace(faces, samples=faces.samples[::-1])


@pytest.mark.parametrize(
    ("model", "faces", "options", "message"),
    [
        pytest.param({"seed": 2}, make_faces, {}, "model: '.*', not '", id="weights"),
        pytest.param({"merge": "official"}, make_faces, {}, "model: '.*', not '", id="merge"),
        pytest.param({"mean_shape": 1 - SHAPE}, make_faces, {}, "model: '.*', not '", id="mean shape"),
        pytest.param({}, lambda: make_faces(9), {}, "inputs: 10, not 9; faces: ", id="fewer"),
        pytest.param({}, lambda: make_faces(tight=True), {}, "crop: .*1.2.*, not ", id="crop"),
        pytest.param({}, reversed_faces, {}, r"part-00000\.parquet is of another table: faces: ", id="order"),
        pytest.param({}, make_faces, {"disagreement": False}, "disagreement: True, not False", id="mirror"),
        pytest.param({}, make_faces, {"shard_size": 5}, "shard_size: 4, not 5", id="shard size"),
    ],
)
def test_other_labels_are_not_mixed_in(
    model: dict[str, Any], faces: Callable[[], FaceData], options: dict[str, Any], message: str, expected: Path
) -> None:
    before = {path: path.read_bytes() for path in expected.iterdir()}
    with pytest.raises(ValueError, match=message):
        write_labels(
            make_model(**{"crop": CropRule(1.5), **model}),
            faces(),
            expected,
            **{"disagreement": True, **OPTIONS, **options},
        )
    assert {path: path.read_bytes() for path in expected.iterdir()} == before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(
            lambda out: write_labels(len, make_faces(), out),  # type: ignore[arg-type]
            TypeError, "write_labels: model: expected a landmark model", id="model",
        ),
        pytest.param(
            lambda out: write_labels(pf.CoordNet(num_landmarks=4, width=0.0625), make_faces(), out),
            ValueError, "model: expected one of 3 landmarks for made/up, got one of 4", id="N",
        ),
        pytest.param(
            lambda out: write_labels(make_model(), make_faces(), out, shard_size=0),
            ValueError, "write_labels: shard_size: expected an integer >= 1, got 0", id="shard size",
        ),
        pytest.param(
            lambda out: write_labels(make_model(), make_faces(), out, batch_size=0),
            ValueError, "batch_size: expected >= 1, got 0", id="batch size",
        ),
        pytest.param(
            lambda out: write_labels(make_model(), make_faces(0), out),
            ValueError, "write_labels: made/up: expected faces, got none", id="no faces",
        ),
        pytest.param(
            lambda out: write_labels(make_model(), with_box([np.nan] * 4), out, skip_bad=True),
            ValueError, r"0\.png: box: .* got \[nan.*go through write_boxes and read_boxes first", id="no box",
        ),
        pytest.param(
            lambda out: write_labels(make_model(), with_box([5.0, 5.0, 5.0, 9.0]), out, skip_bad=True),
            ValueError, r"0\.png: box: expected finite x0 < x1 and y0 < y1, got \[5.0, 5.0, 5.0, 9.0\]", id="void box",
        ),
        pytest.param(
            lambda out: write_labels(make_model(), make_faces(), out, run=finder([[np.nan, 0.0]] * 3, [1.0] * 3)),
            FloatingPointError, r"expected finite landmarks and scores, got others for 0\.png; .* diverged", id="nan",
        ),
        pytest.param(
            lambda out: read_labels(make_faces(), out, min_score=1.5),
            ValueError, "read_labels: min_score: expected a number from 0 to 1, got 1.5", id="min_score",
        ),
        pytest.param(
            lambda out: label_statistics(out, min_score=np.nan),
            ValueError, "label_statistics: min_score: expected a number from 0 to 1, got nan", id="min_score, nan",
        ),
        pytest.param(
            lambda out: read_labels(make_faces(), out, max_disagreement=-0.1),
            ValueError, "read_labels: max_disagreement: expected a number from 0 to inf, got -0.1", id="share",
        ),
        pytest.param(
            lambda out: read_labels(make_faces(), out), DataError, r"part-00000\.parquet: no such file", id="no labels",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments(call: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        call(tmp_path)
    assert not os.listdir(tmp_path)


def test_labels_of_others_are_not_read(expected: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read_labels: .*: expected the table of made/up; inputs: 10, not 9; faces: "):
        read_labels(make_faces(9), expected)
    four = dataclasses.replace(make_faces(), layout=Layout("four", np.arange(4)))
    with pytest.raises(ValueError, match="landmarks: 3, not 4"):
        read_labels(four, expected)
    write_labels(make_model(), make_faces(), tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="max_disagreement: .* has labels without disagreement; write others, with "):
        read_labels(make_faces(), tmp_path, max_disagreement=0.1)


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (
        lambda: write_labels(make_model(), make_faces(), tmp_path),
        lambda: read_labels(make_faces(), tmp_path),
    ):
        with pytest.raises(ImportError, match="a table in Parquet files needs pyarrow, which does not import"):
            call()


def test_names_that_are_not_text(tmp_path: Path) -> None:
    faces = with_image(make_faces(2), 1, Picture("\udcff.png", None))
    write_labels(make_model(), faces, tmp_path, skip_bad=True, **OPTIONS)
    assert rows(tmp_path)[1]["image"] == "\\udcff.png"
    assert len(read_labels(faces, tmp_path)) == 1


def test_memory_does_not_grow_with_the_faces(tmp_path: Path) -> None:
    count, landmarks = 1000, 300
    layout = Layout("many", np.arange(landmarks))
    image = Picture("one.png", np.zeros((70, 70, 3), np.uint8))
    samples = [Sample(image, None, np.array([4.0, 5.0, 60.0, 60.0]))] * count
    faces = FaceData("many", layout, samples, CropRule())
    model = pf.CoordNet(num_landmarks=landmarks, input_size=32, width=0.0625)
    run = finder(np.random.rand(landmarks, 2), np.random.rand(landmarks))
    # What is imported once, and how large the predictions of all are.
    write_labels(model, dataclasses.replace(faces, samples=samples[:50]), tmp_path / "first", run=run)
    everything = count * landmarks * 3 * 4
    tracemalloc.start()
    arrow_before = pa.total_allocated_bytes()
    try:
        write_labels(model, faces, tmp_path / "all", run=run, batch_size=25, shard_size=50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A shard's predictions are a twentieth of all, and there are some copies of them.
    assert peak < 0.4 * everything
    assert pa.total_allocated_bytes() - arrow_before < 0.1 * everything
    assert len(read_labels(faces, tmp_path / "all")) == count
