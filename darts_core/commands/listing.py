"""`darts-core list`: the names one can choose from, each with a line about it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from darts_core.commands.arguments import add_plugins
from darts_core.commands.json_alone import json_alone
from darts_core.errors import ConfigError
from darts_core.report.escape import plain_text
from darts_core.runlog import read_yaml
from darts_core.settings.tree import config_root
from darts_core.stages.targets import import_plugins

__all__ = ["collect", "configure", "run"]

# what is listed -> the configuration group it lies in; None: a registry
SECTIONS = {
    "ops": None,
    "spaces": None,
    "strategies": "strategy",
    "relaxations": "relax",
    "penalties": "penalty",
    "guards": "guards",
    "callbacks": "callbacks",
    "loggers": "logger",
    "data": "data",
    "tasks": None,
    "augmentations": "augment",
    "experiments": "experiment",
    "architectures": None,
    "baselines": None,
    "models": None,
    "skeletons": None,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("what", nargs="*", help=f"any of {', '.join(SECTIONS)}; all when left out")
    add_plugins(parser)
    parser.add_argument(
        "--config-dir", metavar="FOLDER", type=os.path.expanduser,
        help="a folder with groups of your own",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the sections asked for."""
    from darts_core.errors import unknown_name

    for name in args.what:
        if name not in SECTIONS:
            raise ConfigError(unknown_name("thing to list", name, SECTIONS))
    with json_alone(args.json) as say:
        import_plugins(args.plugins)
        sections = {name: collect(name, args.config_dir) for name in args.what or SECTIONS}
        if args.json:
            say(json.dumps(sections, indent=2))
            return 0
    for name, entries in sections.items():
        group = SECTIONS[name]
        print(f"{name}{f' ({group}=)' if group else ''}:")
        width = max((len(entry) for entry in entries), default=0)
        for entry, text in entries.items():
            print(f"  {plain_text(entry):{width}}  {plain_text(text, limit=1000)}".rstrip())
        if not entries:
            print("  none")
        print()
    return 0


def collect(name: str, config_dir: str | None = None) -> dict[str, str]:
    """Name -> description for one section.

    Raises:
        ConfigError: a YAML file is damaged or `config_dir` is not a folder.
    """
    group = SECTIONS[name]
    if group is not None:
        return _group(group, config_dir)
    if name == "ops":
        from darts_core.ops import OPS

        return {entry.name: entry.description for entry in OPS.entries()}
    if name == "spaces":
        from darts_core.spaces import SPACES

        return {entry.name: entry.description for entry in SPACES.entries()}
    if name == "architectures":
        from darts_core.architecture import Architecture

        return dict.fromkeys(Architecture.names(), "published; train architecture=NAME")
    if name == "tasks":
        from darts_core.tasks import TASKS

        return {entry.name: entry.description for entry in TASKS.entries()}
    if name == "models":
        from darts_core.models.named import REGISTERED

        return {entry.name: entry.description for entry in REGISTERED.entries()}
    if name == "skeletons":
        return _skeletons()
    from darts_core.models.baselines import BASELINES

    return dict.fromkeys(BASELINES, "hand-designed; train architecture=NAME train.channels=WIDTH")


def _skeletons() -> dict[str, str]:
    from darts_core.supernet.build import NETWORKS
    from darts_core.supernet.macro import CHOICE_MODELS
    from darts_core.supernet.search_skeleton import SEARCH_SKELETONS

    tables = (SEARCH_SKELETONS, CHOICE_MODELS, NETWORKS)
    return {entry.name: entry.description for table in tables for entry in table.entries()}


def _group(group: str, config_dir: str | None) -> dict[str, str]:
    folders = [config_root() / group]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir {config_dir!r} is not a folder.")
        folders.append(Path(config_dir) / group)
    entries = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            entries[path.stem] = _description(path)
    return entries


def _description(path: Path) -> str:
    """The `description:` of a YAML file, else its first comment line."""
    content: Any = read_yaml(path)
    if isinstance(content, dict) and content.get("description"):
        return str(content["description"])
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ")
    return ""
