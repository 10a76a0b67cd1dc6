"""Zero-code mode: a script runs unchanged; its metrics are read from what it prints and leaves behind.

A metric is `{name, regex}`, the last match on each printed line as a terminal shows it, or
`{name, file, key}`, an entry of a JSON file in the trial's output folder once the script has ended.
Standard library only, see contract.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from darts_core.autosearch.closing import CLOSING, SCRIPT_VARIABLE
from darts_core.autosearch.contract import StopTrial, Trial
from darts_core.autosearch.terminal import Terminal
from darts_core.errors import ConfigError, DartsError
from darts_core.reading import is_number, parse_json, read_text

__all__ = ["FROM_OUTSIDE", "run_script"]

# signals that a program does not raise by its own mistake; the system's out-of-memory killer sends SIGKILL
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

_STARTUP = Path(__file__).resolve().parent / "startup"  # seeds what the script imports
_FORCE_SECONDS = 3.0  # a script that ignores SIGTERM is killed after this time
_CLOSING_SECONDS = 60.0  # one that has a network to write has longer
_MAX_FILE_BYTES = 2**20
_LOOK_SECONDS = 0.2  # how often a silent script is asked whether it has ended
_LAST_BYTES = 2**20  # a pipe holds no more of what a script has printed before its end
# numbers that a pattern such as ([0-9.]+) knows a part of, or nothing
_ODD = re.compile(
    r"(?<![\w.])(?:[-+]?(?:nan|inf(?:inity)?)|-?(\d+(?:\.\d*)?|\.\d+)e[-+]?\d+|-(\d+(?:\.\d*)?|\.\d+))"
    r"(?!\w|\.\d)",
    re.IGNORECASE,
)


def _chunks(child: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What a script prints, until it has ended.

    A process that it left behind may hold its output open for ever: that one is not waited for.
    """
    stream, left = cast("IO[bytes]", child.stdout).fileno(), _LAST_BYTES
    while left > 0:
        ended = child.poll() is not None
        if not select.select([stream], [], [], 0 if ended else _LOOK_SECONDS)[0]:
            if ended:
                return
            continue
        chunk = os.read(stream, 2**16)
        if not chunk:
            return
        left -= len(chunk) if ended else 0
        yield chunk


def _lines(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """The lines of a script as a terminal shows them; what comes is passed on to the log at once."""
    terminal = Terminal()
    for chunk in _chunks(child):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        yield from terminal.feed(chunk)
    yield from terminal.finish()


def _digits(odd: re.Match[str]) -> str:
    """As many characters that any pattern for a number takes."""
    known = odd[1] or odd[2] or "0"
    known += "" if "." in known else "."
    return known + "0" * (len(odd[0]) - len(known))


def _last(
    pattern: re.Pattern[str], searched: str, line: str, odd: Sequence[re.Match[str]]
) -> tuple[int, float] | None:
    """Where the last match in `searched` ends that stands for a number in `line`, and that number."""
    for found in reversed(list(pattern.finditer(searched))):
        start, end = found.span(1 if pattern.groups else 0)
        end = next((one.end() for one in odd if one.start() < end < one.end()), end)
        with contextlib.suppress(ValueError):
            return end, float(line[start:end])
    return None


def _value(pattern: re.Pattern[str], line: str) -> float | None:
    """The number of the last match on a line that holds one.

    It is read whole: of `loss 9.5e-05` the pattern `loss ([0-9.]+)` takes `9.5` alone, and of `loss nan` or
    `loss -0.5` nothing, so that the last number before it would stand for the result.
    """
    odd = list(_ODD.finditer(line))
    found = _last(pattern, line, line, odd)
    if odd:
        other = _last(pattern, _ODD.sub(_digits, line), line, odd)
        # a match of the line as it is that stands further right is the last one all the same
        if other is not None and (found is None or other[0] >= found[0]):
            found = other
    return None if found is None else found[1]


def _start(record: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        SCRIPT_VARIABLE: "1",
        "PYTHONPATH": os.pathsep.join(
            [str(_STARTUP), record["code_dir"], os.environ.get("PYTHONPATH", "")]
        ),
    }
    script = ["-m", record["module"]] if record.get("module") else [record["boot_file"]]
    command = [sys.executable, "-u", *script, *record["arguments"]]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )


def _end(child: subprocess.Popen[bytes], folder: Path | None) -> None:
    child.terminate()
    writes = folder is not None and (folder / CLOSING).exists()
    force = threading.Timer(_CLOSING_SECONDS if writes else _FORCE_SECONDS, child.kill)
    force.daemon = True
    force.start()


def _content(path: Path) -> Any:
    """The JSON value in a file, or None when there is none of sane size."""
    try:
        return parse_json(read_text(path, limit=_MAX_FILE_BYTES), str(path))
    except DartsError:
        return None


def _from_files(items: Sequence[Mapping[str, str]], folder: Path) -> dict[str, float]:
    """Metrics that the script wrote into JSON files; what is not there or no number is left out."""
    found: dict[str, float] = {}
    for item in items:
        content = _content(folder / item["file"])
        value = content.get(item["key"]) if isinstance(content, dict) else None
        if is_number(value):
            found[item["name"]] = value
    return found


def run_script(trial: Trial) -> int:
    """Run the boot file as a script, report its metrics; returns its exit status.

    The patterns run in this process, so a pattern that hangs costs this trial only.

    Raises:
        StopTrial: the trial was asked to end.
        ConfigError: the script ended well and the metric to optimise never came.
    """
    record = trial.record
    metrics = record["metrics"]
    patterns = [(item["name"], re.compile(item["regex"])) for item in metrics if "regex" in item]
    files = [item for item in metrics if "file" in item]
    reward = record.get("reward", metrics[0]["name"])
    child = _start(record)
    seen: dict[str, float] = {}
    later = False
    stop: StopTrial | None = None
    for line in _lines(child):
        values = [(name, _value(pattern, line)) for name, pattern in patterns]
        found = {name: value for name, value in values if value is not None}
        if not found:
            continue
        seen.update(found)
        later = True
        # the metric to optimise closes an iteration; the others only update their last value
        if reward in found and stop is None:
            try:
                trial.reporter(**seen)
                later = False
            except StopTrial as signalled:
                stop = signalled
                _end(child, trial.folder)
    code = child.wait()
    if stop is not None:
        raise stop
    written = _from_files(files, Path(trial.output_dir)) if code == 0 else {}
    if written or later:
        # these belong to the last iteration, not to one more
        trial.reporter(**{**seen, **written, "training_iteration": max(1, trial.iterations)})
    if (
        code == 0
        and (model := record.get("model_file"))
        and (Path(trial.output_dir) / model).is_file()
    ):
        trial.keep_model(model)
    # one that went on from its last checkpoint may have nothing left to print
    went_on = record.get("attempt", 1) > 1 and any(name == reward for name, _ in patterns)
    if code == 0 and not went_on and reward not in {**seen, **written}:
        raise ConfigError(
            f"Neither a printed line nor a file gave {reward!r}; check general.metrics against the log "
            "and the output folder."
        )
    return code
