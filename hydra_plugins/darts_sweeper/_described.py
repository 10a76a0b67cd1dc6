"""The configuration that a sweep leaves in its folder, and what has changed in it since its trials began."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from darts_core.errors import DartsError
from darts_core.runlog import environment, read_yaml, write_json, write_yaml

__all__ = ["describe"]

log = logging.getLogger("darts_core")

# the app's own node of studies: a budget may grow while a study goes on
_OF_STUDIES = "tune"


def describe(folder: Path, config: DictConfig, swept: Iterable[str] | None) -> None:
    """Write what every stage leaves in its folder: the configuration and the environment.

    A study that goes on is told of by a warning where settings that are not swept have changed.

    Args:
        folder: of the study.
        config: of the app, with Hydra's node.
        swept: the keys that the trials vary; None: what has changed is looked at elsewhere.
    """
    path = folder / "config.yaml"
    before = _leaves(path)
    plain: Any = OmegaConf.to_container(config, resolve=False)
    plain.pop("hydra", None)
    write_yaml(path, plain)
    write_json(folder / "environment.json", environment())
    if swept is None or not before:
        return
    own = [_OF_STUDIES, *(name.lstrip("+").replace("/", ".") for name in swept)]
    now = _leaves(path)
    changed = [
        key
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
        and not any(key == name or key.startswith(f"{name}.") for name in own)
    ]
    if changed:
        log.warning(
            "the sweep in %s goes on with another %s than its trials so far had, whose values may not "
            "compare with the new ones; give another hydra.sweep.dir= for a sweep of its own",
            folder,
            ", ".join(changed),
        )


def _leaves(path: Path) -> dict[str, str]:
    """Each setting of a configuration's file as text, by its dotted key; none where it cannot be read."""
    with contextlib.suppress(DartsError):
        return dict(_flat(read_yaml(path), "")) if path.is_file() else {}
    return {}


def _flat(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, repr(node)  # NaN, too, is like itself then
