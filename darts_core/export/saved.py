"""A network that is not exported, run eagerly: from its `model.pt`, or as it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.device import require_device
from darts_core.errors import ExportError
from darts_core.export.manifest import refuse_part
from darts_core.export.runtime import LoadedModel
from darts_core.train.save import load_model

__all__ = ["as_loaded", "open_saved", "saved_file"]


def saved_file(place: str | Path) -> Path | None:
    """The `model.pt` that `place` is, or that it holds without an export beside it; None for an export.

    Raises:
        ExportError: `place` is one file of an export.
    """
    path = Path(place)
    if path.is_file():
        refuse_part(path)
        return path
    found = path / "model.pt"
    return found if found.is_file() and not (path / "manifest.json").exists() else None


def open_saved(place: str | Path, device: str | None = None) -> LoadedModel:
    """The network of a file that `train` or `prune` wrote, or of its folder; on the CPU by default.

    Raises:
        ResumeError: the file is damaged, or no saved model.
        ExportError: it does not say what its inputs are.
        ConfigError: the network is made by a module that the user did not name.
    """
    path = saved_file(place) or Path(place)
    where = torch.device("cpu") if device is None else require_device(device)
    model, meta = load_model(path, device=where)
    return as_loaded(model, meta, str(path), where)


def as_loaded(
    model: nn.Module, meta: Mapping[str, Any], source: str, device: torch.device
) -> LoadedModel:
    """`model` as `load` would give it, run eagerly.

    Args:
        model: on `device`.
        meta: what a saved file holds of it.
        source: where it comes from, for errors.
        device: where it runs.

    Raises:
        ExportError: `meta` does not say what its inputs are.
    """
    lacking = [name for name in ("class_names", "image_shape", "mean", "std") if name not in meta]
    if lacking:
        raise ExportError(
            f"{source} does not say its {lacking[0]}, so files cannot be made ready for it; export it with "
            "its data, and predict from the export."
        )
    described = {**meta, "classes": meta["class_names"], "input_shape": meta["image_shape"]}
    return LoadedModel(described, "eager", model, device)
