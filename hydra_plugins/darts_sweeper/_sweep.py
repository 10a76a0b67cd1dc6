"""A sweep: space and settings from Hydra, workers through the configured launcher, the result."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf, open_dict

from darts_core.credentials import refuse_password
from darts_core.errors import TuneError
from darts_core.report.png_front import save_front
from darts_core.report.trials import read_trials
from darts_core.report.trials_front import trials_front
from darts_core.runlog import read_mapping, read_yaml
from darts_core.study.budget import Budget
from darts_core.study.engines import Elsewhere, run_trials
from darts_core.study.launch import RelaunchLimit, left, watching
from darts_core.study.ledger import Ledger
from darts_core.study.metric_names import less_is_better
from darts_core.study.records import StudyResult
from darts_core.study.resources import device_share
from darts_core.study.space import parse_space
from darts_core.study.spec import StudySpec, enqueued
from darts_core.study.study import announce, open_study, summarize
from darts_core.study.table import log_hparams, write_tables
from hydra_plugins.darts_ray_launcher._config import RAY_TARGET, cluster_of_launcher
from hydra_plugins.darts_slurm_launcher._config import SLURM_TARGET, queue_of_launcher
from hydra_plugins.darts_sweeper._described import describe
from hydra_plugins.darts_sweeper._groups import groups_chosen, sampler_and_pruner
from hydra_plugins.darts_sweeper._overrides import joined, split, with_numbers, words
from hydra_plugins.darts_sweeper._trial import HydraTrial, WorkerTask, device_in

__all__ = ["run_sweep"]

log = logging.getLogger("darts_core")

_BUDGET = (
    "trials",
    "epochs",
    "device_seconds",
    "trainings",
    "training_seconds",
    "epochs_per_trial",
)
# of our own commands; where it is swept, each trial has its own number
_EPOCHS = "train.epochs"
_FROM_APP = (*_BUDGET[:5], "workers", "enqueue", "warm_start")
# where neither the sweeper nor the app's node says anything
_USUAL: Mapping[str, Any] = {
    "metric": "val_accuracy",
    "max_failure_share": 0.5,
    "max_restarts": 3,
    "stale_seconds": 60.0,
}
_BASIC = "basic_launcher.BasicLauncher"
# launchers whose workers share this machine's devices; others are taken for clusters
_LOCAL = ("BasicLauncher", "JoblibLauncher", "LocalLauncher")


_ABSENT = object()


def run_sweep(
    settings: Mapping[str, Any],
    config: DictConfig | None,
    hydra_context: Any,
    task_function: Any,
    arguments: list[str],
) -> float:
    """See `DartsSweeper.sweep`."""
    assert config is not None
    plain = _settings(settings, config, hydra_context.config_loader)
    for name in ("storage", "warm_start", "artifacts"):
        refuse_password(plain.get(name), f"hydra.sweeper.{name}")
    fixed, space = split(arguments)
    space = joined(space, _yaml_space(plain.pop("space", None)))
    spec = _spec(plain, space, config)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    trial = HydraTrial.pack(task_function, config, hydra_context, fixed, tuple(spec.objectives))
    workers = plain["workers"]
    ledger = open_study(spec, warm_start=plain["warm_start"])
    # a version of our own commands is gone on with under the same settings alone
    describe(spec.folder, config, None if trial.reuse_process else spec.space)
    forecast = announce(ledger, workers)
    if ledger.unfinished():
        with _stoppable():
            _run(ledger, trial, workers, config, hydra_context, fixed)
    result = summarize(ledger, forecast)
    write_tables(result, spec.folder)
    _picture(result, spec.folder / "front.png")
    if plain["tensorboard"]:
        log_hparams(result, spec.folder)
    log.info("best settings: %s", words(result.best_params))
    log.info("the study is in %s (result.json, trials.csv, best.yaml)", spec.folder)
    return result.best_value


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends the sweep as Ctrl-C does; its trials can be gone on with."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("SIGTERM: finished trials and checkpoints are kept.")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _settings(
    settings: Mapping[str, Any], config: DictConfig, loader: ConfigLoader | None = None
) -> dict[str, Any]:
    """The sweeper's settings as plain values, with the app's `tune` node for those left null.

    Args:
        settings: the sweeper's node.
        config: of the app, with Hydra's node.
        loader: what composed it, asked which groups a file of the app chooses.

    Raises:
        TuneError: settings of the sweeper and of the node contradict each other, or one is not for sweeps.
    """
    node = OmegaConf.create(dict(settings))
    plain: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    node = OmegaConf.select(config, "tune")
    tune: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else {}
    _refuse_cluster(tune, str(OmegaConf.select(config, "hydra.launcher._target_")))
    _refuse_policy(tune)
    _take_from_app(plain, tune)
    workers = plain.get("workers")
    plain["workers"] = 1 if workers is None else int(workers)
    if plain["workers"] < 1:
        raise TuneError(f"hydra.sweeper.workers={workers} must be at least 1.")
    if plain.get("seed") is None:
        plain["seed"] = OmegaConf.select(config, "seed") or 0
    if plain.get("epochs_per_trial") is None:
        plain["epochs_per_trial"] = OmegaConf.select(config, _EPOCHS)
        plain["epochs_setting"] = _EPOCHS
    if all(plain.get(key) is None for key in _BUDGET[:4]):
        plain["trials"] = 20
    for key, value in _USUAL.items():
        if plain.get(key) is None:
            plain[key] = value
    if plain.get("direction") is None:
        plain["direction"] = _usual_direction(plain)
    return {**plain, **sampler_and_pruner(plain, tune, groups_chosen(config, loader))}


def _options(tune: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of what stands below `tune.options` of the app's node."""
    found = tune.get("options")
    return dict(found) if isinstance(found, Mapping) else {}


