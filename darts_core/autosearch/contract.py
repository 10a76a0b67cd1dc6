"""What user code sees inside a trial: its settings, its folders, and how it reports.

Only the standard library is imported here, so the contract also works in an interpreter of the user's
own that lacks this package's dependencies. Outside a trial everything still works and does nothing:
`config` is empty, `reporter` and `report` only check what they are given.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError

__all__ = [
    "MAX_LINE_BYTES",
    "MAX_METRICS",
    "METRIC_NAME",
    "Config",
    "StopTrial",
    "Trial",
    "current",
    "use",
]

TRIAL_VARIABLE = "DARTS_TRIAL"
MAX_LINE_BYTES = 64 * 1024
MAX_METRICS = 64
DECISION_SECONDS = 2.0  # a search that does not answer in this time is not waited for
METRIC_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,63}")


class StopTrial(BaseException):
    """Raised by `reporter` when the trial should end now; not an error.

    It is no `Exception`, so that `except Exception` in user code does not swallow it.
    """


class MissingSettingError(ConfigError, KeyError):
    """The trial's settings hold no such name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Config(dict[str, Any]):
    """The trial's settings by name; a missing name raises a sentence that lists the names there are."""

    def __missing__(self, name: str) -> Any:
        known = ", ".join(sorted(self)) or "none (the code runs outside a trial)"
        raise MissingSettingError(
            f"The trial has no setting {name!r}. Known: {known}. Add it to search_space, or read it with "
            f"config.get({name!r}, default)."
        )


def _number(name: str, value: Any) -> float | int | bool | None:
    """`value` as a plain number; None for NaN and infinities, which JSON does not know."""
    if not METRIC_NAME.fullmatch(name):
        raise ConfigError(
            f"The metric name {name[:80]!r} is not allowed; use up to 64 letters, digits and _ . / - "
            "beginning with a letter."
        )
    if isinstance(value, bool):
        return value
    try:
        number = value.item() if hasattr(value, "item") else value
        number = number if isinstance(number, int) else float(number)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(
            f"The metric {name}={str(value)[:80]!r} is not a number; report one number a metric."
        ) from None
    return number if math.isfinite(number) else None


def _check_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    if not metrics:
        raise ConfigError("reporter() got no metric; call it as reporter(accuracy=0.9).")
    if len(metrics) > MAX_METRICS:
        raise ConfigError(f"reporter() got {len(metrics)} metrics; report at most {MAX_METRICS}.")
    return {name: _number(name, value) for name, value in metrics.items()}


