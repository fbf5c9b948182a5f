"""Files from anywhere: damaged ones are refused in words, none runs code, none takes more memory than it is worth."""

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import pipnet_fast as pf
from pipnet_fast.cli import main
from pipnet_fast.train.checkpoint import read_checkpoint
from tests.fuzz.damage import truncations
from tests.fuzz.round import Round
from tests.fuzz.targets import TARGETS
from tests.inputs import randomized
from tests.memory import peak_growth

MEGABYTE = 1 << 20


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_or_read(name: str, tmp_path: Path) -> None:
    round = Round(name, tmp_path / "round")
    # Files of other formats, or of none.
    begun = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"PK\x03\x04", b'{"a": [1, 2', b"n_points: 3\n{"]
    others = [*round.good, b"", bytes(300), *begun]
    for data in truncations(round.good[0], 10):
        round.read(data)
    assert round.outcomes["refused"] > 3
    for _, data in zip(range(20), round.files(name, others), strict=False):
        round.read(data)


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.folder,)


def resume(file: Path) -> None:
    read_checkpoint(file)


def detect(file: Path) -> None:
    if main(["detect", str(file), "--model", str(file), "--out", str(file.parent / "out")]) != 2:
        raise AssertionError("expected exit status 2")
    raise ValueError("not a readable file, by exit status")


DOORS: dict[str, Callable[[Path], object]] = {
    "official": lambda file: pf.load_official(file, "aflw19"),
    "load": pf.load,
    "imagenet": lambda file: pf.PIPNet("resnet18", 5, 0, weights=file),
    "resume": resume,
    "detect": detect,
    "mean shape": lambda file: pf.neighbor_table(file, 3),
    "image": lambda file: pf.FaceLandmarker(small(), detector=None, device="cpu")(file, []),
    "yunet": pf.YuNetDetector,
}
PICKLES: dict[str, Callable[[Any], bytes]] = {
    "pickle": pickle.dumps,
    "oldest pickle": lambda content: pickle.dumps(content, protocol=0),
    "zip": lambda content: saved(content, True),
    "legacy": lambda content: saved(content, False),
}


def saved(content: Any, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def small(**options: Any) -> pf.PIPNet:
    return randomized(**{"num_landmarks": 5, "num_neighbors": 0, "width": 0.0625, "input_size": 64, **options})


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("door", DOORS)
def test_no_door_runs_what_a_file_says(door: str, kind: str, tmp_path: Path) -> None:
    file, canary = tmp_path / "epoch59.pth", tmp_path / "canary"
    file.write_bytes(PICKLES[kind]({"format": "pipnet_fast.train/3", "evil": Canary(canary)}))
    with pytest.raises(ValueError, match=r"not a|expected|no image"):
        DOORS[door](file)
    assert not canary.exists()
    # The file is as evil as it is meant to be.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pickle.loads(file.read_bytes()) if "pickle" in kind else torch.load(file, weights_only=False)
    assert canary.exists()


def refused(call: Callable[[], object], message: str) -> int:
    """Bytes that a refusal takes at its peak."""

    def caught() -> None:
        with pytest.raises(ValueError, match=message):
            call()

    return peak_growth(caught)


@pytest.mark.parametrize("landmarks", [4097, 20_000, 10**6, 10**9])
def test_model_files_that_claim_many_landmarks(landmarks: int, tmp_path: Path) -> None:
    """Of a file's tensors without elements, any shape is true."""
    file = tmp_path / "model.safetensors"
    pf.save(small(), file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    state = safetensors.torch.load_file(file)
    channels = 0 if landmarks > 20_000 else state["cls_layer.weight"].shape[1]
    for name in ("cls_layer", "x_layer", "y_layer"):
        state[f"{name}.weight"] = torch.zeros(landmarks, channels, 1, 1)
    metadata["config"] = json.dumps({**small().config.to_dict(), "num_landmarks": landmarks})
    safetensors.torch.save_file(state, file, metadata)
    message = rf"model\.safetensors: .*num_landmarks: expected an integer from 1 to 4096, got {landmarks}"
    assert refused(lambda: pf.load(file), message) < 64 * MEGABYTE


@pytest.mark.parametrize("landmarks", [20_000, 10**9])
def test_checkpoints_that_claim_many_landmarks(landmarks: int, tmp_path: Path) -> None:
    """A tensor whose strides are 0 has as many elements as it says, and one in the file."""
    state = small().state_dict()
    for name in ("cls_layer", "x_layer", "y_layer"):
        state[f"{name}.weight"] = torch.zeros(1).expand(landmarks, 32, 1, 1)
        state[f"{name}.bias"] = torch.zeros(1).expand(landmarks)
    torch.save(state, tmp_path / "epoch59.pth")
    assert (tmp_path / "epoch59.pth").stat().st_size < MEGABYTE
    message = rf"epoch59\.pth: .*num_landmarks: expected an integer from 1 to 4096, got {landmarks}"
    assert refused(lambda: pf.load_official(tmp_path / "epoch59.pth", "aflw19"), message) < 64 * MEGABYTE


@pytest.mark.parametrize("reader", [lambda file: pf.load_official(file, "aflw19"), read_checkpoint])
def test_compressed_checkpoints_are_not_unpacked(reader: Callable[[Path], object], tmp_path: Path) -> None:
    """torch writes its archives without compression, and would read a small one of gigabytes."""
    whole, packed = tmp_path / "whole.pth", tmp_path / "packed.pth"
    torch.save({"format": "pipnet_fast.train/3", "zeros": torch.zeros(8 * MEGABYTE)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), compresslevel=1)
    assert packed.stat().st_size < 2 * MEGABYTE
    assert refused(lambda: reader(packed), r"packed\.pth: .*compressed") < 16 * MEGABYTE


def test_more_landmarks_than_there_may_be() -> None:
    with pytest.raises(ValueError, match="neighbor_table: mean_shape: expected at most 4096 landmarks, got 4097"):
        pf.neighbor_table(np.zeros((4097, 2)), 3)
    with pytest.raises(ValueError, match="PIPNet: num_landmarks: expected an integer from 1 to 4096, got 4097"):
        pf.PIPNet(num_landmarks=4097, num_neighbors=0)