def _refuse_cluster(tune: Mapping[str, Any], launcher: str) -> None:
    """A cluster that the app's node names counts for the stage alone: workers run where the launcher says.

    Raises:
        TuneError: no launcher was chosen, so the trials would run here instead.
    """
    for name in ("ray", "slurm"):
        if _options(tune).get(name) is None:
            continue
        if launcher.endswith(_BASIC):
            raise TuneError(
                f"tune.options.{name} is read by a study without the sweeper; leave it out and give "
                f"hydra/launcher={name}, whose settings stand below hydra.launcher."
            )
        log.info(
            "the workers of this sweep run where hydra.launcher says (%s); tune.options.%s does not count",
            launcher,
            name,
        )


def _refuse_policy(tune: Mapping[str, Any]) -> None:
    """A search of a policy is no trial of a sweep, which trains the network once.

    Raises:
        TuneError: the app's node asks for one, and no trial would read it.
    """
    if tune.get("policy") in ("gradient", "density"):
        raise TuneError(
            f"tune.policy={tune['policy']} searches an augmentation policy by itself, and the trials of a "
            "sweep do not read it. Search it without -m, then sweep with what is found: augment=found "
            "augment.path=FILE."
        )


def _take_from_app(plain: dict[str, Any], tune: Mapping[str, Any]) -> None:
    """Fill in from the app's node what the sweeper's settings leave null."""
    options = _options(tune)
    metric = plain.get("metric")
    if metric is not None:
        # the sweeper is asked to judge by a metric of its own: what the app says of others is not meant
        options.pop("objectives", None)
        if metric != (options.get("metric") or _USUAL["metric"]):
            options.pop("direction", None)
    limited = any(plain.get(key) is not None for key in _BUDGET[:4])
    known = {key: tune.get(key) for key in _FROM_APP if not (limited and key in _BUDGET[:4])}
    given = {key: value for key, value in known.items() if value is not None}
    for key, value in {**options, **given}.items():
        if plain.get(key, _ABSENT) is None:
            plain[key] = value


def _usual_direction(plain: Mapping[str, Any]) -> str:
    """Which way is better of a metric of which nobody said so."""
    metric = str(plain["metric"])
    if not plain.get("objectives") and less_is_better(metric):
        raise TuneError(
            f"The sweep is judged by {metric}, and nothing says which way is better; give "
            "hydra.sweeper.direction=minimize (or maximize)."
        )
    return "maximize"


def _yaml_space(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    space = read_yaml(given) if isinstance(given, str) else given
    if not isinstance(space, Mapping):
        raise TuneError(
            f"hydra.sweeper.space={given!r} holds no mapping of settings to dimensions."
        )
    return {str(name): with_numbers(node) for name, node in space.items()}


def _picture(result: StudyResult, path: Path) -> None:
    """The first two objectives of a study against each other, where it has two."""
    content = result.to_dict()
    goals = [(name, way == "maximize") for name, way in result.objectives.items()]
    front = trials_front(read_trials(content["trials"]), goals)
    if front is not None:
        save_front([front], path)


def _spec(plain: Mapping[str, Any], space: Mapping[str, Any], config: DictConfig) -> StudySpec:
    if not space:
        raise TuneError(
            "Nothing is swept: give at least one setting several values, for example "
            "train.learning_rate=tag(log,interval(0.001,0.1)), or hydra.sweeper.space."
        )
    folder = Path(plain["folder"]).resolve()
    space = _as_begun(space, folder / "study.json")
    first = [
        {_full(str(name), space): value for name, value in entry.items()}
        for entry in enqueued(plain.get("enqueue") or ())
    ]
    own = _defaults(space, config) if plain["defaults_first"] else None
    length = [name for name in space if name.lstrip("+") == plain.get("epochs_setting")]
    options = ("sampler", "pruner", "seed", "metric", "direction", "objectives", "constraints")
    more = (
        "storage",
        "study_name",
        "artifacts",
        "max_failure_share",
        "max_restarts",
        "stale_seconds",
    )
    return StudySpec.make(
        space,
        Budget(**{key: plain.get(key) for key in _BUDGET}),
        folder=folder,
        enqueue=first,
        baseline=own,
        device_share=_share(plain["workers"], config),
        epochs_setting=length[0] if length else None,
        **{key: plain[key] for key in (*options, *more)},
    )


def _as_begun(space: Mapping[str, Any], description: Path) -> Mapping[str, Any]:
    """`space` with what an older program, which began the study here, read otherwise: rounding, `1e-4`."""
    begun = (read_mapping(description).get("space") or {}) if description.is_file() else {}
    return {name: _alike(node, begun.get(name)) for name, node in space.items()}


def _alike(node: Any, old: Any) -> Any:
    if not isinstance(old, Mapping):
        return node
    choices = node.get("choices") if isinstance(node, Mapping) else node
    if choices is not None and with_numbers(old.get("choices")) == choices:
        return {**(node if isinstance(node, Mapping) else {}), "choices": old["choices"]}
    if not isinstance(node, Mapping):
        return node
    ends = {key: old.get(key) for key in ("low", "high", "step")}
    pairs = [(node.get(key), value) for key, value in ends.items()]
    same = all(
        isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, abs_tol=1e-12)
        for a, b in pairs
    )
    return {**node, **ends} if same else node


