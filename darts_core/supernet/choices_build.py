"""From a model with choices to the plain module: chosen layers stay, masked channels are cut out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError

if TYPE_CHECKING:
    from darts_core.supernet.choices import ModuleSupernet, WidthChoice

__all__ = ["plain_module"]


def plain_module(supernet: ModuleSupernet, architecture: Architecture) -> nn.Module:
    """See `ModuleSupernet.build`."""
    from darts_core.supernet.choices import Choice, WidthChoice

    module = copy.deepcopy(supernet.module)
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
        value = values[choice.label or _label_of(supernet, path)]
        if isinstance(choice, WidthChoice):
            choice.label = choice.label or _label_of(supernet, path)
            widths[path] = choice.widths[choice.options.index(value)]
        else:
            chosen = choice.chosen(value)  # type: ignore[operator]
            _label_inner(chosen, path, choice, value)
            module = _replaced(module, path, chosen)
    if widths:
        module = _cut(supernet, module, architecture, widths)
    return module


def _label_of(supernet: ModuleSupernet, path: str) -> str:
    labels = [label for label, _ in supernet.space.choices]
    if path in labels:
        return path
    if not path and len(labels) == 1:
        return labels[0]
    raise ConfigError(f"The choice at {path!r} has no label of its own; give it one.")


def _label_inner(chosen: nn.Module, path: str, choice: nn.Module, value: Any) -> None:
    """Choices inside a chosen layer are labelled by their path before it was put in place."""
    from darts_core.supernet.choices import Choice, DepthChoice, LayerChoice

    if isinstance(choice, LayerChoice):
        prefix = f"{path}.candidates.{choice.options.index(value)}"
    elif isinstance(choice, DepthChoice):
        prefix = f"{path}.blocks"
    for inner_path, inner in chosen.named_modules():
        if isinstance(inner, Choice) and inner.label is None:
            inner.label = f"{prefix}.{inner_path}" if inner_path else prefix


def _replaced(root: nn.Module, path: str, new: nn.Module) -> nn.Module:
    if not path:
        return new
    parent, _, last = path.rpartition(".")
    setattr(root.get_submodule(parent), last, new)
    return root


def _cut(
    supernet: ModuleSupernet, module: nn.Module, architecture: Architecture, widths: dict[str, int]
) -> nn.Module:
    """Cut masked channels out of every layer that makes or reads them, and check the result."""
    if supernet.input_shape is None:
        raise ConfigError(
            "Building chosen widths traces the model; give ModuleSupernet(model, input_shape=(C, H, W))."
        )
    reference = next(iter(module.parameters()))
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, *supernet.input_shape, generator=generator)
    sample = sample.to(reference.device, reference.dtype)
    was_training = module.training
    expected = _masked_output(supernet, architecture, sample)
    module.eval()
    markers = _put_markers(module, widths, sample)
    _prune_markers(module, markers, widths, sample)
    for path in widths:
        module = _replaced(module, path, nn.Identity())
    with torch.no_grad():
        found = module(sample)
    scale = expected.abs().max().clamp_min(1e-6)
    if found.shape != expected.shape or (found - expected).abs().max() > 1e-3 * scale:
        raise ConfigError(
            "Cutting the chosen widths changes what the model computes: masked channels meet channels "
            "without a mask (in an addition, or behind a layer that makes zeros non-zero). Give the "
            "widths that meet the same label and put each WidthChoice behind norm and activation."
        )
    return module.train(was_training)


def _masked_output(supernet: ModuleSupernet, architecture: Architecture, sample: Tensor) -> Tensor:
    was_training = supernet.training
    supernet.eval()
    with torch.no_grad():
        weights = {k: w.to(sample.dtype) for k, w in supernet.one_hot(architecture).items()}
        result = supernet(sample, weights)
    supernet.train(was_training)
    return result


def _put_markers(module: nn.Module, widths: dict[str, int], sample: Tensor) -> dict[str, _Marker]:
    """Batch norms in place of the width choices: layers that the dependency graph can cut at."""
    markers: dict[str, _Marker] = {}
    for path in widths:
        choice: WidthChoice = module.get_submodule(path)  # type: ignore[assignment]
        markers[path] = _Marker(choice.channels).to(sample.device, sample.dtype).eval()
    for path, marker in markers.items():
        module = _replaced(module, path, marker)
    return markers


class _Marker(nn.BatchNorm1d):
    """A norm over channels for inputs of any rank; it stands still in evaluation mode."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ConfigError("A WidthChoice needs an input of shape [B, C, ...].")


def _prune_markers(
    module: nn.Module, markers: dict[str, _Marker], widths: dict[str, int], sample: Tensor
) -> None:
    import torch_pruning as tp

    for parameter in module.parameters():
        parameter.requires_grad_(True)  # the tracer follows gradients
    graph = tp.DependencyGraph().build_dependency(module, example_inputs=sample)
    for path, marker in markers.items():
        present = marker.num_features
        if present <= widths[path]:
            continue  # a tied width was cut with an earlier one
        surplus = list(range(widths[path], present))
        graph.get_pruning_group(marker, tp.prune_batchnorm_out_channels, idxs=surplus).prune()
