"""Properties of models, files of them, and runtimes: any configuration is built and works, or is refused."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import pipnet_fast as pf
from pipnet_fast.ops.decode import reference
from pipnet_fast.pipeline.images import normalize
from tests.engine_cases import crops_for, require, tiny
from tests.inputs import in_layout
from tests.strategies import layouts, mean_shapes, merges, outcome, seeds
from tests.tolerances import ENGINE, assert_landmarks_close

# Building a network takes some twenty milliseconds.
few = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.one_of(
    st.integers(-2, 6),
    st.sampled_from((16, 32, 64, 128, 256, 512, 4097, 10**30, 0.5, 1.0, float("nan"), "8", None, True)),
)
configurations = st.fixed_dictionaries(
    {"width": st.sampled_from((0.0625, 0.0625, 1e-9, 0, -1, 5, float("nan"), "1", None))},
    optional={
        "backbone": st.sampled_from(("resnet18", "mobilenet_v3", "vgg", "", None, 18)),
        "num_landmarks": numbers,
        "num_neighbors": numbers,
        "stride": st.sampled_from((16, 32, 64, 128, 8, 0, -32, 32.0, "32", None)),
        "input_size": numbers,
        "merge": st.sampled_from(("mean", "official", "", None)),
        "mean_shape": st.sampled_from((None, "wflw98", "", [[0, 1]], [[0, float("inf")]], np.eye(5, 2), np.eye(3))),
    },
)


@few
@pytest.mark.filterwarnings("ignore:num_neighbors=")
@given(configurations)
def test_any_configuration_is_built_or_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = outcome(lambda: pf.PIPNet(**options), ValueError, TypeError)
    if isinstance(model, Exception):
        assert str(model).split(":")[0] in (
            "PIPNet",
            "create_backbone",
            "num_neighbors",
            "mean_shape",
            "neighbor_table",
        )
        return
    config = model.config
    assert 0 <= config.num_neighbors < config.num_landmarks <= 4096
    assert config.input_size % config.stride == 0
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()


@few
@given(data=st.data(), seed=seeds)
def test_predict_is_the_reference_of_the_maps_and_survives_its_file(
    tmp_path: Path, data: st.DataObject, seed: int
) -> None:
    landmarks, stride = data.draw(st.integers(1, 7)), data.draw(st.sampled_from((16, 32, 64)))
    torch.manual_seed(seed)
    model = pf.PIPNet(
        num_landmarks=landmarks,
        num_neighbors=data.draw(st.integers(0, landmarks - 1)),
        stride=stride,
        mean_shape=data.draw(mean_shapes(landmarks)),
        merge=data.draw(merges),
        width=0.0625,
    ).eval()
    x = torch.randn(data.draw(st.integers(0, 2)), 3, *(stride * data.draw(st.integers(1, 2)) for _ in range(2)))
    x = in_layout(x, data.draw(layouts))
    found = model.predict(x)
    assert found.points_frac.shape == (len(x), landmarks, 2)
    with torch.no_grad():
        maps, table = model(x), model.table
    expected = pf.Landmarks(*reference(*maps, table.starts, table.sources, table.weights))
    # Scores of a fresh head lie close together; what wins may differ by rounding.
    assert_landmarks_close(found.scores, expected.scores, "scores")

    pf.save(model, tmp_path / "model.safetensors")
    again = pf.load(tmp_path / "model.safetensors")
    assert (again.config, again.crop) == (model.config, model.crop)
    official = pf.load_official(model.state_dict(), model.mean_shape, merge=model.config.merge)
    assert official.config == model.config
    for loaded in (again, official):
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())
        # Where weights lie in memory decides by which kernel torch convolves.
        assert_landmarks_close(loaded.predict(x).scores, found.scores, "scores")


@few
@given(
    kind=st.sampled_from((pf.CoordNet, pf.MapNet, pf.GRMI)),
    options=st.fixed_dictionaries({"width": st.sampled_from((0.0625, 0.0625, 0, None))}, optional={
        "backbone": st.sampled_from(("resnet18", "resnet50", "vgg", None)),
        "num_landmarks": numbers,
        "input_size": st.sampled_from((32, 64, 33, 0, 4096, 8192, None, "64")),
    }),
)  # fmt: skip
def test_any_rival_is_built_or_refused(kind: Any, options: dict[str, Any]) -> None:
    options = {"backbone": "resnet18", "num_landmarks": 3, "input_size": 64, **options}
    with torch.device("meta"):
        model = outcome(lambda: kind(**options), ValueError, TypeError)
    if isinstance(model, Exception):
        assert str(model).split(":")[0] in (kind.__name__, "create_backbone")
    else:
        assert model.config.num_landmarks == options["num_landmarks"]


@functools.cache
def runtime(engine: str) -> tuple[pf.PIPNet, pf.Runtime]:
    model = tiny(input_size=32)
    return model, pf.compile(model, engine)


@st.composite
def batches(draw: st.DrawFn, good: Tensor) -> Any:
    """Crops as tensors and arrays of any type, in any layout; and what is none."""
    form = draw(st.sampled_from(("uint8", "float32", "float64", "float16", "int64", "bool", "short", "first", "list")))
    batch = in_layout(good, draw(layouts))
    if form == "list":
        return batch.tolist()
    if form == "short":
        return (
            batch[draw(st.sampled_from((0, (slice(None), slice(1)), (slice(None), 0))))]
            if len(batch)
            else batch[..., 0]
        )
    if form == "first":
        return batch.permute(0, 3, 1, 2)
    value: Any = batch if form == "uint8" else in_layout(normalize(batch), draw(layouts)).to(getattr(torch, form))
    if draw(st.booleans()):
        value = value.numpy()
        return value[::-1][::-1] if draw(st.booleans()) else value
    return value


@settings(max_examples=12, deadline=None)
@given(data=st.data(), seed=seeds)
@pytest.mark.parametrize("engine", ["cpp", "torch"])
def test_runtimes_take_crops_of_any_form_or_refuse_them(engine: str, data: st.DataObject, seed: int) -> None:
    require(engine)
    model, compiled = runtime(engine)
    torch.manual_seed(seed)
    good = crops_for(model, data.draw(st.integers(0, 4)))
    batch = data.draw(batches(good))
    found = outcome(lambda: compiled(batch), ValueError, TypeError)
    if isinstance(found, Exception):
        assert str(found).startswith("runtime: x: expected ")
        return
    expected = model.predict(normalize(good))
    half = batch.dtype in (torch.float16, np.float16)
    assert_landmarks_close(found.scores, expected.scores, "scores", 1e-2 if half else ENGINE["resnet"])
    assert found.points_frac.shape == expected.points_frac.shape
    assert found.points_frac.isfinite().all()


@settings(max_examples=10, deadline=None)
@given(
    st.fixed_dictionaries(
        {"engine": st.sampled_from(("torch", "torch", "tpu", "", None))},
        optional={
            "batch_size": st.one_of(st.integers(-1, 3), st.floats(), st.none(), st.booleans()),
            "dtype": st.sampled_from(("float32", "float16", "int8", "", None, torch.float32)),
            "head_storage": st.sampled_from((None, "float32", "float16", "int8", "int4", 8)),
            "weight_storage": st.sampled_from((None, "float32", "float16", "int8")),
        },
    )
)
def test_compiling_with_any_options_works_or_is_refused(options: dict[str, Any]) -> None:
    model, _ = runtime("torch")
    compiled = outcome(lambda: pf.compile(model, **options), ValueError, TypeError)
    if isinstance(compiled, Exception):
        assert str(compiled).startswith("compile: ")
    else:
        assert compiled(crops_for(model, 1)).points_frac.shape == (1, 17, 2)


@settings(max_examples=20, deadline=None)
@given(cores=st.one_of(st.lists(st.integers(-(2**40), 2**40), max_size=4), st.lists(st.floats(), max_size=2)))
def test_threads_are_pinned_to_cores_there_are_or_not_at_all(cores: Any) -> None:
    if not pf.ops.backends()["cpp"]:
        pytest.skip("no C++ extension")
    try:
        outcome(lambda: pf.pin_threads(cores), ValueError)
    finally:
        pf.pin_threads([])
