"""`autosearch.run(train, config)`: a whole search from Python."""

from __future__ import annotations

import inspect
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.autosearch.contract import TRIAL_VARIABLE
from darts_core.autosearch.curves import trial_curves
from darts_core.errors import ConfigError, DartsError, JobError
from darts_core.report.notebook import notebook_html
from darts_core.report.watching import watching
from darts_core.runlog import read_json, write_yaml
from darts_core.store.jobs import Store

__all__ = ["SearchResult", "run"]


@dataclass(frozen=True)
class SearchResult:
    """The outcome of `run`; `summary` holds front, gain and cost in full."""

    best_config: dict[str, Any]
    best_values: dict[str, float]
    verdict: str
    summary: dict[str, Any]
    trials: list[dict[str, Any]]
    folder: Path

    def _repr_html_(self) -> str | None:
        try:
            return notebook_html(self.folder, curves=trial_curves)
        except DartsError:  # deleted since, or unpickled where it is not
            return None  # a cell shows the fields; an empty piece of HTML would hide them


def _source(function: Callable[..., Any]) -> tuple[Path, str]:
    """The file of a module-level function and its name."""
    try:
        path = Path(inspect.getsourcefile(function) or "")
    except TypeError:
        path = Path()
    name = getattr(function, "__qualname__", "?")
    if not path.is_file() or not name.isidentifier() or inspect.signature(function).parameters:
        raise ConfigError(
            f"{name} cannot run in a process of its own; pass a function without arguments that is "
            "defined at the top level of a .py file."
        )
    return path.resolve(), name


def _evaluation(evaluate: Callable[..., Any], train: Callable[..., Any]) -> str:
    """The name of `evaluate` in the module of `train`, where a trial looks for it."""
    path, name = _source(evaluate)
    seen = getattr(inspect.unwrap(train), "__globals__", {})
    if path != _source(train)[0] and seen.get(name) is not evaluate:
        raise ConfigError(
            f"evaluate={name} is not found in the file of {train.__name__}, where a trial looks for it; "
            "define or import it there under that name."
        )
    return name


def _files(config: Any, scratch: Path) -> tuple[str, ...]:
    """The job files: those named, and mappings written into `scratch`."""
    single = isinstance(config, (str, Path, Mapping))
    paths = []
    for index, item in enumerate([config] if single else list(config)):
        if isinstance(item, Mapping):
            paths.append(str(scratch / f"config{index + 1}.yaml"))
            write_yaml(paths[-1], dict(item))
        else:
            paths.append(str(item))
    return tuple(paths)


def run(
    train: Callable[[], Any],
    config: str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]],
    *,
    evaluate: Callable[[], Any] | None = None,
    name: str = "python",
    root: str | Path = "runs",
    code: str | Path | None = None,
    devices: str | Sequence[str] = ("cpu",),
    ray: Mapping[str, Any] | None = None,
    slurm: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    multi: str | None = None,
    python: str | Path | None = None,
    progress: bool = True,
) -> SearchResult:
    """Search over what `train` reads from `autosearch.config`, and wait for the result.

    Each trial runs `train` in a process of its own, from a copy of its code. The search is the next
    version of the job `name` and can be looked at with `darts-core jobs`.

    Args:
        train: a top-level function without arguments, in a .py file.
        config: a job file, the same as a dict, or several of either (a multi-search).
        evaluate: called after `train` in the same process; a function of the same file, or imported there.
            By default the file's `eval`, if any.
        name: the job's name; it is made when it does not exist.
        root: the folder of all jobs.
        code: the code folder to copy; by default the folder of the file.
        devices: devices that trials take in turn; one may be named alone.
        ray: run the trials on a Ray cluster (see `darts_core.study.ray_cluster`).
        slurm: run them in jobs of Slurm (see `darts_core.settings.SlurmQueue`).
        arguments: extra `--name=value` arguments for the code; one called like a setting is your own value.
        multi: `serial`, `nested` or `joint` for several configs.
        python: another interpreter for the trials.
        progress: show how far it is, on a terminal or in a notebook.

    Raises:
        ConfigError: `train` or a config cannot be used, or this is a trial.
        JobError: no trial gave a usable result, or the search was stopped from outside.
    """
    if os.environ.get(TRIAL_VARIABLE):
        # the trial imports the file of `train`, which would start a search in each trial of each search
        raise ConfigError(
            "autosearch.run() was called inside a trial, which imports your file to call "
            f"{getattr(train, '__name__', 'train')}(); put the call under if __name__ == '__main__':."
        )
    from darts_core.autosearch.engine import run_version
    from darts_core.autosearch.request import Request, create
    from darts_core.store.record import SCRIPT
    from darts_core.study.results import read_rows

    boot, entry = _source(train)
    folder = Path(code).resolve() if code is not None else boot.parent
    if not boot.is_relative_to(folder):
        raise ConfigError(f"{boot} does not lie in code={folder}; name a folder that holds it.")
    store = Store(root)
    with tempfile.TemporaryDirectory() as scratch:
        request = Request(
            code=str(folder),
            boot_file=str(boot.relative_to(folder)),
            config_paths=_files(config, Path(scratch)),
            # a command line has texts alone
            arguments={name: str(value) for name, value in (arguments or {}).items()},
            multi=multi,
            python=None if python is None else str(python),
            devices=(devices,) if isinstance(devices, str) else tuple(devices),
            ray=None if ray is None else dict(ray),
            slurm=None if slurm is None else dict(slurm),
            entry=entry,
            evaluate=_evaluation(evaluate, train) if evaluate else "eval",
        )
        if name not in store.jobs():
            store.create_job(name, kind=SCRIPT)
        version, _ = create(store, name, request, needs_train=False)
    with watching(version, shown=progress):
        run_version(store, version)
    if version.state() == "stopped":
        raise JobError(
            f"{version.label} was stopped before its end; its finished trials are kept. Go on with "
            f"darts-core jobs --root {shlex.quote(str(store.root))} resume {version.label}."
        )
    result = read_json(version.path / "autosearch" / "result.json")
    best = result["best"]
    return SearchResult(
        best_config=best["config"],
        best_values=best["values"],
        verdict=result["verdict"],
        summary=result,
        trials=read_rows(version.path),
        folder=version.path,
    )
