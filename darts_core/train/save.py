"""Saved networks: weights plus the description that rebuilds them, pruned widths included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from darts_core.checkpoint import load_checkpoint, save_checkpoint
from darts_core.errors import ResumeError
from darts_core.supernet.replace import is_identity, is_zero, replace_modules

__all__ = ["is_identity", "is_zero", "load_model", "replace_modules", "reshape_like", "save_model"]


def save_model(path: str | Path, model: nn.Module, meta: Mapping[str, Any]) -> None:
    """Write `model`'s state and `meta` to one file that `load_model` rebuilds the network from.

    Args:
        path: the file.
        model: a network from `build` or `baseline`, pruned or not.
        meta: `{"architecture": architecture.to_dict(), "build": {channels, layers, ...}}`, or
            `{"baseline": {"name": ..., "num_classes": ..., ...}}`; further plain values are kept
            (image_shape, class_names, mean, std ...). `replaced` names modules that were cut.

    Raises:
        ResumeError: `meta` describes no network.
    """
    if not isinstance(meta.get("architecture") or meta.get("baseline"), Mapping):
        raise ResumeError(
            f"Cannot save {path}: meta has the keys {sorted(meta)} but needs 'architecture' (with "
            "'build') or 'baseline', or nothing could rebuild the network."
        )
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    save_checkpoint(path, {"kind": "model", "state": state, "meta": dict(meta)})


def load_model(path: str | Path, *, device: Any = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The network of a file written by `save_model`, in evaluation mode, and its meta.

    Raises:
        ResumeError: the file is missing, damaged, not a saved model, or its weights do not fit.
    """
    content = load_checkpoint(path)
    if content.get("kind") != "model":
        raise ResumeError(f"{path} is not a saved model (kind {content.get('kind')!r}).")
    meta = dict(content["meta"])
    model = replace_modules(_rebuild(meta), meta.get("replaced") or {})
    try:
        reshape_like(model, content["state"])
        model.load_state_dict(content["state"])
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ResumeError(
            f"The weights in {path} do not fit its own description: {first}"
        ) from error
    return model.to(device).eval(), meta


def _rebuild(meta: Mapping[str, Any]) -> nn.Module:
    if meta.get("architecture"):
        from darts_core.architecture import Architecture
        from darts_core.supernet.build import build

        return build(Architecture.from_dict(meta["architecture"]), **dict(meta.get("build") or {}))
    from darts_core.train.baselines import baseline

    return baseline(**dict(meta["baseline"]))


def reshape_like(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Give every convolution, batch norm and linear layer the widths of the tensors in `state`.

    A pruned network has the graph of its architecture and narrower layers; its state says how
    narrow. The new tensors are uninitialised: load `state` afterwards. Depthwise convolutions keep
    one group a channel. Returns `model`.
    """
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.Conv2d):
            _reshape_conv(module, state.get(f"{prefix}weight"))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            _reshape_norm(module, state.get(f"{prefix}running_mean", state.get(f"{prefix}weight")))
        elif isinstance(module, nn.Linear):
            weight = state.get(f"{prefix}weight")
            if weight is not None and weight.shape != module.weight.shape:
                module.out_features, module.in_features = weight.shape
                _resize(module, "weight", weight.shape)
                _resize(module, "bias", weight.shape[:1])
    return model


def _resize(module: nn.Module, name: str, shape: Any) -> None:
    old = getattr(module, name)
    if old is None:
        return
    new = old.detach().new_empty(tuple(shape))
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(module, name, new)


def _reshape_conv(module: nn.Conv2d, weight: Tensor | None) -> None:
    if weight is None or weight.shape == module.weight.shape:
        return
    depthwise = module.groups == module.in_channels == module.out_channels
    if depthwise:
        module.groups = weight.shape[0]
    module.out_channels = weight.shape[0]
    module.in_channels = weight.shape[1] * module.groups
    _resize(module, "weight", weight.shape)
    _resize(module, "bias", weight.shape[:1])


def _reshape_norm(module: nn.modules.batchnorm._BatchNorm, like: Tensor | None) -> None:
    if like is None or like.shape[0] == module.num_features:
        return
    module.num_features = like.shape[0]
    for name in ("weight", "bias", "running_mean", "running_var"):
        _resize(module, name, like.shape[:1])
