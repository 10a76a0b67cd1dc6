"""Choices inside any `nn.Module`: layers, widths and depths that become alphas, and the plain module after.

Source: mixed layers as in DARTS (arXiv:1806.09055, Eq. 2); widths by channel masks as in FBNetV2
(arXiv:2004.05565, Eq. 3) and TAS (arXiv:1905.09717).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.spaces.choices import Option
from darts_core.supernet.attention import SelfAttention
from darts_core.supernet.drawn import drawn_columns, only_drawn
from darts_core.supernet.untouched import Untouched

__all__ = [
    "Choice",
    "DepthChoice",
    "HeadChoice",
    "LayerChoice",
    "WidthChoice",
    "find_choices",
    "label_choices",
]

_ROOT_LABEL = "choice"


def _plain(values: Sequence[Any]) -> tuple[Any, ...]:
    """The values as Python has them: of numpy's and torch's, as a range has them, no file could tell."""
    return tuple(value.item() if hasattr(value, "item") else value for value in values)


class Choice(nn.Module):
    """Base class: something chosen among `options`, mixed by weights [K] while it is searched."""

    def __init__(self, options: Sequence[Option], label: str | None) -> None:
        super().__init__()
        given = _plain(options)
        if not given or len(set(given)) != len(given):
            raise ConfigError(f"{type(self).__name__} needs different options, not {list(given)}.")
        self.options: tuple[Option, ...] = given
        self.label = label
        self.sparse = False
        self._weights_K: Tensor | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a model that was saved as a whole, before choices kept this, too."""
        super().__setstate__({"_inputs": Untouched(), **state})

    def bind(self, weights_K: Tensor | None) -> None:
        """Set the mixing weights of the next forward pass, or take them away."""
        self._weights_K = weights_K

    @property
    def mixing(self) -> Tensor:
        """The weights [K] that were bound.

        Raises:
            ConfigError: none are: the module runs outside a `ModuleSupernet`.
        """
        if self._weights_K is None:
            raise ConfigError(
                f"{type(self).__name__} {self.label or ''} has no weights; wrap the model: "
                "ModuleSupernet(model). They last for one pass: what computes layers again in the backward "
                "pass (torch.utils.checkpoint) has to be off during a search."
            )
        return self._weights_K


class LayerChoice(Choice):
    """One of several modules that map the same input to the same output shape.

    Args:
        candidates: the modules, by name or in a list (named "0", "1", ...).
        label: choices with the same label are decided together; None: the module's path.
    """

    def __init__(
        self, candidates: Mapping[Any, nn.Module] | Sequence[nn.Module], label: str | None = None
    ) -> None:
        named = (
            dict(candidates)
            if isinstance(candidates, Mapping)
            else {str(index): module for index, module in enumerate(candidates)}
        )
        super().__init__(tuple(named), label)
        self.candidates = nn.ModuleList(named.values())
        self._inputs = Untouched()

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """sum_k weight_k * candidate_k(inputs).

        Raises:
            ConfigError: a candidate gives no tensor, or one of another shape than the others.
        """
        weights_K = self.mixing
        drawn = None
        if self.sparse:
            weights_K = only_drawn(weights_K)
            drawn = drawn_columns(weights_K[None])
        running = [k for k in range(len(self.options)) if drawn is None or k in drawn[0]]
        if len(running) == 1:
            return self._weighted(
                weights_K, self.candidates[running[0]](*inputs, **named), running[0]
            )
        terms = {
            k: self._weighted(
                weights_K, self._inputs.run(k, self.candidates[k], *inputs, **named), k
            )
            for k in running
        }
        try:
            return torch.stack(list(terms.values())).sum(0)
        except RuntimeError as error:
            shapes = {self.options[k]: tuple(term.shape) for k, term in terms.items()}
            if len(set(shapes.values())) < 2:
                raise
            raise ConfigError(
                f"LayerChoice {self.label or ''}: its candidates give different shapes: {shapes}; make them "
                "alike, as by padding."
            ) from error

    def _weighted(self, weights_K: Tensor, output: Any, k: int) -> Tensor:
        if isinstance(output, Tensor):
            return weights_K[k] * output
        raise ConfigError(
            f"LayerChoice {self.label or ''}: {self.options[k]!r} gives a {type(output).__name__}; "
            "candidates give one tensor. Wrap a layer that gives several, such as nn.LSTM, in a module that "
            "returns the one that is used."
        )

    def chosen(self, value: Option) -> nn.Module:
        """The candidate called `value`."""
        return self.candidates[self.options.index(value)]


