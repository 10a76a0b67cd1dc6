"""Forms into command lines: each action of the page is one `darts-core jobs ...`, and nothing else runs.

Every value is checked and bound to its option (`--name=value`), so that none can pass for an option.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from darts_core.errors import ConfigError
from darts_core.store.names import check_name
from darts_core.store.version import Version
from darts_core.web.options import WebOptions

__all__ = ["VERBS", "Order", "order"]

_LONGEST, _LONGEST_FILE = 10_000, 500_000
# a queue of Slurm runs shell commands before each job, a cluster of Ray installs what it is told
_QUEUES = "ray|slurm"
_PIPELINE_CODE = re.compile(
    rf"[+~]*(plugins(\..*)?|hydra([./].*)?|(.*\.)?_target_|(.*\.)?({_QUEUES})(\..*)?)"
)
# such a node as a member of a mapping, and the settings that hold one
_QUEUE_INSIDE = re.compile(rf"[{{,]\s*({_QUEUES})\s*:")
_AROUND_QUEUES = re.compile(r"[+~]*(tune|search|shrink)(\.options)?")


@dataclass(frozen=True)
class Order:
    """What is to be run: the words behind `darts-core`, files to write first, where its result is shown.

    `files` maps a name within the action's own folder to its text; `{folder}` in a word is that folder.
    """

    words: tuple[str, ...]
    files: Mapping[str, str]
    shows: str = ""


Fields = Mapping[str, str]


def order(options: WebOptions, verb: str, fields: Fields) -> Order:
    """The command of a form.

    Raises:
        ConfigError, JobError: the verb is unknown, or a field is not allowed.
    """
    if verb not in VERBS:
        raise ConfigError(f"There is no action {verb[:40]!r}; there are {', '.join(VERBS)}.")
    for name, value in fields.items():
        limit = _LONGEST_FILE if name == "file" else _LONGEST
        if len(value) > limit:
            raise ConfigError(f"The field {name[:40]} holds more than {limit} characters.")
        if any(ord(c) < 32 and c not in "\n\r\t" for c in value):
            raise ConfigError(f"The field {name[:40]} holds a control character.")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise ConfigError(
                f"The field {name[:40]} holds half of a character (a lone surrogate)."
            )
    # browsers end each line of a text area so; a page would show the first half as an escape, and a form
    # that is filled with it send it back as text
    fields = {name: value.replace("\r\n", "\n") for name, value in fields.items()}
    made = VERBS[verb](options, fields)
    words = ("jobs", f"--root={options.store.root}", *made.words)
    return Order(words, made.files, made.shows)


def _version(options: WebOptions, fields: Fields) -> Version:
    return options.store.version(fields.get("job", ""), fields.get("version") or None)


def _page(version: Version) -> str:
    return f"/jobs/{version.job}/{version.name}"


def _stop(options: WebOptions, fields: Fields) -> Order:
    version = _version(options, fields)
    trial = fields.get("trial", "")
    if trial and not trial.isalnum():
        raise ConfigError(f"{trial[:40]!r} is no trial.")
    more = (f"--trial={trial}",) if trial else ()
    return Order(("stop", version.label, *more), {}, _page(version))


def _resume(options: WebOptions, fields: Fields) -> Order:
    version = _version(options, fields)
    return Order(("resume", version.label), {}, _page(version))


def _delete(options: WebOptions, fields: Fields) -> Order:
    store, job = options.store, fields.get("job", "")
    label = job
    if fields.get("version"):
        label = _version(options, fields).label
    else:
        store.job_record(job)
    if fields.get("typed") != label:
        raise ConfigError(f"Type {label} to delete it with all its results; nothing was deleted.")
    return Order(("delete", "--yes", label), {}, f"/jobs/{job}" if label != job else "/")


def _edit(options: WebOptions, fields: Fields) -> Order:
    job = fields.get("job", "")
    options.store.job_record(job)
    version = _version(options, fields) if fields.get("version") else None
    described = f"--description={fields.get('description', '')}"
    place = _page(version) if version else f"/jobs/{job}"
    return Order(("edit", version.label if version else job, described), {}, place)


def _export(options: WebOptions, fields: Fields) -> Order:
    version = _version(options, fields)
    # below the root, never to a place that a form names
    return Order(("best", version.label, f"--export={version.exports}"), {}, _page(version))


def _save_params(options: WebOptions, fields: Fields) -> Order:
    version, saved = _version(options, fields), check_name(fields.get("saved", ""), "parameter set")
    described = f"--description={fields.get('description', '')}"
    words = ("params", "save", saved, f"--job={version.label}", described)
    return Order(words, {}, "/params")


def _delete_params(options: WebOptions, fields: Fields) -> Order:
    saved = check_name(fields.get("saved", ""), "parameter set")
    return Order(("params", "delete", saved), {}, "/params")


def _use_params(options: WebOptions, fields: Fields) -> Order:
    saved = check_name(fields.get("saved", ""), "parameter set")
    name = check_name(fields.get("name", ""))
    described = f"--description={fields.get('description', '')}"
    words = ("params", "use", saved, f"--name={name}", described)
    return Order(words, {}, f"/jobs/{name}")


def _lines(text: str, flag: str) -> tuple[str, ...]:
    return tuple(f"{flag}={line.strip()}" for line in text.splitlines() if line.strip())


def _described(fields: Fields) -> tuple[tuple[str, ...], dict[str, str]]:
    """The options of a request that may come from a form, and the job file to write."""
    words: list[str] = []
    files = {}
    for name in ("boot_file", "entry", "multi", "devices"):
        if fields.get(name):
            words.append(f"--{name.replace('_', '-')}={fields[name]}")
    if fields.get("budget"):
        words += [f"--budget={part}" for part in fields["budget"].split()]
    words += _lines(fields.get("settings", ""), "--set")
    words += _lines(fields.get("arguments", ""), "--arg")
    if fields.get("file", "").strip():
        files["job.yaml"] = fields["file"]
        words.append("--config={folder}/job.yaml")
    return tuple(words), files


def _dry_run(options: WebOptions, fields: Fields) -> Order:
    name = check_name(fields.get("name", ""))
    code = options.code_folder(fields.get("code", ""))
    _below(code, fields.get("boot_file", ""))
    words, files = _described(fields)
    described = f"--description={fields.get('description', '')}"
    start = ("create", f"--name={name}", described, f"--code={code}", *words)
    return Order((*start, "--dry-run"), files, f"/jobs/{name}")


def _below(code: Path, boot_file: str) -> None:
    if boot_file and not (code / boot_file).resolve().is_relative_to(code):
        raise ConfigError(f"The boot file {boot_file[:200]!r} does not lie in {code}.")


def _names_code(key: str, value: str) -> bool:
    """Whether a pipeline's setting names code, itself or by way of another setting (`${weights}`).

    What says where trainings run (`slurm`, `ray`) counts as code as a whole.
    """
    model = key.lstrip("+~").startswith("model") and (":" in value or "$" in value)
    queue = _QUEUE_INSIDE.search(value) or ("$" in value and _AROUND_QUEUES.fullmatch(key))
    named = _PIPELINE_CODE.fullmatch(key) is not None
    return model or named or "_target_" in value or bool(queue)


def _new_version(options: WebOptions, fields: Fields) -> Order:
    parent = _version(options, fields)
    words, files = _described(fields)
    if parent.kind == "script":
        # the code that ran is a copy in the version; the folder it came from may lie anywhere
        code = fields.get("code") or ""
        folder = options.code_folder(code) if code else parent.path / "code"
        _below(folder.resolve(), fields.get("boot_file", ""))
        words = (f"--code={folder}", *words)
    else:
        words = _lines(fields.get("settings", ""), "--set")
        for word in words:
            key, _, value = word.removeprefix("--set=").partition("=")
            # the pipeline's command would take it for its own: --config-dir names code, too
            if key.startswith("-"):
                raise ConfigError(f"{key[:80]} is an option, no setting; write KEY=VALUE.")
            if _names_code(key, value):
                raise ConfigError(
                    f"The setting {key[:80]} names code, or where and how it is run (slurm, ray); start "
                    "that from the command line."
                )
    return Order(("new-version", parent.label, *words), files, f"/jobs/{parent.job}")


def _init(options: WebOptions, fields: Fields) -> Order:
    code = options.code_folder(fields.get("code", ""))
    return Order(("init", str(code), "--write={folder}/job.yaml"), {}, "")


VERBS: dict[str, Callable[[WebOptions, Fields], Order]] = {
    "dry-run": _dry_run,
    "init": _init,
    "new-version": _new_version,
    "use-params": _use_params,
    "stop": _stop,
    "resume": _resume,
    "delete": _delete,
    "edit": _edit,
    "export": _export,
    "save-params": _save_params,
    "delete-params": _delete_params,
}
