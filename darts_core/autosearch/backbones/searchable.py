"""A ResNet whose depth and width are searched by gradient in one training of the user's own code.

`ResNet50(code="search:resnet50")` is this network: in each stage the number of blocks and the base width
are choices. It trains like any module; its alphas move by themselves with each step of the loop (their own
Adam), pulled by the user's loss and by the expected multiply-accumulates once these exceed the target.
`derive()` gives the shape of the found network, such as `2x32-1x64-3x96-2x256`.

Source: widths by channel masks as in FBNetV2 (arXiv:2004.05565); depths by weighted states as in TAS
(arXiv:1905.09717). Alphas and params share the training batches (single level): judging the result is
left to the retrained network's validation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from darts_core.autosearch.alpha_steps import AlphaSteps
from darts_core.autosearch.backbones.blocks import Bottleneck, resnet_stem
from darts_core.autosearch.backbones.grammar import as_shape
from darts_core.autosearch.closing import watch
from darts_core.autosearch.contract import current
from darts_core.errors import ConfigError
from darts_core.supernet.choice_maker import Width
from darts_core.supernet.choices import DepthChoice, WidthChoice
from darts_core.supernet.macro_resnet import ResidualBlock
from darts_core.supernet.module_supernet import ModuleSupernet

__all__ = ["SearchableResNet"]

WIDTH_RATIOS = (0.25, 0.5, 0.75, 1.0)
MAX_DEPTHS = 4


def _block(
    channels_in: int, widths: list[int], stride: int, expansion: int, label: str
) -> ResidualBlock:
    """A residual block of the largest width with masks behind what the width decides."""

    def width(factor: int) -> Width:
        own = [w * factor for w in widths]
        return Width(max(own), lambda: WidthChoice(own, label, names=widths))

    project = stride != 1 or channels_in != max(widths) * expansion
    return ResidualBlock(channels_in, width, stride, project=project, bottleneck=expansion == 4)


class _Network(nn.Module):
    """Stem and stages with choices; the last output or every stage's."""

    def __init__(self, stem: nn.Module, stages: list[nn.Module], every: bool) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.every = every

    def forward(self, x_BCHW: Tensor) -> Any:
        x_BCHW = self.stem(x_BCHW)
        outputs = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            outputs.append(x_BCHW)
        return outputs if self.every else x_BCHW


def _depths(most: int) -> list[int]:
    """At most MAX_DEPTHS numbers of blocks from 1 to `most`."""
    if most <= MAX_DEPTHS:
        return list(range(1, most + 1))
    return sorted({round(1 + (most - 1) * i / (MAX_DEPTHS - 1)) for i in range(MAX_DEPTHS)})


