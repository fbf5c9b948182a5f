"""Model files: what is saved comes back, official checkpoints load, everything else is refused in words."""

import errno
import functools
import json
import os
import pickle
import re
import threading
import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

import pipnet_fast as pf
from tests.inputs import randomized

LAYOUTS = {19: "aflw19", 29: "cofw29", 68: "300w68", 98: "wflw98"}


def small(num_neighbors: int = 4, **config: Any) -> pf.PIPNet:
    config = {"width": 0.25, "num_landmarks": 19, "mean_shape": "aflw19", **config}
    return randomized(num_neighbors=num_neighbors, **config)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 128, 128)


def assert_equal(got: pf.Landmarks, expected: pf.Landmarks) -> None:
    assert torch.equal(got.points_frac, expected.points_frac)
    assert torch.equal(got.scores, expected.scores)


class Evil:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="plain"),
        pytest.param({"num_neighbors": 0}, id="no neighbors"),
        pytest.param({"num_neighbors": 0, "mean_shape": None}, id="no neighbors and no mean shape"),
        pytest.param({"stride": 16, "merge": "official"}, id="stride 16, official merge"),
        pytest.param({"stride": 128, "input_size": 384}, id="stride 128"),
        pytest.param({"backbone": "resnet50", "width": 0.125}, id="resnet50"),
        pytest.param({"backbone": "mobilenet_v3", "width": 1.0}, id="mobilenet_v3"),
        pytest.param({"width": 0.33}, id="width that is no multiple of 1/64"),
        pytest.param({"mean_shape": np.random.RandomState(1).rand(19, 2) / 3}, id="own mean shape"),
        pytest.param({"crop": pf.CropRule(1.3, 0.2, "center")}, id="crop rule"),
    ],
)
def test_round_trip(config: dict[str, Any], x: Tensor, tmp_path: Path) -> None:
    model = small(**config)
    pf.save(model, tmp_path / "model.safetensors")
    loaded = pf.load(tmp_path / "model.safetensors")
    assert (loaded.config, loaded.crop) == (model.config, model.crop)
    # Text keeps a float64 exactly.
    assert np.array_equal(loaded.mean_shape, model.mean_shape)
    assert not any(module.training for module in loaded.modules())
    assert all(p.requires_grad for p in loaded.parameters())
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert_equal(loaded.predict(x), model.predict(x))


def test_round_trip_without_a_mean_shape(tmp_path: Path) -> None:
    pf.save(small(mean_shape=None), str(tmp_path / "model.safetensors"))
    loaded = pf.load(str(tmp_path / "model.safetensors"))
    assert loaded.mean_shape is None
    with pytest.raises(ValueError, match="cannot be merged without it"):
        loaded.predict(torch.zeros(1, 3, 64, 64))


