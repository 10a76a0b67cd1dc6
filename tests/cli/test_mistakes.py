"""Every mistake ends in one sentence that names what was given and what is allowed, with status 2."""

from __future__ import annotations

import contextlib
import errno
import sys
import tempfile
from pathlib import Path

import pytest

from darts_core import cli
from darts_core.commands import mistakes, overrides
from darts_core.crash import write_crash_report
from darts_core.errors import ConfigError, DartsError, sentence_of
from darts_core.models import trust
from darts_core.store.jobs import Store


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """(status, stderr) of one command."""
    status = cli.main(argv)
    return status, capsys.readouterr().err


# (command line, words that the sentence must hold)
MISTAKES = [
    (["serch"], ["Unknown command 'serch'", "'search'"]),
    (["search", "search.epohcs=3"], ["'search.epohcs'", "search.epochs"]),
    (["search", "spcae=darts"], ["'spcae'", "space"]),
    (["search", "space=drats"], ["'drats'", "'darts'", "nasbench201"]),
    (["search", "data=digit"], ["'digit'", "'digits'", "fashion_mnist"]),
    (["search", "strategy=firstorder"], ["'firstorder'", "first_order"]),
    (["search", "search.epochs=abc"], ["search.epochs", "'abc'", "whole number"]),
    (["search", "search.epochs=1.5"], ["search.epochs", "1.5", "whole number"]),
    (["search", "search.flip=perhaps"], ["search.flip", "'perhaps'", "true or false"]),
    (["search", "search.max_minutes=long"], ["search.max_minutes", "'long'", "a number"]),
    (["search", "strategy=unrolled", "strategy.epsilon=tiny"], ["strategy.epsilon=tiny", "number"]),
    (["search", "callbacks.early_stopping.patience=3"], ["a setting of callbacks=early_stopping"]),
    (["search", "strategy.epsilon=0.1"], ["strategy.epsilon is a setting of", "strategy=unrolled"]),
    (["prune", "penalty=beta"], ["`darts-core prune` reads no penalty=", "augment"]),
    (["search", "guards.skips.stop=false"], ["search.guards.skips.stop"]),
    (["search", "space.ops=skip_connect"], ["space.ops", "list"]),
    (["search", "search=3"], ["search", "settings of its own"]),
    (["search", "train.epochs=3"], ["'train.epochs'"]),
    (["search", "epochs"], ["'epochs' is not a setting", "key=value"]),
    (["search", "data.path=~/bäume.npz"], ["e.g. \"data.path='~/bäume.npz'\""]),
    (["search", "space.ops=[none"], ["e.g. \"architecture='...'\""]),
    (["search", "seed=1,2"], ["seed", "add -m"]),
    (["search", "job=a,b"], ["'job=a,b'", "one job, with -m too"]),
    (["search", "-m", "job=a,b"], ["'job=a,b'", "one command for each"]),
    (["export", "-m", "job=a", "version=V001,V002"], ["'version=V001,V002'", "one version"]),
    (["report", "-m", "job=a"], ["leave out -m"]),
    (["search", "-m", "space=darts,nasbnch"], ["'nasbnch'", "'nasbench201'"]),
    (["search", "-m", "search.epochs=3,x"], ["search.epochs", "'x'"]),
    (["search", "-m", "relax=glob(none_such*)"], ["relax=glob(none_such*)", "no value at all"]),
    (["search", "+made_up=1"], ["made_up"]),
    (["search", "+search.epohcs=1"], ["'search.epohcs'", "search.epochs"]),
    (["search", "seed=-1"], ["seed=-1", "from 0 to"]),
    (["search", "strategy._target_=os.system"], ["os.system", "refused", "plugins"]),
    (["search", "+hydra.callbacks.x._target_=os.system"], ["os.system", "refused"]),
    (["search", "hydra.launcher.foo=1"], ["foo"]),
    (["search", "--config-dir", "/not/there"], ["--config-dir", "/not/there"]),
    (["search", "--config-name", "other"], ["--config-name"]),
    (["search", "data.path=/not/there"], ["data.path", "/not/there", "does not exist"]),
    (["search", "plugins=[not_a_module_here]"], ["not_a_module_here", "no such module"]),
    (["search", "device=cuda:77"], ["cuda:77"]),
    (["search", "device=gpu"], ["gpu", "cuda"]),
    (["search", "space.ops=[none,sep_cnv_3x3]"], ["sep_cnv_3x3", "sep_conv_3x3"]),
    (["search", "search.batch_size=100000"], ["100000", "choose at most"]),
    (["search", "search.epochs=0"], ["search.epochs=0"]),
    (["search", "job=../up"], ["job name '../up'", "letters"]),
    (["search", "job="], ["job= is empty"]),
    (["train", "architecture=resnet8", "out="], ["out= is empty"]),
    (["search", "data.path="], ["data.path='' does not exist"]),
    (["search", "version=a/b"], ["version name 'a/b'", "letters"]),
    (["train", "architecture=DARTS_V9"], ["DARTS_V9", "DARTS_V2", "resnet18"]),
    (["train", "architecture=not_there.yaml"], ["not_there.yaml"]),
    (["train", "job=absent"], ["absent", "architecture="]),
    (["train", "architecture=resnet8", "train.optimizer=sdg"], ["'sdg'", "sgd"]),
    (["tune", "architecture=resnet8", "tune.sampler=tpee"], ["tpee", "tpe"]),
    (["tune", "architecture=resnet8", "tune.space={depth: 3}"], ["tune.space", "depth", "+"]),
    (["tune", "architecture=resnet8", "+tune.space.lerning_rate={low: 0.1, high: 1}"],
     ["lerning_rate", "learning_rate"]),
    (["prune", "model=not_there.pt"], ["not_there.pt"]),
    (["export", "model=not_there"], ["not_there"]),
    (["bench", "what=modls", "model=x"], ["'modls'", "'models'"]),
    (["report"], ["job="]),
    (["report", "job=absent"], ["absent"]),
    (["list", "opps"], ["'opps'", "'ops'"]),
    (["predict", "--model", "/not/there", "a.png"], ["/not/there"]),
    (["predict"], ["FILE"]),
    (["predict", "a.png"], ["--model"]),
    (["search", f"search.learning_rate={'9' * 400}"], ["search.learning_rate", "too large"]),
    (["search", f"search.epochs={'9' * 400}"], ["search.epochs"]),
    (["explain", "bandwidth=-1"], ["bandwidth=-1", "above 0"]),
    (["explain", "bandwidth=nan"], ["bandwidth=nan", "above 0"]),
    (["explain", "layers=100000000"], ["layers=100000000", "at most 100,000"]),
    (["latency", "build", "seconds=inf"], ["seconds=inf", "at most"]),
    (["latency", "build", "count=9"], ["count= is not read by `latency build`", "batch"]),
    (["latency", "build", "results=kept"], ["results= is not read by `latency build`"]),
    (["latency", "prepare", "batch=9"], ["batch= is not read by `latency prepare`", "count"]),
    (["serve-bench", ".", "--seconds", "nan"], ["--seconds above 0, at most 3600"]),
    (["serve-bench", ".", "--seconds", "inf"], ["--seconds above 0, at most 3600"]),
    (["jobs", "show", "a", "--limit", "0"], ["--limit", "'0'", "at least 1"]),
    (["jobs", "show", "a", "--offset", "-3"], ["--offset", "'-3'", "at least 0"]),
    (["jobs", "logs", "a", "--tail", "-1"], ["--tail", "'-1'", "at least 0"]),
    (["jobs", "list", "--kind", "pipelines"], ["--kind", "'pipelines'", "'pipeline', 'script'"]),
    (["tune", "tune.options.artifacts=s3://key:hush@b"], ["tune.options.artifacts", "s3://key:***@b"]),
    (["search", "logger=mlflow", "logger.mlflow.tracking_uri=https://me:hush@h"],
     ["logger.mlflow.tracking_uri=https://me:***@h", "leave it out"]),
    (["train", "architecture=resnet8", "data.val_fraction=1"], ["a number above 0 and below 1."]),
    (["train", "architecture=resnet8", "data=digits", "data.val_fraction=0.99999"], ["val_fraction=0.99999"]),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "words"), MISTAKES, ids=[" ".join(m[0])[:80] for m in MISTAKES])
