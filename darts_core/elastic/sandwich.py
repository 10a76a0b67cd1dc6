"""The gradient of an elastic training step: the whole network, the smallest, and some drawn between.

Each one's gradient is formed and its activations are freed before the next runs, so that the memory is that
of the whole network alone. All learn from the targets and from the given network's outputs.
Sources: universally slimmable networks, arXiv:1903.05134, section 3 (sandwich rule, in-place distillation);
BigNAS, arXiv:2003.11142, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.distributed import Group, current_group
from darts_core.elastic.network import Elastic
from darts_core.errors import ConfigError, DeviceError, NonFiniteLossError
from darts_core.tasks import Classification, Task
from darts_core.train.teacher import Teacher

__all__ = ["Sandwich"]

LossOf = Callable[[Any], Tensor]
_CHECK_EVERY = 50


class Sandwich:
    """Forms the gradients of one step over several sub-networks; for a loop of your own.

    Args:
        net: the elastic network, as it was given: its copy becomes the teacher.
        drawn: sub-networks drawn a step, beside the whole and the smallest.
        share: of the teacher in each loss, from 0 (targets alone) to 1.
        others: how much each sub-network's loss counts beside the whole network's 1. With all at 1 the
            channels that all share would learn four times as fast as in a plain training.
        seed: of the drawing; step k draws the same whatever ran before.
        task: whose `distillation_loss(output, teacher)` is used; classification by default.
        cache_mib: memory for the teacher's outputs; see `Teacher`.
        group: the processes that train together (`darts_core.distributed.current_group`). Each has the whole
            batch and runs its part of it; `group.sum_gradients(params)` comes before the optimizer's step.

    Raises:
        ConfigError: a number is out of range.
        DeviceError: several processes train together, and `group` does not say so.
    """

    def __init__(
        self,
        net: Elastic,
        *,
        drawn: int = 2,
        share: float = 0.5,
        others: float = 0.25,
        seed: int = 0,
        task: Task | None = None,
        cache_mib: float = 64.0,
        group: Group | None = None,
    ) -> None:
        if drawn < 0 or not 0.0 <= share <= 1.0 or not others > 0.0:
            raise ConfigError(
                f"drawn={drawn} must be at least 0, share={share} within 0..1 and others={others} above 0."
            )
        self.group, self._told = group or Group.alone(), group is not None
        _check_processes(net.model, told=self._told)
        # all start from, and learn from, the same network
        self.group.send([*net.model.state_dict().values()])
        self.net, self.drawn, self.share, self.seed = net, drawn, share, seed
        self.others = others
        self.task = task or Classification()
        self.teacher = Teacher(net.model, cache_mib, self.group) if share > 0 else None
        self.step = 0
        self._sum: Tensor | float = 0.0

    def choices(self) -> list[dict[str, int]]:
        """The sub-networks of the present step: the whole one first."""
        generator = np.random.default_rng([self.seed, self.step])
        drawn = [self.net.draw(generator) for _ in range(self.drawn)]
        return [self.net.largest, *drawn, self.net.smallest]

    def backward(
        self, x: Tensor, loss_of: LossOf, *, scale: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Add the gradients of this step's sub-networks to the parameters' `grad`; the mean loss.

        It takes the place of `loss = loss_of(model(x)); loss.backward()`. Mixed precision is that of the
        `torch.autocast` block around the call.

        Args:
            x: one batch; in a group the whole one, as the outputs that `loss_of` is given.
            loss_of: the loss of the network's outputs against the targets.
            scale: of the loss before its gradient is formed: a `GradScaler`'s `scale`, or a division by
                the number of batches that one step accumulates.

        Raises:
            NonFiniteLossError: a loss became NaN or infinite; looked at every 50 steps.
        """
        total, _ = self.run(x, loss_of, scale)
        self._sum = self._sum + total
        if self.step % _CHECK_EVERY == 0:
            self.check_finite()
        return total

    def run(
        self, x: Tensor, loss_of: LossOf, scale: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `backward`, which looks at the loss besides; gives the whole network's outputs, too."""
        _check_processes(self.net.model, told=self._told)
        taught = self.teacher(x) if self.teacher is not None else None
        own, chosen = self.group.part(x), self.choices()
        total = torch.zeros((), device=x.device)
        whole: Tensor | None = None
        for choices in chosen:
            with self.net.running(choices) as network:
                output = self._joined(network(own))
                loss = self._loss(output, taught, loss_of)
                # the first one is the whole network
                weighted = loss if whole is None or self.others == 1.0 else loss * self.others
                # outside of autocast, as torch advises; the sum is meant, so that the whole network learns as
                # fast as in its plain training
                with torch.autocast(x.device.type, enabled=False):
                    (scale(weighted) if scale is not None else weighted).backward()  # type: ignore[no-untyped-call]
            first = output[0] if isinstance(output, tuple) else output
            whole = first.detach() if whole is None else whole
            total += loss.detach().float() / len(chosen)
            del output, loss, weighted, first
        self.step += 1
        assert whole is not None
        return total, whole

    def _joined(self, output: Any) -> Any:
        """The outputs of the whole batch, those of an auxiliary head as well."""
        if isinstance(output, tuple):
            return tuple(self.group.joined(part) for part in output)
        return self.group.joined(output)

    def _loss(self, output: Any, taught: Tensor | None, loss_of: LossOf) -> Tensor:
        if taught is None:
            return loss_of(output)
        first = output[0] if isinstance(output, tuple) else output
        soft = self.task.distillation_loss(
            first if first.dtype == torch.float64 else first.float(), taught
        )
        return (
            (1.0 - self.share) * loss_of(output) + self.share * soft if self.share < 1.0 else soft
        )

    def check_finite(self) -> None:
        """Nothing, while all losses since the last look were finite.

        Raises:
            NonFiniteLossError: one was not.
        """
        value = float(self._sum)
        self._sum = 0.0
        if not np.isfinite(value):
            raise NonFiniteLossError(
                f"The loss of a sub-network became NaN or infinite within the {_CHECK_EVERY} steps before "
                f"step {self.step}; lower the learning rate or clip the gradient."
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside the network's and the optimizer's states."""
        kept = self.teacher.state_dict() if self.teacher is not None else {}
        return {"step": self.step, "teacher": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.step = int(state["step"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])


def _check_processes(model: nn.Module, *, told: bool) -> None:
    there = current_group()
    several = there is not None and there.processes > 1
    if isinstance(model, nn.parallel.DistributedDataParallel) or (several and not told):
        raise DeviceError(
            "Elastic training knows its processes by itself: give the plain network, not "
            "DistributedDataParallel around it, and group=darts_core.distributed.current_group()."
        )