def test_what_the_file_holds(tmp_path: Path) -> None:
    model = small()
    pf.save(model, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        metadata = file.metadata()
    assert metadata["format"] == "pipnet_fast/1"
    assert json.loads(metadata["config"]) == {
        "backbone": "resnet18",
        "num_landmarks": 19,
        "num_neighbors": 4,
        "stride": 32,
        "input_size": 256,
        "width": 0.25,
        "merge": "mean",
    }
    assert json.loads(metadata["crop"]) == {"scale": 1.2, "top_shift": 0.0, "pixel_base": "continuous"}
    assert np.array_equal(json.loads(metadata["mean_shape"]), model.mean_shape)


def test_saving_leaves_the_model_as_it_was(x: Tensor, tmp_path: Path) -> None:
    model = small().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pf.save(model, tmp_path / "model.safetensors")
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_load_as_float32(dtype: torch.dtype, x: Tensor, tmp_path: Path) -> None:
    model = small().to(dtype)
    pf.save(model, tmp_path / "model.safetensors")
    loaded = pf.load(tmp_path / "model.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.bn1.num_batches_tracked.dtype == torch.int64
    assert_equal(loaded.predict(x), model.float().predict(x))


def test_channels_last_weights(x: Tensor, tmp_path: Path) -> None:
    model = small().to(memory_format=torch.channels_last)
    pf.save(model, tmp_path / "model.safetensors")
    state = pf.load(tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_loaded_model_can_be_trained(x: Tensor, tmp_path: Path) -> None:
    pf.save(small(), tmp_path / "model.safetensors")
    model = pf.load(tmp_path / "model.safetensors").train()
    before = model.conv1.weight.detach().clone()
    sum(m.square().mean() for m in model(x)).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(model.conv1.weight, before)
    # The file stays as it was: its tensors are not mapped for writing.
    assert torch.equal(pf.load(tmp_path / "model.safetensors").conv1.weight, before)


def test_the_file_can_go_once_loaded(x: Tensor, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    model = small()
    pf.save(model, file)
    loaded = pf.load(file)
    pf.save(small(), file)
    file.unlink()
    assert_equal(loaded.predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        pytest.param("in safetensors", MemoryError("too large"), id="while packing"),
        pytest.param("in replace", OSError(errno.ENOSPC, "no space left"), id="while moving"),
        pytest.param("interrupted", KeyboardInterrupt(), id="interrupted"),
    ],
)
def test_save_is_all_or_nothing(
    kind: str, error: BaseException, x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    pf.save(small(), file)
    before = file.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "replace") if kind == "in replace" else (safetensors.torch, "save")), fail)
        with pytest.raises(type(error)):
            pf.save(small(), file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_two_threads_may_save_to_one_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    models = [small(), small()]
    errors: list[Exception] = []
    start = threading.Barrier(2)

    def save(model: pf.PIPNet) -> None:
        start.wait()
        try:
            for _ in range(10):
                pf.save(model, file)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    weight = pf.load(file).conv1.weight
    assert any(torch.equal(weight, model.conv1.weight) for model in models)
    assert os.listdir(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("no/such/folder/m.safetensors", FileNotFoundError, id="no folder"),
        pytest.param("file/m.safetensors", NotADirectoryError, id="folder is a file"),
        pytest.param("folder", IsADirectoryError, id="folder of that name"),
    ],
)
def test_where_no_file_can_be(path: str, error: type[OSError], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(error, match=re.escape(path)):
        pf.save(small(), tmp_path / path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match=r"m\.safetensors"):
            pf.save(small(), tmp_path / "m.safetensors")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)], ids=oct)
def test_file_mode_follows_umask(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        pf.save(small(), tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == mode


def test_only_models_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="save: model: expected a PIPNet, CoordNet, MapNet or GRMI, got Linear"):
        pf.save(nn.Linear(1, 1), tmp_path / "model.safetensors")  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


CASES = [
    ("resnet18", 98, 10, 32, 1.0),
    ("resnet18", 19, 4, 16, 0.5),
    ("resnet18", 68, 1, 64, 0.5),
    ("resnet18", 29, 28, 128, 0.25),
    ("resnet18", 29, 0, 32, 0.25),
    ("resnet50", 19, 3, 32, 0.25),
    ("resnet50", 19, 3, 128, 0.5),
    ("resnet101", 19, 5, 32, 0.125),
    ("mobilenet_v2", 19, 10, 32, 1.0),
    ("mobilenet_v2", 29, 2, 64, 1.0),
    ("mobilenet_v3", 68, 6, 32, 1.0),
    ("mobilenet_v3", 19, 2, 16, 1.0),
]


@pytest.mark.parametrize(("backbone", "landmarks", "neighbors", "stride", "width"), CASES)
def test_official_checkpoint(
    backbone: str, landmarks: int, neighbors: int, stride: int, width: float, x: Tensor, tmp_path: Path
) -> None:
    original = randomized(
        backbone=backbone,
        num_landmarks=landmarks,
        num_neighbors=neighbors,
        stride=stride,
        width=width,
        mean_shape=LAYOUTS[landmarks],
        merge="official",
    )
    torch.save(original.state_dict(), tmp_path / "epoch59.pth")
    model = pf.load_official(tmp_path / "epoch59.pth", LAYOUTS[landmarks])
    assert model.config == original.config
    assert model.config.merge == "official"
    assert not any(module.training for module in model.modules())
    assert np.array_equal(model.mean_shape, original.mean_shape)
    assert_equal(model.predict(x), original.predict(x))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda s: {f"module.{key}": value for key, value in s.items()}, id="DataParallel"),
        pytest.param(lambda s: {"state_dict": s, "epoch": 59}, id="state_dict inside"),
        pytest.param(
            lambda s: {"state_dict": {f"module.{key}": value for key, value in s.items()}}, id="DataParallel inside"
        ),
        pytest.param(lambda s: {k: v for k, v in s.items() if "num_batches" not in k}, id="no step counters"),
        pytest.param(lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()}, id="params"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "mapping"])
