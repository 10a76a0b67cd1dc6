"""From a model with choices to the plain module: chosen layers stay, masked channels are cut out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.copies import copy_or_refuse
from darts_core.errors import ConfigError, DartsError, first_line, is_memory_shortage
from darts_core.modes import evaluating, unmoved
from darts_core.spaces.choices import ChoiceSpace, Option
from darts_core.supernet.choices import (
    Choice,
    LayerChoice,
    WidthChoice,
    find_choices,
    label_choices,
)
from darts_core.supernet.tied import kept_tied

__all__ = ["all_tensors", "check_widths", "plain_module"]


class Choosing(Protocol):
    """What is asked of a `ModuleSupernet` here."""

    module: nn.Module
    space: ChoiceSpace

    def sample(self) -> Tensor:
        """An input of two samples."""
        ...

    def one_hot(self, architecture: Architecture) -> dict[str, Tensor]:
        """Mixing weights that pick `architecture`."""
        ...

    def __call__(self, x: Tensor, weights: Any) -> Tensor:
        """The model's output under mixing weights."""
        ...


def check_widths(supernet: Choosing) -> None:
    """Cut the smallest widths out of copies of the model in which every layer is chosen once.

    Norms and biases are drawn anew in the copies, as training moves them from where they pass on zeros.

    Raises:
        ConfigError: cutting changes what the model computes.
    """
    found = find_choices(supernet.module)
    if not any(isinstance(choice, WidthChoice) for tied in found.values() for choice in tied):
        return
    if any(parameter.is_meta for parameter in supernet.module.parameters()):
        return  # it is only described: there are no values to compare
    with torch.random.fork_rng(devices=[]):
        trained: Any = copy_or_refuse(supernet, ConfigError, ".")  # type: ignore[arg-type]
        _move_norms(trained.module)
        layers = [len(t[0].options) for t in found.values() if isinstance(t[0], LayerChoice)]
        for turn in range(max(layers, default=1)):
            picked = tuple((label, _pick(tied[0], turn)) for label, tied in found.items())
            plain_module(trained, Architecture(supernet.space.name, choices=picked))


def _pick(choice: Choice, turn: int) -> Option:
    if isinstance(choice, LayerChoice):
        return choice.options[turn % len(choice.options)]
    if isinstance(choice, WidthChoice):
        return choice.options[choice.widths.index(min(choice.widths))]
    return max(choice.options)  # type: ignore[type-var]


@torch.no_grad()
def _move_norms(module: nn.Module) -> None:
    # torch's own seed would be every GPU's, too
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        last = name.rpartition(".")[2]
        # a causal mask is called bias in some attentions
        # a weight of zeros (of a residual branch's last norm) hides all that stands before it
        moved = last in ("bias", "running_mean", "running_var") or _all_zero(tensor)
        if not moved or not tensor.is_floating_point():
            continue
        drawn = torch.empty(tensor.shape, device="cpu")
        if last == "running_var":
            drawn.uniform_(0.5, 2.0, generator=generator)
        else:
            # upwards: behind a ReLU that gives zeros alone no channel could be told from another
            drawn.normal_(0.0, 0.3, generator=generator).abs_()
        tensor.copy_(-drawn if last == "running_mean" else drawn)


def _all_zero(tensor: Tensor) -> bool:
    """Whether it is of zeros that training moves."""
    return isinstance(tensor, nn.Parameter) and tensor.requires_grad and not bool(tensor.any())


def plain_module(supernet: Choosing, architecture: Architecture) -> nn.Module:
    """See `ModuleSupernet.build`."""
    module = copy_or_refuse(supernet.module, ConfigError, ".")
    # a choice is called what the supernet calls it, wherever it is put from here on
    label_choices(module)
    values = dict(architecture.choices)
    widths: dict[str, int] = {}
    # from the outside in: what an unchosen layer holds disappears with it
    while True:
        found = next(
            (
                (path, child)
                for path, child in module.named_modules()
                if isinstance(child, Choice) and path not in widths
            ),
            None,
        )
        if found is None:
            break
        path, choice = found
        value = values[choice.label]  # type: ignore[index]
        # one choice may stand in several places, which share what is chosen
        places = [at for at, m in module.named_modules(remove_duplicate=False) if m is choice]
        if isinstance(choice, WidthChoice):
            widths[path] = choice.widths[choice.options.index(value)]
            for place in places[1:]:  # cut one by one, in the turns to come
                module = _replaced(module, place, copy.copy(choice))
        else:
            chosen = choice.chosen(value)  # type: ignore[operator]
            for place in places:
                module = _replaced(module, place, chosen)
    if widths:
        module = _cut(supernet, module, architecture, widths)
    return module


def _replaced(root: nn.Module, path: str, new: nn.Module) -> nn.Module:
    if not path:
        return new
    parent, _, last = path.rpartition(".")
    setattr(root.get_submodule(parent), last, new)
    return root


