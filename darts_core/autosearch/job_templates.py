"""The ready-made job files."""

from __future__ import annotations

from pathlib import Path

__all__ = ["described_templates", "job_templates"]


def job_templates() -> dict[str, str]:
    """Name -> text; the first line of each is a comment that describes it."""
    folder = Path(__file__).with_name("templates")
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}


def described_templates() -> list[dict[str, str]]:
    """Name and description of each."""
    return [
        {"name": name, "description": text.splitlines()[0].lstrip("# ")}
        for name, text in job_templates().items()
    ]
