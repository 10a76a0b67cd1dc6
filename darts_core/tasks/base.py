"""`Task`: what every task says of itself, and the table of tasks.

Shapes: B batch, N samples of a split, ... further dimensions of outputs or targets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from darts_core.errors import ConfigError, DataError, unknown_name
from darts_core.metric import ACCURACY, Metric
from darts_core.registry import Registry
from darts_core.settings import Settings, bounds_of

__all__ = [
    "IGNORED",
    "TARGETS",
    "TASKS",
    "Meter",
    "Task",
    "check_metric_names",
    "constant",
    "make_task",
    "register_task",
    "saved_task",
    "task_for",
]

# what targets may be, and how a sentence calls them
TARGETS = {
    "class": "one class number a sample [N]",
    "labels": "0 or 1 for each label of a sample [N, L]",
    "number": "numbers [N] or [N, D]",
    "token": "one token number a position [N, T]",
}
# a whole-number target that does not count; among floats NaN says so
IGNORED = -100
# what to save for a task whose targets are of another kind
_SAVE = {
    "class": " Save class numbers as whole numbers: y.astype(int), or of one-hot rows y.argmax(1).",
    "labels": " Save 0 or 1 in a column of its own for each label.",
    "token": " Save token numbers as whole numbers, inputs and targets alike.",
}


class Meter:
    """Adds up the metrics of one split, batch by batch, without waiting for the device.

    This one keeps all outputs and targets and asks the task's `score` about them at the end; a task whose
    metric is a mean needs less memory with one of its own.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task, self.device = task, device
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch of outputs (without gradient) and its targets."""
        self._outputs.append(output.detach())
        self._targets.append(target)

    def result(self) -> dict[str, float]:
        """Metric -> value over everything added, the task's own first."""
        return self.task.scores(torch.cat(self._outputs), torch.cat(self._targets))


