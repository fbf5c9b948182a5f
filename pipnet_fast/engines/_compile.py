"""The public door: which engines there are, and a model made ready to run on one."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast, get_args

import torch
from torch import Tensor, fx, nn

from pipnet_fast._availability import Availability
from pipnet_fast._errors import first_line
from pipnet_fast.engines import auto, cpp, cudagraph, inductor, onnxruntime, openvino, torch_engine
from pipnet_fast.engines._types import Engine, Network, Spec, WeightStorage
from pipnet_fast.engines.fold import fold_trunk
from pipnet_fast.engines.runtime import Runtime
from pipnet_fast.models import PIPNet
from pipnet_fast.ops import BoundHead, HeadWeights, Landmarks, Storage
from pipnet_fast.ops.types import STORAGES

ENGINES: dict[str, Engine] = {
    "torch": torch_engine.ENGINE,
    "cpp": cpp.ENGINE,
    "inductor": inductor.ENGINE,
    "cudagraph": cudagraph.ENGINE,
    "onnxruntime": onnxruntime.ENGINE,
    "openvino": openvino.ENGINE,
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def engines() -> Availability:
    """Engines by name, present or not, with ``.reasons``. ``"torch"``, eager, is always there."""
    return Availability({name: engine.missing() for name, engine in ENGINES.items()})


def compile(
    model: nn.Module,
    engine: str = "auto",
    batch_size: int = 1,
    dtype: str = "float32",
    head_storage: Storage | None = None,
    weight_storage: WeightStorage | None = None,
) -> Runtime:
    """Make a model ready to run, as fast as an engine can.

    The trunk is copied, its BatchNorms folded into its convolutions, and handed to the engine; the head stays the
    package's own fused operation, on the features where the engine left them. Everything is prepared and run once
    before this returns.

    ``"torch"`` is eager PyTorch, ``"cpp"`` the package's own C++ for backbones of the paper on the CPU, from the crop
    to the landmarks; both take any batch in one run. ``"inductor"`` is torch.compile with freezing,
    ``"onnxruntime"`` and ``"openvino"`` run the trunk on the CPU; these three have static shapes, one image and
    ``batch_size`` of them: other batches are made up of both (on CUDA, filled up to the larger). ``"cudagraph"``
    replays one CUDA graph from the crop to the landmarks; it has every power of two up to ``batch_size``, and fills
    up. On CPUs the engines keep the number of threads that torch has now.

    Args:
        model: a ``PIPNet`` in eval mode, or a module with ``config``, ``forward_features`` and ``landmarks`` as it
            has them. It stays as it is, and later changes of it do not reach the runtime.
        engine: one of ``engines()``, which then runs or raises, or "auto": the fastest of those present. The first
            time for such a model, batch size, dtype, device and number of threads it measures them, each in a
            process of its own, for about ten seconds each (with inductor, up to a minute), and keeps the result
            in ``$XDG_CACHE_HOME/pipnet_fast/engines.json`` (``~/.cache`` without that variable).
        batch_size: B >= 1, how many crops usually come at once; any number may come.
        dtype: what trunk and head compute in, "float32", or on CUDA also "float16" or "bfloat16".
        head_storage: how a PIPNet's head keeps its weights on the CPU, "float32", "float16" or "int8"
            (``HeadWeights.stored_as``); None as the model has them.
        weight_storage: how engine "cpp", asked for by name, keeps the other weights, "float32" or "float16"; they are
            computed with in float32. None for float32.

    Returns:
        The runtime, on the model's device.

    Raises:
        TypeError, ValueError: an argument out of its range, a model in training mode or without a mean shape, or
            an engine or dtype that does not run on the model's device.
        RuntimeError: an engine that is not present, or that fails on this model.
    """
    spec = _spec(model, batch_size, dtype)
    if weight_storage is not None:
        spec = replace(spec, weight_storage=_weight_storage(weight_storage, engine))
    head = _head(model, spec.dtype, head_storage)
    choice = auto.Choice(engine, {})
    if engine == "auto":
        choice = auto.choose(model, spec, _candidates(spec.device))
    else:
        # To ask all of them imports them all.
        if engine not in ENGINES or ENGINES[engine].missing() is not None:
            engines().require("compile", "engine", engine)
        devices = ENGINES[engine].devices
        if devices is not None and spec.device.type not in devices:
            raise ValueError(
                f"compile: engine: {engine!r} expects a model on {' or '.join(devices)}, got one on {spec.device}"
            )
    network = Network(_trunk(model, spec), head)
    try:
        prepared = ENGINES[choice.engine].prepare(network, spec)
    except Exception as error:  # compilers raise all there is
        raise RuntimeError(f"compile: engine {choice.engine!r} failed: {first_line(error)}") from error
    return Runtime(choice.engine, prepared, spec, choice.milliseconds)


def fastest_known(model: nn.Module, batch_size: int = 1, dtype: str = "float32") -> str:
    """The engine that ``compile(engine="auto")`` found the fastest here for such a model, or "torch" if it never ran.

    Measures nothing.
    """
    spec = _spec(model, batch_size, dtype)
    choice = auto.cached(model, spec, _candidates(spec.device))
    return choice.engine if choice else "torch"


def _candidates(device: torch.device) -> list[str]:
    return [
        name
        for name, engine in ENGINES.items()
        if (engine.devices is None or device.type in engine.devices) and engine.missing() is None
    ]


def _spec(model: Any, batch_size: int, dtype: str) -> Spec:
    if not isinstance(model, nn.Module) or not all(
        hasattr(model, name) for name in ("config", "forward_features", "landmarks")
    ):
        raise TypeError(
            "compile: model: expected a PIPNet, or a module with config, forward_features and landmarks, got "
            f"{type(model).__name__}"
        )
    if model.training:
        raise ValueError("compile: model: expected one in eval mode (model.eval()), got one in training mode")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"compile: batch_size: expected an integer >= 1, got {batch_size!r}")
    if dtype not in DTYPES:
        raise ValueError(f"compile: dtype: expected one of {list(DTYPES)}, got {dtype!r}")
    device = next(model.parameters()).device
    if dtype != "float32" and device.type != "cuda":
        raise ValueError(f"compile: dtype: {dtype!r} is for CUDA devices; on {device} expected 'float32'")
    config: Any = model.config
    return Spec(batch_size, config.input_size, config.num_landmarks, DTYPES[dtype], device)


def _weight_storage(storage: WeightStorage, engine: str) -> WeightStorage:
    if storage not in get_args(WeightStorage):
        raise ValueError(
            f"compile: weight_storage: expected None or one of {list(get_args(WeightStorage))}, got {storage!r}"
        )
    if engine != "cpp":
        raise ValueError(f"compile: weight_storage: expected engine='cpp' with {storage!r}, got {engine!r}")
    return storage


def _trunk(model: nn.Module, spec: Spec) -> fx.GraphModule:
    try:
        trunk = fold_trunk(model)
    except fx.proxy.TraceError as error:
        raise ValueError(f"compile: model: its forward_features cannot be traced by torch.fx: {error}") from error
    trunk = trunk.to(spec.dtype)
    return trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _head(model: Any, dtype: torch.dtype, storage: Storage | None) -> Callable[[Tensor], Landmarks]:
    """The step from features to landmarks, with weights of its own."""
    if storage is not None and storage not in STORAGES:
        raise ValueError(f"compile: head_storage: expected None or one of {list(STORAGES)}, got {storage!r}")
    if isinstance(model, PIPNet):
        copies = (None if t is None else t.to(dtype, copy=True) for t in model.head)
        head = HeadWeights(*cast(Any, copies))
        return BoundHead(head if storage is None else head.stored_as(storage), model.table)
    if storage is not None:
        raise ValueError(f"compile: head_storage: expected None for a {type(model).__name__}, got {storage!r}")
    landmarks: Callable[[Tensor], Landmarks] = copy.deepcopy(model).to(dtype).landmarks
    return landmarks
