import math
from dataclasses import replace

import numpy as np
import optuna
import pytest

from darts_core.autosearch.catalogue import ALGORITHMS
from darts_core.autosearch.space_yaml import code_dimension
from darts_core.autosearch.spec import Objective, SearchSpec
from darts_core.autosearch.study_spec import pruner_of, sampler_of, study_of
from darts_core.errors import ConfigError
from darts_core.study.budget import Budget
from darts_core.study.halving import HalvingPruner
from darts_core.study.propose import point_key, propose
from darts_core.study.pruners import RunningMeanPruner, make_pruner
from darts_core.study.samplers import Drawing, make_sampler
from darts_core.study.samplers.acquisition import AcquisitionSampler
from darts_core.study.space import SearchDimension, check_params
from darts_core.study.study import open_study

SPACE = (SearchDimension("x", low=0.0, high=1.0), SearchDimension("c", choices=("a", "b")))


ONE = (Objective("v", "max"),)


def spec(algorithm, *, goals=ONE, dimensions=SPACE, count=24, **options):
    defaults = ALGORITHMS[algorithm].defaults()
    return SearchSpec(
        "s", dimensions, tuple(goals), algorithm, {**defaults, **options}, num_samples=count
    )


def value(point):
    """Best at x = 0.3 with choice b."""
    return -((point["x"] - 0.3) ** 2) + (0.2 if point["c"] == "b" else 0.0)


class Asking:
    """Asks for points as a step of a plan does, one after another, and tells their values."""

    def __init__(self, made):
        self.spec, self.trials = made, []
        sampler_of(made)

    def sampler(self, again=0):
        draw = Drawing(self.spec.seed, len(self.trials), self.spec.space, self.spec.num_samples)
        return make_sampler(sampler_of(self.spec), replace(draw, again=again))

    def ask(self):
        goals = [{"max": "maximize", "min": "minimize"}[o.mode] for o in self.spec.objectives]
        seed = (self.spec.seed, len(self.trials))
        return propose(self.spec.space, goals, self.trials, self.sampler, seed=seed)

    def tell(self, point, values):
        space = self.spec.space
        trial = optuna.trial.create_trial(
            params=check_params(point, space),
            distributions={name: d.distribution() for name, d in space.items()},
            values=list(values),
        )
        self.trials.append(trial)


def run(made, count=24, sign=1.0):
    algorithm = Asking(made)
    best, first = [], []
    for number in range(count):
        point = algorithm.ask()
        if point is None:
            break
        algorithm.tell(point, [sign * value(point)])
        best.append(value(point))
        if number < 6:
            first.append(point)
    return best, first


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tpe_search", {}),
        ("bayes_opt_search", {"kind": "ucb"}),
        ("bayes_opt_search", {"kind": "poi", "xi": 0.001}),
        ("anneal_search", {}),
        ("evolution_search", {"population": 6}),
    ],
)
def test_model_based_algorithms_end_near_the_optimum(name, options):
    best, _ = run(spec(name, **options), 16 if name.startswith("bayes") else 24)
    # a random point reaches this with a chance of about 12 %
    assert max(best) > 0.2 - 0.06**2
    # random points have mean -0.02
    assert np.mean(best[-8:]) > 0.06


def test_xi_is_not_lost_with_expected_improvement():
    made = Asking(spec("bayes_opt_search", kind="ei", xi=0.2)).sampler()
    assert (made.kind, made.xi) == ("ei", 0.2)
    goals = (Objective("v"), Objective("w"))
    with pytest.raises(ConfigError, match=r"xi 0\.2 handles one objective"):
        Asking(spec("bayes_opt_search", goals=goals, kind="ei", xi=0.2))


def test_bayes_with_expected_improvement():
    best, _ = run(spec("bayes_opt_search", kind="ei", n_initial_points=4), 8)
    assert max(best[4:]) > 0.19  # within 0.1 of the optimum, at its choice


def test_minimising_is_the_mirror_of_maximising():
    for name in ("anneal_search", "tpe_search"):
        up = run(spec(name), 10)[1]
        down = run(spec(name, goals=(Objective("v", "min"),)), 10, sign=-1.0)[1]
        assert up == down


def test_seeds_repeat_and_differ():
    made = spec("random_search")
    assert run(made, 6)[1] == run(made, 6)[1]
    assert run(made, 6)[1] != run(replace(made, seed=2), 6)[1]


