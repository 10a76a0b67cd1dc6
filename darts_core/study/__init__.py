"""Hyperparameter studies. Importing this package loads neither torch nor optuna."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from darts_core.study.trial import Pruned, TrialHandle, current_trial

if TYPE_CHECKING:
    from darts_core.study.records import StudyResult, TrialRecord
    from darts_core.study.space import SearchDimension, parse_space
    from darts_core.study.study import run_study

__all__ = [
    "Pruned",
    "SearchDimension",
    "StudyResult",
    "TrialHandle",
    "TrialRecord",
    "current_trial",
    "parse_space",
    "run_study",
]

_HOME = {
    "SearchDimension": "space",
    "StudyResult": "records",
    "TrialRecord": "records",
    "parse_space": "space",
    "run_study": "study",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
