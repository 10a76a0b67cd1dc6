"""What a layer costs at another width, measured: the pruner's latency curves.

Every convolution, norm, pool, activation and linear layer of the network is timed by itself at the
shapes at which it runs. A group's saving at a width is the sum over its layers of time now minus
time at that width, all other widths as they are; the ratio of the network's end-to-end time to the
sum of its layers scales it (overlap, functional additions and concatenations).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.latency.deployed import in_runtime
from darts_core.latency.measure import call_ms, quick_ms
from darts_core.modes import evaluating
from darts_core.prune.groups import CONVOLUTIONS, NORMS, ChannelGroup
from darts_core.prune.slices import depthwise, mixes
from darts_core.sample_inputs import draw_inputs, number_format

__all__ = ["LayerCosts", "channels_of"]

_WEIGHTED = (*CONVOLUTIONS, *NORMS, nn.Linear)
_TIMED = (*_WEIGHTED, nn.MaxPool2d, nn.AvgPool2d, nn.ReLU)
_CONV_NAMES: dict[str, Any] = {kind.__name__: kind for kind in CONVOLUTIONS}
_NORM_NAMES: dict[str, Any] = {kind.__name__: kind for kind in NORMS}
Key = tuple[Any, ...]
_Call = tuple[tuple[int, ...], tuple[int, ...] | None]


class LayerCosts:
    """Measured times of single layers, each shape timed once.

    Args:
        device: where to time.
        runtime: a name from `latency.deployed.RUNTIMES`, in which single layers are timed.
        folded: batch norms cost nothing, as in exported networks.
        analytic: count multiply-adds and bytes instead of measuring: for devices and sizes at which
            no single layer's time falls although the whole network's does.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        runtime: str = "eager",
        folded: bool = False,
        analytic: bool = False,
    ) -> None:
        self.device = device
        # one layer alone is not compiled or captured: its work is the same
        self.runtime = runtime if runtime == "onnx" else "eager"
        self._call_ms: float | None = None
        self.folded = folded
        self.analytic = analytic
        self._known: dict[Key, float] = {}
        # path -> (layer, shape of its last input) of the network observed last
        self.layers: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
        # path -> (shape of its input, padding) of each call: a head may be shared by several scales
        self._calls: dict[str, list[_Call]] = {}

    def observe(self, model: nn.Module, input_shape: Sequence[int], batch: int) -> None:
        """Note the layers of `model` and the shapes of the inputs that each one gets."""
        self.layers, self._calls = {}, {}
        names = {module: name for name, module in model.named_modules()}

        def note(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
            # the input may come by its name
            x = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
            if x is None:
                return
            # a weight that a ReLU keeps above 0, or a query that a layer projects, comes without a batch
            alone = (None,) * max(0, _dimensions(module) - x.dim())
            x, y = x[alone], output[alone] if isinstance(output, Tensor) else None
            name, shape = names[module], tuple(x.shape)
            self.layers[name] = (module, shape)
            call = (shape, _padding(module, x, y))
            # one activation or pool is called everywhere, often, and most calls are fused with a layer
            before = self._calls.get(name, []) if isinstance(module, _WEIGHTED) else []
            self._calls[name] = [*before, call]

        hooks = [
            module.register_forward_hook(note, with_kwargs=True)
            for module in model.modules()
            if isinstance(module, _TIMED)
        ]
        device, kind = next(model.parameters()).device, number_format(model)
        try:
            with torch.no_grad(), evaluating(model):
                model(draw_inputs(input_shape, batch, device=device, dtype=kind))
        finally:
            for hook in hooks:
                hook.remove()

    def total_ms(self, under: str = "") -> float:
        """Sum over the layers whose path starts with `under`."""
        prefix = f"{under}." if under else ""
        return sum(
            self.layer_ms(name)
            for name in self.layers
            if not under or name == under or name.startswith(prefix)
        )

    def layer_ms(self, name: str, ins: int | None = None, outs: int | None = None) -> float:
        """Time of one layer, all of its calls, with `ins` input and `outs` output channels (else its own)."""
        layer, _ = self.layers[name]
        if self.folded and isinstance(layer, NORMS):
            return 0.0
        keys = [_key(layer, shape, ins, outs, padding) for shape, padding in self._calls[name]]
        for key in keys:
            if key not in self._known:
                self._known[key] = self._time(key)
        return sum(self._known[key] for key in keys)

    def saving_ms(self, group: ChannelGroup, width: int) -> float:
        """Time saved when the group keeps `width` of its channels and all else stays."""
        change: dict[str, list[int]] = {}
        for member in group.members:
            if member.name in self.layers:
                kept = width // group.blocks  # in each block
                lost = sum(position % group.columns >= kept for position in member.positions)
                sides = change.setdefault(member.name, [0, 0])
                sides[0 if member.side == "in" else 1] += lost
        saved = 0.0
        for name, (lost_in, lost_out) in change.items():
            layer, shape = self.layers[name]
            ins, outs = channels_of(layer, shape)
            if not mixes(layer):
                lost_in = lost_out = max(lost_in, lost_out)
            now = self.layer_ms(name)
            saved += now - self.layer_ms(name, max(1, ins - lost_in), max(1, outs - lost_out))
        return saved

    def _time(self, key: Key) -> float:
        layer, x = _build(key)
        if self.analytic:
            return _work(layer, x)
        layer = layer.to(self.device).eval()
        x = x.to(self.device)
        alone = quick_ms(in_runtime(layer, x, self.runtime), device=self.device)
        return max(alone - self._overhead_ms(), 1e-6)

    def _overhead_ms(self) -> float:
        """What a call of the runtime costs whatever it computes: a network pays it once."""
        if self._call_ms is None:
            self._call_ms = call_ms(self.runtime, self.device)
        return self._call_ms


def _work(layer: nn.Module, x: Tensor) -> float:
    """Multiply-adds plus bytes moved, in arbitrary units."""
    with torch.inference_mode():
        y = layer.eval()(x)
    weight = getattr(layer, "weight", None)
    inner = weight[0].numel() if isinstance(weight, Tensor) and weight.ndim > 1 else 1
    return float(y.numel() * inner + 4 * (x.numel() + y.numel()))


def _dimensions(layer: nn.Module) -> int:
    """How many dimensions the layer's input has at least, the batch included."""
    if isinstance(layer, CONVOLUTIONS):
        return 2 + len(layer.kernel_size)
    return 4 if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)) else 2


