"""A multirun with a mistake: names are refused before anything runs, and a failure stops no other element."""

import pytest

from darts_core import cli
from darts_core.commands import growing, hydra_app
from darts_core.commands.compose import session
from darts_core.commands.overrides import expand
from darts_core.errors import DartsError
from darts_core.report.job_summary import stage_facts
from darts_core.store.jobs import Store
from darts_core.store.record import new_record

TINY = ["data=digits", "data.limit=200", "train.epochs=1", "train.channels=4", "device=cpu"]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("architecture=resnet8,nope", "architecture='nope' is no file and no known name"),
        ("architecture=resnet8,no.yaml", "there is no such file"),
        ("model=null,none/here", "model='none/here' is neither a saved model"),
    ],
)
def test_what_is_not_there_is_refused_before_the_first_element(
    sweep, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    first = [] if sweep.startswith("architecture") else ["architecture=resnet8"]
    assert cli.main(["train", "-m", sweep, *first, "job=a", *TINY]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_other_elements_run_and_are_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["train", "-m", "architecture=resnet8,dscnn,resnet14", "job=a", *TINY]
    assert cli.main(argv) == 2
    assert "element 1 failed: architecture=dscnn reads series" in capsys.readouterr().err
    version = Store(tmp_path / "runs").version("a")
    assert version.state() == "failed"
    finished = {row["stage"]: row["finished"] for row in stage_facts(version.path)}
    assert finished == {"0/train": True, "1/train": False, "2/train": True}
    page = (version.path / "report.html").read_text(encoding="utf-8")
    assert "architecture=dscnn" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "job=a,b"], "leave out -m"),
        (["bench", "job=a,b"], "'job=a,b' gives job several values"),
        (["search", "++version=V001,V002"], "a command has one version, with -m too"),
        (["train", "job=a", "seed=0,1"], "architecture=runs/a/V001/search."),
        (["train", "job=a/V001", "seed=0,1", "model=shrink"], "model=runs/a/V001/shrink."),
        (["prune", "job=a", "prune.budget=30%,50%"], "model=runs/a/V001/train."),
        (["bench", "job=a", "runtime=eager,onnx"], "model=runs/a/V001/train."),
    ],
)
def test_what_elements_would_not_find_or_not_do_is_refused(
    words, said, tmp_path, monkeypatch, capsys
):
    """Each failed at a model that is there and replaced the version's report, or ran for one job of two."""
    monkeypatch.chdir(tmp_path)
    store = Store("runs")
    store.create_job("a", kind="pipeline")
    with store.new_version("a", new_record("pipeline", commands={})) as made:
        (made / "train").mkdir()
        (made / "train" / "model.pt").touch()
        (made / "report.html").write_text("own")
    assert cli.main([words[0], "-m", *words[1:]]) == 2
    assert said in capsys.readouterr().err
    version = tmp_path / "runs" / "a" / "V001"
    assert sorted(path.name for path in version.iterdir() if path.is_dir()) == ["train"]
    assert (version / "report.html").read_text() == "own"


def test_values_at_the_end_of_a_sweep_are_added_to_a_finished_version(
    tmp_path, monkeypatch, capsys
):
    """Everything was trained again."""
    monkeypatch.chdir(tmp_path)
    ran = []
    monkeypatch.setattr(hydra_app, "_multirun", lambda *given: ran.append(given[3].name))
    monkeypatch.setattr(hydra_app, "_run_stage", lambda config, version: ran.append(config.seeds))
    sweep = ["train", "-m", "architecture=resnet8", "job=a", "version=V001"]
    # the last one would give elements that are there other numbers
    for seeds, status in (("0,1", 0), ("0,1,2", 0), ("1,0", 2)):
        assert cli.main([*sweep, f"seed={seeds}"]) == status
    assert "holds train/ with other settings" in capsys.readouterr().err
    assert [cli.main(["search", "version=V001", f"seeds={count}"]) for count in (2, 3)] == [0, 0]
    assert ran == ["V001", "V001", 2, 3]


def test_a_multirun_that_an_older_program_stamped_by_its_launcher_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = []

    def cut_off(*given):
        ran.append(given[3].name)
        (given[3] / "0" / "train").mkdir(parents=True, exist_ok=True)
        (given[3] / "0" / "train" / "model.pt").touch()
        raise DartsError("cut off")

    monkeypatch.setattr(hydra_app, "_multirun", cut_off)
    sweep = ["train", "-m", "architecture=resnet8", "job=a", "hydra/launcher=basic"]
    with monkeypatch.context() as older:
        older.setattr(hydra_app, "counts", lambda text, **_: growing.counts(text, launcher=True))
        assert cli.main([*sweep, "seed=0,1"]) == 2
    assert cli.main([*sweep, "seed=0,1"]) == 2
    assert cli.main([*sweep, "seed=0,1,2", "version=V001"]) == 2
    assert ran == ["V001"] * 3


@pytest.mark.parametrize("word", ["logger=none,csv", "+hydra.sweeper.params.seed='0,1'"])
def test_what_numbers_elements_besides_their_settings_begins_no_other_sweep(word):
    with session():
        assert len(growing._elements(["seed=0,1", "logger=none"])) == 2
        assert growing._elements(["seed=0,1", word]) == []


def test_a_glob_and_a_range_are_checked_at_their_own_values():
    with session():
        first, others = expand(["relax=glob([s*,g*])", "train.drop_path=range(0,1,step=0.25)"])
    assert first == ["relax=gumbel", "train.drop_path=0"]
    assert others == [
        ["relax=sigmoid", "train.drop_path=0"],
        ["relax=softmax", "train.drop_path=0"],
        ["relax=gumbel", "train.drop_path=0.75"],
    ]