def test_wrapped_official_checkpoint(
    wrap: Callable[[dict[str, Tensor]], dict[str, Any]], kind: str, x: Tensor, tmp_path: Path
) -> None:
    original = small(merge="official")
    checkpoint: Any = wrap(original.state_dict())
    if kind == "file":
        torch.save(checkpoint, tmp_path / "epoch59.pth")
        checkpoint = str(tmp_path / "epoch59.pth")
    assert_equal(pf.load_official(checkpoint, "aflw19").predict(x), original.predict(x))


def test_official_arguments(x: Tensor) -> None:
    original = small()
    crop = pf.CropRule(1.1)
    model = pf.load_official(original.state_dict(), original.mean_shape, input_size=128, merge="mean", crop=crop)
    assert (model.config.input_size, model.config.merge, model.crop) == (128, "mean", crop)
    assert_equal(model.predict(x), original.predict(x))
    default = pf.load_official(original.state_dict(), "aflw19")
    assert (default.config.input_size, default.config.merge, default.crop) == (256, "official", pf.CropRule(1.2))
    assert not torch.allclose(default.predict(x).points_frac, model.predict(x).points_frac)


def test_official_checkpoint_keeps_its_precision() -> None:
    model = pf.load_official(small().double().state_dict(), "aflw19")
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_official_checkpoint_is_not_aliased(x: Tensor) -> None:
    original = small(merge="official")
    state = original.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    model = pf.load_official(state, "aflw19")
    expected = model.predict(x)
    for value in model.state_dict().values():
        value.zero_()
    assert all(torch.equal(value, before[key]) for key, value in state.items())
    model = pf.load_official(state, "aflw19")
    for value in state.values():
        value.zero_()
    assert_equal(model.predict(x), expected)


def test_official_becomes_ours(x: Tensor, tmp_path: Path) -> None:
    model = pf.load_official(small().state_dict(), "aflw19")
    pf.save(model, tmp_path / "model.safetensors")
    loaded = pf.load(tmp_path / "model.safetensors")
    assert loaded.config.merge == "official"
    assert_equal(loaded.predict(x), model.predict(x))


@functools.cache
def plain() -> pf.PIPNet:
    """One for all files that are refused; never written to."""
    return small()


def changed(**changes: Any) -> dict[str, Any]:
    state = {**plain().state_dict(), **changes}
    return {key: value for key, value in state.items() if value is not None}


