"""Forecasts, interruptions, cost penalties: the parts that stages share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.commands.compose import compose, session
from darts_core.commands.jobname import default_job, job_and_version
from darts_core.errors import ConfigError, LatencyError, MemoryShortageError
from darts_core.latency import LatencyTable, table
from darts_core.metric import metric_of
from darts_core.runlog import write_json
from darts_core.search import Doubt, SearchConfig, SearchResult
from darts_core.spaces import get_space
from darts_core.stages import cost, pipeline, run
from darts_core.stages.budget import settle, settled_once
from darts_core.stages.cost import penalties, table_path
from darts_core.stages.forecast import duration, forecast
from darts_core.stages.fronts import search_front
from darts_core.stages.interrupt import check_stop, deferred_stop, handle_signals, stop_wanted
from darts_core.stages.schema import SearchStage
from darts_core.stages.search_setup import check_path, check_plain, space_of, step_of
from darts_core.stages.timing import stopwatch
from darts_core.supernet import create_supernet
from darts_core.testing import tiny_bundle

Data = namedtuple("Data", ["kind", "input_shape"])  # what a space is chosen by

CPU = torch.device("cpu")


class Hungry(nn.Module):
    """A classifier that claims to run out of memory above a batch size."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.layer = nn.Linear(64, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if len(x_BCHW) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return self.layer(x_BCHW.flatten(1))


def predict(most: int, batch_size: int, steps: int = 10) -> Any:
    return forecast(
        lambda: Hungry(most), tiny_bundle(channels=1),
        batch_size=batch_size, steps=steps, device=CPU, what="test",
    )  # fmt: skip


def test_a_forecast_counts_steps_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = predict(100, 8, steps=50)
    assert torch.equal(before, torch.get_rng_state())
    assert found.step_seconds > 0
    assert found.seconds == pytest.approx(50 * found.step_seconds)
    assert found.peak_mib > 10


def test_a_forecast_makes_the_steps_that_it_is_given() -> None:
    calls: list[tuple[int, ...]] = []
    forecast(
        lambda: Hungry(100), tiny_bundle(channels=1), batch_size=8, steps=5, device=CPU, what="test",
        step_of=lambda model: lambda x, y: calls.append((*x.shape, *y.shape)),
    )  # fmt: skip
    assert set(calls) == {(8, 1, 8, 8, 8)}
    assert len(calls) == 4  # one to warm up, three that are timed


@pytest.mark.parametrize(
    "strategy", ["first_order", "unrolled", "random_search", "zero_cost", "darts_pt"]
)
def test_the_forecast_of_a_search_steps_as_its_strategy_does(strategy: str) -> None:
    config, bundle = node(f"strategy={strategy}"), tiny_bundle(channels=1)
    space = get_space("nasbench201")
    supernet = create_supernet(
        space, channels=2, layers=1, num_classes=bundle.num_outputs, in_channels=1, image_size=8
    )
    before = [alpha.detach().clone() for alpha in supernet.alphas()]
    step = step_of(config, bundle, SearchConfig(epochs=4))(supernet)
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
    for _ in range(2):
        step(x, y)
    moved = any(not torch.equal(a, b) for a, b in zip(supernet.alphas(), before, strict=True))
    assert moved == (strategy in ("first_order", "unrolled", "darts_pt"))


@pytest.mark.parametrize(
    ("space", "side", "said"),
    [("convnet", 16, True), ("convnet", 8, False), ("convnet_deep", 16, False)],
)
def test_a_space_for_tiny_images_is_said_to_be_one(caplog, space, side, said) -> None:
    caplog.set_level("INFO")
    bundle = tiny_bundle(channels=1, size=side)
    assert space_of(node(f"space={space}"), bundle).name == space
    assert ("space=convnet_deep" in caplog.text) == said


@pytest.mark.parametrize(
    ("kind", "shape", "meant"),
    [
        ("image", (1, 8, 8), "convnet"), ("image", (3, 32, 15), "convnet"),
        ("image", (1, 16, 16), "convnet_deep"), ("image", (3, 224, 224), "convnet_deep"),
        ("series", (1, 125), "conv1d"), ("tokens", (32,), "gpt_tiny"),
    ],
)  # fmt: skip
def test_auto_is_a_space_that_suits_the_data(caplog, kind, shape, meant) -> None:
    caplog.set_level("INFO")
    space = space_of(node("space=auto"), Data(kind, shape))
    assert (space.name, space.reads) == (meant, kind)
    assert f"space=auto is {meant}" in caplog.text
    assert "for these try" not in caplog.text


