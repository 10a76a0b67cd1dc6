"""What guards doubt is not returned: not after a stop, not at the end, and never unmarked."""

import numpy as np
import pytest
import torch
from test_guards import SPACE, ScriptedAlpha, bundle, run, supernet

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.search import Guard, GuardContext, GuardFinding, SearchConfig, search
from darts_core.search.guards import NearTies, SkipCount, Trainable, count_skips
from darts_core.spaces import get_space
from darts_core.spaces.confidence import decisions
from darts_core.strategies import FirstOrder, RandomSampling, SearchSettings
from darts_core.supernet import Supernet


class ScriptedCells(FirstOrder):
    """Alpha points to a scripted cell after each epoch."""

    def __init__(self, cells, scale=1.0):
        self.cells, self.scale = cells, scale

    def start_epoch(self, epoch, epochs):
        self.now = self.cells[min(epoch, len(self.cells) - 1)]

    def step(self, params_batch, alpha_batch):
        stats = super().step(params_batch, alpha_batch)
        with torch.no_grad():
            self.supernet.alpha["cell"].copy_(
                self.scale * self.supernet.one_hot(Architecture.from_text(self.now))["cell"]
            )
        return stats


def text(*ops):
    a, b, c, d, e, f = ops
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


C, S, P, N = "nor_conv_3x3", "skip_connect", "avg_pool_3x3", "none"
SOUND = text(C, C, S, P, C, C)
ALL_SKIP = text(S, S, S, S, S, S)
POOLED = text(S, P, P, S, P, P)


def found(cells, guards, scale=1.0):
    config = SearchConfig(epochs=len(cells), batch_size=8, evaluate=False)
    return search(supernet(), ScriptedCells(cells, scale), bundle(), config, guards=guards)


def test_a_collapse_in_the_last_epochs_is_not_returned_although_nothing_had_fired_yet():
    result = run([2, 2, 2, 3, 6, 6], [SkipCount(0.5, patience=3, after=0.0)])
    assert result.stopped is None
    assert count_skips(result.architecture) == (3, 6)
    assert (result.epoch, result.doubts) == (3, [])
    assert [f.guard for f in result.findings] == ["skips"]
    assert "Not returned" in result.findings[0].message


def test_when_everything_is_doubted_the_least_doubted_is_returned_and_says_so():
    result = run([6, 5, 4, 5, 6], [SkipCount(0.5, patience=2, after=0.0)])
    assert count_skips(result.architecture) == (4, 6)
    assert result.epoch == 2
    assert [d.guard for d in result.doubts] == ["skips"]
    assert "4 of 6 edges of the cell are skips" in result.doubts[0].message


def test_of_equally_doubted_ones_the_last_is_returned():
    result = run([5, 4, 4, 5], [SkipCount(0.5)])
    assert (count_skips(result.architecture), result.epoch) == ((4, 6), 2)


def test_a_cell_without_trainable_operations_is_doubted():
    result = found([SOUND, POOLED, POOLED], [Trainable()])
    assert result.architecture == Architecture.from_text(SOUND)
    assert result.doubts == []
    assert "no trainable operation" in result.findings[0].message


@pytest.mark.parametrize(
    ("cell", "sound"),
    [
        (SOUND, True),
        (POOLED, False),
        (ALL_SKIP, False),
        (text(N, N, N, N, N, N), False),
        # convolutions that no path from input to output passes
        (text(C, N, N, S, N, N), False),
        (text(N, N, C, P, C, N), False),
        # one that does, and the only one among pools
        (text(S, N, N, S, C, N), True),
        (text(C, P, P, P, P, P), True),
        (text(P, P, P, C, P, P), True),
    ],
)
def test_trainable_operations_count_on_paths_from_input_to_output_alone(cell, sound):
    architecture = Architecture.from_text(cell)
    context = GuardContext(None, None, None, None, 0, 0, architecture)
    assert (Trainable().doubt(context) is None) is sound


