"""Fit, evaluate, save and load a fixed network. Names load torch only when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from darts_core.train.config import TrainConfig

if TYPE_CHECKING:
    from darts_core.models.baselines import baseline, resnet
    from darts_core.train.evaluation import Evaluation, evaluate, evaluate_callable
    from darts_core.train.loop import FitResult, fit
    from darts_core.train.model_data import of_model, same_task
    from darts_core.train.save import load_model, reshape_like, save_model

__all__ = [
    "Evaluation",
    "FitResult",
    "TrainConfig",
    "baseline",
    "evaluate",
    "evaluate_callable",
    "fit",
    "load_model",
    "of_model",
    "reshape_like",
    "resnet",
    "same_task",
    "save_model",
]

_HOME = {
    "Evaluation": "evaluation",
    "FitResult": "loop",
    "baseline": "baselines",
    "evaluate": "evaluation",
    "evaluate_callable": "evaluation",
    "fit": "loop",
    "load_model": "save",
    "of_model": "model_data",
    "reshape_like": "save",
    "same_task": "model_data",
    "resnet": "baselines",
    "save_model": "save",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