def test_tpe_gamma_is_ceil_of_share():
    gamma = Asking(spec("tpe_search", gamma=0.25)).sampler()._gamma
    assert [gamma(n) for n in (1, 4, 5, 20)] == [1, 1, 2, 5]


def ask_the_grid(space, known, enqueued=()):
    """Points of a real study over a grid, in the order in which they are asked for."""
    study = optuna.create_study(direction="maximize")
    distributions = {name: d.distribution() for name, d in space.items()}
    for point in known:
        study.add_trial(
            optuna.trial.create_trial(params=point, distributions=distributions, values=[0.0])
        )
    for point in enqueued:
        study.enqueue_trial(point)
    found = []
    for number in range(math.prod(d.size for d in space.values()) - len(known)):
        study.sampler = make_sampler(
            {"name": "grid", "shuffle": False}, Drawing(1, number, space, 9)
        )
        trial = study.ask(distributions)
        found.append(trial.params)
        study.tell(trial, 0.0)
    return found


def test_grid_goes_through_all_in_order_and_knows_loaded_points():
    dims = (
        SearchDimension("a", choices=(1, 2)),
        SearchDimension("b", low=0, high=2, integer=True),
    )
    space = spec("grid_search", dimensions=dims).space
    points = ask_the_grid(space, [{"a": 1, "b": 1}])
    assert points == [{"a": 1, "b": 0}, {"a": 1, "b": 2}, *({"a": 2, "b": b} for b in range(3))]
    points = ask_the_grid(space, [], enqueued=[{"a": 2, "b": 0}])
    assert points[0] == {"a": 2, "b": 0}
    assert len({point_key(point) for point in points}) == 6
    with pytest.raises(ConfigError, match="num"):
        Asking(spec("grid_search"))


def test_a_finite_space_is_never_repeated_and_ends():
    dims = (SearchDimension("a", choices=tuple(range(5))),)
    for name in ("random_search", "tpe_search", "evolution_search"):
        algorithm = Asking(spec(name, dimensions=dims))
        seen = []
        while (point := algorithm.ask()) is not None:
            seen.append(point_key(point))
            algorithm.tell(point, [float(point["a"])])
        assert len(seen) == len(set(seen)) == 5


def test_choices_that_are_equal_to_python_stay_apart():
    dimension = SearchDimension("a", choices=(1, True, 1.0, "1"))
    stored = dimension.stored_values()
    assert len(set(stored)) == 4
    assert [type(dimension.decode(s)) for s in stored] == [int, bool, float, str]


def test_evolution_steps_to_similar_codes():
    codes = ["11-21", "11-12", "1-21", "1-1-1-1-1111111111-2222", "11-211"]
    dimension = code_dimension("code", codes)
    assert dimension.near[0][0] in (1, 2, 4)
    assert all(3 not in near for near in (dimension.near[0], dimension.near[1]))


