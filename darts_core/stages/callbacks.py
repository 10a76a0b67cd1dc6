"""The callbacks that `callbacks=` chooses for a stage, and how its loop asks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.callbacks import Callback, Callbacks
from darts_core.metric import Metric
from darts_core.stages.schema import SearchStage, TrainStage
from darts_core.stages.targets import instantiate_each

__all__ = ["asking", "make_callbacks"]


def make_callbacks(config: SearchStage | TrainStage, folder: Path) -> Callbacks:
    """One callback a node of `config.callbacks`, for the stage or the trial that lies in `folder`.

    Raises:
        ConfigError: a node makes no callback, or one with wrong settings.
    """
    made = instantiate_each(
        "callbacks", config.callbacks, config.plugins, Callback, where="callbacks"
    )
    return Callbacks(made, config.STAGE, folder)


def asking(
    callbacks: Callbacks, model: Any, metric: Metric, epochs: int
) -> Callable[[Sequence[Mapping[str, Any]]], str | None] | None:
    """What a loop calls with its rows after each epoch; None where there is nobody to ask."""
    if not callbacks:
        return None
    callbacks.start()
    return lambda history: callbacks.after_epoch(model, metric, epochs, history)
