"""The result: headline, tiles, accuracy against latency, and the table behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import DartsError
from darts_core.metric import ACCURACY, Metric
from darts_core.report.aim import aim_searched, aim_sentence, aimed_batch
from darts_core.report.blocks import (
    Section,
    callout,
    card,
    count_text,
    details,
    duration,
    pair,
    plain_table,
    records,
)
from darts_core.report.escape import plain_text
from darts_core.report.family import family_headline, picked_of
from darts_core.report.html import Markup, render
from darts_core.report.models_front import baseline_row, comparable_rows, models_front
from darts_core.report.models_table import batches, reference, results_table
from darts_core.report.palette import KINDS
from darts_core.report.read import StageRun, VersionRun, read_rows
from darts_core.report.rows import ModelRow, finite
from darts_core.report.svg import number
from darts_core.report.svg_front import front_svg, key_html
from darts_core.report.verdict import (
    change,
    faster,
    no_worse,
    outcome,
    speed,
    standing,
    versus,
)

__all__ = ["benchmark_section", "final_row", "headline", "model_rows", "results_section", "tiles"]

_FEW_COLUMNS = 12


def model_rows(run: VersionRun) -> tuple[list[ModelRow], str]:
    """The bench rows of a version, or none with the sentence that says why."""
    bench = run.stages.get("bench")
    if bench is None or _what(bench) != "models" or not (bench.folder / "results.json").is_file():
        return [], ""
    try:
        return read_rows(bench.folder / "results.json"), ""
    except DartsError as error:
        return [], str(error)


def _what(bench: StageRun) -> str:
    """What was compared: models, or by name `step`, `kernels`, `tabular`."""
    return str(bench.setting("what") or "models")


def benchmark_section(run: VersionRun) -> Section | None:
    """The rows of a benchmark that is none of models; None where there was none."""
    bench = run.stages.get("bench")
    rows = bench.result.get("rows") if bench is not None else None
    if bench is None or _what(bench) == "models" or not isinstance(rows, list) or not rows:
        return None
    found = [row for row in rows if isinstance(row, Mapping)]
    # settings that all were measured with would push the times out of sight; where there are few columns,
    # what is the same may have been measured
    first = found[0] if len(found) > 1 and len(found[0]) > _FEW_COLUMNS else {}
    same = {k: v for k, v in first.items() if all(k in row and row[k] == v for row in found)}
    body = card(records([{k: v for k, v in row.items() if k not in same} for row in found]))
    if same:
        body += details("The same in every row", card(plain_table(same)))
    return Section("result", f"Benchmark: {_what(bench)}", body)


def final_row(rows: Sequence[ModelRow], batch: int, *, flagged: bool = False) -> ModelRow | None:
    """What the pipeline delivers: of the latest step but INT8, the fastest row at `batch`.

    Rows stand in the order of the steps.

    Rows timed under foreign load count only with `flagged`.
    """
    known = [kind for kind in KINDS if kind not in ("baseline", "int8")]
    order = [row.kind for row in rows if row.kind in known]
    kept = [
        row
        for row in rows
        if not row.baseline
        and row.kind in known
        and row.accuracy_mean is not None
        and batch in row.latency
        and (flagged or not row.latency[batch].flagged)
    ]
    return max(
        kept,
        key=lambda row: (order.index(row.kind), -row.latency[batch].median_ms),
        default=None,
    )


def _judged(metric: Metric, value: float | None, split: str = "test") -> str:
    """`97.3 % test accuracy`, `0.48 test R2`."""
    return f"{metric.text(value, 1)} {split} {metric.words}"


def _untimed(row: ModelRow, rows: Sequence[ModelRow]) -> str:
    """The model in one sentence where no time may be compared."""
    base = next((o for o in rows if o.baseline and o.accuracy_mean is not None), None)
    if base is None:
        return f"This is the {row.label} model."
    how = standing(row, base)
    than = "to" if how.startswith("equal in") else "as" if how.startswith("equally") else "than"
    return f"The {row.label} model is {how} {than} {base.name}."


def headline(run: VersionRun, rows: Sequence[ModelRow]) -> tuple[str, str]:
    """The page's title sentence and the one under it, with why a faster network was not shipped, if so."""
    title, under = _headline(run, rows)
    said = run.reduced.said if run.reduced is not None else ""
    return title, f"{under} {plain_text(said, limit=600)}".rstrip()