@pytest.mark.parametrize("path", ["fused", "batched"])
def test_a_path_of_cells_is_refused_for_a_space_of_choices(path: str) -> None:
    chosen = node("space=convnet", f"search.path={path}")
    with pytest.raises(ConfigError, match=f"search.path={path} is for spaces of cells; convnet"):
        check_path(chosen, get_space("convnet"))
    check_path(node("space=convnet", "search.path=plain"), get_space("convnet"))
    check_path(node("space=darts", f"search.path={path}"), get_space("darts"))


def test_a_space_without_plain_networks_is_refused_before_it_is_searched() -> None:
    half = replace(get_space("darts"), name="half", skeleton="half")
    with pytest.raises(ConfigError, match=r"'half': Unknown skeleton .* search\.finalists=1"):
        check_plain(node(), half)
    check_plain(node("search.finalists=1"), half)
    check_plain(node(), get_space("darts"))


def test_operations_of_cells_are_refused_beside_a_network_of_ones_own() -> None:
    with pytest.raises(ConfigError, match=r"space\.ops= goes with a space of cells"):
        space_of(
            node("model=timm:resnet18", "space.ops=[skip_connect]"), Data("image", (3, 32, 32))
        )


def test_auto_has_no_space_for_named_inputs() -> None:
    with pytest.raises(ConfigError, match="no space for named data"):
        space_of(node("space=auto"), Data("named", ()))


def test_the_pipeline_searches_a_space_that_suits_the_data_unless_one_is_named(monkeypatch) -> None:
    bundle, checked = tiny_bundle(channels=1, size=28), []
    monkeypatch.setattr(run, "load_bundle", lambda *_: bundle)
    monkeypatch.setattr(run, "check_on_data", lambda config, _: checked.append(config.space.name))
    with session():
        usual, named = compose("run", []), compose("run", ["space=s1"])
    assert usual.space.name == "auto"
    found = run._on_its_data(usual)
    assert found.space.name == "convnet_deep"
    assert found.part(SearchStage).space.name == "convnet_deep"
    assert run._on_its_data(named) == named
    assert checked == ["convnet_deep", "s1"]


def test_several_seeds_say_by_what_they_are_judged(tmp_path, monkeypatch) -> None:
    rmse = {"name": "rmse", "direction": "minimize", "share": False}

    def stage(config: Any, folder: Path) -> dict[str, Any]:
        found = {"val_rmse": 1.0 + config.seed, "metric": rmse, "device_seconds": 1.0}
        write_json(folder / "search" / "result.json", found)
        return found

    monkeypatch.setattr(pipeline, "_call", stage)
    found = pipeline.run_command(node("seeds=3"), tmp_path)
    # what a sweeper is told: see commands/element.py
    assert found[f"val_{metric_of(found).name}"] == 2.0


def test_a_step_that_does_not_fit_names_the_largest_batch_that_does() -> None:
    with pytest.raises(
        MemoryShortageError, match=r"batch_size=16 does not fit.*largest that fits is batch_size=5"
    ):
        predict(5, 16)


@pytest.mark.parametrize(("seconds", "text"), [(12, "12 s"), (120, "2.0 min"), (7200, "2.0 h")])
def test_durations_are_said_in_a_fitting_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_next_checkpoint(number: signal.Signals) -> None:
    with handle_signals(), deferred_stop():
        check_stop()
        os.kill(os.getpid(), number)
        assert stop_wanted()
        with pytest.raises(KeyboardInterrupt, match="checkpoint is saved"):
            check_stop()
    assert not stop_wanted()


