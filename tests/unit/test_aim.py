"""`run` aims at a part of its baseline's time: from the start, with a way out, told where it is missed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.commands.compose import compose, session
from darts_core.errors import LatencyError
from darts_core.report.aim import aim_html, aim_searched, aim_sentence
from darts_core.report.read import StageRun, VersionRun
from darts_core.report.results import headline
from darts_core.report.rows import Latency, ModelRow
from darts_core.runlog import read_json, write_yaml
from darts_core.settings import to_plain
from darts_core.stages import aim, reduce, run

CPU = torch.device("cpu")
FOUND = Architecture("convnet", choices=(("levels", 2),))


def pipeline(*overrides: str) -> Any:
    named = any(word.startswith("space=") for word in overrides)
    with session():
        return compose("run", [*overrides, *([] if named else ["space=convnet"])])


def node(*overrides: str) -> Any:
    return run._search_part(pipeline(*overrides)).latency


def test_half_of_the_baselines_time_is_the_default_and_is_not_firm() -> None:
    found = node("bench.baseline=resnet14", "bench.baseline_width=8", "train.channels=12")
    assert (found.share, found.firm) == (0.5, False)
    assert (found.baseline, found.baseline_width, found.channels) == ("resnet14", 8, 12)
    assert node("aim=0.2").share == 0.2
    assert node("space=conv1d").baseline == "dscnn"
    assert node("space=gpt_tiny").baseline == "transformer"


@pytest.mark.parametrize(
    "words",
    [("latency.budget_ms=3",), ("latency.strength=1",), ("latency.cost=macs",), ("aim=null",),
     ("latency.cost=params", "latency.budget=3")],
)  # fmt: skip
def test_what_is_said_of_cost_takes_its_place(words: tuple[str, ...]) -> None:
    found = node(*words)
    assert (found.share, found.firm) == (None, True)


def test_a_share_of_ones_own_is_firm() -> None:
    found = node("latency.share=0.3", "space=convnet")
    assert (found.share, found.firm, found.baseline) == (0.3, True, "resnet8")


class Timer:
    """2 ms for every network, or the error."""

    waited, make = 0.0, None

    def __init__(self, error: str = "") -> None:
        self.error = error

    def __call__(self, architecture: Architecture) -> Any:
        if self.error:
            raise LatencyError(self.error)
        return type("Timing", (), {"median_ms": 2.0})


def test_a_baseline_that_cannot_be_timed_leaves_the_search_without_an_aim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aim, "network_timer", lambda *_: Timer("no such runtime"))
    config = run._search_part(pipeline("space=convnet"))
    for _ in range(2):  # the second time from the file
        found = aim.with_budget(config, (1, 8, 8), 10, CPU, tmp_path).latency
        assert (found.share, found.budget_ms) == (None, None)
    assert caplog.text.count("aims at no time: no such runtime") == 2
    facts = aim.aim_facts(found, {}, FOUND, Timer(), tmp_path)["aim"]
    assert (facts["met"], facts["missed"], facts["found_ms"]) == (False, "no such runtime", 2.0)
    firm = replace(config, latency=replace(config.latency, firm=True))
    with pytest.raises(LatencyError, match="no such runtime"):
        aim.with_budget(firm, (1, 8, 8), 10, CPU, tmp_path / "firm")


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(aim, "network_timer", lambda *_: Timer())
    config = run._search_part(pipeline("space=convnet"))
    return aim.with_budget(config, (1, 8, 8), 10, CPU, folder).latency


def test_the_start_says_in_one_line_what_is_aimed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "darts_core")
    assert opened(tmp_path, monkeypatch).budget_ms == 1.0
    assert "aims at 0.50x of resnet8's 2 ms on this device: 1 ms" in caplog.text


def test_what_no_network_meets_is_left_once_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latency = opened(tmp_path, monkeypatch)

    def fails(known: bool) -> list[nn.Module]:
        raise LatencyError("the fastest takes 3 ms")

    assert aim.aimed_penalties(latency, fails, tmp_path) == []
    # a search that goes on does not ask again
    assert aim.aimed_penalties(latency, lambda _: pytest.fail("asked"), tmp_path) == []
    assert read_json(tmp_path / "budget.json")["missed"] == "the fastest takes 3 ms"
    with pytest.raises(LatencyError, match="3 ms"):
        aim.aimed_penalties(replace(latency, firm=True), fails, tmp_path)


def test_what_can_be_met_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latency, asked = opened(tmp_path, monkeypatch), []

    def make(known: bool) -> list[nn.Module]:
        asked.append(known)
        return [nn.Identity()]

    for _ in range(2):
        assert len(aim.aimed_penalties(latency, make, tmp_path)) == 1
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("facts", "words", "budget"),
    [
        ({"budget_ms": 1.0, "found_ms": 0.9, "met": True}, [], None),
        ({"budget_ms": 1.0, "found_ms": 1.5, "met": False}, [], "1 ms"),
        ({"budget_ms": 1.0, "found_ms": 9.0, "met": False}, [], "4.5 ms"),
        ({"budget_ms": 1.0, "found_ms": 0.9, "met": True}, ["prune.budget=60%"], "60%"),
        ({"budget_ms": 1.0, "found_ms": None, "met": False}, [], "as set"),
        (None, [], "as set"),
    ],
)
def test_pruning_goes_no_further_than_what_is_aimed_at(
    facts: dict[str, Any] | None,
    words: list[str],
    budget: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(reduce, "prune", lambda config, _: given.append(config.prune.budget) or {})
    search = {} if facts is None else {"aim": facts}
    found = reduce.reduced(pipeline("reduce=prune", *words), search, Path("v"))
    assert list(found) == ([] if budget is None else ["prune"])
    assert given == ([] if budget is None else [None if budget == "as set" else budget])


def test_shrinking_ships_the_point_that_meets_the_aim(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(reduce, "shrink", lambda config, _: given.append(config.shrink.pick) or {})
    search = {"aim": {"budget_ms": 0.25, "found_ms": 1.0, "met": False}}
    for words in ([], ["shrink.pick=70%"]):
        reduce.reduced(pipeline("reduce=shrink", *words), search, Path("v"))
    assert given == ["0.25 ms", "70%"]
    assert reduce.reduced(pipeline("reduce=none"), search, Path("v")) == {}


@pytest.mark.parametrize("stage", ["prune", "shrink"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), (None, None, "0.6 ms")),
        # a call of one sample takes other milliseconds than one of 32
        (("latency.batch=1",), (1, None, "0.6 ms")),
        (("latency.runtime=eager",), (None, "eager", "0.6 ms")),
        (("latency.batch=1", "{}.batch=32"), (32, None, "60%")),
        (("latency.runtime=eager", "{}.options.runtime=onnx"), (None, "onnx", "60%")),
        (("latency.channels=8", "train.channels=16"), (None, None, "60%")),
    ],
)
def test_what_is_aimed_at_is_timed_as_the_search_timed_it(
    stage: str,
    words: tuple[str, ...],
    told: tuple[int | None, str | None, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(reduce, stage, lambda config, _: given.append(getattr(config, stage)) or {})
    search = {"aim": {"budget_ms": 0.6, "found_ms": 1.0, "met": False}}
    config = pipeline(f"reduce={stage}", *(word.format(stage) for word in words))
    reduce.reduced(config, search, Path("v"))
    (node,) = given
    asked = node.budget if stage == "prune" else node.pick
    assert (node.batch, node.options.runtime, asked) == told


@pytest.mark.parametrize("stage", ["prune", "shrink"])
def test_what_an_older_program_began_in_milliseconds_goes_on(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(reduce, stage, lambda config, _: given.append(getattr(config, stage)) or {})
    search = {"aim": {"budget_ms": 0.6, "found_ms": 1.0, "met": False}}
    config = pipeline(f"reduce={stage}", "latency.batch=1")
    asked = "budget" if stage == "prune" else "pick"
    begun = replace(getattr(config, stage), **{asked: "0.6 ms"})
    (tmp_path / stage).mkdir()
    write_yaml(tmp_path / stage / "config.yaml", {stage: to_plain(begun)})
    reduce.reduced(config, search, tmp_path)
    assert given == [begun]


def row(ms: float, *, baseline: bool = False) -> ModelRow:
    time = {"median_ms": ms, "q05_ms": ms, "q95_ms": ms, "n": 5}
    return ModelRow.from_dict(
        {"name": "resnet8" if baseline else "ours", "kind": "baseline" if baseline else "exported",
         "runtime": "onnx", "accuracy_mean": 0.9, "latency": {"32": time}}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ms", "words"), [(0.8, "was aimed at, 0.4"), (1.8, "was aimed at and missed: 0.9")]
)
def test_the_report_says_whether_it_was_met(ms: float, words: str) -> None:
    facts = {"share": 0.5, "baseline": "<b>", "latency_ms": 2.0, "budget_ms": 1.0, "found_ms": ms,
             "met": ms < 1, "missed": "the fastest takes <i>"}  # fmt: skip
    stage = StageRun("search", Path("s"), result={"aim": facts})
    assert words in aim_sentence(stage, row(ms), row(2.0, baseline=True), 32)
    page = str(aim_html(stage))
    assert "of the 2 ms that &lt;b&gt; takes" in page
    assert "&lt;i&gt;" in page
    took = f"aimed at 0.5× of <b>'s time; its network took {ms / 2:.3g}×"
    assert took in aim_searched(stage)
    # folders written before say nothing of it
    old = StageRun("search", Path("s"), result={})
    assert aim_sentence(old, row(ms), row(2.0, baseline=True), 32) == str(aim_html(old)) == ""
    assert aim_searched(old) == aim_searched(None) == ""


def test_the_headline_judges_an_aim_at_the_batch_that_it_was_aimed_at() -> None:
    """At batch 32, of which the headline speaks, the network takes 0.9 of the baseline's time."""
    facts = {"share": 0.5, "baseline": "resnet8", "latency_ms": 2.0, "found_ms": 0.9}
    times = {True: (2.0, 40.0), False: (0.8, 36.0)}
    rows = [
        replace(row(1.0, baseline=base), latency={1: Latency(one), 32: Latency(many)})
        for base, (one, many) in times.items()
    ]
    for batch, words in (
        (1, " 0.5× of its time at batch 1 was aimed at, 0.4× is taken."),
        (None, " 0.5× of its time was aimed at and missed: 0.9× is taken."),
        (8, " The search aimed at 0.5× of resnet8's time; its network took 0.45×."),
    ):
        stage = StageRun("search", Path("s"), {"latency": {"batch": batch}}, result={"aim": facts})
        told = headline(VersionRun(Path("v"), "job", "V001", {"search": stage}), rows)
        assert told[1].endswith(f"(1 seed).{words}")
    # where the baseline's own time at that batch does not count, what the search knows is told
    own = next(one for one in rows if one.baseline)
    disturbed = {**own.latency, 1: Latency(2.0, flagged=True)}
    rows = [replace(one, latency=disturbed) if one is own else one for one in rows]
    run = VersionRun(
        Path("v"), "job", "V001", {"search": replace(stage, config={"latency": {"batch": 1}})}
    )
    assert headline(run, rows)[1].endswith(
        " The search aimed at 0.5× of resnet8's time; its network took 0.45×."
    )
