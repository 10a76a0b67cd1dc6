"""The four-part job file: general, search_space, search_algorithm, scheduler; the other forms become it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.autosearch.catalogue import (
    ALGORITHM_ALIASES,
    ALGORITHMS,
    SCHEDULER_ALIASES,
    SCHEDULERS,
    SUPERNETS,
    Plugin,
)
from darts_core.autosearch.command_line import read_arguments
from darts_core.autosearch.metrics_yaml import metric_name, output_file, parse_metrics
from darts_core.autosearch.space_yaml import parse_space
from darts_core.autosearch.spec import Limits, Objective, SearchSpec
from darts_core.autosearch.yaml_lines import Located
from darts_core.study.space import SearchDimension

__all__ = ["parse_four_parts", "read_options"]

_TOP = ("general", "search_space", "search_algorithm", "scheduler", "max_iterations", "name")
_GENERAL = (
    "gpu_per_instance", "instance_per_trial", "cpu_per_instance", "max_iterations", "baseline", "metrics",
    "trial_minutes", "trial_memory_mib", "max_retries", "budget_trainings", "budget_minutes",
    "confirm_seeds", "grace_seconds", "arguments", "command",
    "model_file",
)  # fmt: skip
_ALGORITHM = (
    "type", "reward_attr", "mode", "num_samples", "max_concurrent", "save_model_count", "seed",
    "objectives", "tolerance", "chance",
)  # fmt: skip
_MODE = ("max", "min")
MAX_GRID = MAX_TRIALS = 100_000
MAX_SEED = 2**32 - 1  # what numpy takes


def read_options(
    node: Located | None, plugin: Plugin, ignore: Sequence[str] = (), *, older: bool = False
) -> dict[str, Any]:
    """The options of an algorithm or scheduler, checked, with defaults for the absent ones.

    With `older` whole numbers have no upper limit.
    """
    options = plugin.defaults()
    for key, item in node.mapping().items() if node is not None else ():
        if key in ignore or item.value is None:
            continue
        if key not in plugin.options:
            item.fail(
                f"{plugin.name} has no such option",
                f"it knows {', '.join([*plugin.options, *ignore])}",
            )
        option = plugin.options[key]
        if isinstance(option.default, str):
            options[key] = item.text(option.allowed or None)
        elif isinstance(option.default, int) or option.default is None:
            whole = (
                int(option.low)
                if option.low is not None and option.low == int(option.low)
                else None
            )
            fractional = option.low is not None and whole is None
            most = None if older or option.high is None else int(option.high)
            options[key] = (
                item.number(option.low, option.high) if fractional else item.integer(whole, most)
            )
        else:
            options[key] = item.number(option.low, option.high)
    return options


def _named(node: Located, aliases: Mapping[str, str], known: Mapping[str, Plugin]) -> Plugin:
    name = node.text()
    name = aliases.get(name, name)
    if name not in known:
        node.text((*known, *aliases))
    return known[name]


def _objectives(node: Located, *, older: bool) -> tuple[Objective, ...]:
    """`objectives: [{metric, mode, tolerance}]`, or `reward_attr` with `mode`."""
    several = node.get("objectives")
    if several is None:
        return (_objective(node, "reward_attr", "name the reported metric to optimise"),)
    for key in ("reward_attr", "mode", "tolerance", "chance"):
        alone = node.get(key)
        if alone is not None:
            alone.refuse(
                "objectives are given too, so it would not count",
                "write it into one of them",
                older=older,
            )
    result = []
    for item in several.items():
        item.check_keys(("metric", "mode", "tolerance", "chance"))
        result.append(_objective(item, "metric", "name a reported metric"))
    if not 1 <= len(result) <= 4:
        several.fail(f"{len(result)} objectives", "give one to four")
    if len({o.metric for o in result}) < len(result):
        several.fail("a metric stands twice", "name each metric once")
    return tuple(result)


def _objective(node: Located, name: str, remedy: str) -> Objective:
    """One objective; `name` is the field of its metric."""
    mode, tolerance, chance = (node.get(key) for key in ("mode", "tolerance", "chance"))
    return Objective(
        metric_name(node.need(name, remedy)),
        mode.text(_MODE) if mode else "max",
        tolerance.number(0) if tolerance else 0.0,
        chance.number(0, 100) if chance else None,
    )


def _optional(node: Located | None, key: str) -> Located | None:
    return node.get(key) if node is not None else None


def _limits(general: Located | None) -> Limits:
    def number(key: str, low: float) -> float | None:
        item = _optional(general, key)
        return item.number(low) if item is not None else None

    minutes, budget = number("trial_minutes", 0.001), number("budget_minutes", 0.001)
    retries, grace = number("max_retries", 0), number("grace_seconds", 0.1)
    return Limits(
        trial_seconds=minutes * 60 if minutes else None,
        trial_memory_mib=number("trial_memory_mib", 16),
        trainings=number("budget_trainings", 1),
        seconds=budget * 60 if budget else None,
        retries=int(retries or 0),
        grace_seconds=grace or Limits.grace_seconds,
    )


def _baseline(general: Located | None, from_space: dict[str, Any]) -> dict[str, Any]:
    node = _optional(general, "baseline")
    if node is None:
        return from_space
    return {**from_space, **{key: item.plain() for key, item in node.mapping().items()}}


def _scheduler(node: Located | None, *, older: bool) -> tuple[str, dict[str, Any]]:
    """Name and options of the scheduler; without the part, none."""
    if node is None:
        return "FIFOScheduler", {}
    kind = node.need("type", "name a scheduler, FIFOScheduler for none")
    plugin = _named(kind, SCHEDULER_ALIASES, SCHEDULERS)
    return plugin.name, read_options(node, plugin, ("type",), older=older)


def _check_grid(kind: Located, dimensions: Sequence[SearchDimension]) -> None:
    """A grid needs settings with a number of values each, and not too many combinations."""
    points = 1
    for dimension in dimensions:
        if dimension.size is None:
            kind.fail(
                f"the setting {dimension.name!r} is continuous",
                "give it num (a number of points), or use random_search or tpe_search",
            )
        points *= dimension.size
    if points > MAX_GRID:
        kind.fail(f"{points} combinations", f"leave at most {MAX_GRID}, or use random_search")


def _start_points(
    options: dict[str, Any], node: Located, samples: int, objectives: Sequence[Objective]
) -> None:
    """Defaults that depend on other fields."""
    if "kind" in options and node.get("kind") is None and len(objectives) > 1:
        options["kind"] = "ei"  # the one kind that handles several objectives
    if "n_initial_points" in options and node.get("n_initial_points") is None:
        # a quarter of the trials at most: start points are random search
        options["n_initial_points"] = max(1, min(options["n_initial_points"], samples // 4))


def _confirm_seeds(general: Located | None, algorithm: str) -> int:
    node = _optional(general, "confirm_seeds")
    if algorithm != "elastic_search":
        return int(node.integer(0, MAX_TRIALS)) if node is not None else 3
    if node is not None and node.integer(0, MAX_TRIALS):
        node.fail(
            "the parameters are those of the one elastic training, which fresh seeds do not repeat",
            "leave it out, and start versions of other seeds",
        )
    return 0


def _iterations(root: Located, general: Located | None, *, older: bool) -> int | None:
    """Iterations of a trial, which stand at the top or in `general`."""
    top, inner = root.get("max_iterations"), _optional(general, "max_iterations")
    if top is not None and inner is not None and inner.value != top.value:
        inner.refuse(f"max_iterations: {top.value} at the top counts", "keep one", older=older)
    found = top or inner
    return found.integer(1) if found is not None else None


def _name(node: Located | None, otherwise: str, *, older: bool) -> str:
    """The name of the search, which that of a folder holds."""
    if node is None:
        return otherwise
    text = node.text()
    if len(text) > 100 or not text.strip(". ") or not {"/", "\\", "\0"}.isdisjoint(text):
        node.refuse(
            "no name for a folder", "use up to 100 characters without / and \\", older=older
        )
    return text


def _model_file(general: Located | None, *, older: bool) -> str:
    """The file in a trial's output folder that a script leaves as its model."""
    item, metrics = _optional(general, "model_file"), _optional(general, "metrics")
    if item is None:
        return ""
    # the native form has an empty list
    if metrics is None or not metrics.value:
        item.refuse(
            "a script that imports autosearch names its own",
            "give report(model_path=...)",
            older=older and metrics is not None,
        )
    path = output_file(item)
    if path is None:
        item.fail("not a file in the trial's output folder", "name it relative to that: model.pt")
    return str(path)


