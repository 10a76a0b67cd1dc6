"""The contract test class for tasks: subclass it, supply two fixtures, get the tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from darts_core.tasks.base import TASKS, Task, saved_task

__all__ = ["TaskContract"]


class TaskContract:
    """What every task must fulfil.

    A subclass in a test file defines a pytest fixture `task`, fitted to data, and `batch`: a pair of outputs
    as a network may give them ([B, ...] floats, B even and at least 4) and their targets, converted.
    """

    def test_it_is_registered_and_its_description_makes_it_again(self, task: Task) -> None:
        """Saved files hold `describe()` and nothing else of it."""
        assert type(task) is TASKS[task.name]
        assert task.outputs > 0
        assert saved_task(task.describe(), "a file") == task

    def test_the_loss_is_a_mean_that_falls_along_its_gradient(
        self, task: Task, batch: tuple[Tensor, Tensor]
    ) -> None:
        """A scalar, the same for a batch taken twice, smaller after a small step down."""
        output, target = batch[0].clone().requires_grad_(), batch[1]
        loss = task.loss(output, target)
        assert loss.dim() == 0
        twice = task.loss(torch.cat([output, output]), torch.cat([target, target]))
        torch.testing.assert_close(loss, twice)
        (gradient,) = torch.autograd.grad(loss, output)
        assert torch.isfinite(gradient).all()
        step = 1e-3 / gradient.abs().max().clamp(min=1e-12)
        assert task.loss(output - step * gradient, target) < loss

    def test_the_summed_loss_adds_up(self, task: Task, batch: tuple[Tensor, Tensor]) -> None:
        """Two halves sum to the whole."""
        output, target = batch
        whole, count = task.summed_loss(output, target)
        parts = [
            task.summed_loss(o, t) for o, t in zip(output.chunk(2), target.chunk(2), strict=True)
        ]
        assert sum(n for _, n in parts) == count > 0
        torch.testing.assert_close(parts[0][0] + parts[1][0], whole)

    def test_a_meter_in_parts_is_the_score_of_the_whole(
        self, task: Task, batch: tuple[Tensor, Tensor]
    ) -> None:
        """Batch by batch the metric comes to what it is of everything."""
        output, target = batch
        meter = task.meter(output.device)
        for part, wanted in zip(output.chunk(2), target.chunk(2), strict=True):
            meter.update(part, wanted)
        found = meter.result()
        assert next(iter(found)) == task.metric.name
        assert math.isclose(
            found[task.metric.name], float(task.score(output, target)), rel_tol=1e-4, abs_tol=1e-6
        )

    def test_a_teacher_is_met_by_answering_alike(
        self, task: Task, batch: tuple[Tensor, Tensor]
    ) -> None:
        """Distillation is 0 for the teacher's own outputs and above it for others."""
        output = batch[0]
        assert abs(float(task.distillation_loss(output, output))) < 1e-5
        assert float(task.distillation_loss(output.flip(0), output)) > 1e-6
        assert float(task.agreement(output, output)) == 1.0

    def test_answers_are_named(self, task: Task, batch: tuple[Tensor, Tensor]) -> None:
        """One number for each name."""
        read = task.read(batch[0])
        assert len(read) == len(batch[0])
        assert tuple(task.answers(read[0])) == task.names
