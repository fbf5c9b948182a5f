"""From a folded trunk to the layers of the C++ engine: activations and shortcuts go into the layer before them."""

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pipnet_fast.engines._types import WeightStorage
from pipnet_fast.engines.fold import fold_trunk, hooked
from pipnet_fast.engines.plan_file import Activation, LayerKind, PlanLayer, PlanNetwork
from pipnet_fast.models import PIPNet
from pipnet_fast.ops import BoundHead, Storage

# The grid halves five times at every stride, and the engine has no code for halves of odd sizes.
INPUT_MULTIPLE = 32
# Of the first convolution, which reads the crop; of the others; of depthwise ones.
STEM_KERNELS, STEM_STRIDES = (1, 3, 5, 7), (2,)
CONVOLUTION_KERNELS, DEPTHWISE_KERNELS, STRIDES = (1, 3), (3, 5), (1, 2)

MODULE_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation.RELU,
    nn.ReLU6: Activation.RELU6,
    nn.Hardswish: Activation.HARD_SWISH,
}
ACTIVATIONS: dict[Any, Activation] = {
    **dict.fromkeys((torch.relu, F.relu, "relu", "relu_"), Activation.RELU),
    F.relu6: Activation.RELU6,
    F.hardswish: Activation.HARD_SWISH,
}
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
PRODUCTS = (operator.mul, torch.mul, "mul")
GATE_READERS = 2
# What changes nothing in eval mode.
PASSES = (nn.Identity, nn.Dropout, nn.Dropout2d)


def plan_of(
    model: PIPNet, head_storage: Storage | None = None, weight_storage: WeightStorage = "float32"
) -> PlanNetwork:
    """A whole PIPNet, from crop to landmarks.

    Args:
        model: in eval mode on the CPU.
        head_storage: what the head's weights are stored as; None as the model has them.
        weight_storage: what a plan keeps the others as.

    Raises:
        ValueError: a model without a mean shape, or as for ``lower``.
    """
    head = model.head if head_storage is None else model.head.stored_as(head_storage)
    return PlanNetwork(
        model.config.input_size,
        lower(fold_trunk(model), model.config.input_size),
        BoundHead(head, model.table),
        model.crop.scale,
        model.crop.top_shift,
        model.crop.pixel_base,
        weight_storage,
    )


def lower(trunk: fx.GraphModule, input_size: int) -> tuple[PlanLayer, ...]:
    """The layers of a trunk.

    Args:
        trunk: of ``fold_trunk``, in any floating-point type.
        input_size: side of the square crop in px.

    Returns:
        Layers in the order of execution, in the trunk's type; their arrays may be the trunk's own memory.

    Raises:
        ValueError: a size or a layer that the engine has no code for; the message names the layer.
    """
    if input_size < INPUT_MULTIPLE or input_size % INPUT_MULTIPLE:
        raise ValueError(f"input_size: expected a multiple of {INPUT_MULTIPLE}, got {input_size}")
    return _Lowering(trunk, input_size).layers()


class _Shape(NamedTuple):
    channels: int
    height: int
    width: int


class _Gate(NamedTuple):
    """Squeeze and excite, found from its product."""

    source: fx.Node
    squeeze: nn.Linear
    excite: nn.Linear
    inside: frozenset[fx.Node]


