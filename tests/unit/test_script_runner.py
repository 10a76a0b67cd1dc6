"""A user's script as a trial: what a stop finds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from darts_core.autosearch.script_runner import ScriptRunner
from darts_core.autosearch.trials import StopWanted


class _Stopped:
    """A workshop whose job is to stop while its only trial is in the state given."""

    def __init__(self, state):
        self.row, self.kept = {"state": state, "trial_id": "t"}, []

    def start(self, *_, **__):
        return SimpleNamespace(outcome=None)

    def stop_wanted(self):
        return True

    def cancel(self, process, reason):
        process.outcome = (self.row["state"], reason)

    def collect(self, spec, process):
        return self.row

    def keep(self, row, folder):
        self.kept.append(row)


def sitting(state):
    workshop = _Stopped(state)
    runner = ScriptRunner(None, workshop, step="job", fixed={}, rungs=[])
    claim = SimpleNamespace(number=1, params={}, is_baseline=False, folder=None)
    return workshop, lambda: runner._sitting(claim, lambda *_: "")


def test_a_trial_that_had_ended_when_the_stop_came_is_not_run_again():
    workshop, sit = sitting("done")
    assert sit() is workshop.row


def test_a_trial_that_the_stop_ended_is_kept_to_go_on_with():
    workshop, sit = sitting("cancelled")
    with pytest.raises(StopWanted):
        sit()
    assert workshop.kept == [workshop.row]
