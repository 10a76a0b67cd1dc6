"""From job files and run parameters to a plan: one search, or several in one of the multi-search modes."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core.autosearch.backbones import grammar
from darts_core.autosearch.catalogue import SUPERNETS
from darts_core.autosearch.command_line import check_command
from darts_core.autosearch.job_yaml import parse_files, setting_of
from darts_core.autosearch.space_yaml import code_dimension, dense_codes, own_value
from darts_core.autosearch.spec import Objective, SearchPlan, SearchSpec
from darts_core.errors import ConfigError, nearest_names
from darts_core.reading import is_number
from darts_core.study.space import SearchDimension

__all__ = ["build_plan"]

G1_SPACES = ("resnet18", "resnet34", "resnet50", "resnet101", "dense_fc", "dense_conv")


def _published_space(space: str, reward: str) -> SearchSpec:
    """The backbone space that the `search_space` run parameter names (pure NAS over its codes)."""
    if space not in G1_SPACES:
        raise ConfigError(
            f"Unknown run parameter search_space={space!r}; use one of {', '.join(G1_SPACES)}."
        )
    if space.startswith("dense"):
        values = dense_codes(random.Random(0), 11)
        return SearchSpec(
            "architecture",
            (code_dimension("code", values),),
            (Objective(reward),),
            "grid_search",
        )
    values = list(grammar.PUBLISHED_RESNET50)
    if space != "resnet50":
        rng = random.Random(0)
        values = [grammar.STANDARD[space], *(grammar.sample(rng) for _ in range(10))]
    baseline = {"code": grammar.STANDARD[space]}
    return SearchSpec(
        "architecture",
        (code_dimension("code", values),),
        (Objective(reward),),
        "grid_search",
        baseline=baseline,
    )


def _joint(steps: Sequence[SearchSpec]) -> SearchSpec:
    """All settings in one space, searched by the last file's algorithm."""
    last = steps[-1]
    dimensions = tuple(d for step in steps for d in step.dimensions)
    baseline = {key: value for step in steps for key, value in step.baseline.items()}
    return replace(last, name="joint", dimensions=dimensions, baseline=baseline)


def _of_one_script(steps: Sequence[SearchSpec]) -> list[SearchSpec]:
    """The steps with what their script prints and leaves, which a file that does not say it means too."""
    metrics = next((step.metrics for step in steps if step.metrics), ())
    model = next((step.model_file for step in steps if step.model_file), "")
    return [
        replace(step, metrics=step.metrics or metrics, model_file=step.model_file or model)
        for step in steps
    ]


def _refuse_supernets(steps: Sequence[SearchSpec], mode: str) -> None:
    """A supernet proposes one architecture, once: there is nothing to nest or to join."""
    for step in steps:
        if step.algorithm in SUPERNETS:
            raise ConfigError(
                f"{step.source}: {step.algorithm} cannot be part of a {mode} multi-search; use "
                "--multi serial, or another search_algorithm.type."
            )


def build_plan(
    files: Sequence[str | Path],
    *,
    arguments: Mapping[str, str] | None = None,
    mode: str | None = None,
    settings: Mapping[str, Any] | None = None,
    older: bool = False,
) -> SearchPlan:
    """The plan of a job from its files, run parameters and multi-search mode.

    Several files run in the order given (`serial`) unless `mode` says `nested` or `joint`. The older
    run parameters `multi_search`, `config_path` and `search_space` in `arguments` are understood: a
    backbone space alone is pure architecture search, with `multi_search=True` the file is tuned for each
    architecture. An argument with a searched setting's name is the user's own value of it. For `older` see
    `parse_file`.
    """
    arguments = dict(arguments or {})
    steps = parse_files(files, settings, older=older)
    published = arguments.get("search_space")
    multi = str(arguments.get("multi_search", "False")).lower() in ("true", "1", "yes")
    if multi and not steps:
        if "config_path" not in arguments:
            raise ConfigError("multi_search=True needs a job file; name it with --config.")
        steps = parse_files([arguments["config_path"]], settings, older=older)
    if published is not None:
        reward = steps[-1].objectives[0].metric if multi else "acc"
        space = _published_space(published, reward)
        if multi:
            space = replace(space, objectives=steps[-1].objectives, limits=steps[-1].limits)
            steps, mode = [space, *steps], mode or "nested"
        else:
            steps = [space, *steps]
    if not steps:
        raise ConfigError("A job needs a configuration; name a YAML file with --config.")
    steps = _of_one_script(steps)
    commands = {s.command for s in steps if s.command}
    if len(commands) > 1:
        raise ConfigError(
            "The job files name two different commands; give the same one, or only one."
        )
    for command in commands:
        # one script, one command line: a file without it means the same
        steps = [replace(s, arguments="template", command=command) for s in steps]
        zero_code = any(s.metrics for s in steps)
        settings_of_all = [d.name for s in steps for d in s.dimensions]
        # an architecture reaches a script through autosearch.searchable(), whatever its command says
        needed = [d.name for s in steps if zero_code and s.algorithm != "differentiable_search"
                  for d in s.dimensions]  # fmt: skip
        check_command(command, settings_of_all, arguments, needed=needed)
    told = _set_baselines(settings or {}, [d.name for s in steps for d in s.dimensions])
    steps = _with_own_values(steps, arguments, told, older=older)
    _check_own_values(steps)
    if len(steps) > 1 and mode in ("nested", "joint"):
        _refuse_supernets(steps, mode)
    if len(steps) > 1 and mode == "joint":
        return SearchPlan((_joint(steps),), "joint")
    if len(steps) == 1:
        return SearchPlan(tuple(steps), "single")
    return SearchPlan(tuple(steps), mode or "serial")


