"""The loader: the same batches whoever makes them, broken images and processes, and what it refuses."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipnet_fast.crop import CropRule, Image, warp
from pipnet_fast.data import DataError, FaceData, ImageFile, Sample
from pipnet_fast.data import cache as cache_module
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.data.cache import PartCache
from pipnet_fast.data.loader import Batch, CropLoader
from tests.pictures import data, face, numbered

# Python warns of forking where there are threads, which torch always has; its own workers do so by default.
# Torch warns of more workers than cores.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

SIZE = 32


def loader(faces: FaceData, batch_size: int = 4, size: int = SIZE, **arguments: Any) -> CropLoader:
    chosen: dict[str, Any] = {"augmentation": Augmentation(), "shuffle": True, "seed": 7, **arguments}
    return CropLoader(faces, faces.crop, size, batch_size, **chosen)


def epoch(batches: CropLoader, number: int) -> list[Batch]:
    batches.set_epoch(number)
    return list(batches)


def assert_equal(got: list[Batch], expected: list[Batch]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def joined(batches: list[Batch]) -> Batch:
    return Batch(*map(torch.cat, zip(*batches, strict=True)))


def order(batches: list[Batch]) -> list[int]:
    return joined(batches).index.tolist()


def on_disk(folder: Path, count: int) -> FaceData:
    """Faces of files, which processes that share nothing can read, too."""
    faces = numbered(count)
    for sample in faces.samples:
        cv2.imwrite(str(folder / str(sample.image)), sample.image.read())
    return replace(faces, samples=[replace(s, image=ImageFile(str(folder / str(s.image)))) for s in faces.samples])


def test_batches_have_the_shapes_and_types_they_say() -> None:
    faces = numbered(5)
    first, last = loader(faces)
    assert (first.crops.shape, first.crops.dtype) == ((4, SIZE, SIZE, 3), torch.uint8)
    assert (first.points_frac.shape, first.points_frac.dtype) == ((4, 3, 2), torch.float32)
    assert (last.index.shape, last.index.dtype) == ((1,), torch.int64)
    assert first.crops.is_contiguous()


def test_plain_crops_are_those_of_inference() -> None:
    faces = numbered(6)
    rule = CropRule(1.4, top_shift=0.1, pixel_base="center")
    batches = CropLoader(faces, rule, SIZE, 4, augmentation=None, shuffle=False)
    got = joined(list(batches))
    assert got.index.tolist() == list(range(6))
    affines = rule.affine(rule.apply(np.array([sample.box for sample in faces.samples])), SIZE)
    np.testing.assert_array_equal(batches.affines(got.index), affines)
    for crop, sample, affine in zip(got.crops.numpy(), faces.samples, affines, strict=True):
        np.testing.assert_array_equal(crop, warp(sample.image.read(), affine, SIZE))
    landmarks = np.array([sample.landmarks for sample in faces.samples])
    np.testing.assert_allclose(rule.to_image(got.points_frac.numpy(), affines, SIZE), landmarks, atol=1e-4)


def test_an_epoch_has_every_face_once_and_its_own_order() -> None:
    batches = loader(numbered(10))
    first, second = epoch(batches, 0), epoch(batches, 1)
    assert [len(batch.index) for batch in first] == [4, 4, 2]
    assert sorted(order(first)) == sorted(order(second)) == list(range(10))
    assert len({tuple(order(first)), tuple(order(second)), tuple(range(10))}) == 3
    assert_equal(epoch(batches, 0), first)
    assert order(epoch(loader(numbered(10), seed=8), 0)) != order(first)


def test_augmentation_changes_with_epoch_and_seed_only() -> None:
    faces = numbered(6)
    ordered = {"shuffle": False, "batch_size": 6}
    (first,), (second,) = (epoch(loader(faces, **ordered), number) for number in (0, 1))
    (other_seed,) = loader(faces, **ordered, seed=1)
    assert not (first.crops == second.crops).flatten(1).all(dim=1).any()
    assert not (first.crops == other_seed.crops).flatten(1).all(dim=1).any()
    # Neither the batch it is in nor the order.
    alone = joined(list(loader(faces, batch_size=1)))
    torch.testing.assert_close(alone.crops[alone.index.argsort()], first.crops)


@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "ordered"])
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_hold_the_slices_of_one_batch(world_size: int, shuffle: bool) -> None:
    faces = numbered(17)
    whole = loader(faces, batch_size=2 * world_size, shuffle=shuffle)
    ranks = [
        loader(faces, batch_size=2, shuffle=shuffle, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    parts = [epoch(rank, 3) for rank in ranks]
    assert {len(rank) for rank in ranks} == {len(whole)}
    assert_equal([joined(list(step)) for step in zip(*parts, strict=True)], epoch(whole, 3))
    assert all(len(batch.index) == 2 for part in parts for batch in part[:-1])


def test_more_processes_than_faces_get_empty_batches() -> None:
    faces = numbered(3)
    parts = [list(loader(faces, batch_size=2, rank=rank, world_size=5)) for rank in range(5)]
    assert [len(part) for part in parts] == [1] * 5
    assert sorted(len(part[0].index) for part in parts) == [0, 0, 1, 1, 1]
    empty = next(part[0] for part in parts if not len(part[0].index))
    assert (empty.crops.shape, empty.points_frac.shape) == ((0, SIZE, SIZE, 3), (0, 3, 2))
    assert sorted(order([part[0] for part in parts])) == [0, 1, 2]


def test_drop_last_leaves_out_what_fills_no_step() -> None:
    faces = numbered(11)
    for world_size, steps in ((1, 5), (2, 2), (5, 1)):
        batches = loader(faces, batch_size=2, drop_last=True, world_size=world_size)
        assert [len(batch.index) for batch in batches] == [2] * steps
        assert len(batches) == steps


@pytest.mark.parametrize(
    ("workers", "cache_mb", "start_method"),
    [
        pytest.param(1, 0, "fork", id="a-worker"),
        pytest.param(3, 0, "fork", id="3-workers"),
        pytest.param(2, 5, "fork", id="2-workers-sharing-a-cache"),
        pytest.param(1, 1, "spawn", id="a-worker-spawned"),
        pytest.param(0, 5, None, id="cache"),
        pytest.param(0, 1, None, id="cache-too-small"),
    ],
)
def test_workers_and_cache_change_nothing(
    workers: int, cache_mb: int, start_method: str | None, tmp_path: Path
) -> None:
    faces = on_disk(tmp_path, 30)
    expected = [epoch(loader(faces, size=128), number) for number in (0, 1)]
    batches = loader(faces, size=128, workers=workers, cache_mb=cache_mb, start_method=start_method)
    for number in (0, 1):
        assert_equal(epoch(batches, number), expected[number])
    for path in tmp_path.iterdir():
        path.unlink()
    # What the images' parts take is 3.2 MB; what the cache holds is not read again.
    if cache_mb > 3:
        assert_equal(epoch(batches, 1), expected[1])
    else:
        with pytest.raises(DataError, match=r"\.png: No such file"):
            epoch(batches, 1)


def test_plain_crops_are_cached_as_they_are() -> None:
    faces = numbered(8)
    plain = loader(faces, augmentation=None)
    cached = loader(faces, augmentation=None, cache_mb=1)
    for number in (0, 1):
        assert_equal(epoch(cached, number), epoch(plain, number))
    batch = epoch(cached, 1)[0]
    batch.crops.zero_()
    assert epoch(cached, 1)[0].crops.any()


def test_a_full_cache_keeps_what_it_has() -> None:
    cache = PartCache(3, 3 * 4 * 5 * 2, None)
    parts = [np.full((4, 5, 3), value, np.uint8) for value in (1, 2, 3)]
    for index, part in enumerate(parts):
        cache.put(index, part, np.full((2, 3), index, np.float64))
    cache.put(0, parts[2], np.zeros((2, 3)))
    for index in (0, 1):
        stored = cache.get(index)
        assert stored is not None
        np.testing.assert_array_equal(stored[0], parts[index])
        np.testing.assert_array_equal(stored[1], np.full((2, 3), index))
    assert cache.get(2) is None


def test_a_cache_beyond_the_shared_memory_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache_module, "SHARED", tmp_path)
    with pytest.raises(ValueError, match=r"cache_mb: expected at most the \d+ MiB that are free in .*, got 900000000"):
        loader(numbered(1), workers=1, cache_mb=900_000_000)


def test_leaving_an_epoch_early_spoils_nothing() -> None:
    faces = numbered(20)
    batches = loader(faces, batch_size=2, workers=2)
    for _ in batches:
        break
    assert_equal(epoch(batches, 1), epoch(loader(faces, batch_size=2), 1))


def test_the_global_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    list(loader(numbered(3)))
    torch.testing.assert_close(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index,union-attr]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_ends_the_epoch_with_its_name(workers: int) -> None:
    batches = loader(numbered(9, broken=[5]), workers=workers)
    with pytest.raises(DataError, match=r"^5\.png: the disk is gone$"):
        list(batches)
    with pytest.raises(DataError, match=r"^5\.png: the disk is gone$"):
        list(batches)


def test_a_damaged_file_is_named_once(tmp_path: Path) -> None:
    faces = on_disk(tmp_path, 2)
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png: not an image") as caught:
        list(loader(faces))
    assert str(caught.value).count("1.png") == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_bad_in_training_keeps_batches_full(workers: int) -> None:
    faces = numbered(9, broken=[5, 6, 8])
    batches = loader(faces, batch_size=3, skip_bad=True, workers=workers)
    made = epoch(batches, 0)
    assert [len(batch.index) for batch in made] == [3, 3, 3]
    # In the places of 5 and 6 stands 7, in that of 8 is 0.
    assert sorted(order(made)) == [0, 0, 1, 2, 3, 4, 7, 7, 7]
    assert [(bad.where, bad.reason) for bad in batches.bad] == [
        (f"{i}.png", f"{i}.png: the disk is gone") for i in (5, 6, 8)
    ]
    assert_equal(epoch(loader(faces, batch_size=3, skip_bad=True), 0), made)


def test_skip_bad_in_evaluation_leaves_faces_out() -> None:
    batches = loader(numbered(9, broken=[0, 1, 2, 5]), batch_size=3, skip_bad=True, shuffle=False, augmentation=None)
    assert [batch.index.tolist() for batch in batches] == [[], [3, 4], [6, 7, 8]]
    assert [bad.where for bad in batches.bad] == ["0.png", "1.png", "2.png", "5.png"]


def test_nothing_readable_is_an_error_in_training() -> None:
    with pytest.raises(DataError, match=r"the disk is gone; nor can any other image be read"):
        list(loader(numbered(3, broken=[0, 1, 2]), skip_bad=True))


@pytest.mark.parametrize(
    "box", [(10, 10, 10, 50), (10, 60, 50, 20), (float("nan"), 0, 9, 9), (0, 0, float("inf"), 9)], ids=str
)
def test_void_boxes(box: tuple[float, ...]) -> None:
    good = face("good")
    faces = data([replace(good, box=np.array(box)), good])
    with pytest.raises(DataError, match=r"good: box: expected finite x0 < x1 and y0 < y1, got \["):
        loader(faces)
    batches = loader(faces, skip_bad=True)
    assert order(list(batches)) == [1]
    assert [bad.where for bad in batches.bad] == ["good"]


@dataclass(frozen=True)
class Deadly:
    """An image whose reading kills the process that tries."""

    def read(self) -> Image:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def __str__(self) -> str:
        return "deadly"


# torch raises wherever Python is when the signal of the death comes. In a callback of the garbage collector, like
# hypothesis' own, that cannot be raised; then the loader notices otherwise, but pytest has seen it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dead_worker_is_noticed_and_replaced() -> None:
    faces = numbered(8)
    samples: list[Sample] = list(faces.samples)
    samples[3] = replace(samples[3], image=Deadly())
    batches = loader(replace(faces, samples=samples), workers=1, batch_size=1, shuffle=False, start_method="fork")
    for _ in range(2):
        seen: Iterator[Batch] = iter(batches)
        with pytest.raises(RuntimeError, match="CropLoader: made/up: a worker process died, as they do when memory"):
            list(seen)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"batch_size": 0}, ValueError, "batch_size: expected >= 1, got 0", id="batch"),
        pytest.param({"batch_size": 2.0}, TypeError, "batch_size: expected an integer >= 1, got 2.0", id="float"),
        pytest.param({"workers": -1}, ValueError, "workers: expected >= 0, got -1", id="workers"),
        pytest.param({"seed": -5}, ValueError, "seed: expected >= 0, got -5", id="seed"),
        pytest.param({"rank": 2, "world_size": 2}, ValueError, "rank: expected 0 to 1, got 2", id="rank"),
        pytest.param({"world_size": 0}, ValueError, "world_size: expected >= 1, got 0", id="world"),
        pytest.param({"cache_mb": True}, TypeError, "cache_mb: expected an integer >= 0, got True", id="cache"),
        pytest.param({"start_method": "clone"}, ValueError, "start_method: expected .*fork.*, got 'clone'", id="start"),
        pytest.param(
            {"batch_size": 2, "world_size": 2, "drop_last": True},
            ValueError,
            r"made/up: expected at least 4 usable face\(s\), got 3",
            id="too-few",
        ),
    ],
)
def test_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"CropLoader: {message}"):
        loader(numbered(3), **arguments)


def test_refuses_no_faces_other_landmarks_and_negative_epochs() -> None:
    with pytest.raises(ValueError, match=r"made/up: expected at least 1 usable face\(s\), got 0"):
        loader(data([]))
    with pytest.raises(ValueError, match=r"a: landmarks: expected \(3, 2\) of layout three, got \(2, 2\)"):
        loader(data([face("a", ((1, 1), (2, 2)), readable=False)]))
    with pytest.raises(ValueError, match="epoch: expected >= 0, got -1"):
        loader(numbered(1)).set_epoch(-1)
