"""The texts of `--help`: every command in a line, and each Hydra command with its groups and settings.

Nothing heavy is imported; settings are read from their declarations, groups from the YAML files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from darts_core.commands.user_tree import GROUPS, takes_group
from darts_core.runlog import read_yaml
from darts_core.settings import Settings, bounds_of, default_of, to_plain, type_of
from darts_core.settings.tree import config_root
from darts_core.stages.schema import STAGES

__all__ = ["ARGPARSE", "HYDRA", "Command", "choices", "command_help", "config_choices", "main_help"]


@dataclass(frozen=True)
class Command:
    """One console command: a line about it, examples, and (argparse ones) the module that runs it."""

    summary: str
    examples: str
    module: str = ""


HYDRA: dict[str, Command] = {
    "run": Command(
        "the whole pipeline: search, train, prune or shrink, tune, export, bench, report",
        """  darts-core run experiment=demo
  darts-core run data=digits space=nasbench201 relax=softmax search.epochs=10 train.epochs=20
  darts-core run data=fashion_mnist data.path=/usr/share/datasets/fashion-mnist""",
    ),
    "search": Command(
        "train a supernet with its alphas; leaves architecture.yaml",
        """  darts-core search data=digits space=nasbench201 search.epochs=5
  darts-core search -m space=darts,nasbench201 seed=1,2 data=digits
  darts-core search plugins=[my_nas.ops] space=darts space.ops=[none,skip_connect,my_op]
  darts-core search data=digits model=my_nas.nets:make      (the choices in a network of your own)""",
    ),
    "train": Command(
        "train one fixed network; leaves model.pt",
        """  darts-core train architecture=DARTS_V2 data=digits train.channels=8 train.layers=5
  darts-core train architecture=runs/digits-darts/V001/search/architecture.yaml
  darts-core train version=V001 job=digits-darts     (what the search there found)""",
    ),
    "tune": Command(
        "study learning rate, weight decay, drop-path, batch size ... of one network",
        """  darts-core tune architecture=DARTS_V2 tune.trials=20 train.epochs=10
  darts-core tune -m hydra/sweeper=darts architecture=DARTS_V2 \\
      'train.learning_rate=tag(log,interval(0.01,0.3))'""",
    ),
    "shrink": Command(
        "one elastic training of a trained network, then a measured front of its sub-networks",
        """  darts-core shrink model=runs/digits-darts/V001/train
  darts-core shrink model=my_nas.nets:make weights=net.pt data=fashion_mnist shrink.budgets=[75%,50%,25%]""",
    ),
    "prune": Command(
        "shrink a trained network to a measured latency, then fine-tune",
        """  darts-core prune model=runs/digits-darts/V001/train prune.budget=50%
  darts-core prune model=model.pt prune.budget=2.5ms prune.batch=1""",
    ),
    "export": Command(
        "write .pt2 and ONNX, each checked against the original",
        """  darts-core export model=runs/digits-darts/V001/train
  darts-core export model=model.pt export.formats=[onnx]""",
    ),
    "bench": Command(
        "measure accuracy against latency: what=models, step, kernels or tabular",
        """  darts-core bench model=runs/digits-darts/V001/train
  darts-core bench what=step
  darts-core bench -m what=models model=resnet18,mobilenetv2 seed=1,2,3""",
    ),
    "report": Command(
        "write report.html of one version",
        "  darts-core report job=digits-darts version=V001",
    ),
}

ARGPARSE: dict[str, Command] = {
    "list": Command(
        "the names to choose from: spaces, strategies, guards, loggers, data sets, tasks, models ...",
        "examples:\n  darts-core list\n  darts-core list ops data\n"
        "  darts-core list tasks guards callbacks loggers models skeletons\n"
        "  darts-core list --plugins my_nas.ops --json",
        "darts_core.commands.listing",
    ),
    "doctor": Command(
        "versions, device, kernel path, and what is missing",
        "examples:\n  darts-core doctor\n  darts-core doctor --json",
        "darts_core.commands.doctor",
    ),
    "explain": Command(
        "the kernel plan of a space: waves, launches, bytes, FLOPs, floor",
        "examples:\n  darts-core explain space=darts\n"
        "  darts-core explain space=nasbench201 channels=16 batch_size=64\n"
        "  darts-core explain space=darts relax=partial_channels",
        "darts_core.commands.explain",
    ),
    "predict": Command(
        "what a model says of image files and samples",
        "examples:\n  darts-core predict --model runs/digits-darts/V001/export a.png b.png\n"
        "  darts-core predict model=my_nas.nets:make weights=net.pt data=digits a.png",
        "darts_core.commands.predict",
    ),
    "latency": Command(
        "the latency table of a space on this device: build, show, check, prepare; time one network",
        "examples:\n  darts-core latency build space=darts device=cpu\n  darts-core latency show\n"
        "  darts-core latency time model=runs/digits-darts/V001/train runtime=onnx device=cpu batch=1",
        "darts_core.commands.latency",
    ),
    "jobs": Command(
        "all jobs, pipelines and searches of your own script: list, show, stop, compare, create ...",
        "examples:\n  darts-core jobs list\n  darts-core jobs create --help",
        "darts_core.commands.jobs.cli",
    ),
    "web": Command(
        "the live page of all jobs: watch, compare, start, stop (needs the extra [web])",
        "examples:\n  darts-core web --code my_project\n  darts-core web --read-only --port 0",
        "darts_core.commands.web",
    ),
    "serve-bench": Command(
        "load each exported artifact in a fresh process and time it",
        "examples:\n  darts-core serve-bench runs/digits-darts/V001/export\n"
        "  darts-core serve-bench model=timm:resnet18 data=cifar10 data.path=cifar-10-batches-py",
        "darts_core.commands.serve_bench",
    ),
}

# of a node that a group fills: shown by `darts-core list`
_SHOWN = ("description",)


def main_help() -> str:
    """The text of `darts-core --help`."""
    width = max(map(len, [*HYDRA, *ARGPARSE]))
    pipeline = "\n".join(f"  {name:{width}}  {about.summary}" for name, about in HYDRA.items())
    others = "\n".join(f"  {name:{width}}  {about.summary}" for name, about in ARGPARSE.items())
    return f"""\