def test_acquisition_functions_by_hand():
    mean, std = np.array([0.0, 1.0]), np.array([1.0, 0.1])
    ucb = AcquisitionSampler("ucb", kappa=2.5, seed=0).score(mean, std, 1.0)
    np.testing.assert_allclose(ucb, [2.5, 1.25])
    poi = AcquisitionSampler("poi", xi=0.1, seed=0).score(mean, std, 1.0)
    expected = [0.5 * math.erfc(1.1 / math.sqrt(2)), 0.5 * math.erfc(1.0 / math.sqrt(2))]
    np.testing.assert_allclose(poi, expected, rtol=1e-9)
    # E[max(m + s Z - best - xi, 0)] by a fine sum over Z
    z = np.linspace(-9, 9, 200_001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    by_sum = [
        float(np.sum(np.maximum(m + s * z - 1.1, 0) * density) * (z[1] - z[0]))
        for m, s in zip(mean, std, strict=True)
    ]
    ei = AcquisitionSampler("ei", xi=0.1, seed=0).score(mean, std, 1.0)
    np.testing.assert_allclose(ei, by_sum, rtol=1e-6)


def test_several_objectives():
    goals = (Objective("v", "max"), Objective("w", "min"))
    for name in ("tpe_search", "random_search", "bayes_opt_search"):
        options = {"kind": "ei"} if name == "bayes_opt_search" else {}
        algorithm = Asking(spec(name, goals=goals, **options))
        for _ in range(5 if name == "bayes_opt_search" else 7):
            point = algorithm.ask()
            algorithm.tell(point, [value(point), point["x"]])
    with pytest.raises(ConfigError, match="one objective"):
        Asking(spec("bayes_opt_search", goals=goals, kind="ucb"))


class Rule:
    """A pruner asked as the ledger asks it: each report is stored, then judged."""

    def __init__(self, pruner):
        self.pruner, self.study, self.trials = pruner, optuna.create_study(direction="maximize"), {}

    def decide(self, name, iteration, score):
        trial = self.trials.setdefault(name, None) or self.study.ask()
        self.trials[name] = trial
        trial.report(score, iteration)
        return self.pruner.prune(self.study, self.study._storage.get_trial(trial._trial_id))


def test_async_hyperband_rule():
    rule = Rule(HalvingPruner(min_resource=1, reduction_factor=3, max_resource=9))
    assert rule.pruner.rungs == [1, 3]
    assert rule.decide("a", 1, 0.5) is False  # the first is always good enough
    assert rule.decide("b", 1, 0.4) is True  # best of two is a
    assert rule.decide("c", 1, 0.6) is False  # best of three: 0.6
    assert rule.decide("c", 2, 0.1) is False  # no rung between
    assert rule.decide("c", 3, 0.1) is False  # first at rung 3
    assert rule.decide("a", 3, 0.05) is True
    assert rule.decide("c", 9, 0.9) is False  # max_resource is still allowed
    assert rule.decide("c", 10, 0.9) is True


def test_a_trial_that_failed_keeps_its_rung_from_no_other():
    rule = Rule(HalvingPruner(min_resource=1, reduction_factor=3, max_resource=9))
    for name, score in (("own", 0.5), ("crashes", 0.9)):
        assert rule.decide(name, 1, score) is False
    rule.study.tell(rule.trials["crashes"], state=optuna.trial.TrialState.FAIL)
    assert rule.decide("better", 1, 0.8) is False
    assert rule.decide("worse", 1, 0.4) is True


def test_async_hyperband_spares_what_lies_within_the_tolerance():
    rule = Rule(HalvingPruner(min_resource=1, reduction_factor=3, max_resource=9, slack=0.02))
    assert [rule.decide(t, 1, v) for t, v in (("a", 0.5), ("b", 0.485), ("c", 0.47))] == [
        False, False, True,
    ]  # fmt: skip


def test_median_rule():
    rule = Rule(RunningMeanPruner(n_warmup_steps=2, n_min_trials=2))
    for trial, level in (("a", 0.8), ("b", 0.6)):
        for iteration in (1, 2, 3):
            assert rule.decide(trial, iteration, level) is False
    assert rule.decide("c", 1, 0.1) is False  # grace
    assert rule.decide("c", 2, 0.69) is True  # below the median 0.7 of the others
    assert rule.decide("d", 2, 0.71) is False


def test_the_median_of_the_first_of_several_objectives_ends_a_trial(tmp_path):
    made = replace(
        spec("random_search", goals=(Objective("v", "max"), Objective("w", "min"))),
        scheduler="median_stopping",
        scheduler_options={"grace_period": 1, "min_samples_required": 1},
        max_iterations=9,
    )
    study = study_of(
        made,
        Budget(trials=2, epochs_per_trial=9),
        folder=tmp_path,
        trials_folder=tmp_path,
        trial_name=str,
        first=made.baseline_configuration(),
        is_baseline=True,
    )
    ledger = open_study(study)
    said = [ledger.report(ledger.claim(), 0, {"v": v, "w": 1.0}) for v in (0.9, 0.1)]
    assert said == [None, "pruned after epoch 1 with v 0.1"]


def test_the_scheduler_uses_max_iterations():
    made = replace(
        spec("random_search"),
        scheduler="async_hyperband",
        scheduler_options={"grace_period": 1, "reduction_factor": 3, "max_t": None},
        max_iterations=27,
    )
    assert make_pruner(pruner_of(made), epochs=27).rungs == [1, 3, 9]
    # whoever passes the last rung goes on to its end, whether that is known or not
    for most in (27, None):
        options = {**made.scheduler_options, "max_t": 3}
        early = pruner_of(replace(made, scheduler_options=options, max_iterations=most))
        rule = Rule(make_pruner(early, epochs=most))
        assert rule.pruner.rungs == [1, 3]
        assert [rule.decide("a", i, 0.5) for i in (1, 3, 4, 27)] == [False] * 4
        assert rule.decide("b", 3, 0.4) is True
    assert pruner_of(spec("random_search")) == {"name": "none"}
