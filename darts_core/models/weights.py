"""Weights from a state dict, read without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.reading import check_stored, regular_file

__all__ = ["load_weights"]

# where training scripts put the state dict inside what they save
_INSIDE = ("state_dict", "model_state_dict", "model", "state", "params")
# what torch puts before every name of a network in DataParallel (also over processes), or of a compiled one
_WRAPPERS = ("module.", "_orig_mod.")


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load the state dict in `path` into `model`; every name and shape must fit.

    Names may begin as those of a network in DataParallel, or of a compiled one, do.

    Args:
        model: the network.
        path: written by `torch.save(model.state_dict(), path)`, or a mapping that holds such under
            one of the usual names.

    Raises:
        ConfigError: it is no file of plain tensors, or its weights are of another network.
    """
    path = regular_file(Path(path).expanduser(), ConfigError)
    try:
        check_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for what is no archive of tensors
        raise ConfigError(
            f"weights={path} cannot be read as plain tensors ({type(error).__name__}); save them with "
            "torch.save(model.state_dict(), path)."
        ) from error
    state = _state(content)
    if state is None:
        raise ConfigError(
            f"weights={path} holds no state dict; save one with torch.save(model.state_dict(), path)."
        )
    known = model.state_dict()
    for prefix in 2 * _WRAPPERS:  # one may be around the other
        if not set(state) & set(known) and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ConfigError(f"weights={path} are of another network: {first[:300]}") from error


def _state(content: Any, inside: int = 2) -> dict[str, Tensor] | None:
    """The state dict that `content` is or holds, at most so many mappings deep: one may hold itself."""
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    if not inside:
        return None
    found = [_state(content.get(name), inside - 1) for name in _INSIDE]
    return next((state for state in found if state is not None), None)
