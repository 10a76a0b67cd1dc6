"""What a policy search gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darts_core.study.budget import Spent

if TYPE_CHECKING:
    from darts_core.augment.policy import Policy

__all__ = ["PolicySearchResult"]


@dataclass(frozen=True)
class PolicySearchResult:
    """The policy found, where it was written (`augment=found augment.path=...`), and its cost.

    `history` has one row an epoch (gradient) or a trial (density).
    """

    policy: Policy
    path: Path
    method: str
    spent: Spent
    ended: str
    history: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        content = {"method": self.method, "spent": asdict(self.spent), "ended": self.ended}
        return {**content, "policy": self.policy.to_dict(), "history": self.history}