def harmless(value: Any, depth: int = 0) -> Any:
    """`value` as JSON data: unknown objects become their text, deep nesting is cut."""
    if depth > 6:
        return str(value)[:200]
    if isinstance(value, Mapping):
        return {str(k)[:200]: harmless(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [harmless(item, depth + 1) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError):
            return str(value)[:1000]
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)[:1000]


class Trial:
    """The running trial, or a stand-in that does nothing outside one."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder else None
        record: dict[str, Any] = {}
        if self.folder is not None:
            record = json.loads((self.folder / "trial.json").read_text(encoding="utf-8"))
        self.record = record
        self.config = Config(record.get("config", {}))
        self.trial_id: str = record.get("trial_id", "local")
        self.output_dir: str = record.get("output_dir", os.getcwd())
        self.checkpoint_dir: str = record.get(
            "checkpoint_dir", os.path.join(os.getcwd(), "checkpoint")
        )
        self.seed: int = record.get("seed", 0)
        self.device: str = record.get("device", "cpu")
        self.phase: str = record.get("phase", "search")
        # networks in search, which name their architecture when the trial ends
        self.searchables: list[Any] = []
        # the network that was built last, which is to be kept; see networks.py
        self.networks: list[Any] = []
        # the network given to `elastic`, and what becomes of it here; see elastic_network.py
        self.elastic: Any = None
        # whether the end of a script's process is taken care of; see closing.py
        self.watched = False
        # why the last latency measured here is not to be trusted; empty when it is
        self.latency_flag = ""
        self._iterations = 0
        self._lock = threading.Lock()

    @property
    def iterations(self) -> int:
        """Finished ones, as they were reported."""
        return self._iterations

    def _append(self, row: dict[str, Any]) -> None:
        if self.folder is None:
            return
        line = (json.dumps({"time": round(time.time(), 3), **row}, allow_nan=False) + "\n").encode()
        if len(line) > MAX_LINE_BYTES:
            raise ConfigError(
                f"A report of {len(line)} bytes is too long; keep one report below {MAX_LINE_BYTES} bytes "
                "and put large results into files in output_dir."
            )
        # one write in append mode: lines of several processes never mix
        with self._lock, open(self.folder / "reports.jsonl", "ab", buffering=0) as stream:
            stream.write(line)

    def reporter(self, **metrics: Any) -> None:
        """Report the metrics of one finished iteration (an epoch, some steps: your choice).

        A metric called `training_iteration` sets the iteration's number, for code that goes on from a
        checkpoint; otherwise calls are counted from 1.

        Raises:
            StopTrial: the trial should end (early stopping, a stop command, max_iterations reached).
            ConfigError: a metric is not a number, or its name is not allowed.
        """
        checked = _check_metrics(metrics)
        self._iterations += 1
        given = checked.pop("training_iteration", None)
        if isinstance(given, (int, float)) and given >= 1:
            self._iterations = int(given)
        limit = self.record.get("max_iterations")
        if limit and self._iterations > limit:
            # only the call after the last one stops: code that ends by itself gets to its report()
            raise StopTrial(f"max_iterations={limit} reached")
        flag = self._disturbed(checked)
        self._append(
            {
                "kind": "iteration",
                "iteration": self._iterations,
                "metrics": checked,
                **({"latency_flag": flag} if flag else {}),
            }
        )
        if self._iterations in self.record.get("decisions", ()):
            self._await_decision()
        if self.stop_requested():
            raise StopTrial("asked to stop")

    def _await_decision(self) -> None:
        """Wait for what the scheduler says of this iteration, so that no further one is begun in vain."""
        if self.folder is None:
            return
        end = time.monotonic() + DECISION_SECONDS
        while time.monotonic() < end and not self.stop_requested():
            try:
                if int((self.folder / "decided").read_text(encoding="utf-8")) >= self._iterations:
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.005)

    def _disturbed(self, names: Iterable[Any]) -> str:
        """Why a latency among what is reported is not to be trusted; "" where none is, or it is."""
        return self.latency_flag if any("latency" in str(name) for name in names) else ""

    def keep_model(self, model_path: str) -> None:
        """Name the trial's model, a file inside `output_dir`, without another final result."""
        self._append({"kind": "model", "model_path": model_path[:4096]})

    def report(
        self,
        acc: Any,
        latency: Any = None,
        model_path: Any = None,
        additional_data: Mapping[str, Any] | None = None,
    ) -> None:
        """Report the final result of the trial; call it once, at the end.

        Args:
            acc: the final accuracy (validation data), 0..1.
            latency: inference latency in milliseconds.
            model_path: the exported model, inside `output_dir`.
            additional_data: further pairs for the result table; its numbers may serve as objectives.
        """
        if additional_data is not None and not isinstance(additional_data, Mapping):
            raise ConfigError(
                f"additional_data must be a dict, not {type(additional_data).__name__}; pass pairs."
            )
        self._append(
            {
                "kind": "final",
                "acc": _number("acc", acc),
                "latency": None if latency is None else _number("latency", latency),
                "latency_flag": self._disturbed(
                    [*(additional_data or {}), *(["latency"] if latency is not None else [])]
                ),
                "model_path": None if model_path is None else str(model_path)[:4096],
                "additional_data": harmless(additional_data or {}),
            }
        )

    def stop_requested(self) -> bool:
        """Whether the scheduler or a command asked this trial to end."""
        return self.folder is not None and (self.folder / "stop").exists()


_current: Trial | None = None


def current() -> Trial:
    """The trial this process belongs to (children of a trial's process included)."""
    global _current
    if _current is None:
        _current = Trial(os.environ.get(TRIAL_VARIABLE))
    return _current


def use(trial: Trial) -> None:
    """Make another trial the current one."""
    global _current
    _current = trial
