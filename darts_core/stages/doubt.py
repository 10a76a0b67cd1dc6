"""What the guards of a search have against its architecture, as its files state it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["doubtful"]


def doubtful(content: Any) -> str:
    """The doubts in a search's `result.json`, or in the notes of its `architecture.yaml`; "" for none."""
    found = content.get("doubt") if isinstance(content, Mapping) else None
    doubts = found if isinstance(found, list) else []
    return " ".join(
        str(one["message"]) for one in doubts if isinstance(one, Mapping) and "message" in one
    )
