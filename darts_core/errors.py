"""Exceptions that end a command in one sentence (exit status 2), and how such sentences are made."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArchitectureError",
    "ConfigError",
    "DartsError",
    "DataError",
    "DeviceError",
    "ExportError",
    "JobError",
    "LatencyError",
    "MemoryShortageError",
    "NonFiniteLossError",
    "PruneError",
    "ResumeError",
    "TuneError",
    "nearest_names",
    "unknown_name",
]


class DartsError(Exception):
    """An expected failure: its text is a whole sentence naming the value, what is allowed, the remedy."""


class ConfigError(DartsError):
    """A setting is misspelt, of the wrong type, out of range, or contradicts another."""


class DataError(DartsError):
    """Data files are missing, damaged or do not fit the settings."""


class ArchitectureError(DartsError):
    """An architecture text or file is malformed or names something unknown."""


class DeviceError(DartsError):
    """The requested device is absent or unusable."""


class MemoryShortageError(DeviceError):
    """The device's memory is exhausted; the text states a batch size that fits."""


class NonFiniteLossError(DartsError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""


class ResumeError(DartsError):
    """A checkpoint or saved file belongs to another configuration or a newer program."""


class LatencyError(DartsError):
    """A timing is impossible or not comparable."""


class PruneError(DartsError):
    """A pruning budget cannot be met or a model cannot be pruned."""


class ExportError(DartsError):
    """A model cannot be exported, verified or loaded."""


class TuneError(DartsError):
    """A hyperparameter study is wrongly described or damaged."""


class JobError(DartsError):
    """A job command cannot be carried out."""


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` members of `known` that are spelt most like `name`, best first."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence for an unknown `name`: what was given, what is registered, what was likely meant."""
    names = sorted(known)
    close = nearest_names(name, names)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return f"Unknown {kind} {name!r}. Known: {', '.join(names) or 'none'}.{hint}"