def test_a_mistake_is_one_sentence(
    argv: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, err = run(capsys, *argv)
    assert status == 2, err
    said = [line for line in err.splitlines() if line.startswith("darts-core: ")]
    assert len(said) == 1, err
    for word in words:
        assert word in said[0]
    assert "Traceback" not in err
    assert "unexpected" not in err


def test_mistakes_in_settings_leave_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(capsys, "search", "search.epochs=abc")
    run(capsys, "search", "-m", "seed=1,x")
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_found_by_a_stage_takes_no_version(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "train", "job=a", "architecture=DARTS_V9")[0] == 2
    assert not (tmp_path / "runs" / "a" / "V001").exists()


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def stage(*args: object) -> None:
        raise error

    monkeypatch.setattr("darts_core.stages.pipeline._call", stage)


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), KeyboardInterrupt("x"), SystemExit(3)])
def test_whatever_ends_a_command_before_it_computes_leaves_no_version(
    error: BaseException,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        _raising(patched, error)
        with contextlib.suppress(SystemExit):
            run(capsys, "search", "job=a")
    assert not (tmp_path / "runs" / "a").exists()


def test_a_study_without_trials_leaves_no_trace_beside_the_search(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "tune", "job=a", "architecture=DARTS_V2", "tune.trials=0")[0] == 2
    assert not (tmp_path / "runs" / "a").exists()


def test_a_job_of_another_kind_is_refused_with_a_free_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Store("runs").create_job("a", kind="script")
    status, err = run(capsys, "search", "job=a")
    assert (status, "job=a-2, which is free" in err) == (2, True)
    assert sorted(p.name for p in (tmp_path / "runs" / "a").iterdir()) == ["job.json"]


def test_a_full_disk_is_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _raising(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "x/checkpoint.pt"))
    status, err = run(capsys, "search")
    assert status == 2
    assert "disk is full while writing x/checkpoint.pt" in err