@dataclass(frozen=True)
class Task(Settings):
    """What a network is trained for. A subclass is a frozen dataclass whose `setting` fields are options.

    `fitted` gives a task that knows its data; the other methods are called on that one. They must not wait
    for the device, but for `Meter.result`, so that a search step can be captured as a CUDA graph.

    Attributes:
        name: under which it is registered.
        metric: what selects, and which way is better.
        takes: the kinds of targets (keys of `TARGETS`) that it is for, its usual one first.
        smooths: whether `loss` knows label smoothing.
        ranked: whether `answers` are probabilities, of which the largest counts most.
        outputs: how many numbers the network gives a sample (or a position); known once fitted.
        names: of the outputs (classes, labels, columns, tokens).
    """

    NODE: ClassVar[str] = "task"
    name: ClassVar[str] = ""
    metric: ClassVar[Metric] = ACCURACY
    takes: ClassVar[tuple[str, ...]] = ("class",)
    smooths: ClassVar[bool] = False
    ranked: ClassVar[bool] = False

    outputs: int = 0
    names: tuple[str, ...] = ()

    @property
    def mirrors(self) -> bool:
        """Whether images may be mirrored unasked: a number may be a coordinate, or an angle."""
        return "number" not in self.takes

    def converted(self, targets: np.ndarray) -> np.ndarray:
        """Targets as the loss takes them; int64 by default.

        Raises:
            DataError: a value is not allowed.
        """
        return targets.astype(np.int64)

    def fitted(self, targets: np.ndarray, names: tuple[str, ...]) -> Self:
        """The task of one data set.

        Args:
            targets: converted, of the params split alone.
            names: of the classes, labels, columns or tokens.
        """
        del targets
        return replace(self, outputs=len(names), names=names)

    def output_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """What the network gives for one sample: (outputs,)."""
        del input_shape
        return (self.outputs,)

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """The mean loss of a batch, a scalar.

        Shapes: output [B, ...] float32 or float64 as the network gives it, target [B, ...].
        """
        raise NotImplementedError("A task must define loss(output, target).")

    def summed_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, int]:
        """(loss summed over what counts, how much that is): what a split's mean loss is made of."""
        return self.loss(output, target) * len(target), len(target)

    def distillation_loss(self, output: Tensor, teacher: Tensor) -> Tensor:
        """How far a network is from its teacher; 0 only where both answer alike. Squared error by default."""
        return functional.mse_loss(output, teacher)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """The metric of a batch or of a whole split, a scalar on the device."""
        raise NotImplementedError("A task must define score(output, target), its metric.")

    def scores(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """Metric -> value over a whole split; a task with further metrics adds them."""
        return {self.metric.name: float(self.score(output, target))}

    def meter(self, device: torch.device) -> Meter:
        """What adds up the metrics of a split."""
        return Meter(self, device)

    def read(self, output: Tensor) -> Tensor:
        """What outputs mean to a user: probabilities, numbers in the targets' unit; themselves by default."""
        return output

    def answers(self, answer: Tensor) -> dict[str, float]:
        """One sample of what `read` gave, by name: what a user is told."""
        return {name: float(value) for name, value in zip(self.names, answer, strict=True)}

    def agreement(self, output: Tensor, reference: Tensor) -> Tensor:
        """Share (0..1) of samples that two networks answer alike, a scalar.

        By default an answer counts as alike within 1 % of the largest reference output.
        """
        limit = 0.01 * reference.abs().max()
        close = (output - reference).abs() <= limit
        return close.flatten(1).all(1).double().mean()

    def describe(self) -> dict[str, Any]:
        """Plain values that `saved_task` makes the same task from: they stand in models and manifests."""
        found: dict[str, Any] = {"name": self.name}
        for item in fields(self):
            value = getattr(self, item.name)
            found[item.name] = list(value) if isinstance(value, tuple) else value
        return found


TASKS: Registry[type[Task]] = Registry("task")


def check_metric_names(task: str, names: Collection[str]) -> None:
    """Nothing, unless a metric is called `loss`, as the task's loss is in the same files.

    Raises:
        ConfigError: one is.
    """
    if "loss" in names:
        raise ConfigError(
            f"task={task} calls a metric 'loss', but val_loss and test_loss in the files are the loss that "
            "it is trained with; give the metric another name, such as mean_loss."
        )


def register_task(name: str, *, description: str) -> Callable[[type[Task]], type[Task]]:
    """A decorator for a `Task`: `task.name=NAME` finds it, and saved files name it.

    Raises:
        ConfigError: the name is taken, or its metric is called `loss`.
    """

    def store(task: type[Task]) -> type[Task]:
        check_metric_names(name, (task.metric.name,))
        TASKS.register(name, description=description)(task)
        task.name = name
        return task

    return store


def make_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """The task called `name` with its options; not yet fitted to data.

    Raises:
        ConfigError: there is no such task, or it has no such option.
    """
    cls = TASKS[name]
    known = [item.name for item in fields(cls) if bounds_of(item) is not None]
    for key in options or {}:
        if key not in known:
            raise ConfigError(unknown_name(f"option of task {name}", str(key), known))
    return cls(**dict(options or {}))


def task_for(kind: str) -> Task:
    """The task that targets of `kind` call for where none is named."""
    return next(cls() for cls in (TASKS[name] for name in TASKS) if cls.takes[0] == kind)


def saved_task(described: Mapping[str, Any], where: str) -> Task:
    """The fitted task that a saved file describes.

    Args:
        described: what `Task.describe` gave.
        where: the file, for the message.

    Raises:
        ConfigError: the task is unknown here, or the description is damaged.
    """
    name = described.get("name") if isinstance(described, Mapping) else None
    if not isinstance(name, str) or name not in TASKS:
        raise ConfigError(
            f"{where} belongs to the task {str(name)[:80]!r}, which is not registered here; name its module "
            f"in plugins=. Known: {', '.join(TASKS)}."
        )
    cls = TASKS[name]
    known = {item.name for item in fields(cls)}
    given = {key: value for key, value in described.items() if key != "name"}
    strange = [key for key in given if key not in known]
    if strange:
        raise ConfigError(f"{where}: {unknown_name(f'value of task {name}', strange[0], known)}")
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    outputs, names = plain.get("outputs", 0), plain.get("names", ())
    if not isinstance(outputs, int | np.integer) or not isinstance(names, tuple):
        raise ConfigError(
            f"{where} is damaged: its task {name} has {str(outputs)[:80]!r} outputs called "
            f"{str(names)[:80]!r}."
        )
    return cls(**plain)


def check_targets(task: Task, kinds: tuple[str, ...], origin: str) -> str:
    """The kind, of those that a data set's targets can be taken for, which `task` is for.

    Raises:
        DataError: none fits.
    """
    for kind in task.takes:
        if kind in kinds:
            return kind
    raise DataError(
        f"task={task.name} needs {' or '.join(TARGETS[kind] for kind in task.takes)}; the targets of "
        f"{origin} are {' or '.join(TARGETS[kind] for kind in kinds)}.{_SAVE.get(task.takes[0], '')}"
    )


@cache
@torch.inference_mode(False)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """`values` as a tensor on `device`, made once: a copy from the host would make each step wait.

    A plain tensor, also where it is first asked for in inference mode: a training may need it later.
    """
    return torch.tensor(values, dtype=dtype, device=device)
