"""Policy search by gradient: Adam on a relaxed policy, checkpointed each epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from darts_core.errors import NonFiniteLossError, TuneError
from darts_core.runlog import config_hash
from darts_core.study.augment_result import PolicySearchResult
from darts_core.study.budget import Budget, Spent

__all__ = ["gradient_search"]

log = logging.getLogger("darts_core")


def gradient_search(
    objective: Callable[..., Any],
    folder: Path,
    budget: Budget,
    space: Mapping[str, Any],
    *,
    steps_per_epoch: int = 100,
    learning_rate: float = 0.02,
    temperature: float = 0.5,
    keep: int = 25,
    device: str = "cpu",
) -> PolicySearchResult:
    """See `search_policy`, which checks the method; `space` holds operations, ranges, length, seed."""
    import torch

    from darts_core.augment.relaxed import RelaxedPolicy

    if budget.epochs is None and budget.seconds_limit is None:
        raise TuneError(
            "A gradient policy search has no trials; give its budget in epochs, device_seconds or "
            "trainings."
        )
    if steps_per_epoch < 1:
        raise TuneError(f"steps_per_epoch={steps_per_epoch} must be at least 1.")
    policy = RelaxedPolicy(
        space["operations"],
        length=space["length"],
        ranges=space["ranges"],
        temperature=temperature,
        generator=torch.Generator().manual_seed(space["seed"]),
    ).to(device)
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate, betas=(0.5, 0.999))
    settings = {**space, "steps_per_epoch": steps_per_epoch, "learning_rate": learning_rate}
    state = _GradientState(
        folder / "policy.pt", config_hash({**settings, "temperature": temperature})
    )
    spent, history = state.load(policy, optimizer, objective)
    while (ended := budget.exhausted(spent)) is None:
        started, losses = time.perf_counter(), []
        for step in range(spent.epochs * steps_per_epoch, (spent.epochs + 1) * steps_per_epoch):
            losses.append(_gradient_step(objective, policy, optimizer, step))
            seconds = time.perf_counter() - started
            # seconds may run out within an epoch, which is then the last one; another step must fit
            ahead = seconds + seconds / len(losses)
            if budget.exhausted(replace(spent, device_seconds=spent.device_seconds + ahead)):
                break
        spent = Spent(0, spent.epochs + 1, spent.device_seconds + seconds)
        row: dict[str, Any] = {"epoch": spent.epochs, "loss": sum(losses) / len(losses)}
        row |= {"steps": len(losses), "seconds": seconds}
        row |= {"probabilities": policy.probabilities(), "magnitudes": policy.magnitudes()}
        history.append(row)
        state.save(policy, optimizer, objective, spent, history)
        log.info("policy search epoch %d: loss %.4g", spent.epochs, row["loss"])
        if len(losses) < steps_per_epoch:
            ended = f"the budget of {budget.seconds_limit:.1f} device-seconds is spent"
            break
    found = policy.discretize(keep)
    return PolicySearchResult(found, folder / "policy.yaml", "gradient", spent, ended, history)


def _gradient_step(objective: Callable[..., Any], policy: Any, optimizer: Any, step: int) -> float:
    loss = policy.loss(objective(policy, step))
    # one transfer a step; the number is needed for the log anyway
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NonFiniteLossError(
            f"The objective of the policy search became {value} at step {step}; lower its learning "
            "rate. The state of the last epoch is kept."
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    after_step = getattr(objective, "after_step", None)
    if after_step is not None:
        after_step()
    return value


class _GradientState:
    """The checkpoint of a gradient search: policy, optimizer, draws, objective, cost, history."""

    def __init__(self, path: Path, settings: str) -> None:
        self.path, self.settings = path, settings

    def save(
        self,
        policy: Any,
        optimizer: Any,
        objective: Any,
        spent: Spent,
        history: list[dict[str, Any]],
    ) -> None:
        from darts_core.checkpoint import save_checkpoint

        content = {"settings": self.settings, "policy": policy.state_dict()}
        content |= {"optimizer": optimizer.state_dict(), "draws": policy.generator.get_state()}
        content |= {"spent": asdict(spent), "history": history}
        if hasattr(objective, "state_dict"):
            content["objective"] = objective.state_dict()
        save_checkpoint(self.path, content)

    def load(
        self, policy: Any, optimizer: Any, objective: Any
    ) -> tuple[Spent, list[dict[str, Any]]]:
        from darts_core.checkpoint import load_checkpoint, taking_over

        if not self.path.is_file():
            return Spent(), []
        content = load_checkpoint(self.path)
        if content.get("settings") != self.settings:
            raise TuneError(
                f"{self.path} belongs to a policy search with other settings; use another folder, or "
                "move the file away to start afresh."
            )
        with taking_over(self.path):
            policy.load_state_dict(content["policy"])
            optimizer.load_state_dict(content["optimizer"])
            policy.generator.set_state(content["draws"])
            if hasattr(objective, "load_state_dict") and "objective" in content:
                objective.load_state_dict(content["objective"])
            log.info("policy search: goes on after epoch %d", content["spent"]["epochs"])
            return Spent(**content["spent"]), list(content["history"])