def _headline(run: VersionRun, rows: Sequence[ModelRow]) -> tuple[str, str]:
    sizes = batches(rows)
    if sizes:
        row = final_row(rows, sizes[-1])
        if row is not None:
            base = reference(rows, row, sizes[-1])
            title = f"{_judged(row.metric, row.accuracy_mean)} at {_time(row, sizes[-1])}"
            if base is None:
                return (
                    title,
                    f"The {row.label} model; there is no undisturbed baseline to compare with.",
                )
            aim = _aim(run.stages.get("search"), rows, row, sizes[-1])
            return title, outcome(row, base, sizes[-1]) + aim
        row = final_row(rows, sizes[-1], flagged=True)
        if row is not None:
            return _judged(row.metric, row.accuracy_mean), (
                f"{_untimed(row, rows)} All times were taken while other work ran on the device, so "
                "none is compared; measure again on a quiet machine (darts-core bench)."
                f"{aim_searched(run.stages.get('search'))}"
            )
    for stage in run.networks:
        front = stage.file("front.json") if stage.name == "shrink" else None
        told = family_headline(front, str(stage.result.get("picked")))
        if told is not None:
            return told
        value = stage.judged("test")
        if value is not None:
            size = stage.number("params")
            lead = f"{count_text(size)} parameters. " if size is not None else ""
            before, after = stage.number("latency_before_ms"), stage.number("latency_after_ms")
            if before and after:
                gained = speed(before / after)
                lead += f"Pruned from {number(before)} to {number(after)} ms, {gained}. "
            return _judged(stage.metric, value), f"{lead}No benchmark was run yet."
    search = run.stages.get("search")
    if search is not None and search.finished:
        spent = duration(search.number("device_seconds"))
        return f"An architecture found in {spent}", "It has not been trained on its own yet."
    tune = run.stages.get("tune")
    value = tune.judged("val") if tune else None
    if tune is not None and tune.finished and value is not None:
        listed = tune.result.get("trials")
        # what waits to be tried was none
        waits = [isinstance(t, Mapping) and t.get("state") == "waiting" for t in listed or ()]
        count = len(waits) - sum(waits)
        spent = duration(tune.number("device_seconds"))
        return f"{_judged(tune.metric, value, 'val')} with the best settings", (
            f"{count} trial{'' if count == 1 else 's'} in {spent}. They have not been trained on all "
            "samples or tested yet."
        )
    waiting = ", ".join(name for name, stage in run.stages.items() if not stage.finished)
    if not waiting:
        return f"{run.job} {run.version}", "Finished."
    return f"{run.job} {run.version}", f"Not finished yet: {waiting}."


def _aim(search: StageRun | None, rows: Sequence[ModelRow], row: ModelRow, batch: int) -> str:
    """Whether what was aimed at is met, at the batch of the aim; `batch` is that of the sentence before."""
    at = aimed_batch(search) or batch
    base = reference(rows, row, at)
    if base is None or at not in row.latency or row.latency[at].flagged:
        return aim_searched(search)
    where = "" if at == batch else f" at batch {at}"
    return aim_sentence(search, row, base, at, where)


def _time(row: ModelRow, batch: int) -> str:
    what = f"a batch of {batch}" if batch > 1 else "one sample"  # an image, a series, a row
    return f"{number(row.latency[batch].median_ms)} ms for {what}"


def _tile(value: str, what: str, versus: str = "", tone: str = "") -> dict[str, str]:
    number_, _, unit = value.partition(" ")
    return {"number": number_, "unit": unit, "what": what, "versus": versus, "tone": tone}


def tiles(run: VersionRun, rows: Sequence[ModelRow], cost: float | None) -> Markup:
    """The key figures of the delivered model, each against the baseline."""
    sizes = batches(rows)
    row = final_row(rows, sizes[-1]) if sizes else None
    row = row or (final_row(rows, sizes[-1], flagged=True) if sizes else None)
    parts = []
    if row is not None:
        base = next((other for other in rows if other.baseline), None)
        against, tone = "", ""
        if base is not None and base.accuracy_mean is not None:
            gain = row.metric.gain(row.accuracy_mean or 0.0, base.accuracy_mean)
            against = f"{change(row.metric, gain)} vs baseline"
            tone = _tone(gain)
        std = row.metric.spread_text(row.accuracy_std)
        seeds = f"test {row.metric.words}{std}, {row.n} seed{'s' if row.n > 1 else ''}"
        parts.append(_tile(row.metric.text(row.accuracy_mean or 0.0), seeds, against, tone))
        for batch in sizes:
            if batch not in row.latency:
                continue
            other = reference(rows, row, batch)
            against, tone = "", ""
            if row.latency[batch].flagged:
                against, tone = "under foreign load", "warn"
            elif other is not None:
                speedup = versus(row, other, batch)[0]
                against = f"{speed(speedup)} than baseline"
                tone = _tone(speedup - 1)
            shown = f"{number(row.latency[batch].median_ms)} ms"
            parts.append(_tile(shown, f"latency, batch {batch}", against, tone))
        for what, name in (("parameters", "params"), ("multiply-adds", "macs")):
            value, old = getattr(row, name), getattr(base, name, None) if base else None
            if value is not None:
                against = f"{number(value / old)}× the baseline's" if old else ""
                parts.append(_tile(count_text(value), what, against))
    else:
        stage = next(iter(run.networks), None)
        parts += _network_tiles(stage) if stage is not None else []
    if cost is not None:
        parts.append(_tile(f"{number(cost, 2)} ×", "one training: cost of it all"))
    return render("tiles", tiles=parts) if parts else Markup()


