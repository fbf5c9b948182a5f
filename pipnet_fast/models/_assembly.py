"""Models from what files say of them: built without memory, filled by assignment."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipnet_fast.crop import CropRule
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.coordnet import CoordNet, CoordNetConfig
from pipnet_fast.models.grmi import GRMI, GRMIConfig
from pipnet_fast.models.mapnet import MapNet, MapNetConfig
from pipnet_fast.models.pipnet import PIPNet, PIPNetConfig


class Kind(NamedTuple):
    """A class of models."""

    model: type[LandmarkModel]
    entries: frozenset[str]
    """What its configuration consists of."""


def _kind(model: type[LandmarkModel], config: type[Any]) -> Kind:
    return Kind(model, frozenset(field.name for field in fields(config)))


# By the name that files and configurations give it.
KINDS: Mapping[str, Kind] = {
    "pipnet": _kind(PIPNet, PIPNetConfig),
    "coordnet": _kind(CoordNet, CoordNetConfig),
    "mapnet": _kind(MapNet, MapNetConfig),
    "grmi": _kind(GRMI, GRMIConfig),
}


class _Uninitialized(TorchFunctionMode):
    """Draws no random numbers: on the meta device there is nothing to fill, and torch imports its compiler for it."""

    # Of tensors and of torch.nn.init.
    DRAWS = frozenset({"normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", None) in self.DRAWS:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


def assemble(
    kind: str, config: dict[str, Any], state: dict[str, Tensor], mean_shape: Any, crop: CropRule | None, source: str
) -> LandmarkModel:
    """A model in eval mode that has the tensors of ``state`` as its own.

    Raises:
        ValueError: a configuration out of its range, or tensors that do not fit it; the message begins with ``source``.
    """
    cls: Any = KINDS[kind].model
    try:
        # Nothing is initialized only to be overwritten.
        with torch.device("meta"), _Uninitialized():
            model: LandmarkModel = cls(**config, crop=crop)
        if isinstance(model, PIPNet) and mean_shape is not None:
            model.with_mean_shape(mean_shape)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{source}: {error}") from None
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(f"{source}: does not fit a {cls.__name__} of {config}: {' '.join(lines[1:3])}") from None
    return model.eval()
