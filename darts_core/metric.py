"""`Metric`: the number that a task is judged by: its name in files, which way is better, how it is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from darts_core.errors import ConfigError

__all__ = ["ACCURACY", "Metric", "metric_of", "worth"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")
_DIRECTIONS = ("maximize", "minimize")
# what sums of decimals leave
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Metric:
    """The number that a task is judged by.

    Attributes:
        name: `val_<name>` and `test_<name>` stand in the files.
        direction: "maximize" or "minimize".
        share: it lies from 0 to 1 and is shown in per cent.

    Raises:
        ConfigError: the name or the direction is none.
    """

    name: str
    direction: str = "maximize"
    share: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(str(self.name)):
            raise ConfigError(
                f"The metric name {str(self.name)[:80]!r} is not allowed; use small letters, digits and _."
            )
        if self.direction not in _DIRECTIONS:
            raise ConfigError(
                f"direction={self.direction!r} of the metric {self.name} is not allowed; choose "
                f"{' or '.join(_DIRECTIONS)}."
            )

    @property
    def words(self) -> str:
        """The name as prose has it."""
        return "R2" if self.name == "r2" else self.name.replace("_", " ")

    @property
    def file_keys(self) -> tuple[str, str]:
        """What it is called in files, on test and on val."""
        return f"test_{self.name}", f"val_{self.name}"

    @property
    def heading(self) -> str:
        """The name at the beginning of a line."""
        return f"{self.words[:1].upper()}{self.words[1:]}"

    def rating(self, value: float) -> float:
        """`value` on a scale where more is better."""
        return value if self.direction == "maximize" else -value

    def worth(self, value: float) -> float:
        """As `rating`; NaN is worse than any number."""
        return worth(self.rating(value))

    def best(self, values: Mapping[Any, float]) -> Any:
        """The key of the best value; NaN is worse than any number."""
        return max(values, key=lambda key: self.worth(values[key]))

    @property
    def article(self) -> str:
        """`an accuracy`, `a perplexity`."""
        return f"{'an' if self.words[0].lower() in 'aeio' else 'a'} {self.words}"

    @property
    def scale(self) -> float:
        """What a value is multiplied by to be shown: shares in per cent."""
        return 100.0 if self.share else 1.0

    @property
    def axis(self) -> str:
        """What an axis of it is called: `accuracy, %`."""
        return f"{self.words}, %" if self.share else self.words

    def gain(self, value: float, other: float) -> float:
        """How much better `value` is than `other`, as it is shown: in points, or in the metric's unit."""
        return self.scale * (self.rating(value) - self.rating(other))

    def gain_text(self, gain: float) -> str:
        """`gain` with its unit: `+0.52 points`, `+0.013 R2`."""
        return f"{gain:+.2f} points" if self.share else f"{gain:+.3g} {self.words}"

    def counting_error(self, value: float, examples: float) -> float:
        """The standard error of a share that was counted on so many examples; 0 of other metrics.

        A share that is no count (mean average precision) is taken for one: its error is of that size.
        """
        if not self.share or examples <= 0 or not 0 <= value <= 1:
            return 0.0
        return math.sqrt(value * (1 - value) / examples)

    def text(self, value: float | None, digits: int = 2) -> str:
        """`value` as a reader sees it: a share in per cent, other numbers plain.

        A share below 1 has as many digits more as tell it from 100 %.
        """
        if value is None:
            return "–"
        if not self.share:
            return f"{value:.{digits + 2}g}"
        shown = f"{100 * value:.{digits}f}"
        if value < 1 - _ROUNDING and float(shown) == 100:
            return self.text(value, digits + 1)
        return f"{shown} %"

    def spread_text(self, std: float | None) -> str:
        """A standard deviation, to stand behind a value: ` ± 0.20`; empty where there is none."""
        return "" if std is None else f" ± {self.text(std).removesuffix(' %')}"

    def with_spread(self, mean: float | None, std: float | None) -> str:
        """`97.30 ± 0.20 %` (mean and standard deviation over seeds), or a dash."""
        if mean is None:
            return self.text(mean)
        shown = self.text(mean).removesuffix(" %")
        return f"{shown}{self.spread_text(std)}{' %' if self.share else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)


ACCURACY = Metric("accuracy", share=True)


def worth(rating: float) -> float:
    """A rating, of which more is better; NaN, with which nothing compares, is worse than any number."""
    return -math.inf if math.isnan(rating) else rating


def metric_of(content: Mapping[str, Any]) -> Metric:
    """The metric that a result or a manifest names; accuracy in files that name none.

    Raises:
        ConfigError: what it names is none.
    """
    found = content.get("metric")
    if not isinstance(found, Mapping):
        return ACCURACY
    return Metric(
        str(found.get("name", "")), str(found.get("direction", "")), found.get("share") is True
    )