def _cut(
    supernet: Choosing, module: nn.Module, architecture: Architecture, widths: dict[str, int]
) -> nn.Module:
    """Cut masked channels out of every layer that makes or reads them, and check the result."""
    sample = supernet.sample()
    expected = _masked_output(supernet, architecture, sample)
    with evaluating(module):
        markers = _put_markers(module, widths, sample)
        try:
            _prune_markers(module, markers, widths, sample)
            for path in widths:
                module = _replaced(module, path, nn.Identity())
            with torch.no_grad(), unmoved(module):
                found = _tensors(module(sample.clone()))
        except DartsError:
            raise
        except Exception as error:  # of a foreign network, or of what follows its channels
            if is_memory_shortage(error):
                raise
            raise ConfigError(
                f"The chosen widths ({', '.join(sorted(widths))}) cannot be cut out of the model "
                f"({type(error).__name__}: {first_line(error)[:200]}): what reads them takes the full number "
                "of channels, such as a recurrent layer or a shape written as numbers in forward."
            ) from error
    if not _agree(found, expected):
        raise ConfigError(
            "Cutting the chosen widths changes what the model computes: masked channels meet channels "
            "without a mask (in an addition, or behind a layer that makes zeros non-zero). Give the "
            f"widths that meet the same label and put each WidthChoice ({', '.join(sorted(widths))}) "
            "behind norm and activation."
        )
    return module


def _tensors(output: Any) -> list[Tensor]:
    """The tensors of an output, which may hold None for what a network gives in training alone.

    Raises:
        ConfigError: there is none that the channels could be followed to.
    """
    found = list(all_tensors(output))
    if not found:
        raise ConfigError(
            f"The model gives a {type(output).__name__} in which no tensor is found; widths are cut out of "
            "models that give a tensor, or a tuple, list, dict or dataclass of them."
        )
    return found


def all_tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of an output: one, or those in tuples, lists, dictionaries and dataclasses."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from all_tensors(list(output.values()))
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from all_tensors(part)
    elif is_dataclass(output):
        yield from all_tensors([getattr(output, part.name) for part in fields(output)])


def _agree(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether cut outputs are the masked ones; what was cut off an output may only have been zero."""
    for new, old in zip(found, expected, strict=True):
        if new.dim() != old.dim() or any(a > b for a, b in zip(new.shape, old.shape, strict=True)):
            return False
        if old.dtype == torch.bool:  # a mask that is handed out
            new, old = new.float(), old.float()
        finite = old[old.isfinite()].abs()
        scale = max(float(finite.max()), 1e-6) if finite.numel() else 1.0
        padded = torch.zeros_like(old)
        padded[tuple(slice(size) for size in new.shape)] = new
        # an infinity equals itself only; their difference is no number, and would hide all others
        if not torch.allclose(padded, old, rtol=0.0, atol=1e-3 * scale, equal_nan=True):
            return False
    return True


def _masked_output(supernet: Choosing, architecture: Architecture, sample: Tensor) -> list[Tensor]:
    # a network may write into its input, and into what it keeps
    with torch.no_grad(), evaluating(supernet), unmoved(supernet.module):
        return _tensors(supernet(sample.clone(), supernet.one_hot(architecture)))


def _put_markers(module: nn.Module, widths: dict[str, int], sample: Tensor) -> dict[str, nn.Module]:
    """Norms in place of the width choices: layers that the dependency graph can cut at."""
    kind = next(module.parameters(), sample)
    markers: dict[str, nn.Module] = {}
    for path in widths:
        choice: WidthChoice = module.get_submodule(path)  # type: ignore[assignment]
        marker = _TokenMarker if choice.dim == -1 else _Marker
        markers[path] = marker(choice.channels).to(kind.device, kind.dtype).eval()
    for path, marker_module in markers.items():
        module = _replaced(module, path, marker_module)
    return markers


class _Marker(nn.BatchNorm1d):
    """A norm over channels for inputs of any rank; it stands still in evaluation mode."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ConfigError("A WidthChoice needs an input of shape [B, C, ...].")

    def width(self) -> int:
        """Channels that are left."""
        return self.num_features


class _TokenMarker(nn.LayerNorm):
    """A norm over the last dimension."""

    def width(self) -> int:
        """Channels that are left."""
        return int(self.normalized_shape[-1])


def _prune_markers(
    module: nn.Module, markers: dict[str, Any], widths: dict[str, int], sample: Tensor
) -> None:
    import torch_pruning as tp

    held = [
        name
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    ]
    for parameter in module.parameters():
        parameter.requires_grad_(True)  # the tracer follows gradients
    with unmoved(module):
        graph = tp.DependencyGraph().build_dependency(
            module, sample, forward_fn=lambda model, x: _tensors(model(x.clone()))
        )
    cuts = {_Marker: tp.prune_batchnorm_out_channels, _TokenMarker: tp.prune_layernorm_out_channels}
    with kept_tied(module):
        for path, marker in markers.items():
            present = marker.width()
            if present <= widths[path]:
                continue  # a tied width was cut with an earlier one
            if marker not in graph.module2node:
                continue  # not called: the model keeps it under a second name, or does not use it
            surplus = list(range(widths[path], present))
            group = graph.get_pruning_group(marker, cuts[type(marker)], idxs=surplus)
            _refuse_derived(module, path, {item.dep.target.module for item in group})
            group.prune()
    for name in held:
        module.get_parameter(name).requires_grad_(False)


def _refuse_derived(module: nn.Module, width: str, cut: set[Any]) -> None:
    """Raise where a layer that is cut with a width computes its weight from other tensors."""
    for name, layer in module.named_modules():
        own = {**layer._parameters, **layer._buffers}
        if layer in cut and "weight" not in own and hasattr(layer, "weight"):
            raise ConfigError(
                f"The width {width!r} cannot be cut out: the weight of {name!r} is derived from other "
                "tensors, as by weight_norm. Leave that out of the layers around a WidthChoice."
            )