class _Lowering:
    def __init__(self, trunk: fx.GraphModule, input_size: int) -> None:
        self._nodes: list[fx.Node] = list(trunk.graph.nodes)
        self._modules: dict[str, nn.Module] = dict(trunk.named_modules())
        self._layers: list[PlanLayer] = []
        self._shapes = [_Shape(3, input_size, input_size)]
        # Which tensor holds what a node stands for.
        self._tensor: dict[fx.Node, int] = {}

    def layers(self) -> tuple[PlanLayer, ...]:
        gates = {node: gate for node in self._nodes if (gate := self._gate(node))}
        inside: frozenset[fx.Node] = frozenset().union(*(gate.inside for gate in gates.values()))
        for node in self._nodes:
            if node in gates:
                self._add_gate(node, gates[node])
            elif node not in inside:
                self._lower(node)
        return tuple(self._layers)

    def _lower(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._tensor[node] = 0
        elif node.op == "output":
            self._end(node)
        elif node.op == "call_module":
            self._lower_module(node, self._modules[str(node.target)])
        elif node.op in ("call_function", "call_method") and node.target in ADDITIONS:
            self._fuse_addition(node)
        elif node.op in ("call_function", "call_method") and node.target in ACTIVATIONS:
            self._fuse_activation(node, ACTIVATIONS[node.target])
        else:
            self._refuse(node, "a layer of a PIPNet's backbone", f"{node.op} of {_title(node.target)}")

    def _lower_module(self, node: fx.Node, module: nn.Module) -> None:
        if hooked(module):
            self._refuse(node, "a module without hooks", f"{type(module).__name__} with some")
        if type(module) is nn.Conv2d:
            self._add_convolution(node, module)
        elif type(module) is nn.ConvTranspose2d:
            self._add_deconvolution(node, module)
        elif type(module) is nn.MaxPool2d:
            self._add_max_pool(node, module)
        elif type(module) in MODULE_ACTIVATIONS:
            self._fuse_activation(node, MODULE_ACTIVATIONS[type(module)])
        elif type(module) in PASSES:
            self._tensor[node] = self._source(node)
        else:
            kinds = [kind.__name__ for kind in (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, *MODULE_ACTIVATIONS)]
            self._refuse(node, f"one of {', '.join(kinds)} or squeeze and excite", type(module).__name__)

    def _add_convolution(self, node: fx.Node, conv: nn.Conv2d) -> None:
        depthwise = 1 < conv.groups == conv.in_channels == conv.out_channels
        kernels, strides = (
            CONVOLUTION_KERNELS if self._layers else STEM_KERNELS,
            STRIDES if self._layers else STEM_STRIDES,
        )
        kernels = DEPTHWISE_KERNELS if depthwise else kernels
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        self._require(node, f"kernel {_either(kernels)}, square", conv.kernel_size, _square(kernels))
        self._require(node, f"stride {_either(strides)}", conv.stride, _square(strides))
        self._require(node, "dilation 1", conv.dilation, _square((1,)))
        self._require(node, f"padding {kernel // 2}", conv.padding, _square((kernel // 2,)))
        self._require(node, "padding with zeros", conv.padding_mode, ("zeros",))
        self._require(node, "groups 1 or one a channel", conv.groups, (conv.in_channels if depthwise else 1,))
        source = self._source(node)
        if self._shapes[source].channels != conv.in_channels:
            self._refuse(node, f"{conv.in_channels} channels", str(self._shapes[source].channels))
        weight = conv.weight.squeeze(1) if depthwise else conv.weight
        kind = LayerKind.DEPTHWISE if depthwise else LayerKind.CONVOLUTION
        arrays = weight, _bias(conv, conv.out_channels)
        self._add(node, PlanLayer(kind, source, conv.out_channels, arrays, kernel, stride, kernel // 2))

    def _add_deconvolution(self, node: fx.Node, conv: nn.ConvTranspose2d) -> None:
        for name, expected, got in (
            ("kernel", 4, conv.kernel_size),
            ("stride", 2, conv.stride),
            ("padding", 1, conv.padding),
            ("output padding", 0, conv.output_padding),
            ("dilation", 1, conv.dilation),
        ):
            self._require(node, f"{name} {expected}", got, _square((expected,)))
        self._require(node, "groups 1", conv.groups, (1,))
        arrays = conv.weight, _bias(conv, conv.out_channels)
        self._add(node, PlanLayer(LayerKind.DECONVOLUTION, self._source(node), conv.out_channels, arrays, 4, 2, 1))

    def _add_max_pool(self, node: fx.Node, pool: nn.MaxPool2d) -> None:
        for name, expected, got in (
            ("kernel", 3, pool.kernel_size),
            ("stride", 2, pool.stride),
            ("padding", 1, pool.padding),
            ("dilation", 1, pool.dilation),
        ):
            self._require(node, f"{name} {expected}", got, (expected, *_square((expected,))))
        self._require(node, "no rounding up and no indices", (pool.ceil_mode, pool.return_indices), ((False, False),))
        source = self._source(node)
        channels = self._shapes[source].channels
        self._add(node, PlanLayer(LayerKind.MAX_POOL, source, channels, kernel=3, stride=2, padding=1))

    def _add_gate(self, node: fx.Node, gate: _Gate) -> None:
        source = self._tensor[gate.source]
        # The product and the mean inside are the gate itself.
        if (
            source != len(self._layers)
            or self._layers[-1].kind != LayerKind.DEPTHWISE
            or self._readers(gate.source) != GATE_READERS
        ):
            self._refuse(node, "a gate right behind a depthwise convolution, its only reader", "one elsewhere")
        channels, squeezed = self._shapes[source].channels, gate.squeeze.out_features
        widths = (gate.squeeze.in_features, squeezed, gate.excite.in_features, gate.excite.out_features)
        if widths != (channels, squeezed, squeezed, channels):
            self._refuse(node, f"a gate from {channels} to {channels} channels", f"layers of widths {widths}")
        squeeze, excite = gate.squeeze, gate.excite
        arrays = squeeze.weight, _bias(squeeze, squeezed), excite.weight, _bias(excite, channels)
        self._add(node, PlanLayer(LayerKind.GATE, source, channels, arrays, squeezed=squeezed))

    def _add(self, node: fx.Node, layer: PlanLayer) -> None:
        if layer.input == 0 and (self._layers or layer.kind != LayerKind.CONVOLUTION):
            self._refuse(node, "one convolution alone to read the crop", "another reader of it")
        _, height, width = self._shapes[layer.input]
        self._layers.append(replace(layer, arrays=tuple(array.detach() for array in layer.arrays)))
        self._shapes.append(_Shape(layer.channels, layer.side(height), layer.side(width)))
        self._tensor[node] = len(self._layers)

    def _fuse_activation(self, node: fx.Node, activation: Activation) -> None:
        tensor = self._source(node)
        layer = self._layers[tensor - 1] if tensor else None
        if layer is None or layer.kind == LayerKind.MAX_POOL or layer.activation:
            self._refuse(node, "an activation right behind a convolution or a gate", "one elsewhere")
        if self._readers(node.all_input_nodes[0]) > 1:
            self._refuse(
                node, "to be the one reader of what it reads", f"one of several of {_name(node.all_input_nodes[0])}"
            )
        self._layers[tensor - 1] = replace(layer, activation=activation)
        self._tensor[node] = tensor

    def _fuse_addition(self, node: fx.Node) -> None:
        terms = [term for term in node.args if isinstance(term, fx.Node)]
        if len(node.args) != 2 or len(terms) != 2 or node.kwargs:
            self._refuse(node, "a sum of two tensors", f"arguments {node.args} {node.kwargs}")
        # The later one may be given the other as its residual, which is there by then.
        other, last = sorted(terms, key=self._tensor.__getitem__)
        residual, tensor = self._tensor[other], self._tensor[last]
        layer = self._layers[tensor - 1] if tensor else None
        if (
            layer is None
            or residual in (0, tensor)
            or layer.kind != LayerKind.CONVOLUTION
            or layer.activation
            or layer.residual >= 0
            or self._readers(last) > 1
        ):
            self._refuse(
                node,
                "the later term to be a convolution's that nothing else reads",
                f"{_name(other)} and {_name(last)}",
            )
        # In place, it would change what others still read.
        if node.target in (operator.iadd, "add_") and self._readers(terms[0]) > 1:
            self._refuse(node, "to be the one reader of what it writes to", f"one of several of {_name(terms[0])}")
        if self._shapes[residual] != self._shapes[tensor]:
            self._refuse(node, "terms of one shape", f"{self._shapes[residual]} and {self._shapes[tensor]}")
        self._layers[tensor - 1] = replace(layer, residual=residual)
        self._tensor[node] = tensor

    def _end(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node) or not self._layers or self._tensor[result] != len(self._layers):
            self._refuse(node, "the output of the last layer", f"{result}")
        if self._layers[-1].kind not in (LayerKind.CONVOLUTION, LayerKind.DECONVOLUTION):
            self._refuse(node, "a convolution or deconvolution as the last layer", self._layers[-1].kind.name.lower())

    def _gate(self, node: fx.Node) -> _Gate | None:
        """The squeeze and excite that a product ends, if it is one."""
        if node.op not in ("call_function", "call_method") or node.target not in PRODUCTS or len(node.args) != 2:
            return None
        for source, factor in (node.args, node.args[::-1]):
            if isinstance(source, fx.Node) and isinstance(factor, fx.Node) and (gate := self._gate_of(source, factor)):
                return gate
        return None

    def _gate_of(self, source: fx.Node, node: fx.Node) -> _Gate | None:
        every = slice(None)
        steps: tuple[Callable[[fx.Node], bool], ...] = (
            lambda n: n.target is operator.getitem and n.args[1] == (every, every, None, None),
            lambda n: self._is(n, nn.Hardsigmoid),
            lambda n: self._is(n, nn.Linear),
            lambda n: self._is(n, nn.ReLU),
            lambda n: self._is(n, nn.Linear),
            lambda n: n.target in ("flatten", torch.flatten) and n.args[1:] == (1,),
            lambda n: n.target is F.adaptive_avg_pool2d and n.args[1:] in ((1,), ((1, 1),)),
        )
        inside = []
        for matches in steps:
            if not matches(node) or node.kwargs or len(node.users) > 1 or not isinstance(node.args[0], fx.Node):
                return None
            inside.append(node)
            node = node.args[0]
        if node is not source:
            return None
        squeeze, excite = (self._modules[str(inside[step].target)] for step in (4, 2))
        assert isinstance(squeeze, nn.Linear)
        assert isinstance(excite, nn.Linear)
        return _Gate(source, squeeze, excite, frozenset(inside))

    def _is(self, node: fx.Node, kind: type[nn.Module]) -> bool:
        if node.op != "call_module":
            return False
        module = self._modules[str(node.target)]
        return type(module) is kind and not hooked(module)

    def _source(self, node: fx.Node) -> int:
        return self._tensor[node.all_input_nodes[0]]

    def _readers(self, node: fx.Node) -> int:
        """How many nodes read what a node stands for, under whatever name."""
        while self._passes(node):
            node = node.all_input_nodes[0]
        return self._readers_of(node)

    def _readers_of(self, node: fx.Node) -> int:
        return sum(self._readers_of(user) if self._passes(user) else 1 for user in node.users)

    def _passes(self, node: fx.Node) -> bool:
        return node.op == "call_module" and type(self._modules[str(node.target)]) in PASSES

    def _require(self, node: fx.Node, expected: str, got: Any, allowed: tuple[Any, ...]) -> None:
        if got not in allowed:
            self._refuse(node, expected, repr(got))

    def _refuse(self, node: fx.Node, expected: str, got: str) -> NoReturn:
        raise ValueError(f"{_name(node)}: expected {expected}, got {got}")


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("model.") if node.op == "call_module" else node.name


def _either(values: tuple[int, ...]) -> str:
    return " or ".join(map(str, values))


def _square(values: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((value, value) for value in values)


def _bias(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, channels: int) -> Tensor:
    return module.weight.new_zeros(channels) if module.bias is None else module.bias


def _title(target: Any) -> str:
    return getattr(target, "__name__", str(target))
