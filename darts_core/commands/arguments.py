"""The words and options of a command that takes overrides: `search`, `train`, `run` ..."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

from darts_core.errors import ConfigError

__all__ = ["CFG", "INFO", "OPTIONS", "SHELLS", "Parser", "add_plugins", "parse_arguments"]

CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHELLS = ("bash", "zsh")
OPTIONS = (
    "--help", "--multirun", "--cfg", "--resolve", "--package", "--info", "--config-dir",
    "--shell-completion",
)  # fmt: skip


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """The option `--plugins A,B` of a command whose arguments are no overrides; it may be repeated."""
    parser.add_argument(
        # not as many words as follow: they would take the command's own files for modules
        "--plugins", type=lambda text: [name for name in text.split(",") if name], action="extend",
        default=[], metavar="MODULE[,MODULE]", help="import first",
    )  # fmt: skip


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are our sentences."""

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError that names the command and its help."""
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help.")

    def parse(self, words: list[str]) -> argparse.Namespace:
        """The arguments, options between files and settings included, where no verb or `--` divides them."""
        if self._subparsers is not None or "--" in words:
            return self.parse_args(words)
        return self.parse_intermixed_args(words)


def parse_arguments(command: str, argv: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments; `overrides` are left as they were typed.

    Raises:
        ConfigError: an option is unknown, or two that exclude each other are given.
    """
    parser = Parser(prog=f"darts-core {command}", add_help=False, allow_abbrev=False)
    add = parser.add_argument
    add("overrides", nargs="*")
    add("-m", "--multirun", action="store_true")
    add("-r", "--run", action="store_true")
    add("-c", "--cfg", choices=CFG)
    add("--resolve", action="store_true")
    add("-p", "--package")
    add("-i", "--info", nargs="?", const="all", choices=INFO)
    # no shell reads the ~ of --config-dir=~/conf
    add("-cd", "--config-dir", type=os.path.expanduser)
    add("-sc", "--shell-completion", action="store_true")
    add("-cn", "--config-name")
    add("-cp", "--config-path")
    args = parser.parse_intermixed_args(list(argv))
    for name in ("config_name", "config_path"):
        if getattr(args, name):
            raise ConfigError(
                f"--{name.replace('_', '-')} is not used here: each command has one configuration; "
                "add your own groups with --config-dir FOLDER."
            )
    modes = {"--run": args.run, "--multirun": args.multirun, "--cfg": args.cfg, "--info": args.info}
    given = [name for name, value in modes.items() if value]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other; give one of them.")
    if (args.resolve or args.package) and not args.cfg:
        raise ConfigError("--resolve and --package belong to --cfg; add --cfg job.")
    return args
