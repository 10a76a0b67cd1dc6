"""Trials' files at a path that all hosts reach: hosts that share a database and no folder."""

import json
import pickle

import pytest

from darts_core.errors import TuneError
from darts_core.study.artifacts import Artifacts, artifacts_of
from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.runner import CallableRunner
from darts_core.study.spec import StudySpec
from darts_core.study.worker import close

pytest.importorskip("fsspec")
SPACE = {"x": {"low": 0.0, "high": 1.0}}


@pytest.fixture(params=["file", "memory"])
def place(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/kept"
    return f"memory://{tmp_path.name}"


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


def test_files_of_the_last_report_reach_another_host(place, tmp_path):
    here, there = Artifacts(place, "job/V001/tune"), Artifacts(place, "job/V001/tune")
    write(tmp_path / "a", checkpoint="one", metrics="1", **{"lease.json": "mine"})
    here.keep(7, tmp_path / "a")
    write(tmp_path / "a", checkpoint="two!")
    (tmp_path / "a" / "deep").mkdir()
    write(tmp_path / "a" / "deep", more="x")
    here.keep(7, tmp_path / "a")
    there.fetch(7, tmp_path / "b")
    found = {p.relative_to(tmp_path / "b").as_posix(): p.read_text()
             for p in (tmp_path / "b").rglob("*") if p.is_file()}  # fmt: skip
    assert found == {"checkpoint": "two!", "metrics": "1", "deep/more": "x"}
    there.fetch(8, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    # and back again
    write(tmp_path / "b", checkpoint="three")
    there.keep(7, tmp_path / "b")
    here.forget(7)
    here.fetch(7, tmp_path / "a")
    assert (tmp_path / "a" / "checkpoint").read_text() == "three"


def test_what_is_kept_does_not_grow_with_the_reports(tmp_path):
    kept = Artifacts(str(tmp_path / "kept"), "s")
    for number in range(5):
        write(tmp_path / "a", checkpoint=f"state {number}", fixed="as it is")
        kept.keep(0, tmp_path / "a")
    assert len(list((tmp_path / "kept/s/0000").iterdir())) == 3


def test_a_host_that_dies_while_it_writes_leaves_the_report_before(tmp_path, monkeypatch):
    kept = Artifacts(str(tmp_path / "kept"), "s")
    write(tmp_path / "a", checkpoint="one", log="1")
    kept.keep(0, tmp_path / "a")
    write(tmp_path / "a", checkpoint="two!", log="2!")
    real, calls = kept._files.mv, []

    def torn(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("gone")
        real(*arguments)

    monkeypatch.setattr(kept._files, "mv", torn)
    with pytest.raises(TuneError, match=r"trial 0 cannot be kept .*gone"):
        kept.keep(0, tmp_path / "a")
    Artifacts(str(tmp_path / "kept"), "s").fetch(0, tmp_path / "b")
    assert (tmp_path / "b" / "checkpoint").read_text() == "one"
    kept.keep(0, tmp_path / "a")  # made good by the next report
    Artifacts(str(tmp_path / "kept"), "s").fetch(0, tmp_path / "b")
    assert (tmp_path / "b" / "log").read_text() == "2!"


def test_what_was_changed_there_is_refused(tmp_path):
    kept = Artifacts(str(tmp_path / "kept"), "s")
    write(tmp_path / "a", checkpoint="one")
    kept.keep(0, tmp_path / "a")
    place = tmp_path / "kept/s/0000"
    (key,) = json.loads((place / "files.json").read_text()).values()
    (place / key).write_text("another")
    with pytest.raises(TuneError, match="damaged"):
        Artifacts(str(tmp_path / "kept"), "s").fetch(0, tmp_path / "b")
    content = (tmp_path / "a" / "checkpoint").read_text()
    (place / key).write_text(content)
    (place / "files.json").write_text(json.dumps({"../../out": key}))
    with pytest.raises(TuneError, match="not its own"):
        Artifacts(str(tmp_path / "kept"), "s").fetch(0, tmp_path / "b" / "c")
    assert not (tmp_path / "out").exists()


def test_an_unknown_kind_of_url_is_a_sentence(tmp_path):
    with pytest.raises(TuneError, match="pip install fsspec"):
        artifacts_of("nothing-like-it://bucket", "s")
    assert artifacts_of(None, "s") is None


def test_jobs_whose_studies_are_journals_do_not_meet_in_one_place(tmp_path):
    """Their studies have one name, so that the second job's files stood for the first one's."""

    def ledger(job):
        folder, kept = tmp_path / job / "V001" / "tune", str(tmp_path / "kept")
        return Ledger(StudySpec.make(SPACE, Budget(trials=1), folder=folder, artifacts=kept))

    for job in ("a", "b"):
        write(tmp_path / job / "0000", checkpoint=f"of {job}")
        ledger(job)._artifacts.keep(0, tmp_path / job / "0000")
    for job in ("a", "b"):
        # another worker of the study
        ledger(job)._artifacts.fetch(0, tmp_path / "back" / job)
        assert (tmp_path / "back" / job / "checkpoint").read_text() == f"of {job}"


def counting(trial):
    """Counts epochs in a checkpoint; on the first host it dies after two."""
    path = trial.folder / "checkpoint"
    done = pickle.loads(path.read_bytes()) if path.exists() else []
    for epoch in range(len(done), 4):
        done.append((trial.folder.parent.parent.name, epoch))
        path.write_bytes(pickle.dumps(done))
        trial.report(epoch, val_accuracy=trial.params["x"])
        if trial.folder.parent.parent.name == "a" and epoch == 1:
            raise KeyboardInterrupt  # the host is switched off
    return trial.params["x"]


def test_a_trial_goes_on_from_its_checkpoint_on_a_host_with_a_folder_of_its_own(tmp_path):
    """The database is all that the two have in common, and the place of the files."""

    def spec(host):
        return StudySpec.make(
            SPACE, Budget(trials=2), folder=tmp_path / host, sampler="random", pruner="none", study_name="s",
            storage=f"sqlite:///{tmp_path}/one.db", artifacts=str(tmp_path / "kept"), stale_seconds=0.0,
        )  # fmt: skip

    first = Ledger(spec("a"))
    claim = first.claim()
    with pytest.raises(KeyboardInterrupt):
        CallableRunner(counting, spec("a").wanted).run(
            claim, lambda epoch, row: first.report(claim, epoch, row)
        )
    claim.lease.host = "a host that is gone"
    first.leases.write(0, claim.lease)
    second = Ledger(spec("b"))
    assert second.claim().number == 1  # the beat of a lease elsewhere is waited for first
    taken = second.claim()
    assert (taken.number, taken.resumed) == (0, True)
    ending = CallableRunner(counting, spec("b").wanted).run(
        taken, lambda epoch, row: second.report(taken, epoch, row)
    )
    record = close(second, taken, *ending)
    assert (record.state, record.epochs, sorted(record.curve)) == ("complete", 4, [0, 1, 2, 3])
    done = pickle.loads((tmp_path / "b/trials/0000/checkpoint").read_bytes())
    assert done == [("a", 0), ("a", 1), ("b", 2), ("b", 3)]
    assert not (tmp_path / "b/trials/0000/checkpoint").samefile(
        tmp_path / "a/trials/0000/checkpoint"
    )
