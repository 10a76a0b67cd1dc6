"""The older job file: everything under `trainingInput`, with `hyperparameters` and `params`."""

from __future__ import annotations

from typing import Any

from darts_core.autosearch.catalogue import ALGORITHMS, SCHEDULERS
from darts_core.autosearch.command_line import read_arguments
from darts_core.autosearch.metrics_yaml import metric_name
from darts_core.autosearch.spec import Objective, SearchSpec
from darts_core.autosearch.yaml_lines import Located
from darts_core.study.space import SearchDimension

__all__ = ["parse_training_input"]

_FIELDS = (
    "enableTrialEarlyStopping", "searchAlgorithm", "searchAlgorithmMetric", "searchAlgorithmMode",
    "scheduler", "schedulerMetric", "schedulerMode", "maxTrials", "maxParallelTrials", "cpuPerTrial",
    "gpuPerTrial", "maxIterations", "params",
)  # fmt: skip
_PARAM = ("parameterName", "type", "scaleType", "minValue", "maxValue", "priorBestValue")
MAX_WHOLE = 100_000_000
_FLOATS = ("DOUBLE", "FLOAT", "double", "float")
_INTEGERS = ("INT", "INTEGER", "int", "integer")
# only DEFAULT is documented; the other two are ours
_SCALES = ("DEFAULT", "LINEAR", "LOG")


def _dimension(item: Located) -> tuple[SearchDimension, Any]:
    item.check_keys(_PARAM)
    name = item.need("parameterName", "name the parameter").text()
    kind = item.need("type", "use DOUBLE or INT").text((*_FLOATS, *_INTEGERS))
    scale = item.get("scaleType")
    log = scale is not None and scale.text(_SCALES) == "LOG"
    low = item.need("minValue", "give the lower bound").number()
    high_node = item.need("maxValue", "give the upper bound")
    high = high_node.number()
    if low >= high:
        high_node.fail(f"not above minValue {low:g}", "raise it")
    if log and low <= 0:
        item.fail("a LOG scale needs minValue above 0", "raise it or use DEFAULT")
    prior = item.get("priorBestValue")
    if kind in _INTEGERS:
        bounds = item.mapping()
        low, high = bounds["minValue"].integer(), bounds["maxValue"].integer()
        return SearchDimension(
            name, low=low, high=high, log=log, integer=True
        ), prior.integer() if prior else None
    dimension = SearchDimension(name, low=float(low), high=float(high), log=log)
    return dimension, float(prior.number()) if prior else None


def _objective(node: Located) -> Objective:
    """The metric; algorithm and scheduler have to agree on it."""
    algorithm = node.get("searchAlgorithm")
    if algorithm is not None:
        algorithm.text(("hyperopt",))
    scheduler_node = node.get("scheduler")
    if scheduler_node is not None:
        scheduler_node.text(("async_hyperband",))
    metric = metric_name(node.need("searchAlgorithmMetric", "name the reported metric"))
    mode_node = node.get("searchAlgorithmMode")
    mode = mode_node.text(("max", "min")) if mode_node else "max"
    for key, wanted in (("schedulerMetric", metric), ("schedulerMode", mode)):
        other = node.get(key)
        if other is not None and other.text() != wanted:
            other.fail(f"differs from the algorithm's {wanted!r}", "use the same")
    return Objective(metric, mode)


def _whole(node: Located, key: str, default: Any, low: int = 1) -> Any:
    item = node.get(key)
    return item.integer(low, MAX_WHOLE) if item is not None else default


def parse_training_input(root: Located, name: str) -> SearchSpec:
    """One search from the older form.

    `hyperopt` becomes TPE, `async_hyperband` the scheduler of that name when
    `enableTrialEarlyStopping` is true, `priorBestValue` the user's own value, `verbose` what the job's
    log holds (0 warnings, 1 the ends of trials too, 2 every iteration too).
    """
    root.check_keys(("trainingInput",))
    top = root.need("trainingInput", "put hyperparameters under it")
    top.check_keys(("verbose", "hyperparameters", "arguments", "command"))
    arguments, command = read_arguments(top)
    verbose = top.get("verbose")
    level = verbose.integer(0, 2) if verbose is not None else 1
    node = top.need("hyperparameters", "add the search's fields")
    node.check_keys(_FIELDS)
    objective = _objective(node)
    early = node.get("enableTrialEarlyStopping")
    scheduler = "async_hyperband" if early is not None and early.boolean() else "FIFOScheduler"
    dimensions: list[SearchDimension] = []
    baseline: dict[str, Any] = {}
    params = node.need("params", "list the parameters")
    for item in params.items():
        dimension, prior = _dimension(item)
        if any(d.name == dimension.name for d in dimensions):
            item.fail(f"the parameter {dimension.name!r} stands twice", "keep one of them")
        dimensions.append(dimension)
        if prior is not None:
            baseline[dimension.name] = prior
    if not dimensions:
        params.fail("no parameters", "list at least one")
    trials = _whole(node, "maxTrials", 20)
    options = ALGORITHMS["tpe_search"].defaults()
    options["n_initial_points"] = max(1, min(options["n_initial_points"], trials // 4))
    return SearchSpec(
        name=name,
        dimensions=tuple(dimensions),
        objectives=(objective,),
        algorithm="tpe_search",
        algorithm_options=options,
        scheduler=scheduler,
        scheduler_options=SCHEDULERS[scheduler].defaults(),
        num_samples=trials,
        max_concurrent=_whole(node, "maxParallelTrials", 1),
        max_iterations=_whole(node, "maxIterations", None),
        baseline=baseline,
        cpu_per_trial=_whole(node, "cpuPerTrial", 1),
        gpu_per_trial=_whole(node, "gpuPerTrial", 0, 0),
        arguments=arguments,
        command=command,
        verbose=level,
        source=root.file,
    )
