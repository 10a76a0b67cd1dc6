"""The command line that a user's script gets: what the published service passed, or less, or a template."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darts_core.autosearch.catalogue import SUPERNETS
from darts_core.autosearch.yaml_lines import Located
from darts_core.errors import ConfigError

__all__ = [
    "ARGUMENTS",
    "BUILT_IN",
    "Command",
    "boot_file_of",
    "check_command",
    "command_line",
    "own_arguments",
    "parse_command",
    "read_arguments",
    "settings_to_mention",
    "with_data",
]

# service: everything the published service passed, for parse_known_args; named: the settings as
# --name=value; none: nothing of ours; template: what the command says
ARGUMENTS = ("service", "named", "none", "template")
BUILT_IN = ("seed", "trial_id", "output_dir", "checkpoint_dir", "data_url", "device")
_PLACE = re.compile(
    r"\{\{|\}\}|\{(?P<name>\w[\w.-]*)(?::(?P<yes>[^{}|]*)(?:\|(?P<no>[^{}]*))?)?\}|[{}]"
)

_OFF = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Command:
    """`python main.py --lr {lr} {nesterov:--nesterov}` taken apart.

    Attributes:
        boot_file: the script, relative to the code folder.
        module: the module of `python -m MODULE`, or "".
        words: what follows, with placeholders.
    """

    boot_file: str
    module: str
    words: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """The placeholders."""
        found = (m["name"] for word in self.words for m in _PLACE.finditer(word))
        return {name for name in found if name}

    def fill(self, values: Mapping[str, Any], *, older: bool = False) -> list[str]:
        """The arguments with every placeholder replaced; a flag that is off leaves nothing behind.

        With `older` any text sets a flag, `false` too.
        """

        def one(match: re.Match[str]) -> str:
            if match["name"] is None:
                return match[0][0]
            value = values[match["name"]]
            if match["yes"] is None:
                return str(value)
            on = bool(value) if older else _is_on(value)
            return match["yes"] if on else match["no"] or ""

        filled = [(word, _PLACE.sub(one, word)) for word in self.words]
        return [text for word, text in filled if text or not _PLACE.fullmatch(word)]


def _is_on(value: Any) -> bool:
    """Whether a flag is set; an `--arg` is text, whose `False` is false too."""
    return value.lower() not in _OFF if isinstance(value, str) else bool(value)


def parse_command(text: str) -> Command:
    """A command template.

    Raises:
        ConfigError: it does not start a Python file or module, or its braces do not match.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"not a command line ({error})") from None
    while len(words) > 2 and words[1] == "-u":
        del words[1]
    if not words or words[0] not in ("python", "python3") or len(words) < 2:
        raise ConfigError("it does not begin with python FILE.py or python -m MODULE")
    module = ""
    if words[1] == "-m" and len(words) > 2 and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", words[2]):
        module, rest = words[2], words[3:]
        boot = module.replace(".", "/") + ".py"
    elif words[1].endswith(".py") and "{" not in words[1]:
        boot, rest = words[1].removeprefix("./"), words[2:]
    else:
        raise ConfigError("it does not begin with python FILE.py or python -m MODULE")
    for word in rest:
        for match in _PLACE.finditer(word):
            if match[0] in ("{", "}"):
                raise ConfigError(f"{word!r} has a lone brace (write {{{{ or }}}} for a real one)")
    return Command(boot, module, tuple(rest))


def read_arguments(parent: Located | None) -> tuple[str, str]:
    """The fields `arguments` and `command` of a job file, checked."""
    kind = parent.get("arguments") if parent is not None else None
    command = parent.get("command") if parent is not None else None
    wanted = kind.text(ARGUMENTS) if kind is not None else ""
    if command is None:
        if kind is not None and wanted == "template":
            kind.fail(
                "there is no command", "add command: 'python main.py --lr {lr} --seed {seed}'"
            )
        return wanted or "service", ""
    if kind is not None and wanted != "template":
        kind.fail("a command is given too", "use template, or remove command")
    try:
        parse_command(command.text())
    except ConfigError as error:
        command.fail(str(error), "write it like 'python main.py --lr {lr} --seed {seed}'")
    return "template", command.text()