def _share(workers: int, config: DictConfig) -> float:
    """The part of a device that a trial has; a cluster gives each its own processors and GPUs."""
    local = str(config.hydra.launcher._target_).endswith(_LOCAL)
    return device_share(workers, device=device_in(config)) if local else 1.0


def _full(name: str, space: Mapping[str, Any]) -> str:
    """The swept key that `name` means: `learning_rate` is `train.learning_rate` where that is swept."""
    ending = [key for key in space if key.endswith(f".{name}")]
    return ending[0] if name not in space and len(ending) == 1 else name


def _defaults(space: Mapping[str, Any], config: DictConfig) -> dict[str, Any] | None:
    """The configuration's own values of what is swept; None where it has none of them."""
    params: dict[str, Any] = {}
    # of a swept group (`augment=none,flip`) what was chosen, which is no longer to be seen in its node
    groups = OmegaConf.select(config, "hydra.runtime.choices") or {}
    for name, dimension in parse_space(space).items():
        key = name.lstrip("+")
        value = groups[key] if key in groups else OmegaConf.select(config, key, default=_ABSENT)
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
        if dimension.low is not None and not dimension.integer and isinstance(value, int):
            value = float(value)
        if value is not _ABSENT and dimension.active(params):
            params[name] = value
    return params or None


def _run(
    ledger: Ledger,
    trial: HydraTrial,
    workers: int,
    config: DictConfig,
    hydra_context: Any,
    fixed: list[str],
) -> None:
    target = str(config.hydra.launcher._target_)
    place: Elsewhere | None = None
    if target == RAY_TARGET:
        place = cluster_of_launcher(config.hydra.launcher)
    elif target == SLURM_TARGET:
        place = queue_of_launcher(config.hydra.launcher)
    elif not target.endswith(_BASIC):
        _through_launcher(ledger, trial, workers, config, hydra_context, fixed)
        return
    elif workers > 1:
        log.info("the basic launcher runs one job at a time, so the workers are local processes")
    run_trials(ledger, trial, workers, place, isolate=True)


def _through_launcher(
    ledger: Ledger,
    trial: HydraTrial,
    workers: int,
    config: DictConfig,
    hydra_context: Any,
    fixed: list[str],
) -> None:
    """Launch workers until the study is done; a broken pool is launched again, up to a limit."""
    _time_limit(config, ledger.spec.budget, workers)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra_context, task_function=WorkerTask(ledger.spec, trial), config=config
    )
    base = Path(str(config.hydra.sweep.dir)).resolve()
    folder = ledger.spec.folder
    place = folder.relative_to(base) if folder.is_relative_to(base) else Path("tune")
    limit = RelaunchLimit()
    while left(ledger):
        log.info("launching %d workers through %s", workers, config.hydra.launcher._target_)
        jobs = [[*fixed, f"hydra.sweep.subdir={place}/workers/{i}"] for i in range(workers)]
        how = "it left a trial unfinished"
        try:
            with watching(ledger):
                for done in launcher.launch(jobs, initial_job_idx=0):
                    done.return_value  # noqa: B018 - reading it raises what the worker raised
        except TuneError:
            raise
        except Exception as error:  # each launcher has its own kind for a dead worker
            how = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            log.warning("a worker died (%s); the workers are launched again", how)
        if ledger.unfinished():
            ended = sum(t.state.is_finished() for t in ledger.trials())
            limit.death(ended, how)


def _time_limit(config: DictConfig, budget: Budget, workers: int) -> None:
    """Set a cluster launcher's time limit from the budget: its own default is an hour."""
    if "timeout_min" not in config.hydra.launcher:
        return
    minutes = budget.worker_minutes(workers)
    if minutes is None:
        log.info(
            "the time limit of a worker stays at %s minutes: without training_seconds or "
            "device_seconds the sweep's length is unknown",
            config.hydra.launcher.timeout_min,
        )
        return
    with open_dict(config.hydra.launcher):
        config.hydra.launcher.timeout_min = minutes
    log.info("the time limit of a worker is %d minutes, from the budget", minutes)
