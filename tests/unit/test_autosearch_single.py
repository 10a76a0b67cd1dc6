"""Steps of a few trials of their own, resumed: what they need is run again where it failed."""

import json

import pytest

from darts_core.autosearch.catalogue import ALGORITHMS
from darts_core.autosearch.costs import seconds_of
from darts_core.autosearch.differentiable import DifferentiableSearch
from darts_core.autosearch.elastic_search import ElasticSearch
from darts_core.autosearch.spec import Objective, SearchSpec
from darts_core.autosearch.trials import Workshop
from darts_core.errors import JobError
from darts_core.study.results import trials_folder
from darts_core.study.space import SearchDimension

# a stand-in for a supernet, so that no torch is needed; its first attempts find no memory
SCRIPT = """
    import os
    from darts_core import autosearch
    from darts_core.autosearch.contract import current

    class Found:
        @property
        def steps(self): return self
        def state(self): return {"moved": True}
        def derive(self): return "found"

    def train():
        if autosearch.phase == "supernet":
            if not os.path.exists(os.path.join(os.path.dirname(__file__), "memory")):
                raise MemoryError("none is left")
            current().searchables.append(Found())
        autosearch.report(0.5)
"""


def _search(workshop, kind=DifferentiableSearch, name="differentiable_search"):
    options = {**ALGORITHMS[name].defaults(), "setting": "code"}
    spec = SearchSpec(
        "s", (SearchDimension("code", choices=("base",)),), (Objective("acc"),),
        algorithm=name, algorithm_options=options, confirm_seeds=0,
    )  # fmt: skip
    return kind(spec, workshop, first={"code": "base"}, is_baseline=True)


def _again(workshop):
    """The same version in another process."""
    return Workshop(workshop.version, workshop.code, mark=workshop.mark)


def test_a_supernet_that_failed_is_run_again_when_the_version_is_resumed(shop, tmp_path):
    workshop = shop(SCRIPT)
    with pytest.raises(JobError, match=r"failed.* named no architecture"):
        _search(workshop).run()
    own = workshop.known_rows("s")[0]
    (tmp_path / "code" / "memory").touch()
    resumed = _again(workshop)
    _search(resumed).run()
    (supernet,) = resumed.known_rows("s", "supernet")
    assert (supernet["state"], supernet["attempt"]) == ("done", 2)
    rows = resumed.known_rows("s")
    assert [row["config"]["code"] for row in rows] == ["base", "found"]
    # the user's own trial stays, and what failed was paid for too
    assert rows[0] == own
    assert supernet["earlier_seconds"] > 0
    paid = sum(map(seconds_of, [*rows, supernet]))
    assert resumed.account.spent_seconds == pytest.approx(paid)
    # nothing is left to do
    later = _again(workshop)
    _search(later).run()
    assert later.known_rows("s", "supernet") == [supernet]
    assert later.account.spent_seconds == pytest.approx(paid)


def test_an_architecture_of_an_attempt_that_was_cut_off_is_not_taken(shop):
    workshop = shop(SCRIPT)
    with pytest.raises(JobError, match="named no architecture"):
        _search(workshop).run()
    # as a stop leaves it, half way through the training
    (row,) = workshop.known_rows("s", "supernet")
    folder = trials_folder(workshop.version) / row["trial_id"]
    (folder / "result.json").write_text(json.dumps({**row, "state": "cancelled"}))
    (folder / "architecture.json").write_text('{"value": "half", "moved": true}')
    with pytest.raises(JobError, match="named no architecture"):
        _search(_again(workshop)).run()
    assert [row["config"]["code"] for row in workshop.known_rows("s")] == ["base"]


def test_an_attempt_begins_without_what_an_earlier_one_found(shop):
    """Also one that is tried again within a start: it may fail before it finds anything."""
    workshop = shop(
        """
        import os
        from darts_core.autosearch.contract import current
        def train():
            path = current().folder / "architecture.json"
            first = current().record["attempt"] == 1
            assert first or not path.exists()
            path.touch()
            os._exit(7 if first else 0)
        """
    )
    search = _search(workshop)
    for attempt in (1, 2):
        row = workshop.run_one(search.spec, 1, {"code": "a"}, step="s", phase="supernet")
        assert (row["attempt"], row["state"]) == (attempt, ("failed", "done")[attempt - 1])


def test_an_elastic_search_runs_the_own_trial_again_that_failed(shop, tmp_path):
    workshop = shop(
        """
        import os
        from darts_core import autosearch
        from darts_core.autosearch.contract import current
        def train():
            if not os.path.exists(os.path.join(os.path.dirname(__file__), "memory")):
                raise MemoryError("none is left")
            if autosearch.phase == "search":
                (current().folder / "network.pt").touch()
            autosearch.report(0.5)
        """
    )
    with pytest.raises(JobError, match="left no network"):
        _search(workshop, ElasticSearch, "elastic_search").run()
    (tmp_path / "code" / "memory").touch()
    # it goes on to the elastic trial, which this stand-in has no network for
    with pytest.raises(JobError, match="named no architecture"):
        _search(_again(workshop), ElasticSearch, "elastic_search").run()
    (row,) = workshop.known_rows("s")
    assert (row["state"], row["attempt"]) == ("done", 2)
