"""What a search may return: the architecture of every epoch, with what speaks against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from darts_core.architecture import Architecture
from darts_core.search.types import Doubt, Guard, GuardContext, told

__all__ = ["Candidate", "Record", "doubts_about"]


@dataclass
class Candidate:
    """The architecture after an epoch (counted from 0), and the doubts about it."""

    epoch: int
    architecture: Architecture
    doubts: list[Doubt] = field(default_factory=list)

    def add(self, doubt: Doubt) -> None:
        """Note a doubt, one a guard."""
        if all(known.guard != doubt.guard for known in self.doubts):
            self.doubts.append(doubt)


class Record:
    """The candidates of a search, epoch by epoch."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []

    def doubt_since(self, epoch: int, doubt: Doubt) -> None:
        """Doubt every candidate from `epoch` on."""
        for candidate in self.candidates:
            if candidate.epoch >= epoch:
                candidate.add(doubt)

    def good(self) -> Candidate | None:
        """The last candidate that no guard doubts."""
        return next((c for c in reversed(self.candidates) if not c.doubts), None)

    def choose(self, final: Candidate) -> Candidate:
        """What is returned: `final` if nothing speaks against it, else the last good one, else the
        least doubted of all, the later of two equals.
        """
        good = None if not final.doubts else self.good()
        if not final.doubts or good is not None:
            return good or final
        return min(
            [final, *reversed(self.candidates)], key=lambda c: sum(d.weight for d in c.doubts)
        )

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint."""
        return [
            {
                "epoch": c.epoch,
                "architecture": c.architecture.to_dict(),
                "doubts": [asdict(doubt) for doubt in c.doubts],
            }
            for c in self.candidates
        ]

    def load(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Restore `state`."""
        self.candidates = [
            Candidate(
                row["epoch"],
                Architecture.from_dict(row["architecture"]),
                [Doubt(**doubt) for doubt in row["doubts"]],
            )
            for row in state
        ]


def doubts_about(guards: Sequence[Guard], context: GuardContext) -> list[Doubt]:
    """What the guards have against the context's architecture.

    Raises:
        ConfigError: a guard gives something else than a doubt.
    """
    found = (told(guard, "doubt", guard.doubt(context), Doubt) for guard in guards)
    return [doubt for doubt in found if doubt is not None]