class SearchableResNet(nn.Module):
    """The supernet over depths and widths below a base network; see the module text.

    Shapes: as `Backbone` of the base network.

    Args:
        base: the largest network, as code, shape or name.
        block: `BasicBlock` or `Bottleneck`.
        in_channels, outputs, width, stem: as for `Backbone`.
    """

    def __init__(
        self,
        base: str,
        block: type[Any] = Bottleneck,
        *,
        in_channels: int = 3,
        outputs: str = "last",
        width: int = 64,
        stem: str = "imagenet",
        pretrained: Any = None,
    ) -> None:
        super().__init__()
        if pretrained is not None:
            raise ConfigError(
                "A network in search starts from random params; leave pretrained out."
            )
        self.code = f"search:{base}"
        self.expansion: int = block.expansion
        parts = [part.split("x") for part in as_shape(base, width).split("-")]
        self.base = [(int(depth), int(own)) for depth, own in parts]
        stages: list[nn.Module] = []
        self.stage_channels: list[int] = []
        self.widths: list[list[int]] = []
        channels = width
        for index, (depth, own) in enumerate(self.base):
            widths = sorted({max(1, round(own * ratio)) for ratio in WIDTH_RATIOS})
            label, stride = f"width_{index}", 2 if index else 1
            first = _block(channels, widths, stride, self.expansion, label)
            channels = max(widths) * self.expansion
            rest = [_block(channels, widths, 1, self.expansion, label) for _ in range(depth - 1)]
            options = [d - 1 for d in _depths(depth)]
            tail = [DepthChoice(rest, options, label=f"depth_{index}")] if rest else []
            stages.append(nn.Sequential(first, *tail))
            self.stage_channels.append(channels)
            self.widths.append(widths)
        network = _Network(resnet_stem(stem, in_channels, width), stages, outputs == "stages")
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.stem_width = width
        self.out_channels = channels
        # `derive` names a network of its own, none is cut out of this one
        self.supernet = ModuleSupernet(network, name="resnet")
        options_given = current().record.get("differentiable", {})
        self.target = float(options_given.get("target_cost", 0.35))
        self.cost_weight = float(options_given.get("cost_weight", 2.0))
        self.steps = AlphaSteps(
            self.supernet,
            learning_rate=float(options_given.get("alpha_learning_rate", 0.02)),
            warmup=int(options_given.get("warmup", 20)),
            penalty=self.penalty,
        )
        current().searchables.append(self)
        watch(current())

    def forward(self, x_BCHW: Tensor) -> Any:
        """As `Backbone.forward`, mixed over all depths and widths."""
        return self.supernet(x_BCHW)

    def cost(self, weights: dict[str, Tensor]) -> Tensor:
        """Expected multiply-accumulates of the blocks, as a share of the base network's."""
        one: dict[str, Tensor] = {}
        for name, weight in weights.items():
            one[name] = torch.zeros_like(weight)
            one[name][..., -1] = 1.0  # the largest option stands last
        return self._operations(weights) / self._operations(one)

    def _operations(self, weights: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(())
        channels: Any = float(self.stem_width)
        for index, (depth, _) in enumerate(self.base):
            probability = weights[f"width_{index}"][0]
            width = torch.tensor(
                self.widths[index], dtype=probability.dtype, device=probability.device
            )
            mean, square = (probability * width).sum(), (probability * width**2).sum()
            area = 4.0**-index
            if self.expansion == 4:
                # 1x1 before the stride, 3x3, 1x1, projection
                first = (
                    channels * mean * (4.0 if index else 1.0) + 13 * square + 4 * channels * mean
                )
                other = 17 * square
            else:
                first, other = 10 * channels * mean + 9 * square, 18 * square
            more = torch.zeros((), device=probability.device)
            if depth > 1:
                numbers = torch.tensor(
                    [float(d - 1) for d in _depths(depth)], device=probability.device
                )
                more = (weights[f"depth_{index}"][0] * numbers).sum()
            total = total.to(probability.device) + area * (first + more * other)
            channels = mean * self.expansion
        return total

    def penalty(self, weights: dict[str, Tensor]) -> Tensor:
        """cost_weight * max(0, log(expected cost / target))."""
        return self.cost_weight * torch.relu(torch.log(self.cost(weights) / self.target))

    def shares(self) -> dict[str, Tensor]:
        """The probability of each option by choice, on the CPU."""
        return {k: w.detach().cpu() for k, w in self.supernet.mixing_weights().items()}

    @torch.no_grad()
    def derive(self) -> str:
        """The found network's shape, its cost at most the target where the space allows that.

        Starts from the most probable options; while too costly, the step down is taken that loses the
        least log-probability for the cost it saves.
        """
        shares = self.shares()
        picks = {name: int(share[0].argmax()) for name, share in shares.items()}

        def cost(choice: dict[str, int]) -> float:
            one = {k: torch.zeros_like(share) for k, share in shares.items()}
            for name, position in choice.items():
                one[name][0, position] = 1.0
            return float(self.cost(one))

        while cost(picks) > self.target:
            now, moves = cost(picks), []
            for name, position in picks.items():
                for lower in range(position):
                    changed = {**picks, name: lower}
                    loss = float(shares[name][0, position].log() - shares[name][0, lower].log())
                    saved = now - cost(changed)
                    moves.append((max(loss, 0.0) / max(saved, 1e-9), -saved, name, lower))
            if not moves:
                break
            _, _, name, lower = min(moves)
            picks[name] = lower
        parts = []
        for index, (depth, _) in enumerate(self.base):
            blocks = _depths(depth)[picks[f"depth_{index}"]] if depth > 1 else 1
            parts.append(f"{blocks}x{self.widths[index][picks[f'width_{index}']]}")
        return "-".join(parts)
