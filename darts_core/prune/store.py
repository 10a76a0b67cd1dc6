"""What a pruning gives, and the files that keep it: one network a round, then the report."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core import runlog
from darts_core.checkpoint import taking_over
from darts_core.errors import ResumeError
from darts_core.latency import Timing, speedup
from darts_core.train.save import load_model, save_model

__all__ = ["PruneResult", "Store", "named"]

log = logging.getLogger("darts_core")


@dataclass
class PruneResult:
    """The pruned network and how it came about.

    Attributes:
        model: the network, fine-tuned, in eval mode.
        replaced: cut places, for the meta of `save_model`.
        sizes: whole-number attributes of modules that follow from cut widths, for the same.
        before: time of the unpruned network, taken beside `after`.
        after: time of the pruned one, same device and batch.
        budget_ms: what was asked for.
        device_seconds: spent in fine-tuning.
        spent_seconds: of all that the pruning took, what came before an interruption included.
        note: why the result lies outside 0.85 to 1.05 of the budget; empty within.
        rounds: one row a round.
    """

    model: nn.Module
    before: Timing
    after: Timing
    budget_ms: float
    replaced: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    device_seconds: float = 0.0
    spent_seconds: float = 0.0
    note: str = ""
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def speedup(self) -> float:
        """Time before over time after."""
        return speedup(self.before, self.after)

    def report(self) -> dict[str, Any]:
        """Everything but the network, as plain data for pruning.json."""
        return {
            "schema_version": 1,
            "budget_ms": self.budget_ms,
            "latency_before_ms": self.before.median_ms,
            "latency_after_ms": self.after.median_ms,
            "speedup": self.speedup,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "params": sum(p.numel() for p in self.model.parameters()),
            "replaced": self.replaced,
            "rounds": self.rounds,
            "device_seconds": self.device_seconds,
            "spent_seconds": self.spent_seconds,
            "note": self.note,
        }


class Store:
    """The files of a pruning: one model a round, then pruning.json and model.pt.

    What a pruning takes is counted from here on.

    Args:
        folder: of the files; None keeps none.
        meta: what `save_model` needs of the unpruned network; None saves no network.
        given: names what is pruned and how far, as `named` does; empty: anything is gone on with.
    """

    def __init__(
        self, folder: str | Path | None, meta: Mapping[str, Any] | None, given: str = ""
    ) -> None:
        self.folder = Path(folder) if folder is not None else None
        self.meta = dict(meta) if meta is not None else None
        self.given = given
        self._began, self._earlier = time.perf_counter(), 0.0

    @property
    def spent_seconds(self) -> float:
        """What the pruning has taken so far, before an interruption and since."""
        return self._earlier + time.perf_counter() - self._began

    def _meta(self, result: PruneResult) -> dict[str, Any]:
        assert self.meta is not None
        build = dict(self.meta.get("build") or {})
        if build:
            build["auxiliary"] = False
        replaced = {**dict(self.meta.get("replaced") or {}), **result.replaced}
        sizes = {**dict(self.meta.get("sizes") or {}), **result.sizes}
        # a block whose heads an earlier round cut may be gone since
        sizes = {place: size for place, size in sizes.items() if _stands(result.model, place)}
        found = {**self.meta, "replaced": replaced, "sizes": sizes}
        return {**found, "build": build} if build else found

    def save(self, result: PruneResult, number: int) -> None:
        """Keep the network after round `number`."""
        if self.folder is None or self.meta is None:
            return
        state = {
            "number": number,
            "given": self.given,
            "replaced": result.replaced,
            "sizes": result.sizes,
            "rounds": runlog.plain(result.rounds),
            "device_seconds": result.device_seconds,
            "spent_seconds": self.spent_seconds,
        }
        save_model(self.folder / "round.pt", result.model, {**self._meta(result), "pruning": state})

    def resume(self, result: PruneResult, device: torch.device) -> int:
        """Take over the last finished round; the number of the next one.

        Its time is not taken over: it is of that sitting's device, and of that device's pace.

        Raises:
            ResumeError: the round is of another network or budget, or its file is damaged.
        """
        if self.folder is None or not (self.folder / "round.pt").exists():
            return 0
        model, meta = load_model(self.folder / "round.pt", device=device)
        with taking_over(self.folder / "round.pt"):
            state = meta["pruning"]
            if self.given and state.get("given", self.given) != self.given:
                raise ResumeError(
                    f"{self.folder / 'round.pt'} is of an unfinished pruning of another network, or to "
                    "another budget; name another folder, or remove the file to begin anew."
                )
            learns = {name: p.requires_grad for name, p in result.model.named_parameters()}
            for name, parameter in model.named_parameters():
                # a file does not tell what is frozen
                parameter.requires_grad_(learns.get(name, parameter.requires_grad))
            result.model = model
            result.replaced, result.rounds = dict(state["replaced"]), list(state["rounds"])
            result.sizes = dict(state.get("sizes") or {})
            result.device_seconds = float(state["device_seconds"])
            self._earlier = float(state.get("spent_seconds", result.device_seconds))
            log.info("resuming pruning behind round %d", state["number"] + 1)
            return int(state["number"]) + 1

    def finish(self, result: PruneResult) -> None:
        """Write the report and the network; drop the file of the last round."""
        result.spent_seconds = self.spent_seconds
        if self.folder is None:
            return
        runlog.write_json(self.folder / "pruning.json", result.report())
        if self.meta is not None:
            save_model(self.folder / "model.pt", result.model, self._meta(result))
        (self.folder / "round.pt").unlink(missing_ok=True)

    def finished(self, device: torch.device) -> PruneResult | None:
        """What a pruning that came to its end left in the folder; None where it did not.

        Whoever asks knows that it was one with the same settings.

        Raises:
            ResumeError: a file is damaged.
        """
        if self.folder is None or (self.folder / "round.pt").exists():
            return None
        told, saved = self.folder / "pruning.json", self.folder / "model.pt"
        if not (told.is_file() and saved.is_file()):
            return None
        model, meta = load_model(saved, device=device)
        found = runlog.read_mapping(told)
        with taking_over(told):
            seconds = float(found["device_seconds"])
            return PruneResult(
                model,
                Timing.from_dict(found["before"]),
                Timing.from_dict(found["after"]),
                float(found["budget_ms"]),
                dict(found["replaced"]),
                dict(meta.get("sizes") or {}),
                seconds,
                float(found.get("spent_seconds", seconds)),
                str(found.get("note", "")),
                list(found["rounds"]),
            )


def named(model: nn.Module, budget: Any) -> str:
    """Names a network by its weights, with the budget where that is a text or a number."""
    plain = str(budget) if isinstance(budget, (str, int, float)) else ""
    digest = hashlib.sha256(plain.encode())
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            flat = value.detach().cpu().to_dense().reshape(-1).contiguous()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _stands(model: nn.Module, place: str) -> bool:
    """Whether the network has the whole number of a module that `place` names."""
    owner, _, name = place.rpartition(".")
    try:
        return type(vars(model.get_submodule(owner)).get(name)) is int
    except AttributeError:
        return False