def parse_four_parts(root: Located, name: str, *, older: bool = False) -> SearchSpec:
    """One search from the four-part form; see `parse_file`."""
    root.check_keys(_TOP)
    general = root.get("general")
    if general is not None:
        general.check_keys(_GENERAL)
        instances = general.get("instance_per_trial")
        if instances is not None and instances.integer(1) != 1:
            instances.fail("a trial runs on one machine", "use 1")
    node = root.need("search_algorithm", "add search_algorithm with type and reward_attr")
    algorithm = _named(node.need("type", "name an algorithm"), ALGORITHM_ALIASES, ALGORITHMS)
    objectives = _objectives(node, older=older)
    if algorithm.objectives is not None and len(objectives) > algorithm.objectives:
        node.fail(
            f"{algorithm.name} handles one objective",
            "use tpe_search, random_search or grid_search",
        )
    supernet = algorithm.name in SUPERNETS
    space = root.get("search_space")
    if space is None and not supernet:
        root.need("search_space", "list what may vary")
    options = read_options(node, algorithm, _ALGORITHM, older=older)
    if space is not None:
        dimensions, from_space = parse_space(space, older=older)
    else:
        # the searched setting is known to every trial; its values come from the supernet
        dimensions = (SearchDimension(options["setting"], choices=(options.get("base", "whole"),)),)
        from_space = {options["setting"]: "whole"} if algorithm.name == "elastic_search" else {}
    if algorithm.name == "grid_search":
        _check_grid(node.need("type", ""), dimensions)
    scheduler, scheduler_options = _scheduler(root.get("scheduler"), older=older)

    def whole(
        parent: Located | None, key: str, low: int, default: Any, high: int | None = MAX_TRIALS
    ) -> Any:
        item = _optional(parent, key)
        return item.integer(low, high) if item is not None else default

    samples = whole(node, "num_samples", 1, 20)
    _start_points(options, node, samples, objectives)
    arguments, command = read_arguments(general)
    return SearchSpec(
        name=_name(root.get("name"), name, older=older),
        dimensions=dimensions,
        objectives=objectives,
        algorithm=algorithm.name,
        algorithm_options=options,
        scheduler=scheduler,
        scheduler_options=scheduler_options,
        num_samples=samples,
        max_concurrent=whole(node, "max_concurrent", 1, 1),
        save_model_count=whole(node, "save_model_count", 1, None),
        seed=whole(node, "seed", 0, 1, MAX_SEED),
        max_iterations=_iterations(root, general, older=older),
        baseline=_baseline(general, from_space),
        metrics=parse_metrics(_optional(general, "metrics")),
        arguments=arguments,
        command=command,
        model_file=_model_file(general, older=older),
        limits=_limits(general),
        confirm_seeds=_confirm_seeds(general, algorithm.name),
        cpu_per_trial=whole(general, "cpu_per_instance", 1, 1),
        gpu_per_trial=whole(general, "gpu_per_instance", 0, 0),
        source=root.file,
    )