def resnet34(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the third stage's six blocks of a ResNet-34."""
    block = {key: value for key, value in state.items() if key.startswith("layer3.1.")}
    more = {key.replace("layer3.1.", f"layer3.{i}."): value for key, value in block.items() for i in range(2, 6)}
    return {**state, **more}


REFUSED = [
    pytest.param(lambda: {}, "expected a state dict of named tensors, got dict", id="empty"),
    pytest.param(lambda: {"a": 1}, "expected a state dict of named tensors", id="no tensors"),
    pytest.param(lambda: changed(epoch=59), "expected a state dict of named tensors", id="a number among tensors"),
    pytest.param(lambda: {"a": torch.zeros(3)}, "not a PIPNet: expected a ResNet's conv1.weight", id="other network"),
    pytest.param(lambda: {"state_dict": {}}, "expected a state dict of named tensors", id="empty inside"),
    pytest.param(
        lambda: changed(**{"cls_layer.weight": None}), "not a PIPNet: expected 'cls_layer.weight'", id="no scores"
    ),
    pytest.param(
        lambda: changed(**{"cls_layer.weight": torch.zeros(19)}), "'cls_layer.weight' with four dimensions", id="flat"
    ),
    pytest.param(
        lambda: changed(**{"cls_layer.weight": torch.zeros(0, 128, 1, 1)}), "0 channels of cls_layer", id="no landmarks"
    ),
    pytest.param(
        lambda: changed(**{"nb_x_layer.weight": torch.zeros(20, 128, 1, 1)}),
        "a multiple of the 19 channels of cls_layer, got 20",
        id="odd neighbors",
    ),
    pytest.param(lambda: changed(**{"x_layer.bias": None}), 'Missing key.* "x_layer.bias"', id="missing bias"),
    pytest.param(lambda: changed(**{"bn1.running_var": None}), 'Missing key.*"bn1.running_var"', id="missing variance"),
    pytest.param(lambda: changed(**{"fc.weight": torch.zeros(2)}), 'Unexpected key.* "fc.weight"', id="extra key"),
    pytest.param(
        lambda: changed(**{"nb_x_layer.weight": None, "nb_x_layer.bias": None}), "Unexpected key.*nb_y", id="half K"
    ),
    pytest.param(lambda: changed(**{"bn1.weight": torch.zeros(99)}), "size mismatch for bn1.weight", id="shape"),
    pytest.param(
        lambda: changed(**{"conv1.weight": torch.zeros(16, 3, 7, 7, dtype=torch.int64)}),
        "does not fit a PIPNet",
        id="whole numbers",
    ),
    pytest.param(
        lambda: resnet34(plain().state_dict()),
        r"expected one of the ResNets \['resnet18', .* got one with \(2, 2, 6, 2\) blocks",
        id="resnet34",
    ),
]


@pytest.mark.parametrize(("state", "message"), REFUSED)
def test_refused_state_dicts(state: Callable[[], dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=f"^state dict: .*{message}"):
        pf.load_official(state(), "aflw19")


@pytest.mark.parametrize(("state", "message"), REFUSED)
def test_refused_checkpoints(state: Callable[[], dict[str, Any]], message: str, tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "epoch59.pth")
    with pytest.raises(ValueError, match=f"epoch59.pth: .*{message}"):
        pf.load_official(tmp_path / "epoch59.pth", "aflw19")


@pytest.mark.parametrize(
    "checkpoint", [pytest.param(None, id="none"), pytest.param([1, 2], id="list"), pytest.param(7, id="number")]
)
def test_refused_kinds_of_checkpoint(checkpoint: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="state dict|checkpoint"):
        pf.load_official(checkpoint, "aflw19")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"mean_shape": "wflw98"}, "mean_shape: expected 19 landmarks, got 98", id="other layout"),
        pytest.param({"mean_shape": "nowhere.txt"}, "mean_shape: expected one of", id="unknown layout"),
        pytest.param({"merge": "max"}, "merge: expected one of", id="merge"),
        pytest.param({"input_size": 100}, "input_size: expected a multiple of the stride 32", id="input size"),
    ],
)
def test_refused_official_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pf.load_official(plain().state_dict(), **{"mean_shape": "aflw19", **arguments})


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"these are no weights\n", id="text"),
        pytest.param(bytes(range(256)), id="bytes"),
        pytest.param(pickle.dumps({"a": 1})[:-3], id="half a pickle"),
    ],
)
def test_damaged_checkpoints(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "epoch59.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"epoch59\.pth: not a readable state dict: "):
        pf.load_official(tmp_path / "epoch59.pth", "aflw19")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_checkpoint(kept: float, tmp_path: Path) -> None:
    file = tmp_path / "epoch59.pth"
    torch.save(small().state_dict(), file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(ValueError, match=r"epoch59\.pth: not a readable state dict: "):
        pf.load_official(file, "aflw19")


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_cannot_run_code(legacy: bool, tmp_path: Path) -> None:
    file, marker = tmp_path / "epoch59.pth", tmp_path / "marker"
    torch.save({**small().state_dict(), "evil": Evil(marker)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="not a readable state dict"):
        pf.load_official(file, "aflw19")
    assert not marker.exists()
    # The file is as evil as it is meant to be.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("opener", [pf.load, lambda path: pf.load_official(path, "aflw19")], ids=["ours", "official"])
def test_missing_file(opener: Callable[[Path], pf.PIPNet], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such \w+ file: .*nothing\.pth"):
        opener(tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match=r"no such \w+ file"):
        opener(tmp_path)


def rewritten(path: Path, state: dict[str, Any] | None = None, **metadata: Any) -> Path:
    """A file of ours with other tensors or metadata; None leaves an entry out."""
    pf.save(plain(), path)
    with safe_open(path, framework="pt") as file:
        entries = {**file.metadata(), **metadata}
        tensors = {**safetensors.torch.load_file(path), **(state or {})}
    entries = {key: value for key, value in entries.items() if value is not None}
    safetensors.torch.save_file({k: v for k, v in tensors.items() if v is not None}, path, entries or None)
    return path


def test_rewriting_alone_changes_nothing(tmp_path: Path) -> None:
    assert pf.load(rewritten(tmp_path / "model.safetensors")).config == plain().config


def test_files_that_do_not_say_their_kind_are_pipnets(tmp_path: Path) -> None:
    # As those written by version 0.1.
    assert isinstance(pf.load(rewritten(tmp_path / "model.safetensors", kind=None)), pf.PIPNet)


def config(**changes: Any) -> str:
    entries = {**plain().config.to_dict(), **changes}
    return json.dumps({key: value for key, value in entries.items() if value != "left out"})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        pytest.param(
            {"format": None, "config": None, "crop": None, "mean_shape": None},
            "expected a model in format 'pipnet_fast/1', got None",
            id="no metadata",
        ),
        pytest.param({"format": None}, "in format 'pipnet_fast/1', got None", id="no format"),
        pytest.param({"format": "pipnet_fast/2"}, "in format 'pipnet_fast/1', got 'pipnet_fast/2'", id="later format"),
        pytest.param({"format": "pt"}, "in format 'pipnet_fast/1', got 'pt'", id="other format"),
        pytest.param({"kind": "vgg"}, "bad metadata: kind: expected one of .'pipnet', .* got 'vgg'", id="kind"),
        pytest.param({"kind": "mapnet"}, "bad metadata: expected the entries .*'stride'", id="other kind"),
        pytest.param({"config": None}, "bad metadata: 'config'", id="no config"),
        pytest.param({"config": "{"}, "bad metadata: Expecting", id="broken config"),
        pytest.param({"config": "7"}, "bad metadata", id="number as config"),
        pytest.param({"config": "null"}, "bad metadata", id="null as config"),
        pytest.param({"config": json.dumps(list(json.loads(config())))}, "bad metadata", id="list as config"),
        pytest.param({"config": "[" * 100_000}, "bad metadata", id="deep config"),
        pytest.param({"config": config(depth=3)}, "bad metadata: expected the entries .*'depth'", id="unknown entry"),
        pytest.param({"config": config(merge="left out")}, "bad metadata: expected the entries", id="missing entry"),
        pytest.param({"crop": None}, "bad metadata: 'crop'", id="no crop"),
        pytest.param({"crop": "{}}"}, "bad metadata", id="broken crop"),
        pytest.param({"crop": "[1.2]"}, "bad metadata", id="list as crop"),
        pytest.param({"crop": '{"size": 1}'}, "bad metadata: .*'size'", id="unknown crop entry"),
        pytest.param({"crop": '{"scale": -1}'}, "bad metadata: CropRule: scale: .* got -1", id="crop out of range"),
        pytest.param({"crop": '{"scale": NaN}'}, "bad metadata: CropRule: scale: .* got nan", id="crop nan"),
        pytest.param({"crop": '{"scale": "1"}'}, "bad metadata", id="text in crop"),
        pytest.param({"mean_shape": "[[1, 2"}, "bad metadata: Expecting", id="broken mean shape"),
        pytest.param({"mean_shape": "[[1, 2]]"}, "expected 19 landmarks, got 1", id="short mean shape"),
        pytest.param({"mean_shape": "[[1, NaN]]"}, "expected finite coordinates", id="mean shape nan"),
        pytest.param({"mean_shape": '{"a": 1}'}, "mean_shape", id="dict as mean shape"),
        pytest.param({"mean_shape": "[" * 100_000}, "bad metadata", id="deep mean shape"),
        pytest.param({"config": config(num_landmarks=20)}, r"disagree .*'num_landmarks': \(20, 19\)", id="other N"),
        pytest.param({"config": config(num_neighbors=5)}, r"disagree .*'num_neighbors': \(5, 4\)", id="other K"),
        pytest.param({"config": config(stride=64)}, r"disagree .*'stride': \(64, 32\)", id="other stride"),
        pytest.param({"config": config(width=4.0)}, r"disagree .*'width': \(4.0, 0.25\)", id="other width"),
        pytest.param({"config": config(backbone="resnet50")}, r"disagree .*\('resnet50', 'resnet18'\)", id="backbone"),
        pytest.param({"config": config(num_landmarks="19")}, r"disagree .*\('19', 19\)", id="N as text"),
        pytest.param({"config": config(num_landmarks=10**12)}, "disagree", id="all the memory there is"),
        pytest.param({"config": config(input_size=10**9)}, "input_size: .* up to 4096", id="huge crops"),
        pytest.param({"config": config(input_size=100)}, "input_size: .* multiple of the stride", id="odd crops"),
        pytest.param({"config": config(input_size="256")}, "input_size: expected an integer", id="crops as text"),
        pytest.param({"config": config(merge="max")}, "merge: expected one of", id="merge"),
        pytest.param({"config": config(merge="max"), "mean_shape": None}, "merge: expected one of", id="merge alone"),
    ],
)
def test_refused_metadata(metadata: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = rewritten(tmp_path / "model.safetensors", **metadata)
    with pytest.raises(ValueError, match=message):
        pf.load(file)


def test_a_model_file_names_no_other_file(tmp_path: Path) -> None:
    # A file from elsewhere must not choose what is read here, nor have it shown in an error.
    secret = tmp_path / "secret.txt"
    secret.write_text("password=swordfish")
    file = rewritten(tmp_path / "model.safetensors", mean_shape=json.dumps(str(secret)))
    with pytest.raises(ValueError, match=r"model\.safetensors: ") as caught:
        pf.load(file)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        pytest.param({"cls_layer.weight": None}, "not a PIPNet: expected 'cls_layer.weight'", id="no scores"),
        pytest.param({"x_layer.bias": None}, 'Missing key.*"x_layer.bias"', id="missing"),
        pytest.param({"fc.bias": torch.zeros(1)}, 'Unexpected key.*"fc.bias"', id="extra"),
        pytest.param({"bn1.bias": torch.zeros(3)}, "size mismatch for bn1.bias", id="shape"),
        pytest.param({"layer5.weight": torch.zeros(512, 128, 3, 3)}, "disagree .*'stride'", id="other stride"),
    ],
)
def test_refused_tensors(state: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = rewritten(tmp_path / "model.safetensors", state)
    with pytest.raises(ValueError, match=rf"model\.safetensors: .*{message}"):
        pf.load(file)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="one byte"),
        pytest.param(b"This is a text and no model.\n" * 50, id="text"),
        pytest.param((1 << 62).to_bytes(8, "little") + b"{}", id="huge header"),
        pytest.param((2).to_bytes(8, "little") + b"[]", id="list as header"),
    ],
)
def test_no_safetensors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable safetensors file"):
        pf.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("kept", [0.001, 0.5, 0.999])
