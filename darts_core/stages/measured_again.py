"""`bench` of a version's models: asked for again, it measures anew, whatever was measured there before.

Its figures age: the machine was busy, or a network was exported, pruned or shrunk since.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darts_core.stages.schema import BenchStage, Stage

__all__ = ["measured_again", "measured_so", "measures_version"]


def measures_version(config: Stage, *, multirun: bool = False) -> bool:
    """Whether a command times the models that lie in a version, which takes no training."""
    measures = isinstance(config, BenchStage) and config.what == "models" and config.model is None
    return measures and not multirun


def measured_so(known: Mapping[str, Any]) -> bool:
    """Whether the `bench` that a version records timed its models, too.

    Another comparison's results would be lost, and what is left of an interrupted one could not go on.
    """
    words = known.get("overrides")
    given = dict(str(text).lstrip("+").split("=", 1) for text in words or () if "=" in str(text))
    others = given.get("model", "null") != "null" or given.get("what", "models") != "models"
    return not known.get("multirun") and not others


@contextmanager
def measured_again(version: Path) -> Iterator[None]:
    """Let `bench/` be written anew; what it held comes back where that fails.

    After a kill it lies in `bench.before/` until the command is given again and succeeds.
    """
    place, before = version / "bench", version / "bench.before"
    if (place / "result.json").is_file():
        shutil.rmtree(before, ignore_errors=True)
        place.rename(before)
    shutil.rmtree(place, ignore_errors=True)  # of one that was killed
    try:
        yield
    except BaseException:
        if before.is_dir():
            shutil.rmtree(place, ignore_errors=True)
            before.rename(place)
        raise
    shutil.rmtree(before, ignore_errors=True)
