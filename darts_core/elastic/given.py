"""What `elastic` was given: refused in a sentence where it is none of what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError, PruneError
from darts_core.sample_inputs import is_unbuilt

__all__ = ["check_example", "check_network", "check_numbers"]


def check_network(model: nn.Module) -> None:
    """Nothing, if `model` is a plain network with weights.

    Raises:
        PruneError: it is none; the sentence tells which one to give.
    """
    if not isinstance(model, nn.Module):
        inner = isinstance(getattr(model, "model", None), nn.Module)
        remedy = " It holds one: give its `model`." if inner else ""
        raise PruneError(
            f"A network is an nn.Module, and this is of type {type(model).__name__}.{remedy}"
        )
    first = next(model.parameters(), None)
    if first is None:
        raise PruneError(f"{type(model).__name__} has no parameters: nothing in it may vary.")
    if first.is_meta:
        raise PruneError(
            f"{type(model).__name__} lies on torch's meta device, where tensors have no values: build it on "
            "a real one and load its trained weights first."
        )
    # on a CPU DataParallel only hands on; on GPUs it runs nowhere else, and the proof is on a CPU
    spread = isinstance(model, nn.DataParallel) and model.device_ids
    if spread or isinstance(model, nn.parallel.DistributedDataParallel):
        around = type(model).__name__
        raise PruneError(f"Make the plain network elastic (its `module`), not {around} around it.")
    if is_unbuilt(model):
        raise PruneError(
            "The network has layers that its first input builds, such as nn.LazyConv2d, and has met none: "
            "call it once on a batch, load its trained weights, and make it elastic then."
        )
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise PruneError(
            "The network is compiled by its `compile()`; make it elastic before that. `autosearch.elastic` "
            "makes it elastic at the first step: leave `compile()` out there."
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise PruneError(
            "The network, or a part of it, is TorchScript, which cannot be followed; make the plain network "
            "elastic, as it was before torch.jit.script or torch.jit.trace."
        )


def check_example(example: Any) -> None:
    """Nothing, if `example` is a batch [B, C, ...], or token numbers [B, T].

    Raises:
        PruneError: it is none.
    """
    if not isinstance(example, Tensor):
        raise PruneError(
            "example_inputs must be one tensor, a batch as the network takes it; networks of several inputs "
            "cannot be made elastic."
        )
    tokens = example.dtype in (torch.int64, torch.int32)
    if not tokens and not example.is_floating_point():
        raise PruneError(
            f"example_inputs of {example.dtype} must be floating-point numbers, or token numbers (int64, "
            "int32)."
        )
    if example.dim() < (2 if tokens else 3):
        raise PruneError(
            f"example_inputs of shape {list(example.shape)} must be [B, C, ...]: images [B, C, H, W], "
            "series [B, C, T], token numbers [B, T]; a vector of features a sample goes as [B, 1, features], "
            "into nn.Sequential(nn.Flatten(), network) where the network takes rows alone."
        )
    if example.numel() == 0 or example.layout is not torch.strided:
        what = "holds no values" if example.numel() == 0 else "is sparse"
        raise PruneError(
            f"example_inputs of shape {list(example.shape)} {what}; give one batch as the network takes it."
        )


def check_numbers(least: Any, step: Any, orders: Any) -> None:
    """Nothing, if these are what `elastic` takes.

    Raises:
        ConfigError: one is not.
    """
    if not (isinstance(least, Real) and 0.0 <= float(least) <= 1.0):
        raise ConfigError(f"least={least!r} is a share of a group's channels, from 0 to 1.")
    if not (step is None or (isinstance(step, Integral) and int(step) >= 1)):
        raise ConfigError(f"step={step!r} must be a whole number of channels, at least 1.")
    if not (orders is None or isinstance(orders, Mapping)):
        raise ConfigError(
            f'orders must be a mapping, as `Elastic.orders` is or state["orders"] of a sandwich\'s state, '
            f"not a {type(orders).__name__}."
        )
