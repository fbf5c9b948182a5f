"""BatchNorm folded into the convolution before it: the same function, for inference, with fewer passes.

w' = w * gamma / sqrt(var + eps)        b' = (b - mean) * gamma / sqrt(var + eps) + beta
"""

import copy
import threading
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize, prune

from pipnet_fast.backbones.mobilenet_v3 import HardSigmoid, HardSwish
from pipnet_fast.backbones.resnet import ThinShortcut

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
# The official network's rounding costs a pass for each of its steps; equal to rounding, in one:
FASTER: dict[type[nn.Module], type[nn.Module]] = {HardSwish: nn.Hardswish, HardSigmoid: nn.Hardsigmoid}


def fold_trunk(model: nn.Module) -> fx.GraphModule:
    """A copy of a model's ``forward_features`` for inference, BatchNorm folded; the model stays as it is.

    Folds in float64. A BatchNorm that does not directly follow a convolution of its own, or that has no running
    statistics, stays a layer; so does one behind a grouped deconvolution, and whatever has hooks. Weights that torch
    computes anew for every call, as pruned and parametrized ones, are computed once.

    Args:
        model: a module in eval mode with a ``forward_features`` that ``torch.fx`` can trace.

    Returns:
        The trunk as a graph module, dtypes and device as before.
    """
    # torch does not copy tensors with a history, as computed weights.
    tensors = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    root = _Trunk(copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in tensors}))
    root.eval().requires_grad_(False)
    for module in list(root.modules()):
        _settle_weights(module)
        if isinstance(module, ThinShortcut):
            # It differs in its backward pass alone.
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    with torch.no_grad():
        graph = _Tracer().trace(root)
    trunk = fx.GraphModule(root, graph)
    for name, module in list(trunk.named_modules()):
        if type(module) in FASTER and not hooked(module):
            trunk.add_submodule(name, FASTER[type(module)]())
    _fold_batch_norms(trunk)
    trunk.delete_all_unused_submodules()
    trunk.recompile()
    return trunk


def hooked(module: nn.Module) -> bool:
    """Whether a call of the module does more than its forward."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def _settle_weights(module: nn.Module) -> None:
    make_permanent: Any = prune.remove
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            make_permanent(module, hook._tensor_name)
    if parametrize.is_parametrized(module):
        # torch's own removal changes the class, which the copied module has in common with the model's.
        computed = module.get_submodule("parametrizations").named_children()
        values = {name: getattr(module, name).detach() for name, _ in computed}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))


class _Trunk(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(x)
        return features


# torch.fx changes every module's calls in the whole process while it traces.
_TRACING = threading.Lock()


class _Tracer(fx.Tracer):
    """Traces one module at a time, and leaves what other threads call meanwhile alone."""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """See ``torch.fx``."""
        with _TRACING:
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """See ``torch.fx``."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """See ``torch.fx``."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return type(module) in FASTER or super().is_leaf_module(module, qualified_name)


def _fold_batch_norms(trunk: fx.GraphModule) -> None:
    modules = dict(trunk.named_modules())
    calls = [node.target for node in trunk.graph.nodes if node.op == "call_module"]
    for node in list(trunk.graph.nodes):
        if node.op != "call_module":
            continue
        norm, source = modules[node.target], node.args[0]
        if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or source.op != "call_module":
            continue
        conv = modules[source.target]
        if type(conv) not in CONVOLUTIONS or (type(conv) is nn.ConvTranspose2d and conv.groups > 1):
            continue
        # One that is called twice, or whose plain output is read too, must keep its weights.
        if calls.count(source.target) > 1 or len(source.users) > 1 or hooked(conv) or hooked(norm):
            continue
        _fold_into(conv, norm)
        node.replace_all_uses_with(source)
        trunk.graph.erase_node(node)


def _fold_into(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = norm.weight.double() * scale
    bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias.double()
    # A deconvolution's output channels are the second axis of its weight.
    axes = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    weight = conv.weight.double() * scale.view(axes)
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