def _padding(layer: nn.Module, x: Tensor, y: Any) -> tuple[int, ...] | None:
    """The padding with which torch's own convolution gives an output of this size; None for one of those.

    A subclass may pad by itself (timm's `Conv2dSame`) and then states none.
    """
    if not isinstance(layer, CONVOLUTIONS) or type(layer) in CONVOLUTIONS:
        return None
    if not isinstance(y, Tensor) or y.dim() != x.dim():
        return None
    sides = zip(
        x.shape[2:], y.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True
    )
    return tuple(
        max(0, ((out - 1) * stride + dilation * (kernel - 1) + 2 - size) // 2)
        for size, out, kernel, stride, dilation in sides
    )


def _kind(layer: nn.Module) -> str:
    """The class that the layer is timed as: torch's own that it is, or derives from."""
    return next(kind.__name__ for kind in _TIMED if isinstance(layer, kind))


def channels_of(layer: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """The input and output channels of a layer; `shape` of its input tells them where it does not."""
    if isinstance(layer, CONVOLUTIONS):
        return layer.in_channels, layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return shape[1], shape[1]


def _key(
    layer: nn.Module,
    shape: tuple[int, ...],
    ins: int | None,
    outs: int | None,
    padding: tuple[int, ...] | None = None,
) -> Key:
    own_in, own_out = channels_of(layer, shape)
    ins, outs = ins or own_in, outs or own_out
    if isinstance(layer, CONVOLUTIONS):
        # as many groups as there are, where the widths can be shared out among them
        groups = ins if depthwise(layer) else math.gcd(layer.groups, ins, outs)
        own = layer.padding if isinstance(layer.padding, str) else tuple(layer.padding)
        extra: Mapping[str, Any] = {
            "kernel_size": tuple(layer.kernel_size),
            "stride": tuple(layer.stride),
            "padding": own if padding is None else padding,
            "dilation": tuple(layer.dilation),
            "groups": groups,
            "bias": layer.bias is not None,
        }
        return (_kind(layer), ins, outs, shape[0], *shape[2:], tuple(extra.items()))
    if isinstance(layer, nn.Linear):
        return ("linear", ins, outs, *shape[:-1])  # the tokens, where there are some
    if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
        kind = "max" if isinstance(layer, nn.MaxPool2d) else "avg"
        return (
            kind,
            ins,
            ins,
            shape[0],
            *shape[2:],
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.ceil_mode,
        )
    return (_kind(layer), ins, ins, shape[0], *shape[2:])


def _build(key: Key) -> tuple[nn.Module, Tensor]:
    kind, ins, outs, batch, *rest = key
    if kind == "linear":
        return nn.Linear(ins, outs), torch.randn(batch, *rest, ins)
    if kind in _CONV_NAMES:
        return _CONV_NAMES[kind](ins, outs, **dict(rest[-1])), torch.randn(batch, ins, *rest[:-1])
    sizes = rest[:2] if kind in ("max", "avg") else rest
    x = torch.randn(batch, ins, *[size for size in sizes if isinstance(size, int)])
    if kind == "max":
        kernel, stride, padding, ceil = rest[2:6]
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil), x
    if kind == "avg":
        kernel, stride, padding, ceil = rest[2:6]
        return nn.AvgPool2d(kernel, stride, padding, ceil, count_include_pad=False), x
    return (_NORM_NAMES[kind](ins) if kind in _NORM_NAMES else nn.ReLU()), x
