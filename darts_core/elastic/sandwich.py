"""The gradient of an elastic training step: the whole network, the smallest, and some drawn between.

Each one's gradient is formed and its activations are freed before the next runs, so that the memory is that
of the whole network alone. All learn from the targets and from the given network's outputs; the sub-networks
from the mean of these and of the whole network's own (distillation in place).
Sources: universally slimmable networks, arXiv:1903.05134, section 3 (sandwich rule, in-place distillation);
BigNAS, arXiv:2003.11142, section 3.1.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.distributed import Group, current_group
from darts_core.elastic.network import Elastic
from darts_core.elastic.resident import ResidentMemory
from darts_core.elastic.variables import Choices, Width
from darts_core.elastic.widths import sorted_in_place
from darts_core.errors import ConfigError, DeviceError, NonFiniteLossError, ResumeError
from darts_core.prune.graph import let_go
from darts_core.runlog import config_hash
from darts_core.tasks import Classification, Task, make_task
from darts_core.train.teacher import Teacher

__all__ = ["Sandwich", "weights_mark"]

log = logging.getLogger("darts_core")
LossOf = Callable[[Any], Tensor]
_CHECK_EVERY = 50
# integers as wide as a value
_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}


class Sandwich:
    """Forms the gradients of one step over several sub-networks; for a loop of your own.

    Args:
        net: the elastic network, as it was given: its copy becomes the teacher.
        drawn: sub-networks drawn a step, beside the whole and the smallest.
        share: of the teacher in each loss, from 0 (targets alone) to 1. Sub-networks take the mean of its
            outputs and the whole network's.
        others: how much each sub-network's loss counts beside the whole network's 1. With all at 1 the
            channels that all share would learn four times as fast as in a plain training.
        seed: of the drawing; step k draws the same whatever ran before.
        task: whose `distillation_loss(output, teacher)` is used, or its name, "regression" for instance;
            None: classification, whose outputs are [B, classes].
        cache_mib: memory for the teacher's outputs; see `Teacher`.
        group: the processes that train together (`darts_core.distributed.current_group`). Each has the whole
            batch and runs its part of it; `group.sum_gradients(params)` comes before the optimizer's step.

    Raises:
        ConfigError: a number is out of range, or there is no such task.
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
        task: Task | str | None = None,
        cache_mib: float = 64.0,
        group: Group | None = None,
    ) -> None:
        if not isinstance(net, Elastic):
            raise ConfigError(
                f"Sandwich takes what elastic(model, x) gave, not a {type(net).__name__}, of which no "
                "sub-networks are known."
            )
        whole_numbers = (
            isinstance(drawn, Integral) and isinstance(seed, Integral) and min(drawn, seed) >= 0
        )
        numbers = isinstance(share, Real) and isinstance(others, Real)
        if not (whole_numbers and numbers and 0.0 <= share <= 1.0 and 0.0 < others < math.inf):
            raise ConfigError(
                f"drawn={drawn} and seed={seed} must be whole numbers of at least 0, share={share} within "
                f"0..1 and others={others} above 0."
            )
        self.group, self._told = group or Group.alone(), group is not None
        _check_processes(net.model, told=self._told)
        # all start from, and learn from, the same network
        self.group.send([*net.model.state_dict().values()])
        self.net, self.drawn, self.share, self.seed = net, drawn, share, seed
        self.others = others
        named = make_task(task) if isinstance(task, str) else task
        self.task, self._assumed = named or Classification(), task is None
        self.teacher = Teacher(net.model, cache_mib, self.group) if share > 0 else None
        self._weights = _sums(net.model)
        self._family = self._named(_depths(net))
        self._numbered = _numbered(net)
        self.step = 0
        self._sum: Tensor | float = 0.0
        self._compared = self.group.processes == 1
        self._memory = ResidentMemory()
        self._looked = False  # whether hooks behind the gradients were looked for

    def _named(self, depths: Mapping[str, Sequence[Any]]) -> str:
        """Names the weights that the family began with, in whatever order, and what may vary in it."""
        vary = {v.name: [list(v.options), list(depths.get(v.name, ()))] for v in self.net.variables}
        return config_hash({"weights": self._weights, "vary": vary})

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
            ConfigError: `x` is no batch, the loss is no number with a gradient, the outputs are none of the
                task, a group's batch cannot be shared out evenly or is not the same in all processes, or
                nothing learns.
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
        _check_step(x, loss_of, scale)
        if not self._looked:
            self._looked = True
            _tell_of_hooks(self.net.model)
        if len(x) % self.group.processes:
            raise ConfigError(
                f"A batch of {len(x)} cannot be shared out among {self.group.processes} processes; give a "
                "multiple (drop_last=True leaves out an incomplete one)."
            )
        taught = self._taught(x)
        self._memory.begin(x)
        own, chosen = self.group.part(x), self.choices()
        total = torch.zeros((), device=x.device)
        whole: Tensor | None = None
        for choices in chosen:
            self._forget_skipped(choices)
            # one that is drawn may be the whole network again: a step moves the statistics once
            with self.net.running(choices, still=whole is not None) as network:
                # each has the batch as it came: a network may write into its input
                output = self._joined(network(own.clone()))
                loss = self._loss(output, taught, loss_of)
                self._compare(loss)
                # the first one is the whole network
                weighted = loss if whole is None or self.others == 1.0 else loss * self.others
                # outside of autocast, as torch advises; the sum is meant, so that the whole network learns as
                # fast as in its plain training
                with torch.autocast(x.device.type, enabled=False):
                    if self._learns(weighted, whole is None):
                        (scale(weighted) if scale is not None else weighted).backward()  # type: ignore[no-untyped-call]
            if whole is None:
                whole = _first(output).detach()
                taught = self._for_others(taught, whole)
            total += loss.detach().float() / len(chosen)
            del output, loss, weighted
            self._memory.passed()
        self.step += 1
        assert whole is not None
        return total, whole

    def _forget_skipped(self, choices: Choices) -> None:
        """Let what skipped blocks have kept of an earlier pass be values: that pass's gradients are formed.

        A loss may read there, as it does a term that each block keeps beside its output.
        """
        for path in self.net.plan(choices).skipped:
            let_go(self.net.model.get_submodule(path))

    def _taught(self, x: Tensor) -> Tensor | None:
        """The teacher's outputs; it follows where the network was moved to since it was copied."""
        if self.teacher is None:
            return None
        home = next(self.net.model.parameters()).device
        if next(self.teacher.model.parameters()).device != home:
            self.teacher.model.to(home)
        return self.teacher(x)

    def _for_others(self, taught: Tensor | None, whole: Tensor) -> Tensor | None:
        """What the sub-networks learn from beside the targets: the given network and the whole one.

        Two that err apart teach better than one, and the second one's outputs are there anyway.
        """
        return None if taught is None else (taught + whole.to(taught.dtype)) / 2

    def _learns(self, loss: Tensor, first: bool) -> bool:
        """Whether the loss has a gradient; that of a part may have none, where all that it runs is frozen."""
        if first and not loss.requires_grad:
            raise ConfigError(
                f"The loss of {type(self.net.model).__name__} depends on no parameter that learns: all are "
                "frozen (requires_grad_(False)), or it was formed of detached outputs or under no_grad()."
            )
        return loss.requires_grad

    def _compare(self, loss: Tensor) -> None:
        """Once, as it waits for the device: of the same batch all processes form the same loss."""
        if self._compared:
            return
        self._compared = True
        own = float(loss.detach())
        first = self.group.share(own)
        known = math.isfinite(own) and math.isfinite(first)
        if self.group.agree(known and not math.isclose(own, first, rel_tol=1e-3, abs_tol=1e-6)):
            raise ConfigError(
                f"The processes form other losses of their first batch (here {own:.6g}, in the first one "
                f"{first:.6g}): each needs the whole batch, inputs and targets in the same order. Leave out "
                "a DistributedSampler, and seed what shuffles or mixes alike in all."
            )

    def _joined(self, output: Any) -> Any:
        """The outputs of the whole batch, those of an auxiliary head as well."""
        if self.group.processes == 1:
            return output
        if isinstance(output, (tuple, list)):
            # an auxiliary head that is off may give None
            parts: list[Any] = [None if part is None else self._joined(part) for part in output]
            return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
        return self.group.joined(_first(output))

    def _loss(self, output: Any, taught: Tensor | None, loss_of: LossOf) -> Tensor:
        if taught is None:
            return _number(loss_of(output))
        first = _first(output)
        if self._assumed and (first.dim() != 2 or first.shape[1] < 2):
            raise ConfigError(
                f"The network gives outputs of shape {list(first.shape)}, which are no classes [B, classes], "
                "as the teacher's part of the loss takes them by default. Give Sandwich(net, "
                'task="regression"), "next_token", "multi_label" or a task of '
                "your own; or share=0, which learns from the targets alone."
            )
        self._check_alike(first.detach(), taught)
        soft = self.task.distillation_loss(
            first if first.dtype == torch.float64 else first.float(), taught
        )
        if self.share == 1.0:
            return soft
        own = _number(loss_of(output))
        if soft.requires_grad and not own.requires_grad and bool(own != 0):
            # the teacher's part has one: the targets would count for nothing, and nobody would see it; a 0
            # is that of a batch without targets
            raise ConfigError(
                "The loss of the targets has no gradient: it was formed of detached outputs, or under "
                "no_grad(). share=1 learns from the teacher alone."
            )
        return (1.0 - self.share) * own + self.share * soft

    def _check_alike(self, output: Tensor, taught: Tensor) -> None:
        """Refuse a network whose outputs are others in evaluation mode, in which the teacher answers."""
        assert self.teacher is not None
        what = self.teacher.other_outputs(self.task, output, taught)
        if what is not None:
            raise ConfigError(
                f"{type(self.net.model).__name__} gives outputs {what}: the teacher, which answers in "
                "evaluation mode, would teach something else. Let its forward give the same in both, or "
                "learn from the targets alone with share=0."
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
        orders = {name: list(order) for name, order in self.net.orders.items()}
        return {"step": self.step, "teacher": kept, "family": self._family, "orders": orders}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ResumeError: it is something else, it was made elastic from other weights, other things may vary,
                or other channels or blocks go first.
        """
        if not isinstance(state, Mapping) or not {"step", "teacher"} <= state.keys():
            raise ResumeError(
                "This is no state of a Sandwich, which `sandwich.state_dict()` gives; the network and the "
                "optimizer load states of their own."
            )
        # an earlier program's state tells none
        orders = state.get("orders", {})
        depths = {name: orders.get(name, order) for name, order in _depths(self.net).items()}
        numbered = {name: orders.get(name, order) for name, order in self._numbered.items()}
        same = state.get("family", self._family)
        if same == self._named(depths) and (same != self._family or numbered != self._numbered):
            raise ResumeError(
                "In the first run other channels or blocks of the same weights went first, as with batches= "
                "of other data, or on another device: its sub-networks are others. Make the given network "
                'elastic with orders=state["orders"] of this state, then Sandwich and optimizer, and load '
                "the states of network, optimizer and sandwich again."
            )
        if same != self._family:
            raise ResumeError(
                "This state belongs to a family that was made of other weights. Go on in the order of the "
                "first run: elastic(model, x) with the weights that you gave then, Sandwich and optimizer, "
                "and only then load the states of network, optimizer and sandwich."
            )
        self.step = int(state["step"])
        # one that was saved with share=0 has no outputs of a teacher
        if self.teacher is not None and state["teacher"]:
            self.teacher.load_state_dict(state["teacher"])


def _first(output: Any) -> Tensor:
    """What the teacher speaks of: the output, or the first of several."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(first, Tensor):
        raise ConfigError(
            f"In training the network gives a {type(output).__name__}; Sandwich takes a tensor, or a tuple "
            "or list whose first one is the output that it gives in evaluation mode."
        )
    return first


def _check_step(x: Any, loss_of: Any, scale: Any) -> None:
    """Raise where a step is given something else than a batch and functions."""
    if not isinstance(x, Tensor) or len(x) == 0:
        what = "an empty batch" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ConfigError(
            f"Sandwich takes one tensor, a batch as the network takes it, not {what}; targets and whatever "
            "else a loss needs belong into loss_of."
        )
    if not callable(loss_of):
        raise ConfigError(
            "loss_of must be a function of the network's outputs, which each sub-network has others of: "
            "backward(x, lambda output: criterion(output, y))."
        )
    if not (scale is None or callable(scale)):
        raise ConfigError(
            "scale must be a function of a loss, such as lambda loss: loss / 4, or a GradScaler's `scale`."
        )


def _tell_of_hooks(model: nn.Module) -> None:
    """A warning where something waits for gradients: it gets those of each sub-network, not their sum."""
    if any(getattr(p, "_post_accumulate_grad_hooks", None) for p in model.parameters()):
        log.warning(
            "%s has hooks that run behind each gradient (register_post_accumulate_grad_hook): they run once "
            "for every sub-network. An optimizer that steps there takes several steps of each batch; let it "
            "step after backward().",
            type(model).__name__,
        )


def _number(loss: Any) -> Tensor:
    """A loss as a number; one of shape [1], whose gradient torch forms as well, too."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = (
            f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r:.60}"
        )
        raise ConfigError(
            f"loss_of gave {given}, and must give a loss: one number with its gradient, a tensor "
            "(reduction='mean', no item(), none of several)."
        )
    return loss.reshape(())


def weights_mark(model: nn.Module) -> str:
    """Names the weights of a network, in whatever order its channels stand."""
    return config_hash(_sums(model))


def _sums(model: nn.Module) -> dict[str, list[int]]:
    """Of each tensor's own bits, which are exact and do not depend on an order of its channels."""
    sums: dict[str, list[int]] = {}
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            bits = value.detach().contiguous().view(_BITS[value.element_size()]).to(torch.int64)
            sums[name] = [int(bits.sum()), int((bits * bits).sum())]
    return sums


def _depths(net: Elastic) -> dict[str, list[Any]]:
    """Depth's name -> its blocks, the most needed first."""
    return {v.name: list(v.order) for v in net.variables if not isinstance(v, Width)}


def _numbered(net: Elastic) -> dict[str, list[Any]]:
    """Width's name -> its channels' order, where they are not sorted: the weights do not show it."""
    stay = [v.name for v in net.variables if isinstance(v, Width) and not sorted_in_place(v)]
    return {name: list(net.orders[name]) for name in stay if name in net.orders}


def _check_processes(model: nn.Module, *, told: bool) -> None:
    there = current_group()
    several = there is not None and there.processes > 1
    if isinstance(model, nn.parallel.DistributedDataParallel) or (several and not told):
        raise DeviceError(
            "Elastic training knows its processes by itself: give the plain network, not "
            "DistributedDataParallel around it, and group=darts_core.distributed.current_group()."
        )
