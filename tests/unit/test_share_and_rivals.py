"""A budget as a share of a rival's time, and rivals that are given what our network was given."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_aim import pipeline

from darts_core.commands.compose import compose, session
from darts_core.errors import ConfigError, DartsError, TuneError
from darts_core.runlog import read_json, write_json
from darts_core.stages import aim, rivals
from darts_core.stages.cost import baseline_of
from darts_core.stages.later import check_later
from darts_core.stages.rivals import check_rivals, rival_baseline
from darts_core.stages.run import _search_part

CPU = torch.device("cpu")


class Timer:
    """Stands in for the timer: 2 ms for whatever it is given; notes what it built."""

    waited = 0.0

    def __init__(self) -> None:
        self.make: Any = None
        self.built: list[Any] = []

    def __call__(self, architecture: Any) -> Any:
        self.built.append(self.make(architecture))
        return type("Timing", (), {"median_ms": 2.0})


def test_a_share_is_one_of_the_time_that_the_rival_takes_and_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = Timer()
    monkeypatch.setattr(aim, "network_timer", lambda *_: timer)
    whole = pipeline("latency.share=0.25", "bench.baseline=resnet8", "bench.baseline_width=3")
    config = _search_part(whole)
    state = torch.get_rng_state()
    found = aim.with_budget(config, (1, 8, 8), 10, CPU, tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert (found.latency.budget_ms, found.latency.share) == (0.5, None)
    assert read_json(tmp_path / "budget.json")["latency_ms"] == 2.0
    first = next(m for m in timer.built[0].modules() if isinstance(m, torch.nn.Conv2d))
    assert (first.in_channels, first.out_channels) == (1, 3)
    count = len(timer.built)
    again = aim.with_budget(config, (1, 8, 8), 10, CPU, tmp_path)
    assert again == found
    assert len(timer.built) == count
    plain = _search_part(pipeline("aim=null"))
    assert aim.with_budget(plain, (1, 8, 8), 10, CPU, tmp_path) is plain


def test_a_share_beside_another_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"latency\.share"):
        pipeline("latency.share=0.25", "latency.budget_ms=1")
    with pytest.raises(ConfigError, match=r"latency\.share"):
        pipeline("latency.share=0.25", "latency.cost=macs")


@pytest.mark.parametrize("equal", [False, True])
def test_rivals_are_tuned_over_as_many_trials_or_for_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, equal: bool
) -> None:
    given: list[tuple[str, Any, Path]] = []

    def tune(config: Any, folder: Path, *, beside: Path) -> dict[str, Any]:
        assert beside == tmp_path / "tune"
        given.append(("tune", config, folder))
        return {"best": {"learning_rate": 0.125}}

    def train(config: Any, folder: Path) -> dict[str, Any]:
        given.append(("train", config, folder))
        return {}

    monkeypatch.setattr(rivals, "tune", tune)
    monkeypatch.setattr(rivals, "train", train)
    config = pipeline(
        "bench.rivals=[4,drawn.yaml]", f"bench.equal_cost={equal}", "tune.trials=7",
        "train.channels=9",
    )  # fmt: skip
    names = [name for name, _ in rivals.train_rivals(config, tmp_path, seconds=12.5)]
    assert names == [
        "rival resnet8 w4 tune", "rival resnet8 w4 train", "rival drawn tune", "rival drawn train",
    ]  # fmt: skip
    width, _, drawn, trained = given
    assert (width[1].architecture, width[1].train.channels) == ("resnet8", 4)
    assert (drawn[1].architecture, drawn[1].train.channels) == ("drawn.yaml", 9)
    budget = (width[1].tune.trials, width[1].tune.device_seconds)
    assert budget == ((None, 12.5) if equal else (7, None))
    assert trained[1].train.learning_rate == 0.125
    assert trained[2] == tmp_path / "rivals" / "drawn" / "train"


def test_at_equal_cost_a_rival_s_study_has_no_other_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        rivals, "tune", lambda config, *_, **__: given.append(config.tune) or {"best": {}}
    )
    monkeypatch.setattr(rivals, "train", lambda *_: {})
    config = pipeline(
        "bench.equal_cost=true", "tune.trials=null", "tune.trainings=2", "tune.epochs=9"
    )
    rivals.train_like_the_network(
        config, "resnet8", tmp_path, seconds=12.5, beside=tmp_path / "tune"
    )
    (study,) = given
    assert study.device_seconds == 12.5
    assert (study.trials, study.trainings, study.epochs) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [("0", "is no width"), ("9999", "is no width"), ("4,04", "twice"), ("nowhere.yaml", "no such file"),
     ("DARTS_V3", "no known name"), ("'²'", "no known name")],
)  # fmt: skip
def test_a_rival_that_is_none_is_refused_before_any_work(
    tmp_path: Path, given: str, words: str
) -> None:
    with pytest.raises(DartsError, match=words):
        rivals.check_rivals(pipeline(f"bench.rivals=[{given}]"), tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("tune.sampler={name: tpe, kappa: 3}", "The sampler 'tpe' refuses"),
        ("tune.pruner={name: asha, cost_share: 2}", "cost_share=2 must lie between 0 and 1"),
        ("tune.warm_start=nowhere", "There is no study in nowhere to start from"),
        ("tune.options.storage=oracle://x", "The storage 'oracle://x' is not understood"),
        ("tune.options.artifacts=nope://x", "files cannot be kept at nope://x"),
    ],
)
def test_a_study_that_could_not_begin_is_refused_before_the_search(
    tmp_path: Path, given: str, words: str
) -> None:
    with pytest.raises(TuneError, match=words):
        check_later(pipeline(given), tmp_path)
    write_json(tmp_path / "tune" / "study.json", {})
    check_later(pipeline(given), tmp_path)


def test_a_database_in_a_file_is_made_with_its_study_alone(tmp_path: Path) -> None:
    version = tmp_path / "V001"
    check_later(pipeline(f"tune.options.storage=sqlite:///{version}/tune/trials.db"), version)
    assert not list(tmp_path.iterdir())


def test_a_study_that_an_older_program_began_is_not_refused_by_what_begins_now(
    tmp_path: Path,
) -> None:
    config = pipeline("tune.space.batch_size.choices=[32,0]")
    with pytest.raises(ConfigError, match=r"tune\.space\.batch_size"):
        check_later(config, tmp_path)
    write_json(tmp_path / "tune" / "study.json", {})
    check_later(config, tmp_path)


def test_sound_rivals_pass(tmp_path: Path) -> None:
    rivals.check_rivals(pipeline("bench.rivals=[4,resnet14,DARTS_V2]"), tmp_path)


@pytest.mark.parametrize(
    ("space", "name"), [("darts", "resnet8"), ("conv1d", "dscnn"), ("gpt_tiny", "transformer")]
)
def test_the_baseline_reads_what_the_searched_networks_read(space: str, name: str) -> None:
    assert rival_baseline(pipeline(f"space={space}")) == name
    assert rival_baseline(pipeline(f"space={space}", f"bench.baseline={name}")) == name


def test_a_baseline_that_reads_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"resnet8 reads image.*read series; leave it out for dscnn"
    ):
        check_rivals(pipeline("space=conv1d", "bench.baseline=resnet8"), tmp_path)


def test_a_rival_that_reads_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names resnet14, which reads image.*conv1d read series"):
        check_rivals(pipeline("space=conv1d", "bench.rivals=[4,resnet14]"), tmp_path)
    check_rivals(pipeline("space=conv1d", "bench.rivals=[4,dscnn]"), tmp_path)


def test_a_network_that_reads_something_else_than_the_data_is_not_timed(tmp_path: Path) -> None:
    with session():
        config = compose("search", ["space=conv1d", "latency.share=0.5"])
        # a time that is given is of whatever network it is of
        given = compose("search", ["space=conv1d", "latency.budget_ms=2", "latency.baseline_ms=3"])
    assert aim.with_budget(given, (1, 40), 4, CPU, tmp_path) is given
    with pytest.raises(
        ConfigError, match=r"resnet8 reads image, the data hold series.*latency\.baseline=dscnn"
    ):
        aim.with_budget(config, (1, 40), 4, CPU, tmp_path)
    assert not (tmp_path / "budget.json").exists()


def test_a_baseline_over_tokens_is_timed_for_networks_of_one_output() -> None:
    with session():
        node = compose(
            "search", ["latency.baseline=transformer", "latency.baseline_width=4"]
        ).latency
    assert baseline_of(node, (6,), 1)(torch.ones(2, 6, dtype=torch.int64)).shape == (2, 6, 1)