def test_published_cells_are_not_doubted():
    for name in Architecture.names():
        context = GuardContext(None, None, None, None, 0, 0, Architecture.named(name))
        assert Trainable().doubt(context) is None
        assert SkipCount().doubt(context) is None


def test_noise_counts_as_the_skips_that_it_stands_for():
    cells = {k: np.eye(2)[np.zeros(14, int)] for k in ("normal", "reduce")}
    assert count_skips(get_space("s4").discretize(cells)) == (8, 8)


def test_near_ties_everywhere_are_doubted_and_a_clear_choice_is_not():
    tied = found([SOUND, SOUND], [NearTies()], scale=0.01)
    assert [d.guard for d in tied.doubts] == ["ties"]
    assert "all 6 choices of the cell are near-ties" in tied.doubts[0].message
    assert found([SOUND, SOUND], [NearTies()], scale=0.1).doubts == []


def test_near_ties_mean_nothing_where_alpha_is_not_searched():
    net = supernet()
    strategy = RandomSampling()
    strategy.setup(net, SearchSettings())
    context = GuardContext(net, strategy, bundle(), SearchConfig(), 0, 0, net.discretize())
    assert NearTies().doubt(context) is None


def test_confidence_is_the_lead_over_the_nearest_rival_on_the_edge_or_on_one_left_out():
    space = get_space("darts")
    weights = {kind: np.full((14, 8), 0.02) for kind in ("normal", "reduce")}
    normal = weights["normal"]
    # node 2 keeps both of its edges: rivals are on the edge alone, and `none` is none
    normal[0, 4], normal[0, 5], normal[0, 0] = 0.5, 0.4, 0.9
    normal[1, 4] = 0.5
    # node 3 keeps two of three
    normal[2, 4], normal[3, 4], normal[4, 4] = 0.5, 0.3, 0.24
    made = {d.edge: d for d in decisions(space, weights) if d.kind == "normal"}
    assert made[(0, 2)].confidence == pytest.approx(0.2)
    assert made[(1, 2)].confidence == pytest.approx(0.96)
    assert made[(0, 3)].confidence == pytest.approx(1 - 0.24 / 0.5)
    assert made[(1, 3)].confidence == pytest.approx(0.2)
    assert (2, 3) not in made
    assert made[(0, 2)].choice == "sep_conv_3x3"


def test_confidence_of_labels_and_of_an_edge_without_rivals():
    space = get_space("mobilenet")
    weights = {k: np.full(s, 1 / s[1]) for k, s in space.alpha_shapes().items()}
    weights["stage1.depth"][0] = [0.2, 0.3, 0.5]
    made = {d.kind: d for d in decisions(space, weights)}
    assert made["stage1.depth"].confidence == pytest.approx(0.4)
    assert (made["stage1.depth"].choice, made["stage1.depth"].edge) == (3, None)
    assert made["stage2.depth"].confidence == 0.0
    single = SPACE.with_ops(["nor_conv_3x3"])
    assert {d.confidence for d in decisions(single, {"cell": np.ones((6, 1))})} == {1.0}


def test_s1_compares_what_an_edge_may_choose():
    space = get_space("s1")
    weights = {kind: np.full((14, 6), 0.5) for kind in ("normal", "reduce")}
    for kind in weights:
        weights[kind][~space.allowed(kind)] = 9.0
    assert {d.confidence for d in decisions(space, weights)} == {0.0}


class Stops(Guard):
    """Stops after an epoch and doubts what was found since another."""

    name = "stops"

    def __init__(self, at, since):
        self.at, self.since = at, since

    def after_epoch(self, context):
        if context.epoch != self.at:
            return None
        return GuardFinding(self.name, self.at, "enough", stop=True, since=self.since)


def test_what_a_stopping_guard_keeps_passes_the_other_guards():
    cells = [SOUND, SOUND, ALL_SKIP, ALL_SKIP, SOUND]
    result = found(cells, [Stops(4, since=4), SkipCount(0.5)])
    assert result.stopped == "guard stops: enough"
    assert (result.epoch, result.doubts) == (1, []), "epochs 2 and 3 are over the skip budget"


