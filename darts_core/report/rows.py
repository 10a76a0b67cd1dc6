"""The row of an accuracy-against-latency table: what `bench` writes and what reports read."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from darts_core.errors import ConfigError, ResumeError
from darts_core.metric import ACCURACY, Metric, metric_of
from darts_core.reading import finite
from darts_core.report.escape import plain_text

__all__ = ["Latency", "ModelRow", "finite"]


@dataclass(frozen=True)
class Latency:
    """One measured time of a model at one batch size.

    Times are milliseconds for the whole batch; `q05_ms` and `q95_ms` are the 5 and 95 % quantiles of
    `n` repeats; a `flagged` one was measured under foreign load and enters no front.
    """

    median_ms: float
    q05_ms: float | None = None
    q95_ms: float | None = None
    n: int = 0
    peak_mib: float | None = None
    flagged: bool = False
    device: str = ""
    runtime: str = ""
    threads: int | None = None
    flag_reason: str = ""

    @property
    def where(self) -> str:
        """The device and, on a CPU, its thread count: only times of one place compare."""
        return self.device + (f", {self.threads} threads" if self.threads else "")

    @classmethod
    def from_timing(cls, timing: Any) -> Latency:
        """The record of a `latency.measure.Timing`, or of any object or mapping with its fields.

        Raises:
            ResumeError: there is no positive median among the fields.
        """
        get = timing.get if isinstance(timing, Mapping) else lambda key: getattr(timing, key, None)
        median = finite(get("median_ms"))
        if median is None or median <= 0:
            raise ResumeError(
                f"A latency of {plain_text(get('median_ms'))} ms is not a positive number; measure "
                "again with `darts-core bench`."
            )
        device, runtime = get("device"), get("runtime")
        return cls(
            median_ms=median,
            q05_ms=finite(get("q05_ms")),
            q95_ms=finite(get("q95_ms")),
            n=int(finite(get("n")) or 0),
            peak_mib=finite(get("peak_mib")),
            flagged=bool(get("flagged")),
            device="" if device is None else str(device),
            runtime="" if runtime is None else str(runtime),
            threads=int(finite(get("threads")) or 0) or None,
            flag_reason=str(get("flag_reason") or ""),
        )


@dataclass(frozen=True)
class ModelRow:
    """One model in one runtime: its size, its test accuracy over seeds, its time on one device.

    `kind` is the pipeline step it came from (baseline, searched, tuned, pruned, exported, int8 ...);
    `accuracies` are values of `metric` on the test split (shares right, 0..1, unless it is another one), one
    a seed; `latency` maps batch size -> Latency.
    """

    name: str
    kind: str = ""
    runtime: str = "eager"
    precision: str = "fp32"
    params: int | None = None
    macs: int | None = None
    accuracies: tuple[float, ...] = ()
    latency: Mapping[int, Latency] = field(default_factory=dict)
    device: str = ""
    data: str = ""
    baseline: bool = False
    notes: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    metric: Metric = ACCURACY

    @property
    def n(self) -> int:
        """How many seeds stand behind the accuracy."""
        return len(self.accuracies)

    @property
    def accuracy_mean(self) -> float | None:
        """Mean of the metric over seeds (of accuracies 0..1), or None when none was taken."""
        return sum(self.accuracies) / self.n if self.accuracies else None

    @property
    def accuracy_std(self) -> float | None:
        """Sample standard deviation over seeds (n - 1), or None for fewer than two."""
        return statistics.stdev(self.accuracies) if self.n > 1 else None

    @property
    def standard_error(self) -> float:
        """Of the metric's mean, by seeds and by the test examples; 0 if unknown.

        Seeds are tested on the same examples: more of them make the choice of examples no smaller a chance.
        """
        by_seeds = (self.accuracy_std or 0.0) / max(self.n, 1) ** 0.5
        examples, share = finite(self.extra.get("test_examples")), self.accuracy_mean
        if not examples or share is None:
            return by_seeds
        return math.hypot(by_seeds, self.metric.counting_error(share, examples))

    @property
    def rating(self) -> float:
        """The metric's mean on a scale where more is better; 0 when none was taken."""
        return self.metric.rating(self.accuracy_mean or 0.0)

    @property
    def label(self) -> str:
        """Name, runtime and precision in one short text: `pruned (onnxruntime, int8)`."""
        parts = [] if self.runtime == "eager" else [self.runtime]
        if self.precision != "fp32" and self.precision not in self.runtime:
            parts.append(self.precision)
        return f"{self.name} ({', '.join(parts)})" if parts else self.name

    @property
    def flagged(self) -> bool:
        """Whether any of its times was measured under foreign load."""
        return any(latency.flagged for latency in self.latency.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON content, with the derived accuracy figures beside the raw ones."""
        return {
            **{k: v for k, v in asdict(self).items() if k not in ("latency", "accuracies")},
            "accuracies": list(self.accuracies),
            "accuracy_mean": self.accuracy_mean,
            "accuracy_std": self.accuracy_std,
            "n": self.n,
            "latency": {str(batch): asdict(item) for batch, item in self.latency.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ModelRow:
        """The row that `to_dict` wrote; a lone `accuracy_mean` counts as one seed.

        Raises:
            ResumeError: it has no name, or a batch size or time is not a positive number.
        """
        if not isinstance(content, Mapping) or not content.get("name"):
            raise ResumeError(
                "A row of the results file has no name; write it with `darts-core bench`."
            )
        raw = content.get("accuracies")
        values = raw if isinstance(raw, list) and raw else [content.get("accuracy_mean")]
        accuracies = tuple(a for a in map(finite, values) if a is not None)
        times = content.get("latency") or {}
        try:
            latency = {int(batch): Latency.from_timing(item) for batch, item in times.items()}
        except (AttributeError, TypeError, ValueError):
            raise ResumeError(
                f"The latency of {plain_text(content['name'])!r} is not a mapping of batch size to "
                "times; write it with `darts-core bench`."
            ) from None
        size = {key: finite(content.get(key)) for key in ("params", "macs")}
        device = str(content.get("device") or "")
        if not device and latency:
            device = next(iter(latency.values())).device
        extra = content.get("extra")
        return cls(
            name=str(content["name"]),
            kind=str(content.get("kind") or ""),
            runtime=str(content.get("runtime") or "eager"),
            precision=str(content.get("precision") or "fp32"),
            params=None if size["params"] is None else int(size["params"]),
            macs=None if size["macs"] is None else int(size["macs"]),
            accuracies=accuracies,
            latency=latency,
            device=device,
            data=str(content.get("data") or ""),
            baseline=bool(content.get("baseline")) or content.get("kind") == "baseline",
            notes=str(content.get("notes") or ""),
            extra=dict(extra) if isinstance(extra, Mapping) else {},
            metric=_metric(content),
        )


def _metric(content: Mapping[str, Any]) -> Metric:
    try:
        return metric_of(content)
    except ConfigError as error:
        raise ResumeError(f"A row of the results file: {error}") from error