def check_command(
    command: str, settings: Collection[str], own: Collection[str], *, needed: Collection[str]
) -> None:
    """Raise unless every placeholder has a value and every setting reaches the script.

    Args:
        command: the template.
        settings: names that the search varies.
        own: names of the job's own arguments.
        needed: those that reach the script by its command alone; others are read from `autosearch.config`.

    Raises:
        ConfigError: one does not.
    """
    names = parse_command(command).names
    for name in sorted(names - {*settings, *own, *BUILT_IN}):
        raise ConfigError(
            f"The command's {{{name}}} has no value; use a setting ({', '.join(settings)}), an argument "
            f"given with --arg, or one of {', '.join(BUILT_IN)}."
        )
    if "data_url" in names and "data_url" not in own:
        raise ConfigError("The command names {data_url}; give the data with --data.")
    for name in sorted({*needed} - names):
        raise ConfigError(
            f"The setting {name!r} never reaches the script: the command has no {{{name}}}; add it."
        )


def with_data(arguments: Mapping[str, str], data: str | None) -> dict[str, str]:
    """The job's own arguments, the data folder among them."""
    return {**({"data_url": data} if data else {}), **arguments}


def own_arguments(plan: Any, arguments: Mapping[str, str]) -> list[str]:
    """The names of the job's own arguments that only the script can know."""
    settings = {d.name for step in plan.steps for d in step.dimensions}
    ours = {"search_space", "multi_search", "config_path", *settings}
    ours |= {
        name for step in plan.steps if step.command for name in parse_command(step.command).names
    }
    return [name for name in arguments if name not in ours]


def settings_to_mention(plan: Any) -> list[str]:
    """The names of the settings that reach the training only where the user's code mentions them.

    Not those that a command names, or that our own networks take: architectures and backbone codes. A dotted
    name is often one of a library's.
    """
    told = {
        name for step in plan.steps if step.command for name in parse_command(step.command).names
    }
    return [
        dimension.name
        for step in plan.steps
        for dimension in (step.dimensions if step.algorithm not in SUPERNETS else ())
        if not dimension.near and "." not in dimension.name and dimension.name not in told
    ]


def boot_file_of(commands: Iterable[str], given: str) -> str:
    """The boot file: the one given, or the one that the commands name; where one is a whole path, that.

    A job file comes from outside, and the boot file is the code that was chosen: none of its commands runs
    another.

    Args:
        commands: the templates of all steps, "" where a step has none.
        given: `--boot-file`, or "".

    Raises:
        ConfigError: they differ.
    """
    for command in filter(None, commands):
        given = _agreed(parse_command(command), given)
    return given


def _agreed(command: Command, given: str) -> str:
    package, given = command.module.replace(".", "/"), given.removeprefix("./")
    for named in (command.boot_file, *([f"{package}/__main__.py"] if package else [])):
        short, whole = sorted((given or named, named), key=len)
        if short == whole or (whole.startswith("/") and whole.endswith(f"/{short}")):
            return whole
    elsewhere = "; what lies elsewhere is started by a script of yours" if package else ""
    raise ConfigError(
        f"The command runs {command.boot_file}, --boot-file is {given}; name one of them{elsewhere}."
    )


def command_line(
    kind: str,
    command: str,
    own: Sequence[str],
    settings: Mapping[str, Any],
    built_in: Mapping[str, Any],
    seed_option: str | None = None,
    *,
    older: bool = False,
) -> list[str]:
    """The arguments of one trial.

    Args:
        kind: one of `ARGUMENTS`.
        command: the template, for `template`.
        own: the job's own arguments, `--name=value`.
        settings: the trial's settings.
        built_in: the values of `BUILT_IN` names.
        seed_option: the script's option for its seed, if it has one that nobody else sets.
        older: the version was made by an older program; see `Command.fill`.
    """
    given = {a.partition("=")[0][2:]: a.partition("=")[2] for a in own}
    if kind == "template":
        parsed = parse_command(command)
        values = {**built_in, **given, **settings}
        left = [a for a in own if a.partition("=")[0][2:] not in {*parsed.names, *settings}]
        return [*parsed.fill(values, older=older), *left]
    mine = [a for a in own if a.partition("=")[0][2:] not in settings]
    named = [f"--{name}={value}" for name, value in settings.items()]
    taken = {*given, *settings}
    if seed_option is not None and kind != "none" and seed_option[2:] not in taken:
        mine.append(f"{seed_option}={built_in['seed']}")
    if kind == "none":
        return mine
    if kind == "named":
        return [*mine, *named]
    service = [
        f"--trial_id={built_in['trial_id']}",
        f"--nas_code={built_in['trial_id']}",
        f"--train_url={built_in['output_dir']}",
    ]
    return [*mine, *service, *named]