def _network_tiles(stage: StageRun) -> list[dict[str, str]]:
    """The key figures of a network before any benchmark, against the one that it was made of, if known."""
    parts, metric = [], stage.metric
    front = stage.file("front.json") if stage.name == "shrink" else None
    found = picked_of(front, str(stage.result.get("picked")))
    given: Mapping[str, Any] = found[2] if found else {}
    for split in ("test", "val"):
        value = stage.judged(split)
        if value is None:
            continue
        against, tone = "", ""
        if split == "test" and found:
            gain = metric.gain(value, given["metric"])
            against, tone = f"{change(metric, gain)} vs the given network", _tone(gain)
        parts.append(_tile(metric.text(value), f"{split} {metric.words}", against, tone))
    before, after = stage.number("latency_before_ms"), stage.number("latency_after_ms")
    if before and after:
        against = f"{speed(before / after)} than before"
        parts.append(_tile(f"{number(after)} ms", "latency", against, _tone(before - after)))
    for key, what in (("params", "parameters"), ("macs", "multiply-adds")):
        value, old = stage.number(key), finite(given.get(key))
        if value is not None:
            against = f"{number(value / old)}× the given network's" if old else ""
            parts.append(_tile(count_text(value), what, against))
    return parts


def _tone(gain: float) -> str:
    return "good" if gain >= 0 else "warn"


def _verdict(rows: Sequence[ModelRow], batch: int) -> Markup:
    """A sentence when nothing is on the far side of the baseline."""
    base = baseline_row(rows, batch)
    if base is None:
        return Markup()
    beaten = [
        row
        for row in comparable_rows(rows, batch)
        if not row.baseline and faster(versus(row, base, batch)[0]) and no_worse(row, base)
    ]
    if beaten:
        return Markup()
    return callout(
        f"At batch {batch} nothing is both faster than {base.label} and at least as "
        f"{'accurate' if base.metric == ACCURACY else 'good'}."
    )


def results_section(rows: Sequence[ModelRow], problem: str) -> Section | None:
    """Pictures at every batch size, their key, and the table; None when nothing was measured."""
    metric = rows[0].metric if rows else ACCURACY
    title = f"{metric.heading} against latency"
    if problem:
        return Section("result", title, callout(problem, "bad"))
    if not rows:
        return None
    pictures, remarks, fronts = [], [], []
    for batch in batches(rows):
        try:
            fronts.append(models_front(rows, batch))
            pictures.append(card(front_svg(fronts[-1]), title=f"Batch {batch}"))
            remarks.append(_verdict(rows, batch))
        except DartsError as error:
            remarks.append(callout(str(error), "bad"))
    flagged = [row.label for row in rows if row.flagged]
    if flagged:
        remarks.append(
            callout(
                "Measured under foreign load and kept out of the front (hollow marks): "
                f"{plain_text(', '.join(flagged), limit=600)}. Measure again on a quiet machine."
            )
        )
    device = next((r.latency[b].device or r.device for r in rows for b in r.latency), "")
    note = (
        f"Test {metric.words} is the mean over seeds with one standard deviation; latency is the median with "
        "its 5 and 95 % quantiles. The green edge is the Pareto front, to which a slower model belongs only "
        "if it is better by more than the standard error (of its seeds, or of the test examples); rows on "
        "it carry a green bar. "
        "Speed-up compares with the baseline in the same runtime, or with its fastest where it was not "
        f"measured there.{f' Device: {device}.' if device else ''}"
    )
    body = pair(*pictures) + key_html(fronts) + Markup().join(remarks)
    return Section("result", title, body + card(results_table(rows)), note)