darts-core: search an architecture by gradient, train, prune or shrink, tune, export and benchmark it.

usage: darts-core COMMAND [key=value ...]        darts-core COMMAND --help

pipeline (settings as key=value; -m runs every combination of a,b):
{pipeline}

other commands:
{others}

start here:
  darts-core run experiment=demo       everything on small real images, in minutes
  darts-core doctor                    what this machine can do
  darts-core list                      the names you can choose from

Results go to runs/<job>/<version>/<stage>/; the same command again goes on where it was stopped.
DARTS_DEBUG=1 shows the traceback of an error."""


def choices(group: str) -> list[str]:
    """The file names of one configuration group, without our Hydra parts."""
    return sorted(path.stem for path in (config_root() / group).glob("*.yaml"))


def command_help(command: str) -> str:
    """The text of `darts-core COMMAND --help` for a Hydra command."""
    about, stage = HYDRA[command], STAGES[command]
    names = {item.name for item in fields(stage)}
    used = [group for group in GROUPS if takes_group(group, names) and choices(group)]
    groups = "\n".join(f"  {group}=  {', '.join(choices(group))}" for group in used)
    changed = {**_of_choices(command), **config_defaults(command)}
    return f"""\
darts-core {command}: {about.summary}

usage: darts-core {command} [-m] [--config-dir FOLDER] [--cfg job] [key=value ...]

examples:
{about.examples}

group choices (yours are added with --config-dir FOLDER):
{groups}

settings and their defaults:
{chr(10).join(_settings(stage, "", changed))}

-m (--multirun)   run every combination: seed=1,2 space=darts,nasbench201
--cfg job         print the composed configuration and end
plugins=[a.b]     import your modules (operations, spaces, strategies) first"""


def config_choices(command: str) -> dict[str, str]:
    """The files that the command's own YAML file chooses: group -> name."""
    content = read_yaml(config_root() / f"{command}.yaml")
    chosen: dict[str, str] = {}
    for entry in content["defaults"]:
        chosen |= {k: v for k, v in entry.items() if v} if isinstance(entry, dict) else {}
    return chosen


def config_defaults(command: str) -> dict[str, Any]:
    """The values of the command's own YAML file, which stand before those that the settings declare."""
    content = read_yaml(config_root() / f"{command}.yaml")
    return {key: value for key, value in content.items() if key not in ("defaults", "hydra")}


def _of_choices(command: str) -> dict[str, Any]:
    """The values of the files that the command's own YAML file chooses, by the nodes that they fill."""
    chosen = {group: name for group, name in config_choices(command).items() if group in GROUPS}
    return {
        group: read_yaml(config_root() / group / f"{name}.yaml") for group, name in chosen.items()
    }


def _settings(cls: type[Settings], prefix: str, changed: Mapping[str, Any]) -> Iterator[str]:
    """`key=value  meaning` for every setting of `cls` and its inner nodes; groups are left out."""
    inner = []
    for item in fields(cls):  # type: ignore[arg-type]
        bounds = bounds_of(item)
        kind, _ = type_of(cls, item.name)
        if item.name == getattr(cls, "OPEN", None):
            continue  # its keys are typed beside the others, not below its name
        if isinstance(kind, type) and issubclass(kind, Settings):
            inner.append((kind, f"{prefix}{item.name}.", changed.get(item.name, {})))
        elif bounds is not None and (prefix or item.name not in GROUPS) and item.name not in _SHOWN:
            default = default_of(item)
            text = f"  {prefix}{item.name}={_spelt(changed.get(item.name, default))}"
            yield f"{text:44} {bounds.help}".rstrip()
    for kind, name, values in inner:
        yield from _settings(kind, name, values)


def _spelt(value: Any) -> str:
    """A default in one line, as it is typed."""
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, str):
        return value
    return json.dumps(to_plain(value))