def _set_baselines(settings: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """Which of the settings `names` were given own values as fields: `general.baseline.lr`, in the native
    form `baseline.lr`, or the whole mapping.
    """
    found: set[str] = set()
    for field, value in settings.items():
        first, _, path = field.removeprefix("general.").partition(".")
        if first != "baseline":
            continue  # such as `space.baseline.low`, where a setting is called so
        if path:
            found.add(setting_of(path, names))
        elif isinstance(value, Mapping):
            found.update(value)
    return found


def _with_own_values(
    steps: Sequence[SearchSpec],
    arguments: Mapping[str, str],
    told: Collection[str],
    *,
    older: bool,
) -> list[SearchSpec]:
    """The steps with the user's own values from the command line, which count before those in a file.

    A baseline that was set there as a field (one of `told`) is the more explicit one. With `older` those
    in the file count first, and all are taken as they are written.
    """
    found = []
    space = {d.name: d for step in steps for d in step.dimensions}
    for step in steps:
        read = {
            d.name: _value(arguments[d.name]) if older else _meant(d, arguments[d.name])
            for d in step.dimensions
            if d.name in arguments
        }
        given = step.baseline
        if not older:
            given = {n: own_value(space[n], v) if n in space else v for n, v in given.items()}
        first = {n: value for n, value in given.items() if older or n in told}
        found.append(replace(step, baseline={**given, **read, **first}))
    return found


def _check_own_values(steps: Sequence[SearchSpec]) -> None:
    """Raise for a value of the user's own that no trial could use, or that belongs to no setting.

    It may lie outside the space: trial 0 is what the user has now.
    """
    dimensions = {d.name: d for step in steps for d in step.dimensions}
    for step in steps:
        for name, value in step.baseline.items():
            if name not in dimensions:
                near = nearest_names(name, dimensions)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                raise ConfigError(
                    f"{step.source}: general.baseline names {name!r}, which is no setting of the search "
                    f"({', '.join(dimensions)}){hint}"
                )
            if not dimensions[name].choices and not (is_number(value) and math.isfinite(value)):
                raise ConfigError(
                    f"Your own value {name}={str(value)[:80]!r} is no number, and the setting is a range of "
                    "numbers; give one with general.baseline, default or --arg."
                )


def _value(text: str) -> Any:
    """A command-line value as number, boolean or text."""
    for kind in (int, float):
        try:
            value: Any = kind(text)
            float(value)  # a whole number beyond floats is none, but infinite
        except (ValueError, OverflowError):
            continue
        return value
    return {"true": True, "false": False}.get(str(text).lower(), text)


def _meant(dimension: SearchDimension, text: str) -> Any:
    """The value of a setting that a command line writes as `text`: one of its choices, where it is that."""
    value, choices = _value(text), dimension.choices
    if dimension.near:  # codes are text, though some look like numbers
        return own_value(dimension, text)
    if not choices or dimension.contains(value):
        return own_value(dimension, value)
    for choice in choices:
        if text in (str(choice), json.dumps(choice)) or choice == value:
            return choice
    return text if all(isinstance(c, str) for c in choices) else own_value(dimension, value)
