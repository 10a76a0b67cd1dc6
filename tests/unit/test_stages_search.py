"""The stage `search`: what is refused before anything is loaded, and what a stop of one process means."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from darts_core.commands.compose import compose, session
from darts_core.distributed import Group
from darts_core.errors import ConfigError, MemoryShortageError, NonFiniteLossError, TuneError
from darts_core.runlog import RunFolder
from darts_core.search import halving
from darts_core.search.finalists import PICK, Finalist
from darts_core.stages import finalists as finalists_stage
from darts_core.stages import forecast
from darts_core.stages import search as stage
from darts_core.stages.schema import SearchStage
from darts_core.testing import tiny_bundle

SMALL = ["data=digits", "data.limit=200", "search.channels=2", "search.layers=1", "search.batch_size=32",
         "search.epochs=1", "search.path=plain", "device=cpu", "logger=none"]  # fmt: skip


def searching(*overrides: str) -> SearchStage:
    with session():
        found = compose("search", [*SMALL, *overrides])
    assert isinstance(found, SearchStage)
    return found


@pytest.mark.parametrize(
    ("ray", "slurm", "match"),
    [({"num_cpu": 2}, None, "setting of Ray"), ({}, {}, "one of the two")],
)
def test_a_wrong_cluster_of_the_finalists_ends_it_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray: Any, slurm: Any, match: str
) -> None:
    monkeypatch.setattr(stage, "load_bundle", lambda *_: pytest.fail("the data were loaded"))
    config = searching("space=nasbench201")
    config = replace(config, search=replace(config.search, ray=ray, slurm=slurm))
    with pytest.raises(TuneError, match=match):
        stage.search(config, tmp_path / "search")


def test_data_that_the_space_does_not_read_are_told_before_a_baseline_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "with_budget", lambda *_: pytest.fail("a network was timed"))
    config = searching("space=conv1d", "latency.share=0.5", "latency.baseline=dscnn")
    with pytest.raises(ConfigError, match=r"'conv1d' read series.*are none"):
        stage.search(config, tmp_path / "search")


def test_a_search_that_another_process_was_told_to_stop_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins for two processes: this is the first one, and the other one has got a signal."""
    folder, config = tmp_path / "search", searching("space=nasbench201")
    run = RunFolder.create(folder, config.described(), tensorboard=False)
    group = Group(0, 2, torch.device("cpu"))
    monkeypatch.setattr(stage, "open_run", lambda *_: (group, run, False))
    monkeypatch.setattr(stage, "first_goes_first", lambda _: contextlib.nullcontext())
    told: dict[str, Any] = {}
    monkeypatch.setattr(stage, "forecast", lambda *_, **options: told.update(options))
    # all processes left the loop, as it asks them together
    monkeypatch.setattr(stage, "search_distributed", lambda *_, **__: object())
    monkeypatch.setattr(Group, "agree", lambda self, value: True)
    with pytest.raises(KeyboardInterrupt, match="a checkpoint is saved"):
        stage.search(config, folder)
    assert not run.finished
    assert told["processes"] == 2  # each runs half of a batch, which need not fit into one of them


class Half(nn.Module):
    """A classifier that notes the sizes and dtypes of what it gives, and asks for more than there is."""

    def __init__(self, seen: set[tuple[int, torch.dtype]], most: int) -> None:
        super().__init__()
        self.layer, self.seen, self.most = nn.Linear(64, 3), seen, most

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if len(x_BCHW) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        y_BK: Tensor = self.layer(x_BCHW.flatten(1))
        self.seen.add((len(y_BK), y_BK.dtype))
        return y_BK


def test_a_forecast_steps_as_one_of_the_processes_does_and_in_its_precision() -> None:
    seen: set[tuple[int, torch.dtype]] = set()
    options: Any = {"batch_size": 16, "steps": 5, "device": torch.device("cpu"), "what": "test"}
    forecast.forecast(
        lambda: Half(seen, 8),
        tiny_bundle(channels=1),
        processes=2,
        autocast=torch.bfloat16,
        **options,
    )
    assert seen == {(8, torch.bfloat16)}
    # the batch is named as it was given, also where two are stepped in the place of one
    for size, most in ((16, 7), (2, 1)):
        options["batch_size"] = size
        words = f"batch_size={size} in 2 processes does not fit"
        with pytest.raises(MemoryShortageError, match=words):
            forecast.forecast(
                partial(Half, seen, most), tiny_bundle(channels=1), processes=2, **options
            )


def one_epoch_of_two_finalists(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, with_pick: bool
) -> dict[str, Any]:
    """The result of a search whose pool is the pick, if so, and another architecture."""

    def pool(config: Any, found: Any, space: Any, *_: Any) -> list[Finalist]:
        rng = np.random.default_rng(0)
        other = next(a for a in iter(lambda: space.random(rng), None) if a != found.architecture)
        own = [Finalist(found.architecture, PICK)] if with_pick else []
        return [*own, Finalist(other, "a test")]

    monkeypatch.setattr(finalists_stage, "_choose", pool)
    config = searching("space=nasbench201", "search.finalist_epochs=1", "guards=none")
    return stage.search(config, folder)


def test_a_finalist_that_diverges_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = halving.fit

    def astray(*args: Any, run: RunFolder, **options: Any) -> Any:
        if run.path.parent.name == "00":
            raise NonFiniteLossError(
                "The training loss became NaN at epoch 1, step 1 of 2; stopped."
            )
        return fit(*args, run=run, **options)

    monkeypatch.setattr(halving, "fit", astray)
    result = one_epoch_of_two_finalists(tmp_path / "search", monkeypatch, with_pick=True)
    told = result["finalists"]
    assert told["winner"] == 1
    assert told["bracket"][0]["diverged"].startswith("The training loss became NaN at epoch 1")
    assert "diverged" not in told["bracket"][1]
    assert result["text"] == told["bracket"][1]["architecture"]
    (warning,) = [w for w in result["warnings"] if w["name"] == "finalists"]
    assert "1 of 2 finalists diverged" in warning["message"]


def test_a_sound_finalist_alone_is_returned_in_the_place_of_a_doubted_pick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([9.0, 1.0])  # as on a GPU, where a timing after the search counts anew
    monkeypatch.setattr(stage, "process_peak_mib", lambda _: next(peaks))
    result = one_epoch_of_two_finalists(tmp_path / "search", monkeypatch, with_pick=False)
    (only,) = result["finalists"]["bracket"]
    assert only["source"] == "a test"
    assert result["text"] == only["architecture"]
    assert result["peak_mib"] == 9.0


def test_the_memory_of_a_forecast_on_a_gpu_is_that_of_its_own_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: done.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 2**21)
    x, y = torch.zeros(1), torch.zeros(1)
    _, peak_mib = forecast._time(lambda *_: done.append("step"), x, y, torch.device("cuda"))
    assert (done[0], set(done[1:]), peak_mib) == ("reset", {"step"}, 2.0)


@pytest.mark.parametrize(("system", "mib"), [("linux", 2048.0), ("darwin", 2.0)])
def test_the_peak_of_a_process_is_in_mib_on_every_system(
    monkeypatch: pytest.MonkeyPatch, system: str, mib: float
) -> None:
    used = SimpleNamespace(ru_maxrss=2**21)
    monkeypatch.setattr("resource.getrusage", lambda _who: used)
    monkeypatch.setattr("sys.platform", system)
    assert forecast.process_peak_mib(torch.device("cpu")) == mib
