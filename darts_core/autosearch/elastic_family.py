"""The elastic training in a user's loop: gradients of each step, and a sub-network a budget at its end."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.autosearch.contract import Trial
from darts_core.autosearch.elastic_stage import LossOf, Stage
from darts_core.checkpoint import save_checkpoint
from darts_core.elastic.archive import Archive
from darts_core.elastic.choose import choose
from darts_core.elastic.device_clock import DeviceClock
from darts_core.elastic.network import Elastic, elastic
from darts_core.elastic.norms import recalibrate
from darts_core.elastic.points import described_point
from darts_core.elastic.sandwich import Sandwich
from darts_core.elastic.shrink import measured_cost
from darts_core.errors import ConfigError, LatencyError
from darts_core.tasks import Task, make_task

__all__ = ["ElasticFamily"]

# what an earlier attempt in the same folder found of its own weights
_OF_WEIGHTS = ("judged.jsonl", "architecture.json")
# batches of the training's end, on which sub-networks are judged
_KEPT = 8


@dataclass(frozen=True)
class _Script:
    """The user's own loss, as importance asks a task for it."""

    loss_of: LossOf

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self.loss_of(output, target)


def _own_loss(output: Tensor, own: tuple[LossOf, Tensor]) -> Tensor:
    """The loss of a kept batch by what the script gave beside it."""
    loss_of, target = own
    return loss_of(output, target)


class ElasticFamily:
    """Made elastic at the first step, when a batch and the loss are there.

    Args:
        stage: of the trial.
        trial: whose folder receives the latency table and the points.
        opened: attentions of the script's network that were opened before, for `replace_modules`.
    """

    def __init__(self, stage: Stage, trial: Trial, opened: Mapping[str, str] | None = None) -> None:
        self.stage, self.trial, self.opened = stage, trial, dict(opened or {})
        self.task: Task = make_task(stage.task)
        self.net: Elastic | None = None
        # each with its own loss, which may know more of its batch: weights, what was mixed
        self.batches: deque[tuple[Tensor, tuple[LossOf, Tensor]]] = deque(maxlen=_KEPT)
        self._reused = False
        # who reads what a trial found asks its `steps` for the state
        self.steps = self

    def backward(
        self,
        loss_of: LossOf,
        x: Tensor,
        y: Tensor,
        scale: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The mean loss of this step's sub-networks; their gradients are in the parameters."""
        if self.net is None:
            with torch.autocast(x.device.type, enabled=False):
                self._begin(loss_of, x, y)
        self._remember(loss_of, x.detach(), y)
        return self.sandwich.backward(x, lambda output: loss_of(output, y), scale=scale)

    def _remember(self, loss_of: LossOf, x: Tensor, y: Tensor) -> None:
        """Keep a batch; a copy of it where the script puts every batch into the same memory."""
        # memory of a batch that is kept is given to no other one: it was written over
        places = {kept.data_ptr() for kept, _ in self.batches}
        if not self._reused and x.data_ptr() in places:
            self._reused = True
            self.batches.clear()
        if self._reused:
            x, y = x.clone(), y.clone() if isinstance(y, Tensor) else y
        self.batches.append((x, (loss_of, y)))

    def _begin(self, loss_of: LossOf, x: Tensor, y: Tensor) -> None:
        assert self.trial.folder is not None
        # an attempt trains anew: nothing says that it comes to the weights of the one before
        for name in _OF_WEIGHTS:
            (self.trial.folder / name).unlink(missing_ok=True)
        options, model = self.stage.options, self.stage.model
        script: Any = _Script(loss_of)
        self.net = elastic(model, x, batches=[(x, y)], task=script, depth=True)
        print(self.net, flush=True)
        clock = DeviceClock(
            self.stage.input_shape, x.device, batch=int(options["batch"]), runtime="eager"
        )
        # before the training: a budget out of reach must not cost one
        self.cost, _ = measured_cost(self.net, clock, self.trial.folder, self.trial.seed)
        least, whole = self.cost.of(self.net.smallest), self.cost.of(self.net.largest)
        points, target = int(options["points"]), float(options["target_latency"])
        if least > target * whole:
            raise LatencyError(
                f"search_algorithm.target_latency={target:g} is below the smallest sub-network, which takes "
                f"{least / whole:.2f} of the {whole:.3f} ms of yours; ask for more."
            )
        self.budgets = [whole * target ** (place / points) for place in range(1, points + 1)]
        self.sandwich = Sandwich(self.net, seed=self.trial.seed, task=self.task)

    def state(self) -> dict[str, Any]:
        """For `architecture.json`."""
        return {"moved": self.net is not None}

    def derive(self) -> str:
        """Choose a sub-network for each budget, leave them in the trial's folder, and name them.

        Raises:
            ConfigError: the script formed no gradient.
        """
        if self.net is None or self.trial.folder is None:
            raise ConfigError(
                "The elastic trial ended before autosearch.backward(loss_of, x, y) was called; call it in "
                "the place of loss_of(model(x), y).backward()."
            )
        kept = list(self.batches)
        archive = Archive(self.net, self.cost, self._judge, self.trial.folder / "judged.jsonl")
        chosen = choose(
            archive, self.budgets, kept, _own_loss, lambda network: -self._judge(network)[0],
            looks=int(self.stage.options["looks"]), examples=2 * sum(len(x) for x, _ in kept),
            seed=self.trial.seed,
        )  # fmt: skip
        whole_ms = self.cost.of(self.net.largest)
        found: dict[tuple[int, ...], dict[str, Any]] = {}
        for row in chosen.rows:
            key = tuple(row.choices.values())
            if key in found:
                continue
            number = len(found) + 1
            network = recalibrate(self.net.cut(row.choices), kept)
            content = {
                "kind": "point",
                "state": network.state_dict(),
                **described_point({"replaced": self.opened}, self.net.described(row.choices)),
            }
            save_checkpoint(self.trial.folder / f"point-{number}.pt", content)
            found[key] = {
                "value": f"{self.trial.trial_id}/{number}",
                "predicted_share": round(row.predicted_ms / whole_ms, 4),
                "found_by": row.by,
                "choices": row.choices,
            }
        return json.dumps(list(found.values()))

    @torch.no_grad()
    def _judge(self, network: nn.Module) -> tuple[float, float]:
        recalibrate(network, self.batches)
        # the batches serve again, and a network may write into its input
        losses = [float(_own_loss(network(x.clone()).float(), own)) for x, own in self.batches]
        mean = float(np.mean(losses))
        return mean, -mean
