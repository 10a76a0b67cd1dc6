"""The names of Optuna that are not public, here and nowhere else: an update that renames one is met here.

`tests/unit/test_optuna_private.py` holds each of them against the version that is installed.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, cast

from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import GridSampler
from optuna.trial import FrozenTrial, Trial, TrialState

__all__ = [
    "PointsGrid",
    "ViewedStudy",
    "add_stored",
    "attr_of",
    "draw_again",
    "draw_value",
    "in_one_write",
    "is_settled",
    "numbered",
    "of_constraints",
    "set_attr",
    "set_attrs",
    "set_value",
    "stored",
    "taken_up",
    "told",
]


class _Known:
    """A study's trials in one list that grows. One that has ended never changes."""

    def __init__(self) -> None:
        self._trials: list[FrozenTrial] = []
        self._open: list[int] = []

    def renewed(self, count: int, numbered: Callable[[int], FrozenTrial]) -> list[FrozenTrial]:
        """The list, brought up to date: `count` trials, of which `numbered` gives one."""
        new = range(len(self._trials), count)
        self._trials += map(numbered, new)
        for number in self._open:
            self._trials[number] = numbered(number)
        last = (*self._open, *new)
        self._open = [n for n in last if not self._trials[n].state.is_finished()]
        return self._trials


class ViewedStudy(Study):
    """A study that shows samplers and pruners its trials otherwise than they are stored.

    `none_waits` says that no trial waits to be asked for, which Optuna would look for among all of them.
    """

    none_waits = False

    @cached_property
    def _known(self) -> _Known:
        return _Known()

    def shown(self, trial: FrozenTrial) -> FrozenTrial:
        """What they see of a trial."""
        return trial

    def real_trials(self) -> list[FrozenTrial]:
        """All trials as stored, by number; read only, and brought up to date by the next call.

        The storage's own call makes a list of all of them each time, which is most of what a claim costs
        among ten thousand.
        """
        storage: Any = self._storage
        if hasattr(storage, "_replay_result"):
            with storage._thread_lock:
                storage._sync_with_backend()
                found = storage._replay_result
                ids = found._study_id_to_trial_ids[self._study_id]
                return self._known.renewed(len(ids), lambda number: found._trials[ids[number]])
        if hasattr(storage, "_read_trials_from_remote_storage"):
            storage._read_trials_from_remote_storage(self._study_id)
            with storage._lock:
                trials = storage._studies[self._study_id].trials
                return self._known.renewed(len(trials), trials.__getitem__)
        return super()._get_trials(deepcopy=False)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        found = map(self.shown, super()._get_trials(deepcopy, None, use_cache))
        return [trial for trial in found if states is None or trial.state in states]

    def _pop_waiting_trial_id(self) -> int | None:
        return None if self.none_waits else super()._pop_waiting_trial_id()


class PointsGrid(GridSampler):
    """A grid whose points can be read, ordered and given out."""

    @property
    def names(self) -> list[str]:
        """Of the dimensions, in the order of a point's values."""
        return list(self._param_names)

    @property
    def points(self) -> list[tuple[Any, ...]]:
        """All of them."""
        return list(self._all_grids)

    @points.setter
    def points(self, points: list[tuple[Any, ...]]) -> None:
        self._all_grids = points

    def assign(self, study: Study, trial: FrozenTrial, index: int) -> None:
        """Give a trial the point of that index."""
        for key, value in (("search_space", self._search_space), ("grid_id", index)):
            study._storage.set_trial_system_attr(trial._trial_id, key, value)


def stored(study: Study, trial: Any) -> FrozenTrial:
    """A trial as it is stored now, with all that it reported."""
    return study._storage.get_trial(trial._trial_id)


def numbered(study: Study, number: int) -> FrozenTrial:
    """The trial of that number as it is stored now; no other one is read."""
    return study._storage.get_trial(_id(study, number))


def set_attr(study: Study, trial: Any, name: str, value: Any) -> None:
    """Store a user attribute of any trial."""
    study._storage.set_trial_user_attr(trial._trial_id, name, value)


