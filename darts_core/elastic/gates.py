"""The whole network under weights over its options: each layer reads its inputs scaled by how sure they are.

Channel p of a group counts as much as all widths beyond p together; a block as much as all depths that run
it. At one-hot weights this is the sub-network, but for norms over several channels (layer and group norms),
which see what the sub-network has not. Parameters are frozen: gradients reach the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.elastic.network import Elastic
from darts_core.elastic.variables import Width
from darts_core.prune.slices import mixes

__all__ = ["Gates"]


class Gates:
    """Puts gates into an elastic network.

    Args:
        net: the elastic network; it is left as it is.
    """

    def __init__(self, net: Elastic) -> None:
        self.net = net
        modules = dict(net.model.named_modules())
        self._widths: list[tuple[str, Tensor, list[tuple[nn.Module, Tensor]]]] = []
        self._blocks: list[tuple[str, Tensor, nn.Module]] = []
        for variable in net.variables:
            if isinstance(variable, Width):
                self._widths.append((variable.name, _beyond(variable), _readers(variable, modules)))
            else:
                for block in variable.blocks:
                    runs = [block not in variable.skipped(n) for n in variable.options]
                    gate = torch.tensor(runs, dtype=torch.float32)
                    self._blocks.append((variable.name, gate, modules[block]))

    @contextmanager
    def __call__(self, weights: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """The network under `weights` (variable -> a vector over its options) inside the block."""
        scales: dict[nn.Module, Tensor] = {}
        for name, beyond, readers in self._widths:
            weight = weights[name]
            # the entry behind the last stands for channels of no group
            gate = torch.cat([beyond.to(weight) @ weight, weight.new_ones(1)])
            for module, index in readers:
                own = gate[index.to(gate.device)]
                scales[module] = scales[module] * own if module in scales else own
        swapped: list[tuple[dict[str, Any], Tensor]] = []
        # a block may have a forward of its own, as a wrapper leaves it
        forwards = {block: vars(block).get("forward") for _, _, block in self._blocks}
        try:
            for module, scale in scales.items():
                old = module.weight
                assert isinstance(old, Tensor)
                shape = [1, -1, *[1] * (old.dim() - 2)]
                swapped.append((module._parameters, old))  # type: ignore[arg-type]
                module._parameters["weight"] = old.detach() * scale.view(shape).to(old.dtype)  # type: ignore[assignment]
            for name, runs, block in self._blocks:
                block.__dict__["forward"] = _gated(block, runs.to(weights[name]) @ weights[name])
            yield self.net.model
        finally:
            for where, old in swapped:
                where["weight"] = old
            for block, forward in forwards.items():
                if forward is None:
                    block.__dict__.pop("forward", None)
                else:
                    block.__dict__["forward"] = forward


def _gated(block: nn.Module, gate: Tensor) -> Any:
    plain = block.forward

    def forward(x: Tensor, *rest: Any, **named: Any) -> Tensor:
        found = plain(x, *rest, **named)
        mixed: Tensor = x + gate.to(x.dtype) * (found - x)
        return mixed

    return forward


def _beyond(width: Width) -> Tensor:
    """[channels, options]: 1 where the option keeps the channel."""
    options = torch.tensor(width.options)
    return (options[None, :] > torch.arange(width.options[-1])[:, None]).float()


def _readers(width: Width, modules: Mapping[str, nn.Module]) -> list[tuple[nn.Module, Tensor]]:
    """The layers that read the group's channels: each input's channel, or the entry behind the last."""
    found: dict[str, Tensor] = {}
    for member in width.members:
        module = modules[member.name]
        if member.side != "in" or not mixes(module):
            continue
        weight = module.weight
        assert isinstance(weight, Tensor)
        if member.name not in found:
            found[member.name] = torch.full((weight.shape[1],), width.options[-1])
        # the groups of a convolution lose the same inputs each
        index = torch.tensor(member.indices) % weight.shape[1]
        found[member.name][index] = torch.tensor(member.positions)
    return [(modules[name], index) for name, index in found.items()]