def test_a_stopping_guard_without_anything_good_before_goes_on_to_the_end():
    result = found([ALL_SKIP, ALL_SKIP, SOUND, SOUND], [Stops(1, since=0), SkipCount(0.5)])
    assert result.stopped is None
    assert result.architecture == Architecture.from_text(SOUND)


def test_a_finding_that_only_advises_removes_nothing():
    class Advises(Guard):
        name = "advises"

        def after_epoch(self, context):
            return GuardFinding(self.name, context.epoch, "look here")

    result = found([SOUND, SOUND], [Advises()])
    assert (result.epoch, result.doubts, len(result.findings)) == (1, [], 2)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("doubt", r"'odd': doubt\(context\) gives a str; .*darts_core\.search\.Doubt or None"),
        ("after_epoch", r"'odd': after_epoch\(context\) gives a str; .*\.GuardFinding or None"),
    ],
)
def test_what_a_guard_gives_is_looked_at(method, words):
    """A callback's sentence is easily taken for a guard's; a guard need not define both."""
    odd = type("Odd", (Guard,), {"name": "odd", method: lambda self, context: "all skips"})
    with pytest.raises(ConfigError, match=words):
        found([SOUND], [odd()])
    with pytest.raises(ConfigError, match="'odd' defines neither"):
        found([SOUND], [type("Odd", (Guard,), {"name": "odd"})()])


def test_doubts_survive_a_resume(tmp_path):
    def go(checkpoint, stop):
        config = SearchConfig(epochs=4, batch_size=8, evaluate=False)
        calls = iter(range(10**6))
        return search(
            supernet(), ScriptedAlpha([2, 6, 6, 6]), bundle(), config, checkpoint=checkpoint,
            guards=[SkipCount(0.5, patience=9)],
            should_stop=(lambda: next(calls) >= stop) if stop else None,
        )  # fmt: skip

    whole = go(tmp_path / "whole.pt", None)
    assert go(tmp_path / "cut.pt", 7).stopped == "asked to stop"
    again = go(tmp_path / "cut.pt", None)
    assert (again.architecture, again.epoch) == (whole.architecture, whole.epoch)
    assert whole.epoch == 0


def test_near_ties_of_a_whole_search_are_doubted_only_while_alpha_rests():
    torch.manual_seed(0)
    net = Supernet(SPACE, channels=2, layers=1, num_classes=3, in_channels=1)
    config = SearchConfig(epochs=2, batch_size=8, evaluate=False, alpha_warmup_epochs=2)
    resting = search(net, FirstOrder(), bundle(), config, guards=[NearTies()])
    assert [d.guard for d in resting.doubts] == ["ties"]


def test_the_share_of_near_ties_is_checked():
    with pytest.raises(ConfigError):
        NearTies(1.0)


def test_asking_whether_a_cell_learns_draws_no_random_number():
    from darts_core.supernet.learns import _trains

    _trains.cache_clear()
    before = torch.get_rng_state()
    assert _trains("nor_conv_3x3")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_operation_that_needs_more_channels_is_asked_with_more(monkeypatch):
    from darts_core.ops import OPS
    from darts_core.registry import Entry
    from darts_core.supernet.learns import _trains

    def grouped(channels, stride, *, affine):
        return torch.nn.Conv2d(channels, channels, 3, stride, 1, groups=8)

    def picky(channels, stride, *, affine):
        raise ValueError("24 channels or none")

    for name, make in (("grouped_of_a_test", grouped), ("picky_of_a_test", picky)):
        monkeypatch.setitem(OPS._entries, name, Entry(name, make, "of a test"))
        assert _trains(name)
    with pytest.raises(ConfigError, match="no_such_of_a_test"):
        _trains("no_such_of_a_test")
