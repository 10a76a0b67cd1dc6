"""`darts-core jobs ...`: the parser of all verbs. What they do stands in verbs.py, views.py,
comparison.py and saved.py.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from darts_core.store.record import PIPELINE, SCRIPT

__all__ = ["configure", "run"]

_HOMES = {
    "list": "listing",
    "show": "views",
    "logs": "views",
    "compare": "comparison",
    "params": "saved",
    "suggest": "suggest",
    "init": "init",
}


def _at_least(least: int) -> Callable[[str], int]:
    """The type of an option that counts."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return int(text)

    return count


def _form(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", dest="form", action="store_const", const="json", default="text")
    group.add_argument("--csv", dest="form", action="store_const", const="csv")


def _request(parser: argparse.ArgumentParser) -> None:
    """The options that describe what runs; on `new-version` and `params edit` they replace what is known."""
    parser.add_argument("--code", metavar="DIR", help="folder of your code; it is copied")
    parser.add_argument("--boot-file", metavar="FILE", help="file with train(), relative to --code")
    parser.add_argument("--entry", metavar="NAME", help="function to call instead of train()")
    parser.add_argument(
        "--config", action="append", metavar="FILE", help="job file; several make a multi-search"
    )
    parser.add_argument(
        "--set",
        action="append",
        metavar="FIELD=VALUE",
        default=[],
        help="replace a field of the job file (of a pipeline: a setting)",
    )
    parser.add_argument(
        "--arg", action="append", metavar="NAME=VALUE", default=[], help="argument for your script"
    )
    parser.add_argument(
        "--multi", choices=("serial", "nested", "joint"), help="how several files relate"
    )
    parser.add_argument("--data", metavar="DIR", help="passed to your script as --data_url")
    parser.add_argument("--output", metavar="DIR", help="results and best model are copied there")
    parser.add_argument("--python", metavar="PATH", help="interpreter for your code")
    parser.add_argument("--devices", help="cpu, cuda:0 or a list such as cuda:0,cuda:1")
    parser.add_argument(
        "--ray", metavar="SETTINGS", help="trials on a Ray cluster: '{address: auto, num_gpus: 1}'"
    )
    parser.add_argument(
        "--slurm",
        metavar="SETTINGS",
        help="trials in jobs of Slurm: '{partition: gpu, gpus: 1}'; null leaves a cluster",
    )
    parser.add_argument(
        "--budget", action="append", default=[], metavar="LIMIT", help="4x (trainings), 30m or 2h"
    )
    parser.add_argument("--notify", metavar="CMD", help="program told of state changes (no shell)")


def _start(parser: argparse.ArgumentParser) -> None:
    """The options of what is started at once."""
    parser.add_argument("--save-params", metavar="NAME", help="save these parameters under a name")
    parser.add_argument("--wait", action="store_true", help="wait for the end")


def _create(verbs: Any) -> None:
    create = verbs.add_parser("create", help="create and start a job")
    create.add_argument("--name", required=True)
    create.add_argument("--description", default="")
    _request(create)
    _start(create)
    create.add_argument("--params", metavar="SAVED", help="start from saved parameters")
    create.add_argument(
        "--dry-run", action="store_true", help="run train() to its first report, print the forecast"
    )
    new = verbs.add_parser("new-version", help="a child version with edited parameters")
    new.add_argument("job", help="JOB or JOB/V001 (the parent; the newest by default)")
    _request(new)
    _start(new)


def _look(verbs: Any) -> None:
    listing = verbs.add_parser("list", help="jobs with state, versions, duration")
    listing.add_argument("--state", action="append", help="only this state (repeatable)")
    listing.add_argument(
        "--kind", action="append", choices=(PIPELINE, SCRIPT), help="only this kind (repeatable)"
    )
    listing.add_argument("--search", help="only names or descriptions that contain this")
    listing.add_argument(
        "--sort", choices=("name", "created", "state", "duration", "value"), default="name"
    )
    listing.add_argument("--reverse", action="store_true")
    listing.add_argument("--versions", action="store_true", help="one row a version")
    _form(listing)
    show = verbs.add_parser("show", help="configuration, log, resources, results, pictures")
    show.add_argument("job", help="JOB or JOB/V001")
    show.add_argument("--trial", metavar="ID", help="one trial in full")
    show.add_argument(
        "--sort", default=None, help="metric to sort results by (accuracy, latency, ...)"
    )
    show.add_argument("--limit", type=_at_least(1), help="results to print (10)")
    show.add_argument("--offset", type=_at_least(0), help="results to leave out first")
    show.add_argument(
        "--pictures", metavar="DIR", help="draw best-so-far, front, curves and importance as PNG"
    )
    show.add_argument("--html", metavar="FILE", help="write one self-contained page")
    _form(show)
    logs = verbs.add_parser("logs", help="print a job's or a trial's log")
    logs.add_argument("job")
    logs.add_argument("--trial", metavar="ID")
    logs.add_argument("-f", "--follow", action="store_true", help="until the job ends")
    logs.add_argument(
        "--tail", type=_at_least(0), default=None, metavar="N", help="only the last N lines"
    )
    compare = verbs.add_parser("compare", help="versions of one job or of several side by side")
    compare.add_argument("job", help="JOB, followed by its versions; or JOB/V001")
    compare.add_argument("versions", nargs="*", metavar="V001 or JOB/V001")
    compare.add_argument("--metric", action="append", default=[], help="any reported metric")
    compare.add_argument("--picture", metavar="FILE")
    _form(compare)


def _change(verbs: Any) -> None:
    stop = verbs.add_parser("stop", help="stop a job or one trial with its whole process tree")
    stop.add_argument("job")
    stop.add_argument("--trial", metavar="ID")
    resume = verbs.add_parser("resume", help="go on with a stopped, failed or interrupted version")
    resume.add_argument("job")
    resume.add_argument("--wait", action="store_true")
    edit = verbs.add_parser("edit", help="change a job's or a version's description")
    edit.add_argument("job", help="JOB or JOB/V001")
    edit.add_argument("--description", required=True)
    delete = verbs.add_parser("delete", help="delete jobs (JOB) or versions (JOB/V001)")
    delete.add_argument("jobs", nargs="+", metavar="JOB")
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask")
    best = verbs.add_parser("best", help="the best trial and its gain; copy its model")
    best.add_argument("job")
    best.add_argument("--export", metavar="DIR")
    best.add_argument("--json", dest="form", action="store_const", const="json", default="text")


def _saved(verbs: Any) -> None:
    params = verbs.add_parser("params", help="saved parameters")
    inner = params.add_subparsers(dest="params_verb", required=True, metavar="VERB")
    save = inner.add_parser("save", help="save a version's parameters")
    save.add_argument("saved")
    save.add_argument("--job", required=True, help="JOB or JOB/V001")
    save.add_argument("--description", default="")
    listing = inner.add_parser("list")
    _form(listing)
    inner.add_parser("show").add_argument("saved")
    edit = inner.add_parser("edit", help="change values, never the name")
    edit.add_argument("saved")
    edit.add_argument("--description", default=None)
    _request(edit)
    use = inner.add_parser("use", help="create a job from saved parameters")
    use.add_argument("params")
    use.add_argument("--name", required=True)
    use.add_argument("--description", default="")
    use.add_argument("--wait", action="store_true")
    inner.add_parser("delete").add_argument("saved")
    template = verbs.add_parser("template", help="ready-made job files")
    kinds = template.add_subparsers(dest="template_verb", required=True, metavar="VERB")
    kinds.add_parser("list")
    kinds.add_parser("show").add_argument("template")
    kinds.add_parser("algorithms", help="algorithms and schedulers with their defaults")
    init = verbs.add_parser("init", help="propose a job file for the training script in a folder")
    init.add_argument("folder", metavar="DIR")
    init.add_argument("--log", metavar="FILE", help="a log that it printed, for the metrics")
    init.add_argument(
        "--network", action="store_true", help="search its network by gradient, not its options"
    )
    init.add_argument("--write", metavar="FILE", help="write the job file there")
    found = verbs.add_parser("suggest", help="metrics of a printed log, as general.metrics")
    found.add_argument("log", metavar="LOG", help="file that a script printed; - for input")
    _form(found)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs to the parser of `darts-core jobs`."""
    parser.add_argument("--root", default="runs", help="folder of all jobs (default: runs)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _create(verbs)
    _look(verbs)
    _change(verbs)
    _saved(verbs)
    for verb in verbs.choices.values():
        # --root may also stand behind the verb; unset, it must not hide the one before it
        verb.add_argument("--root", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb; returns the exit status."""
    from darts_core.store.jobs import Store

    home = _HOMES.get(args.verb, "verbs")
    # only the module of the verb is loaded, so that quick verbs start quickly
    module = importlib.import_module(f"darts_core.commands.jobs.{home}")
    action = getattr(module, f"run_{args.verb.replace('-', '_')}")
    return int(action(Store(args.root), args))
