"""A trained network that is not exported yet, as `predict` takes it: its `model.pt`, run eagerly."""

from __future__ import annotations

from pathlib import Path

import torch

from darts_core.errors import ExportError
from darts_core.export.runtime import LoadedModel
from darts_core.train.save import load_model

__all__ = ["open_saved", "saved_file"]


def saved_file(place: str | Path) -> Path | None:
    """The `model.pt` that `place` is, or that it holds without an export beside it; None for an export."""
    path = Path(place)
    if path.is_file():
        return path
    found = path / "model.pt"
    return found if found.is_file() and not (path / "manifest.json").exists() else None


def open_saved(path: Path) -> LoadedModel:
    """The network of a file that `train` or `prune` wrote, on the CPU.

    Raises:
        ResumeError: the file is damaged, or no saved model.
        ExportError: it does not say what its inputs are.
        ConfigError: the network is made by a module that the user did not name.
    """
    model, meta = load_model(path)
    lacking = [name for name in ("class_names", "image_shape", "mean", "std") if name not in meta]
    if lacking:
        raise ExportError(
            f"{path} does not say its {lacking[0]}, so files cannot be made ready for it; export it with its "
            "data, and predict from the export."
        )
    described = {**meta, "classes": meta["class_names"], "input_shape": meta["image_shape"]}
    return LoadedModel(described, "eager", model, torch.device("cpu"))
