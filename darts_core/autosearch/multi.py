"""Running a whole plan: one search, serial or nested ones, then the confirming runs on fresh seeds."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from darts_core.autosearch.driver import Search
from darts_core.autosearch.spec import SearchPlan, SearchSpec
from darts_core.autosearch.study_spec import budget_of, sampler_of
from darts_core.autosearch.trials import Row, Workshop
from darts_core.study.budget import Spent
from darts_core.study.propose import propose
from darts_core.study.results import best_row, read_rows, row_values, search_rows
from darts_core.study.samplers import Drawing, make_sampler
from darts_core.study.space import check_params

__all__ = ["confirm", "run_plan"]

log = logging.getLogger("darts_core")


def _run_one(spec: SearchSpec, workshop: Workshop, **options: Any) -> Row | None:
    if spec.algorithm == "differentiable_search":
        from darts_core.autosearch.differentiable import DifferentiableSearch

        return DifferentiableSearch(spec, workshop, **options).run()
    if spec.algorithm == "elastic_search":
        from darts_core.autosearch.elastic_search import ElasticSearch

        return ElasticSearch(spec, workshop, **options).run()
    return Search(spec, workshop, **options).run()


def _serial(plan: SearchPlan, workshop: Workshop) -> None:
    """Each step starts from the best configuration of the one before it."""
    current = plan.baseline_configuration()
    best: Row | None = None
    for index, step in enumerate(plan.steps):
        own = {d.name for d in step.dimensions}
        fixed = {name: value for name, value in current.items() if name not in own}
        start = {name: value for name, value in current.items() if name in own}
        spec = replace(step, baseline={**step.baseline, **start})
        if best is None:
            # the first step measures the user's own configuration; later ones start from a measured trial
            best = _run_one(
                spec,
                workshop,
                fixed=fixed,
                step=f"{index + 1}-{step.name}",
                first=start,
                is_baseline=index == 0,
            )
        else:
            found = _run_one(
                spec, workshop, fixed=fixed, step=f"{index + 1}-{step.name}", known=[best]
            )
            best = found or best
        if best is not None:
            current.update(best["config"])
            log.info("step %d (%s): best %s", index + 1, step.name, best["trial_id"])


def _nested(plan: SearchPlan, workshop: Workshop) -> None:
    """The later steps are tuned anew for each configuration of the first one."""
    outer, rest = plan.steps[0], plan.steps[1:]
    inner = replace(
        rest[-1],
        dimensions=tuple(d for step in rest for d in step.dimensions),
        baseline={k: v for step in rest for k, v in step.baseline.items()},
    )
    outer = replace(outer, objectives=inner.objectives)
    names = [d.name for d in outer.dimensions]
    tried: list[tuple[Row, list[float] | None]] = []
    configuration: Row | None = outer.baseline_configuration()
    for index in range(outer.trial_count() + 1):
        step = f"{inner.name}-{index:03d}"
        known = workshop.known_rows(step)
        if known:
            # an earlier run of this version chose this configuration
            configuration = {n: known[0]["config"].get(n) for n in names}
        elif index:
            configuration = None if _spent(inner, workshop) else _proposed(outer, tried)
        if configuration is None:
            break
        best = Search(
            inner,
            workshop,
            fixed=configuration,
            step=step,
            first=inner.baseline_configuration(),
            is_baseline=index == 0,
        ).run()
        tried.append((configuration, row_values(best, inner.goals) if best is not None else None))


def _spent(spec: SearchSpec, workshop: Workshop) -> str | None:
    account = workshop.account
    spent = Spent(device_seconds=account.spent_seconds - account.spent_before)
    return budget_of(spec, 1, account).exhausted(spent, running=True)


def _proposed(outer: SearchSpec, tried: list[tuple[Row, list[float] | None]]) -> Row | None:
    """The next configuration of the outer search, or None when every one was tried."""
    import optuna

    space, states = outer.space, optuna.trial.TrialState
    trials = [
        optuna.trial.create_trial(
            state=states.FAIL if values is None else states.COMPLETE,
            params=check_params(configuration, space),
            distributions={n: d.distribution() for n, d in space.items()},
            values=values,
        )
        for configuration, values in tried
        if outer.contains(configuration)
    ]
    number = len(tried)
    return propose(
        space,
        ["maximize" if o.mode == "max" else "minimize" for o in outer.objectives],
        trials,
        lambda again: make_sampler(
            sampler_of(outer), Drawing(outer.seed, number, space, outer.num_samples, again=again)
        ),
        seed=(outer.seed, number),
    )


def run_plan(plan: SearchPlan, workshop: Workshop) -> Row | None:
    """Run all searches of a plan; returns the best trial's row, or None when none was usable.

    Raises:
        StopWanted: a stop was asked for.
        JobError: the user's code fails always.
    """
    spec = plan.steps[0]
    if plan.mode == "serial":
        _serial(plan, workshop)
    elif plan.mode == "nested":
        _nested(plan, workshop)
    else:
        first = spec.baseline_configuration()
        _run_one(spec, workshop, step=spec.name, first=first, is_baseline=True)
    # of all steps, as it is shown: a step starts from its own choice, which a tie, a tolerance or other
    # objectives may have made another trial, and confirming runs of that one would be told as this one's
    return best_row(search_rows(read_rows(workshop.version)), plan.last.goals)


def confirm(plan: SearchPlan, workshop: Workshop, best: Row, baseline: Row | None) -> int:
    """Run the winner and the baseline again on fresh seeds, in turn, and nothing else.

    Trials see `phase == "confirm"`: the place for the one look at the test data. Finished runs of an
    earlier start of the version are kept, those that failed are run again.

    Returns:
        how many of these runs failed.

    Raises:
        StopWanted: a stop was asked for.
    """
    spec = replace(plan.last, scheduler="FIFOScheduler", save_model_count=None)
    # the winner may be a trial of any step, whose files may name seeds of their own
    used = max(step.seed for step in plan.steps)
    sides = [("baseline", baseline)] if baseline is not None else []
    if baseline is None or best["trial_id"] != baseline["trial_id"]:
        sides.append(("best", best))
    failed = 0
    for offset in range(1, spec.confirm_seeds + 1):
        for number, (side, row) in enumerate(sides):
            seed = used + offset
            step = f"confirm-{side}"
            done = [
                r
                for r in workshop.known_rows(step, "confirm")
                if r.get("seed") == seed
                and r.get("done")
                and r["state"] not in ("cancelled", "failed")
                and r["config"] == row["config"]
            ]
            if not done:
                ended = workshop.run_one(
                    spec,
                    number,
                    row["config"],
                    step=step,
                    phase="confirm",
                    seed=seed,
                    confirms=side,
                )
                failed += ended["state"] == "failed"
    return failed
