"""Tab completion in a shell: commands, options, groups and their choices, settings and their values.

    eval "$(darts-core search -sc install=bash)"     # or install=zsh, in the shell's start file

Everything is read from the declarations and the YAML files; nothing is composed and nothing heavy loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from darts_core.commands.arguments import CFG, INFO, OPTIONS, SHELLS
from darts_core.commands.help import ARGPARSE, config_choices
from darts_core.commands.mistakes import field_type, group_options
from darts_core.commands.user_tree import GROUPS, LAUNCHERS, SWEEPERS, group_of, takes_group
from darts_core.errors import ConfigError, DartsError
from darts_core.reading_yaml import read_yaml
from darts_core.settings import Settings, bounds_of
from darts_core.settings.tree import config_root
from darts_core.stages.schema import COMMANDS, STAGES

__all__ = ["candidates", "shell_completion"]

_HYDRA = {"hydra/launcher": (*LAUNCHERS,), "hydra/sweeper": (*SWEEPERS,)}
# `$1` is what was typed, as in $VENV/bin/darts-core: no variable is expanded.
# An interactive zsh knows no comments, so there are none within.
_BASH = """\
_darts_core_complete() {
    local line=${COMP_LINE:0:$COMP_POINT} IFS=$'\\n'
    local word=${line##*[[:space:]]} ours=${1/#'~'/$HOME}
    command -v "$ours" >/dev/null || ours=darts-core
    COMPREPLY=($(COMP_LINE=$line "$ours" search -sc query=bash 2>/dev/null))
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        local head=${word%"${word##*=}"}
        COMPREPLY=("${COMPREPLY[@]#"$head"}")
    fi
}
complete -o nospace -o default -F _darts_core_complete darts-core
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + _BASH


def shell_completion(words: Sequence[str]) -> int:
    """`-sc install=SHELL`, `-sc uninstall=SHELL`, or `-sc query=SHELL` on `$COMP_LINE`.

    Raises:
        ConfigError: it is none of these.
    """
    verb, _, shell = (words[0] if len(words) == 1 else "").partition("=")
    if verb not in ("install", "uninstall", "query") or shell not in SHELLS:
        raise ConfigError(
            f"-sc takes install=, uninstall= or query= with one of {', '.join(SHELLS)}, for example "
            'eval "$(darts-core search -sc install=bash)".'
        )
    if verb == "install":
        print(_BASH if shell == "bash" else _ZSH, end="")
    elif verb == "uninstall":
        print("complete -r darts-core; unset -f _darts_core_complete")
    else:
        for candidate in candidates(os.environ.get("COMP_LINE", "")):
            print(candidate)
    return 0


def candidates(line: str) -> list[str]:
    """What the last word of `line` may be completed to; `line` ends at the cursor."""
    words = line.split()
    current = "" if not words or line[-1].isspace() else words.pop()
    if len(words) <= 1:
        return _starting(current, [*COMMANDS, *ARGPARSE, "--help", "--version"])
    command, before = words[1], words[2:]
    try:
        if command not in COMMANDS:
            return []
        return sorted(_Line(command, before).complete(current))
    except DartsError:  # a broken file of the user's: the command itself will say so
        return []


def _starting(current: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(current))


@dataclass(frozen=True)
class _Line:
    """The words before the one that is completed."""

    command: str
    before: Sequence[str]

    def complete(self, current: str) -> list[str]:
        """Candidates for the word `current`."""
        last = self.before[-1] if self.before else ""
        if last in ("--cfg", "-c"):
            return _starting(current, CFG)
        if last in ("--info", "-i") and not current.startswith("-"):
            found = _starting(current, INFO)
            if found:
                return found
        if last in ("--config-dir", "-cd"):
            return []
        if current.startswith("-"):
            return _starting(current, OPTIONS)
        mark = current[: len(current) - len(current.lstrip("+~"))]
        key, equals, value = current[len(mark) :].partition("=")
        if equals:
            head, comma, part = value.rpartition(",")
            start = f"{mark}{key}={head}{comma}"
            return [f"{start}{one}" for one in _starting(part, self._values(key))]
        return [f"{mark}{one}" for one in _starting(key, {*self._keys(key)})]

    def _groups(self) -> list[str]:
        own = {item.name for item in fields(STAGES[self.command])}
        return [group for group in GROUPS if takes_group(group, own)]

    @property
    def _user(self) -> Path | None:
        for flag in ("--config-dir", "-cd"):
            if flag in self.before[:-1]:
                return Path(self.before[self.before.index(flag) + 1]).expanduser()
        given = [word for word in self.before if word.startswith("--config-dir=")]
        return Path(given[-1].partition("=")[2]).expanduser() if given else None

    def _values(self, key: str) -> list[str]:
        """What the setting or group `key` may be; nothing where any text or number may stand."""
        if key in self._groups():
            return group_options(key, self._user)
        if key in _HYDRA:
            return list(_HYDRA[key])
        kind = field_type(STAGES[self.command], key)
        if kind is bool:
            return ["false", "true"]
        parent, _, leaf = key.rpartition(".")
        owner = field_type(STAGES[self.command], parent)
        if kind is not None and isinstance(owner, type):
            for item in fields(owner):
                bounds = bounds_of(item)
                if item.name == leaf and bounds is not None:
                    return list(bounds.choices)
        usual = self._open(key)
        return ["false", "true"] if isinstance(usual, bool) else []

    def _keys(self, key: str) -> Iterator[str]:
        """Settings at the depth of `key`, those of its own node when it names one, and groups."""
        parent = key.rpartition(".")[0]
        prefix = f"{parent}." if parent else ""
        if not parent:
            yield from (f"{group}=" for group in (*self._groups(), *_HYDRA))
        owner = field_type(STAGES[self.command], parent)
        if isinstance(owner, type) and issubclass(owner, Settings):
            for item in fields(owner):  # type: ignore[arg-type]
                name = f"{prefix}{item.name}"
                if item.name == getattr(owner, "OPEN", None):
                    continue
                yield f"{name}." if self._has_keys(name) else f"{name}="
        beside = self._open(parent) if parent else None
        for name, value in beside.items() if isinstance(beside, Mapping) else ():
            if name not in ("_target_", "description"):
                yield f"{prefix}{name}." if isinstance(value, Mapping) else f"{prefix}{name}="

    def _has_keys(self, name: str) -> bool:
        kind = field_type(STAGES[self.command], name)
        inner = isinstance(kind, type) and issubclass(kind, Settings)
        return inner or isinstance(self._open(name), Mapping)

    def _open(self, key: str) -> Any:
        """The value of `key` in the file chosen for its group."""
        group, rest = group_of(key) or ("", "")
        if group not in self._groups():
            return None
        chosen = [w.partition("=")[2] for w in self.before if w.startswith(f"{group}=")]
        name = chosen[-1] if chosen else config_choices(self.command).get(group)
        path = config_root() / group / f"{name}.yaml"
        if not path.is_file() and self._user is not None:
            path = self._user / group / f"{name}.yaml"
        node: Any = read_yaml(path) if path.is_file() else None
        for part in rest.split(".") if rest else ():
            node = node.get(part) if isinstance(node, Mapping) else None
        return node
