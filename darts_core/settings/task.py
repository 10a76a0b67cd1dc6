"""The setting of the task: which one; its own options stand beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from darts_core.settings.field import Settings, setting

__all__ = ["TaskChoice"]


@dataclass(frozen=True)
class TaskChoice(Settings):
    """The node `task`: a registered task. What it takes beside this is in `options`."""

    NODE: ClassVar[str] = "task"
    OPEN: ClassVar[str] = "options"

    name: str = setting("auto", "a registered task; auto: the one that the data's targets call for")
    description: str = setting("", "a line for `darts-core list`")
    options: Mapping[str, Any] = setting({}, "of the task itself")
