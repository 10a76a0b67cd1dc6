"""Which sampler and which pruner a sweep takes: of its own groups, or of the app's node `tune`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from darts_core.errors import TuneError
from darts_core.study.samplers import check_named

__all__ = ["groups_chosen", "sampler_and_pruner"]


def groups_chosen(config: DictConfig, loader: ConfigLoader | None) -> set[str]:
    """The groups that somebody has chosen, among the typed overrides or in a defaults list of the app.

    Args:
        config: of the app, with Hydra's node.
        loader: what composed it; None: what is typed alone counts.
    """
    typed = list(OmegaConf.select(config, "hydra.overrides.hydra") or ())
    found = {text.lstrip("+").partition("=")[0] for text in typed}
    if loader is not None:
        # the option that was taken does not tell: one that a file names may be the usual one
        name = OmegaConf.select(config, "hydra.job.config_name")
        own = list(OmegaConf.select(config, "hydra.overrides.task") or ())
        listed = loader.compute_defaults_list(name, [*typed, *own], RunMode.MULTIRUN)
        found.update(listed.overrides.override_metadata)
    return found


def sampler_and_pruner(
    plain: Mapping[str, Any], tune: Mapping[str, Any], groups: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The sampler and the pruner, each as a mapping with its name and the options that are given.

    Args:
        plain: the sweeper's settings.
        tune: the app's node.
        groups: those that somebody has chosen.

    Raises:
        TuneError: an option of the usual one is given, where the app names another.
    """
    return {
        kind: _chosen(
            kind,
            plain.get(kind) or usual,
            tune.get(kind),
            usual,
            named=f"hydra/sweeper/{kind}" in groups,
        )
        for kind, usual in (("sampler", "tpe"), ("pruner", "default"))
    }


def _chosen(kind: str, given: Any, of_app: Any, usual: str, *, named: bool) -> dict[str, Any]:
    """The sampler or pruner: the group's default, if not `named`, gives way to what the app's node names."""
    own = _named(given)
    if own.get("name") != usual or of_app is None:
        return own
    check_named(kind, of_app)
    other = _named(of_app)
    if other.get("name") == usual:
        return {**other, **own}
    if named:
        return own
    options = [f"hydra.sweeper.{kind}.{key}" for key in own if key != "name"]
    if options:
        raise TuneError(
            f"{options[0]} is an option of {usual}, but tune.{kind} names {other.get('name')}; choose it by "
            f"hydra/sweeper/{kind}=, or leave one of the two out."
        )
    return other


def _named(given: Any) -> dict[str, Any]:
    """A name, or a mapping with `name` and options, as the options that are given."""
    entry = {"name": given} if isinstance(given, str) else dict(given)
    return {k: v for k, v in entry.items() if v is not None and k != "description"}
