"""What a network is trained for: its loss, its metric, and what its outputs mean. One file a task."""

from darts_core.tasks.base import (
    IGNORED,
    TARGETS,
    TASKS,
    Meter,
    Task,
    make_task,
    register_task,
    saved_task,
    task_for,
)
from darts_core.tasks.classification import Classification
from darts_core.tasks.multi_label import MultiLabel
from darts_core.tasks.next_token import NextToken
from darts_core.tasks.regression import Regression

__all__ = [
    "IGNORED",
    "TARGETS",
    "TASKS",
    "Classification",
    "Meter",
    "MultiLabel",
    "NextToken",
    "Regression",
    "Task",
    "make_task",
    "register_task",
    "saved_task",
    "task_for",
]