def test_a_second_signal_does_not_wait() -> None:
    with handle_signals(), deferred_stop():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_outside_of_loops_acts_at_once() -> None:
    with handle_signals(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_compiled_code_swallowed_stops_the_next_loop() -> None:
    with handle_signals():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        with deferred_stop(), pytest.raises(KeyboardInterrupt, match="checkpoint is saved"):
            check_stop()
    assert not stop_wanted()


def test_a_signal_that_compiled_code_turned_into_an_error_is_a_stop() -> None:
    def failing_import() -> None:
        with handle_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt as stop:
                raise ImportError("initialization failed") from stop

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        failing_import()
    with pytest.raises(ImportError), handle_signals():
        raise ImportError("without a signal")


def node(*overrides: str) -> Any:
    with session() as extra:
        return compose("search", ["search.channels=2", "search.layers=1", *overrides], extra)


def test_nothing_is_charged_unless_asked() -> None:
    assert penalties(node(), get_space("nasbench201"), (1, 8, 8), 10, CPU) == []


def test_a_budget_of_macs_charges_more_for_dearer_mixtures() -> None:
    space = get_space("nasbench201")
    settings = node("latency.cost=macs", "latency.budget=0.01", "latency.strength=0.5")
    state = torch.get_rng_state()
    soft, hard = penalties(settings, space, (1, 8, 8), 10, CPU)
    assert torch.equal(state, torch.get_rng_state())
    cheap, dear = torch.zeros(6, 5), torch.zeros(6, 5)
    cheap[:, space.ops.index("skip_connect")] = 1.0
    dear[:, space.ops.index("nor_conv_3x3")] = 1.0
    for penalty in (soft, hard):
        assert penalty({"cell": dear}) > penalty({"cell": cheap})


def test_a_budget_of_macs_holds_for_a_space_of_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    space = get_space("mobilenet")
    settings = node("search.layers=3", "latency.cost=macs", "latency.budget=0.2")
    (hard,) = penalties(settings, space, (1, 8, 8), 10, CPU)
    smallest = {n: torch.eye(len(o))[:1] for n, o in space.choices}
    largest = {n: torch.eye(len(o))[-1:] for n, o in space.choices}
    assert hard(largest) > hard(smallest)
    # counting a space takes seconds
    monkeypatch.setattr(cost, "cost_model", lambda *_, **__: hard.cost)
    settings = node("search.layers=3", "latency.cost=macs", "latency.budget=0.0001")
    with pytest.raises(LatencyError, match=r"below the .* network"):
        penalties(settings, space, (1, 8, 8), 10, CPU)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["latency.budget=3"], "budget_ms"),
        (["latency.cost=macs", "latency.budget_ms=3"], "cost=latency"),
        (["latency.cost=time", "latency.strength=1"], "latency.cost.*latency, macs, params"),
    ],
)
def test_a_cost_that_cannot_be_meant_is_a_sentence(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        penalties(node(*overrides), get_space("nasbench201"), (1, 8, 8), 10, CPU)


def test_a_latency_budget_that_no_network_meets_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overhead is fitted once and kept, before the budget is judged."""
    fitted = {"overhead_ms": 0.5, "slope": 1.0, "n": 8, "rmse_ms": 0.0, "disturbed": 3}
    monkeypatch.setattr(cost, "fit_networks", lambda *a, **k: fitted)
    monkeypatch.setattr(
        table, "time_group", lambda group, _, **__: (dict.fromkeys(group.calls, 1.0), False)
    )
    space = get_space("nasbench201")
    settings = node("latency.budget_ms=0.01", "latency.batch=1", "latency.runtime=eager",
                    "latency.wait_seconds=0", f"out={tmp_path}")  # fmt: skip
    sentence = r"below the fastest network .* takes [0-9.]+ ms; raise the budget"
    with pytest.raises(LatencyError, match=sentence):
        penalties(settings, space, (1, 8, 8), 10, CPU)
    (file,) = (tmp_path / "latency").glob("*.json")
    assert LatencyTable.load(file).fits == {}, "taken beside other work: the next search fits anew"
    fitted["disturbed"] = 0
    with pytest.raises(LatencyError, match=sentence):
        penalties(settings, space, (1, 8, 8), 10, CPU)
    (fit,) = LatencyTable.load(file).fits.values()
    assert fit == fitted
    monkeypatch.setattr(cost, "fit_networks", lambda *a, **k: pytest.fail("fitted again"))
    settings = replace(settings, latency=replace(settings.latency, budget_ms=1e6))
    (penalty,) = penalties(settings, space, (1, 8, 8), 10, CPU)
    assert penalty.budget == 1e6


def test_a_sweep_of_budgets_draws_one_front(tmp_path: Path) -> None:
    space = get_space("nasbench201")
    dear = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    found = SearchResult(
        Architecture.from_text(dear), weights={"cell": np.full((6, 5), 0.2).tolist()}
    )
    (priced,) = penalties(
        node("latency.cost=macs", "latency.budget=100"), space, (1, 8, 8), 10, CPU
    )
    for index, budget in enumerate((0.6 * priced.cost.of(found.architecture), 100.0)):
        settings = node("latency.cost=macs", f"latency.budget={budget}")
        charged = penalties(settings, space, (1, 8, 8), 10, CPU)
        kept, facts = settle(found, space, charged, None, lambda _: [])
        changed = kept.architecture != found.architecture
        assert changed == (index == 0)
        assert [w["name"] for w in facts["warnings"]] == ["budget"] * changed
        assert facts["cost"]["measured"] == facts["cost"]["found"] <= budget
        assert facts["cost"]["pick"] == dear
        folder = tmp_path / str(index) / "search"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"val_accuracy": 0.5 + index / 10, **facts}))
        picture = search_front(folder)
        assert (picture is None) == (index == 0)
    assert picture is not None
    assert picture.parent == tmp_path
    assert picture.stat().st_size > 1000
    assert settle(found, space, [], None, lambda _: []) == (found, {})
    assert search_front(tmp_path / "V001" / "search") is None


def test_tables_of_different_hardware_or_runtimes_do_not_share_a_file() -> None:
    one, two = table_path("runs", CPU, "onnx"), table_path("runs", CPU, "eager")
    assert one.parent == two.parent
    assert one.name != two.name
    assert one.name.endswith("-onnx.json")


@pytest.mark.parametrize(
    ("command", "overrides", "job"),
    [
        ("search", ["data=digits", "space=darts"], "digits-darts"),
        ("search", ["space=darts,nasbench201", "seed=1,2"], "digits-darts+nasbench201"),
        ("train", ["architecture=DARTS_V2"], "digits-DARTS_V2"),
        ("train", ["architecture=runs/x/V001"], "digits-train"),
        ("export", ["model=runs/x/V001/train"], "digits-export"),
        ("search", ["data.name='höhlen'", "space=darts"], "h_hlen-darts"),
        ("search", ["data.name='石'", "space=darts"], "darts"),
    ],
)
def test_the_job_is_named_after_data_and_space(
    command: str, overrides: list[str], job: str
) -> None:
    firsts = [text.split(",")[0] for text in overrides]
    with session() as extra:
        config = compose(command, firsts, extra)
    assert default_job(config, overrides) == job


def test_a_job_may_be_named_with_its_version() -> None:
    def named(*overrides: str) -> tuple[str | None, str | None]:
        with session() as extra:
            found = job_and_version(compose("report", overrides, extra))
        return found.job, found.version

    assert named("job=a/V002") == named("job=a/V002", "version=V002") == ("a", "V002")
    assert named("job=a") == ("a", None)
    # an element of a multirun, of which there is a page
    assert named("job=a/V002/0") == named("job=a/V002/0", "version=V002") == ("a", "V002/0")
    with pytest.raises(ConfigError, match=r"job=a/V002 and version=V001 name two versions"):
        named("job=a/V002", "version=V001")
    with (
        session() as extra,
        pytest.raises(ConfigError, match=r"for example model=runs/a/V002/0/train\.$"),
    ):
        job_and_version(compose("bench", ["job=a/V002/0"], extra))


def test_a_changed_pick_keeps_the_doubts_that_speak_of_the_search() -> None:
    space = get_space("nasbench201")
    dear = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    (priced,) = penalties(
        node("latency.cost=macs", "latency.budget=100"), space, (1, 8, 8), 10, CPU
    )
    priced.budget = 0.6 * priced.cost.of(Architecture.from_text(dear))
    doubts = [Doubt("ties", "nothing is decided.", of_search=True), Doubt("skips", "too many.")]
    found = SearchResult(
        Architecture.from_text(dear), weights={"cell": np.full((6, 5), 0.2).tolist()}, doubts=doubts
    )
    kept, _ = settle(found, space, [priced], None, lambda _: [])
    assert kept.architecture != found.architecture
    assert kept.doubts == doubts[:1]


def test_a_search_that_goes_on_keeps_the_network_that_its_budget_was_settled_with(
    tmp_path: Path,
) -> None:
    space = get_space("nasbench201")
    dear = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    (priced,) = penalties(
        node("latency.cost=macs", "latency.budget=100"), space, (1, 8, 8), 10, CPU
    )
    priced.budget = 0.6 * priced.cost.of(Architecture.from_text(dear))
    found = SearchResult(
        Architecture.from_text(dear), seconds=1.0, weights={"cell": np.full((6, 5), 0.2).tolist()}
    )
    settled: list[int] = []

    def again(start: SearchResult) -> tuple[SearchResult, dict[str, Any]]:
        def measure() -> tuple[SearchResult, dict[str, Any]]:
            settled.append(1)
            return settle(start, space, [priced], None, lambda _: [])

        return settled_once(
            tmp_path / "settled.json", start, lambda _: [], measure, lambda: stopwatch(CPU)
        )

    first, facts = again(found)
    assert first.architecture != found.architecture
    priced.budget = 1e9  # what a second measurement might say
    assert again(found) == (first, facts)
    assert len(settled) == 1
    assert first.seconds > 1.0
    # a search that ended elsewhere is settled by itself
    assert (
        again(replace(found, architecture=first.architecture))[0].architecture == first.architecture
    )
    assert len(settled) == 2
