"""What a study knows before its first trial: the complete trials of another one with the same objectives."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import optuna

from darts_core.credentials import masked
from darts_core.errors import TuneError, unknown_name
from darts_core.study.ledger import Ledger
from darts_core.study.optuna_private import of_constraints
from darts_core.study.records import Constraint, meets
from darts_core.study.spec import StudySpec
from darts_core.study.storage import open_storage

__all__ = ["add_knowledge", "check_source"]

log = logging.getLogger("darts_core")
# samplers that draw a setting without looking at the others
_EACH_BY_ITSELF = ("tpe", "random", "grid")


def add_knowledge(ledger: Ledger, source: str | Path) -> None:
    """Add the complete trials of the study at `source` that fit into this one's space.

    Under constraints each comes with how far it breaks them, as samplers weigh a trial by that, too; one
    that lacks a constrained metric is left out.

    Args:
        ledger: of the new study; the caller holds its lock.
        source: a folder, a database's URL, or `URL#NAME` of one study among several there.

    Raises:
        TuneError: there is no such study, several and none is named, or one of other objectives.
    """
    spec, shown = ledger.spec, masked(str(source))
    other = _study_at(str(source), spec)
    _check_objectives(other, spec, str(shown))
    lacking: set[str] = set()
    count = unjudged = 0
    for trial in other.get_trials(deepcopy=False):
        params = _fitting(trial, spec)
        if params is None:
            continue
        violations = _violations(trial, spec.constraints)
        if violations is None:
            unjudged += 1
            continue
        attrs = {"imported": True, "reason": f"from {shown}"}
        ledger.study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={name: spec.space[name].distribution() for name in params},
                values=trial.values,
                user_attrs={**attrs, **({"violations": violations} if violations else {})},
                system_attrs=of_constraints(violations),
            )
        )
        count += 1
        lacking |= {n for n, d in spec.space.items() if not d.when and n not in params}
    log.info("warm start: %d complete trials of %s added as knowledge", count, shown)
    if unjudged:
        log.warning(
            "warm start: %d trials of %s are left out: they lack a metric that is constrained here",
            unjudged,
            shown,
        )
    if lacking and spec.sampler["name"] not in _EACH_BY_ITSELF:
        log.warning(
            "warm start: trials of %s have no %s, which the sampler %s will draw at random to the end: it "
            "models settings that all trials have. Take tpe, or leave warm_start out",
            shown,
            ", ".join(sorted(lacking)),
            spec.sampler["name"],
        )


def check_source(text: str) -> None:
    """Refuse a folder that holds no study; a database is looked into by who reads it.

    Raises:
        TuneError: it holds none.
    """
    if "://" not in text and not (Path(text) / "study.journal").is_file():
        raise TuneError(f"There is no study in {text} to start from (no study.journal in it).")


def _study_at(text: str, spec: StudySpec) -> Any:
    """The study in a folder, or in a database where it is the only one or is named."""
    shown, name = masked(text), ""
    url: str | None = None
    if "://" in text:
        # a password may hold such a sign, too
        user, at, rest = text.rpartition("@")
        address, _, name = rest.partition("#")
        url = user + at + address
    check_source(text)
    storage = open_storage(Path(text), url)
    # this study may lie in the same database
    own = spec.study_name if url is not None and masked(url) == spec.storage else None
    found = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    names = [one for one in found if one != own]
    if not names:
        raise TuneError(f"There is no study in {shown} to start from.")
    if name and name not in names:
        raise TuneError(unknown_name(f"study in {masked(url)}", name, names))
    if not name and len(names) > 1:
        such, known = f"warm_start='{shown}#{names[0]}'", ", ".join(names[:10])
        raise TuneError(
            f"There are {len(names)} studies in {shown} to start from; name one behind a #, for a shell in "
            f'two pairs of quotes: "{such}". Of its studies: {known}.'
        )
    return optuna.load_study(study_name=name or names[0], storage=storage)


def _fitting(trial: Any, spec: StudySpec) -> dict[str, Any] | None:
    """The settings of a complete trial where they are a point of the space, as Optuna holds them."""
    space, params = spec.space, trial.params
    if trial.state.name != "COMPLETE" or len(trial.values or []) != len(spec.objectives):
        return None
    # a configuration outside of that space: one trial without settings leaves samplers none to model
    if not params or any(name not in space for name in params):
        return None
    fits = all(space[name].contains(space[name].decode(value)) for name, value in params.items())
    return dict(params) if fits else None


def _violations(trial: Any, constraints: tuple[Constraint, ...]) -> list[float] | None:
    """How far a trial of another study breaks the constraints of this one; None where it does not say."""
    try:
        gaps = meets(trial.user_attrs.get("metrics") or {}, constraints)
    except TuneError:
        return None
    return gaps if all(map(math.isfinite, gaps)) else None


def _check_objectives(other: Any, spec: StudySpec, source: str) -> None:
    """Refuse a study whose numbers stand for something else, or are better the other way.

    Raises:
        TuneError: its objectives are others.
    """
    mine = spec.identity()["objectives"]
    theirs = (other.user_attrs.get("identity") or {}).get("objectives", mine)
    if theirs != mine:
        said = [", ".join(f"{name} ({goal}d)" for name, goal in one) for one in (theirs, mine)]
        raise TuneError(
            f"warm_start={source}: that study is judged by {said[0]}, this one by {said[1]}; name a "
            "study of the same objectives, or leave warm_start out."
        )