def test_truncated_file(kept: float, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    pf.save(small(), file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable safetensors file"):
        pf.load(file)


def test_official_checkpoint_given_as_ours(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        pf.load(tmp_path / "model.pth")


def test_files_of_the_package_load() -> None:
    with resources.as_file(resources.files("pipnet_fast.weights") / "r18w50_ytf68.safetensors") as file:
        model = pf.load(file)
    assert (model.config.backbone, model.config.num_landmarks, model.config.width) == ("resnet18", 68, 0.5)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


RIVALS: dict[str, Callable[..., pf.CoordNet | pf.MapNet | pf.GRMI]] = {
    "coordnet": functools.partial(pf.CoordNet, "resnet18", 5, 64, width=0.125),
    "mapnet": functools.partial(pf.MapNet, "resnet18", 5, 4, 64, width=0.125),
    "grmi": functools.partial(pf.GRMI, "resnet50", 5, 9.5, 64, width=0.125),
}


@pytest.mark.parametrize("kind", RIVALS)
def test_rivals_round_trip(kind: str, tmp_path: Path) -> None:
    model = RIVALS[kind](crop=pf.CropRule(1.4, 0.1)).eval()
    pf.save(model, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata()["kind"] == kind
    loaded = pf.load(tmp_path / "model.safetensors")
    assert type(loaded) is type(model)
    assert (loaded.config, loaded.crop) == (model.config, model.crop)
    assert not any(module.training for module in loaded.modules())
    x = torch.randn(2, 3, 64, 64)
    assert_equal(loaded.predict(x), model.predict(x))


@pytest.mark.parametrize("kind", RIVALS)
def test_rivals_run_in_the_landmarker(kind: str, tmp_path: Path) -> None:
    pf.save(RIVALS[kind](), tmp_path / "model.safetensors")
    landmarker = pf.FaceLandmarker(tmp_path / "model.safetensors", detector=None, device="cpu", engine="torch")
    faces = landmarker(np.zeros((80, 90, 3), np.uint8), boxes=[[10, 10, 60, 70]])
    assert faces.landmarks.shape == (1, 5, 2)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        pytest.param("coordnet", {"num_landmarks": 6}, "does not fit a CoordNet of .* size mismatch", id="other N"),
        pytest.param("coordnet", {"input_size": 128}, "does not fit a CoordNet of .* size mismatch", id="other crops"),
        pytest.param("coordnet", {"input_size": 4097}, "input_size: .* up to 4096", id="huge crops"),
        pytest.param(
            "coordnet",
            {"num_landmarks": 10**12},
            "num_landmarks: expected an integer from 1 to 4096",
            id="all the memory there is",
        ),
        pytest.param("mapnet", {"num_landmarks": 10**30}, "model.safetensors: ", id="more than a number holds"),
        pytest.param("mapnet", {"num_landmarks": "5"}, "num_landmarks: expected an integer", id="text"),
        pytest.param("mapnet", {"stride": 2}, "does not fit a MapNet", id="other stride"),
        pytest.param("mapnet", {"stride": 8}, r"stride: expected one of \(1, 2, 4\)", id="unknown stride"),
        pytest.param("mapnet", {"width": 1e9}, "width: expected 0 < width <= 4", id="width"),
        pytest.param("mapnet", {"weights": "imagenet"}, "expected the entries", id="something to download"),
        pytest.param("grmi", {"radius_px": float("nan")}, "radius_px: expected a number > 0", id="radius"),
        pytest.param("grmi", {"backbone": "resnet101"}, "does not fit a GRMI", id="backbone"),
        pytest.param("grmi", {"backbone": ["resnet50"]}, "model.safetensors: ", id="list as backbone"),
    ],
)
def test_refused_rivals(kind: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    model, file = RIVALS[kind](), tmp_path / "model.safetensors"
    pf.save(model, file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    metadata["config"] = json.dumps({**model.config.to_dict(), **changes})
    safetensors.torch.save_file(safetensors.torch.load_file(file), file, metadata)
    with pytest.raises(ValueError, match=message):
        pf.load(file)