def test_a_faulty_disk_is_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _raising(monkeypatch, OSError(errno.EIO, "Input/output error", "x/checkpoint.pt"))
    status, err = run(capsys, "search")
    assert status == 2
    assert "x/checkpoint.pt cannot be read or written (Input/output error)" in err
    assert "run the same command again to go on" in err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "x/log"),
            "x/log cannot be written: its file system",
        ),
        (PermissionError(errno.EPERM, "Operation not permitted"), "The system does not permit it"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    error: OSError,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _raising(monkeypatch, error)
    status, err = run(capsys, "search")
    assert (status, words in err, "None" in err) == (2, True, False)


@pytest.mark.parametrize(
    ("launcher", "package"),
    [("joblib", "'darts-core[joblib]'"), ("submitit_slurm", "hydra-submitit-launcher")],
)
def test_a_launcher_that_is_not_installed_says_what_to_install(
    launcher: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mistakes, "group_options", lambda *_: ["basic"])
    line = f"hydra/launcher={launcher}"
    with pytest.raises(ConfigError) as caught:
        mistakes._look_for_names("tune", [overrides.parse(line)], [], None)
    assert str(caught.value) == f"{line} is not installed here: pip install {package}."


def test_windows_is_told_where_to_run_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first file ended in `module 'os' has no attribute 'O_NONBLOCK'`, as a defect to report."""
    monkeypatch.setattr(sys, "platform", "win32")
    status, err = run(capsys, "jobs", "list")
    assert (status, "runs on Linux and macOS" in err, "WSL" in err) == (2, True, True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.EMFILE, "Too many open files"),
            "(Too many open files); allow more (ulimit -n",
        ),
        (
            OSError(errno.ESTALE, "Stale file handle", "x/a.pt"),
            "x/a.pt cannot be read or written (Stale",
        ),
        (
            RuntimeError("Could not determine home directory."),
            "this user has no home here; set HOME",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
            "was ended (DataLoader worker (pid(s) 7) exited unexpectedly), mostly for want of memory",
        ),
        (RuntimeError("another"), "None"),
        (FileNotFoundError(errno.ENOENT, "No such file", "my temporary directory"), "None"),
    ],
)
def test_what_containers_and_file_servers_lack_is_a_sentence(error: Exception, words: str) -> None:
    assert words in str(sentence_of(error))


def test_without_a_folder_for_temporary_files_a_sentence_says_so_and_a_defect_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a container whose file systems are read-only the report of a crash crashed itself."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.gettempdir()
    assert "set TMPDIR to one that does" in str(sentence_of(caught.value))
    assert write_crash_report(ValueError("oh"), ["search"]) is None


def test_an_error_behind_another_keeps_its_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outer = RuntimeError("wrapped")
    outer.__cause__ = DartsError("The inner sentence.")
    _raising(monkeypatch, outer)
    status, err = run(capsys, "search")
    assert (status, "The inner sentence." in err) == (2, True)


def test_a_defect_says_so_and_debugging_shows_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DARTS_DEBUG", raising=False)
    monkeypatch.setenv("A_SECRET_OF_MINE", "hush-hush")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    _raising(monkeypatch, ZeroDivisionError("oh, postgresql://me:pass-word@host/db"))
    status, err = run(capsys, "search", "search.epochs=3", "job=a")
    assert status == 1
    (report,) = (tmp_path / "temporary").glob("darts-core-crash-*.txt")
    assert str(report) in err
    text = report.read_text()
    for words in ("search.epochs=3", "ZeroDivisionError: oh", "python: 3.", "torch ", "in stage"):
        assert words in text
    for secret in ("hush-hush", "pass-word"):
        assert secret not in text + err
    assert report.stat().st_mode & 0o077 == 0
    # nothing was computed: the next try, with whatever settings, is the first version again
    assert not list((tmp_path / "runs").rglob("V0*"))
    monkeypatch.setattr("tempfile.tempdir", "/proc/not/there")
    status, err = run(capsys, "search")
    assert "DARTS_DEBUG=1" in err
    monkeypatch.setenv("DARTS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["search"])


def test_an_error_in_code_of_the_users_is_no_defect_of_ours(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DARTS_DEBUG", raising=False)
    monkeypatch.setattr(trust, "_NAMED", set())
    monkeypatch.syspath_prepend(tmp_path)
    made = "class Odd(Guard):\n    def __init__(self):\n        int('three')\n"
    (tmp_path / "own_odd.py").write_text(f"from darts_core.search import Guard\n\n\n{made}")
    words = ["plugins=[own_odd]", "+search.guards.odd._target_=own_odd.Odd"]
    status, err = run(capsys, "search", *words)
    assert status == 2
    assert "own_odd, line 6, in __init__: ValueError: invalid literal for int()" in err
    assert "this is a defect" not in err


def test_an_interruption_prints_the_command_that_resumes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _raising(monkeypatch, KeyboardInterrupt("A checkpoint is saved."))
    status, err = run(capsys, "search", "search.epochs=3", "job=a b".replace(" ", "_"))
    assert status == 130
    assert "A checkpoint is saved." in err
    assert "darts-core search search.epochs=3 job=a_b" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--cfg", "job"], ["search:", "epochs: 3"]),
        (["--cfg", "hydra"], ["hydra:", "launcher:"]),
        (["--cfg", "all"], ["search:", "hydra:"]),
        (["--cfg", "job", "--package", "search"], ["# @package search", "epochs: 3"]),
        (["--cfg", "job", "--resolve"], ["epochs: 3"]),
        (["--cfg", "hydra", "--resolve"], ["hydra:", "dir: runs/"]),
        (["--cfg", "job", "--package", "data.path"], ["# @package data.path", "null"]),
        # of a text what was typed, also where a bare word would be a number
        (["job=2026_11_30", "--cfg", "job"], ["job: '2026_11_30'"]),
        (["+job=12e3456", "--cfg", "job"], ["job: '12e3456'"]),
        (["data.path=1.50", "--cfg", "job"], ["path: '1.50'"]),
        (["--info", "defaults"], ["guards/default", "_self_"]),
        (["+search.batch_size=48", "--info", "config"], ["batch_size: 48"]),
    ],
)
def test_the_configuration_is_shown_instead_of_run(
    argv: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", "search.epochs=3", *argv]) == 0
    said = capsys.readouterr().out
    for word in words:
        assert word in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("show", ["job", "hydra", "all"])
def test_a_mistake_is_one_sentence_while_the_configuration_is_shown(
    show: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, err = run(capsys, "search", "--cfg", show, "search.epohcs=3")
    assert status == 2
    assert err.count("\n") == 1
    assert "search.epochs" in err
    assert run(capsys, "search", "--info", "all", "search.momentum=x")[0] == 2
    assert run(capsys, "search", "--cfg", show, "-m")[0] == 2


def test_overrides_are_composed_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    composed: list[list[str]] = []
    parsed: list[list[str]] = []
    compose, parse = hydra.compose, OverridesParser.parse_overrides

    def counting(name: str, overrides: list[str], **more: object) -> object:
        composed.append(overrides)
        return compose(name, overrides, **more)

    def reading(self: OverridesParser, overrides: list[str]) -> object:
        parsed.append(overrides)
        return parse(self, overrides)

    monkeypatch.setattr(hydra, "compose", counting)
    monkeypatch.setattr(OverridesParser, "parse_overrides", reading)
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr("darts_core.stages.pipeline._call", lambda *given: seen.append(given) or {})
    argv = list(sys.argv)
    assert run(capsys, "search", "search.alpha_learning_rate=0.004")[0] == 0
    assert composed == parsed == [["search.alpha_learning_rate=0.004"]]
    assert seen[0][0].search.alpha_learning_rate == 0.004
    assert sys.argv == argv


def test_a_crash_report_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("time.strftime", lambda *given: "now")
    monkeypatch.setattr("os.getpid", lambda: 7)
    # a neighbour who guesses the name
    (tmp_path / ".darts-core-crash-now-7.txt.7.tmp").symlink_to(tmp_path / "hers")
    # Latin-1 on the command line, as Python hands it over
    path = write_crash_report(ValueError("caf\udce9"), ["predict", "caf\udce9.png"])
    assert path is not None
    text = path.read_text(encoding="utf-8")
    assert "caf\\udce9.png" in text
    assert "ValueError: caf" in text
    assert not (tmp_path / "hers").exists()