class WidthChoice(Choice):
    """How many of the channels that pass here are kept: the first n stay, the others become zero.

    Place it behind the layer (its norm and activation) whose width is searched; that layer is written
    with the largest width.

    Shapes: [B, C, ...] -> the same, C being the largest option; [B, ..., C] with dim=-1.

    Args:
        widths: numbers of channels.
        dim: where the channels stand: 1 (images, series) or -1 (tokens).
        label: widths that meet in an addition need the same label.
        names: what an architecture calls the widths, for example ratios; the numbers if None.
    """

    masks_KC: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        label: str | None = None,
        *,
        names: Sequence[Option] | None = None,
        dim: int = 1,
    ) -> None:
        super().__init__(names if names is not None else widths, label)
        widths = _plain(widths)
        if min(widths) < 1 or len(widths) != len(self.options):
            raise ConfigError(
                f"Widths must be at least 1, and each needs one name, not {list(widths)} and "
                f"{list(self.options)}."
            )
        if dim not in (1, -1):
            raise ConfigError(
                f"A WidthChoice works on the channels in dim=1 (images, series) or dim=-1 (tokens), not "
                f"dim={dim!r}."
            )
        self.widths, self.dim = tuple(widths), dim
        self.channels = max(widths)
        kept = torch.tensor(list(widths))[:, None] > torch.arange(self.channels)[None]
        self.register_buffer("masks_KC", kept.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` times the weighted sum of the options' masks."""
        if x.shape[self.dim] != self.channels:
            raise ConfigError(
                f"WidthChoice {self.label or ''} with widths {list(self.widths)} got "
                f"{x.shape[self.dim]} channels in dim={self.dim}; the layer before it must have the "
                "largest option, and tokens [B, T, C] need dim=-1."
            )
        mask_C = (self.mixing[:, None] * self.masks_KC).sum(0).to(x.dtype)
        return x * (mask_C if self.dim == -1 else mask_C.view(1, -1, *[1] * (x.dim() - 2)))


class DepthChoice(Choice):
    """How many of a row of blocks run: the first d of them.

    Args:
        blocks: modules that keep the shape.
        depths: allowed numbers of blocks, 0 meaning none; all from 1 to len(blocks) by default.
        label: choices with the same label are decided together; None: the module's path.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        depths: Sequence[int] | None = None,
        label: str | None = None,
    ) -> None:
        depths = tuple(depths) if depths is not None else tuple(range(1, len(blocks) + 1))
        super().__init__(depths, label)
        if min(depths) < 0 or max(depths) != len(blocks):
            raise ConfigError(
                f"DepthChoice over {len(blocks)} blocks needs depths from 0 to {len(blocks)}, the "
                f"largest included, not {list(depths)}."
            )
        self.blocks = nn.ModuleList(blocks)
        self._inputs = Untouched()

    def forward(self, x: Tensor) -> Tensor:
        """The weighted sum of the states after each allowed number of blocks."""
        weights_K = self.mixing
        total: Tensor | None = None
        position: int | None = None
        for depth in range(len(self.blocks) + 1):
            if depth:
                block = self.blocks[depth - 1]
                # what counts is kept for the gradient of its weight
                x = block(x) if position is None else self._inputs.run(depth, block, x)
            position = self.position(depth)
            if position is not None:
                term = weights_K[position] * x
                if total is not None and total.shape != term.shape:
                    raise ConfigError(
                        f"DepthChoice {self.label or ''}: block {depth} of {len(self.blocks)} gives the "
                        f"shape {tuple(term.shape)} where {tuple(total.shape)} came before; its blocks keep "
                        "the shape. Put the one that changes it before the choice."
                    )
                total = term if total is None else total + term
        if total is None:
            raise ConfigError("DepthChoice has no depths.")
        return total

    def position(self, depth: int) -> int | None:
        """The column of the option that runs `depth` of the blocks, if there is one."""
        return self.options.index(depth) if depth in self.options else None

    def chosen(self, value: Option) -> nn.Module:
        """The first `value` blocks in a row."""
        return nn.Sequential(*list(self.blocks)[: int(value)])


class HeadChoice(Choice):
    """Self-attention whose number of heads is searched: the first n heads count, the others give zeros.

    Shapes: [B, T, C] -> [B, T, C].

    Args:
        channels: C.
        heads: numbers of heads.
        head_channels: channels of a head; C over the largest number of heads by default.
        causal: a token sees itself and those before it only.
        label: choices with the same label are decided together; None: the module's path.

    Raises:
        ConfigError: a number of heads is below 1, or C cannot be shared out among the heads.
    """

    masks_KC: Tensor

    def __init__(
        self,
        channels: int,
        heads: Sequence[int],
        *,
        head_channels: int | None = None,
        causal: bool = False,
        label: str | None = None,
    ) -> None:
        super().__init__(heads, label)
        if min(heads) < 1:
            raise ConfigError(f"HeadChoice needs at least 1 head, not {list(heads)}.")
        if head_channels is None and channels % max(heads):
            raise ConfigError(
                f"HeadChoice cannot share {channels} channels out among {max(heads)} heads; give "
                "head_channels."
            )
        own = head_channels or channels // max(heads)
        self.attention = SelfAttention(channels, max(heads), head_channels=own, causal=causal)
        kept = torch.tensor([h * own for h in heads])[:, None] > torch.arange(max(heads) * own)
        self.register_buffer("masks_KC", kept.float(), persistent=False)

    def forward(self, x_BTC: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention with the heads weighted by the sum of the weights of the options that keep them.

        Args:
            x_BTC: tokens.
            mask: as `attn_mask` of `scaled_dot_product_attention`.
        """
        attended = self.attention.attend(x_BTC, mask)
        weight_C = (self.mixing[:, None] * self.masks_KC).sum(0).to(attended.dtype)
        result: Tensor = self.attention.output(attended * weight_C)
        return result

    def chosen(self, value: Option) -> nn.Module:
        """Attention with the first `value` heads, its params carried over."""
        return self.attention.first_heads(int(value))


def find_choices(module: nn.Module) -> dict[str, list[Choice]]:
    """The choices inside `module` by label, in the order in which they are met.

    Raises:
        ConfigError: there are none, or choices with one label have different options.
    """
    found: dict[str, list[Choice]] = {}
    for path, child in module.named_modules():
        if isinstance(child, Choice):
            found.setdefault(child.label or path or _ROOT_LABEL, []).append(child)
    for label, tied in found.items():
        if any(choice.options != tied[0].options for choice in tied):
            raise ConfigError(
                f"Choices labelled {label!r} have different options: "
                f"{[list(choice.options) for choice in tied]}; tied choices need the same."
            )
    if not found:
        raise ConfigError(
            "The model holds no LayerChoice, WidthChoice, DepthChoice or HeadChoice; there is nothing to "
            "search."
        )
    return found


def label_choices(module: nn.Module) -> None:
    """Write on each choice inside `module` the label under which `find_choices` finds it now.

    Raises:
        ConfigError: see `find_choices`.
    """
    for label, tied in find_choices(module).items():
        for choice in tied:
            choice.label = label
