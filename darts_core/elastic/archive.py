"""Every sub-network that was judged, once: its cost, loss and metric on a part of val, and who found it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darts_core.elastic.cost import NetworkCost
from darts_core.elastic.network import Elastic
from darts_core.elastic.variables import Choices
from darts_core.reading import read_jsonl
from darts_core.runlog import write_text

__all__ = ["Archive", "Judged"]


@dataclass(frozen=True)
class Judged:
    """One sub-network.

    Attributes:
        choices: what it is.
        predicted_ms: by the latency table.
        loss: on a part of val.
        metric: there, too.
        by: which search asked for it first.
    """

    choices: dict[str, int]
    predicted_ms: float
    loss: float
    metric: float
    by: str


class Archive:
    """Judges sub-networks, each once.

    Args:
        net: the elastic network, trained.
        cost: its latency.
        judge: a plain, not yet recalibrated network -> (loss, metric).
        path: a file that keeps the rows, so that an interrupted search judges none twice.
        seen: called after each new row.
    """

    def __init__(
        self,
        net: Elastic,
        cost: NetworkCost,
        judge: Callable[[Any], tuple[float, float]],
        path: Path | None = None,
        seen: Callable[[int], None] | None = None,
    ) -> None:
        self.net, self.cost, self._judge, self.path, self._seen = net, cost, judge, path, seen
        self.rows: dict[tuple[int, ...], Judged] = {}
        found = read_jsonl(path) if path is not None else []
        self._before = {self._key(row["choices"]): row for row in found}
        if path is not None and found:
            # a kill while writing may have left half a line, which nothing must be written behind
            write_text(path, "".join(json.dumps(row) + "\n" for row in found))

    def _key(self, choices: Choices) -> tuple[int, ...]:
        return tuple(int(choices[variable.name]) for variable in self.net.variables)

    def known(self, choices: Choices) -> bool:
        """Whether the sub-network was judged in this search."""
        return self._key(choices) in self.rows

    def __call__(self, choices: Choices, by: str) -> Judged:
        """The sub-network's row."""
        key = self._key(choices)
        if key in self.rows:
            return self.rows[key]
        plain = {variable.name: int(choices[variable.name]) for variable in self.net.variables}
        before = self._before.get(key)
        if before is not None:
            # the search takes the same way again; only the judging is saved
            row = Judged(plain, self.cost.of(plain), before["loss"], before["metric"], by)
        else:
            loss, metric = self._judge(self.net.cut(plain))
            row = Judged(plain, self.cost.of(plain), loss, metric, by)
            self._keep(row)
        self.rows[key] = row
        if self._seen is not None:
            self._seen(len(self.rows))
        return row

    def _keep(self, row: Judged) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(row)) + "\n")

    def best(self, budget_ms: float, count: int = 1, by: Iterable[str] = ()) -> list[Judged]:
        """The rows within the budget of least loss, the best first; NaN is worse than any number."""
        wanted = set(by)
        able = [
            row
            for row in self.rows.values()
            if row.predicted_ms <= budget_ms and (not wanted or row.by in wanted)
        ]
        return sorted(able, key=_place)[:count]


def _place(row: Judged) -> tuple[bool, float, float]:
    # NaN compares with nothing: the rows around it would be in no order
    return math.isnan(row.loss), row.loss, row.predicted_ms