def _id(study: Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def attr_of(study: Study, number: int, name: str) -> Any:
    """A user attribute of the trial of that number, or None; of a database nothing else is read."""
    trial = _id(study, number)
    backend: Any = getattr(study._storage, "_backend", None)
    if not hasattr(backend, "scoped_session"):
        return study._storage.get_trial_user_attrs(trial).get(name)
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session

    kind = models.TrialUserAttributeModel
    with _create_scoped_session(backend.scoped_session, True) as session:
        wanted = session.query(kind.value_json).filter_by(trial_id=trial, key=name)
        found = wanted.one_or_none()
    return None if found is None else json.loads(found[0])


def in_one_write(study: Study) -> contextlib.AbstractContextManager[None]:
    """A block whose writes to a journal become one; it reads none of them. Elsewhere nothing changes."""
    backend: Any = getattr(study._storage, "_backend", None)
    found: Any = getattr(backend, "together", contextlib.nullcontext)()
    return cast("contextlib.AbstractContextManager[None]", found)


def set_attrs(study: Study, number: int, attrs: Mapping[str, Any]) -> None:
    """Store several user attributes at once: one transaction, or one write to a journal.

    Raises:
        UpdateFinishedTrialError: the trial has ended.
    """
    backend: Any = getattr(study._storage, "_backend", None)
    trial = _id(study, number)
    if not hasattr(backend, "scoped_session"):
        with in_one_write(study):
            for name, value in attrs.items():
                study._storage.set_trial_user_attr(trial, name, value)
        study._storage.get_trial(trial)  # what was wrong with it is raised here, not later
        return
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session

    kind = models.TrialUserAttributeModel
    with _create_scoped_session(backend.scoped_session, True) as session:
        state = models.TrialModel.find_or_raise_by_id(trial, session).state
        backend.check_trial_is_updatable(trial, state)
        session.execute(_upsert(backend.engine.name, kind, _rows(trial, attrs)))


def told(
    study: Study,
    number: int,
    state: TrialState,
    values: list[float] | None,
    attrs: Mapping[str, Any],
) -> FrozenTrial:
    """End the trial of that number with its attributes, as one transaction or one write; the ended trial.

    As `Study.tell`, which reads the whole trial once more. The values are checked ones.

    Raises:
        UpdateFinishedTrialError: it has ended.
    """
    frozen = copy.copy(numbered(study, number))
    if frozen.state.is_finished():
        raise UpdateFinishedTrialError(f"Trial {number} has ended.")
    last = frozen.last_step
    if state == TrialState.PRUNED and last is not None and len(study.directions) == 1:
        value = frozen.intermediate_values[last]
        values = None if math.isnan(value) else [value]
    frozen.user_attrs = {**frozen.user_attrs, **attrs}
    study.sampler.after_trial(study, frozen, state, values)
    with _with_what_follows(study, frozen._trial_id, attrs):
        study._storage.set_trial_state_values(frozen._trial_id, state, values)
    frozen.state, frozen.values = state, values
    frozen.datetime_complete = datetime.now()
    return frozen


@contextlib.contextmanager
def _with_what_follows(study: Study, trial: int, attrs: Mapping[str, Any]) -> Iterator[None]:
    """Store attributes together with the storage's next write, which the block makes."""
    backend: Any = getattr(study._storage, "_backend", None)
    if not hasattr(backend, "scoped_session"):
        with in_one_write(study):
            for name, value in attrs.items():
                study._storage.set_trial_user_attr(trial, name, value)
            yield
        study._storage.get_trial(trial)  # what was wrong with it is raised here, not later
        return
    from optuna.storages._rdb import models

    # the storage's own work takes this thread's session, and commits it
    session = backend.scoped_session()
    try:
        session.execute(
            _upsert(backend.engine.name, models.TrialUserAttributeModel, _rows(trial, attrs))
        )
        yield
    except BaseException:
        session.rollback()
        session.close()
        raise


def _rows(trial: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial, "key": k, "value_json": json.dumps(v)} for k, v in attrs.items()]


def _upsert(dialect: str, kind: Any, rows: list[dict[str, Any]]) -> Any:
    """The statement that stores attributes, in the place of older ones."""
    if dialect == "mysql":
        from sqlalchemy.dialects import mysql

        new = mysql.insert(kind).values(rows)
        return new.on_duplicate_key_update(value_json=new.inserted.value_json)
    from sqlalchemy.dialects import postgresql, sqlite

    found: Any = (sqlite if dialect == "sqlite" else postgresql).insert(kind).values(rows)
    return found.on_conflict_do_update(
        index_elements=[kind.trial_id, kind.key], set_={"value_json": found.excluded.value_json}
    )


def set_value(study: Study, trial: Any, step: int, value: float) -> None:
    """Store what a trial reported at a step; its own `report` refuses several objectives."""
    study._storage.set_trial_intermediate_value(trial._trial_id, step, value)


def add_stored(study: Study, trial: FrozenTrial) -> None:
    """Add a trial as it is, its state and times included."""
    study._storage.create_new_trial(study._study_id, template_trial=trial)


def of_constraints(violations: Sequence[float]) -> dict[str, Any]:
    """The system attributes in which samplers look for how far an ended trial breaks the constraints."""
    return {"constraints": list(violations)} if violations else {}


def taken_up(study: Study, trial: FrozenTrial) -> Trial:
    """A running trial to go on with."""
    return Trial(study, trial._trial_id)


def is_settled(trial: Trial, name: str, distribution: Any) -> bool:
    """Whether a dimension's value is fixed, or drawn together with others before the trial began."""
    return name in trial._fixed_params or trial._is_relative_param(name, distribution)


def draw_value(trial: Trial, name: str, distribution: Any) -> Any:
    """Draw a dimension's value, or take the one that is stored."""
    return trial._suggest(name, distribution)


def draw_again(trial: Trial, name: str, distribution: Any) -> Any:
    """Draw a value as the first time, leaving what is stored."""
    study = trial.study
    return study.sampler.sample_independent(study, trial._get_latest_trial(), name, distribution)
