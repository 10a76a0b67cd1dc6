"""Saved parameters: names refused in time, paths that hold anywhere, code that outlives its version."""

import argparse
import json
import os
import sys
from pathlib import Path

import pytest

from darts_core.autosearch import request
from darts_core.autosearch.request import Request, request_of
from darts_core.commands.jobs import pipeline, verbs
from darts_core.commands.jobs.cli import configure
from darts_core.commands.jobs.options import changes_of
from darts_core.commands.jobs.saved import run_params, save_params
from darts_core.errors import JobError
from darts_core.store import control
from darts_core.store.jobs import Store
from darts_core.store.params import SavedParams
from darts_core.store.record import new_record, write_record


def parsed(*words):
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(words)


def version(store, code="", *, job="a", kind="script"):
    """A version as `jobs create` leaves it, or a pipeline's; its copy of the code says which it is."""
    if job not in store.jobs():
        store.create_job(job, kind=kind)
    asked = {"code": str(code), "boot_file": "boot.py", "config_files": []}
    own = {"autosearch": {"state": "succeeded", "request": asked}}
    pipe = {"search": {"state": "succeeded", "overrides": ["seed=1"]}}
    record = new_record(kind, commands=own if kind == "script" else pipe)
    with store.new_version(job, record) as folder:
        (folder / "code").mkdir()
        (folder / "code" / "boot.py").write_text(f"# {len(store.versions(job))}")
    return store.version(job, record["name"])


@pytest.mark.parametrize("name", ["taken", "a b", ""])
def test_a_name_under_which_nothing_can_be_saved_is_refused_first(store, monkeypatch, name):
    SavedParams(store).save("taken", {}, [])
    version(store)
    version(store, job="p", kind="pipeline")

    def made(*_, **__):
        raise AssertionError("something was made before the name was looked at")

    for module, function in ((verbs, "create_job"), (verbs, "new_version"), (verbs, "engine"),
                             (pipeline, "start")):  # fmt: skip
        monkeypatch.setattr(module, function, made)
    for run, words in (
        (verbs.run_create, ("create", "--name", "b")),
        (verbs.run_create, ("create", "--name", "b", "--dry-run")),
        (verbs.run_new_version, ("new-version", "a", "--arg", "x=1")),
        (verbs.run_new_version, ("new-version", "p", "--set", "seed=2")),
    ):
        with pytest.raises(JobError, match=r"exist already|not allowed"):
            run(store, parsed(*words, "--save-params", name))


def test_a_deletion_that_is_cut_off_leaves_the_name_free(store, monkeypatch):
    saved = SavedParams(store)
    saved.save("mine", {"seed": 1}, [])

    def cut_off(folder, **_):
        (Path(folder) / "params.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("darts_core.store.params.shutil.rmtree", cut_off)
        with pytest.raises(KeyboardInterrupt):
            saved.delete("mine")
    assert saved.names() == []
    saved.save("mine", {"seed": 2}, [])
    assert saved.load("mine")["seed"] == 2


def test_what_is_edited_holds_in_any_folder(store, tmp_path, monkeypatch):
    SavedParams(store).save("mine", {"code": "/gone", "boot_file": "boot.py"}, [])
    (tmp_path / "py").mkdir()
    os.symlink(sys.executable, tmp_path / "py" / "python")
    monkeypatch.chdir(tmp_path)
    words = ("--code", "code", "--data", "data", "--output", "out", "--python", "py/python")
    assert run_params(store, parsed("params", "edit", "mine", *words)) == 0
    found = SavedParams(store).load("mine")
    wanted = {"code": "code", "data": "data", "output": "out", "python": "py/python"}
    assert {name: found[name] for name in wanted} == {
        name: str(tmp_path / path) for name, path in wanted.items()
    }


def test_a_cluster_is_edited_as_in_a_new_version_and_left_for_another_one(store):
    request = Request(ray={"address": "auto", "num_gpus": 1})
    SavedParams(store).save("mine", request.to_dict(), [])
    for words, ray, slurm in (
        (("--ray", "{num_gpus: 2}"), {"address": "auto", "num_gpus": 2}, None),
        (("--slurm", "{gpus: 1}"), None, {"gpus": 1}),
        (("--slurm", "null"), None, None),
    ):
        run_params(store, parsed("params", "edit", "mine", *words))
        found = SavedParams(store).load("mine")
        request = request.changed(changes_of(parsed("new-version", "a", *words)))
        assert (found["ray"], found["slurm"]) == (request.ray, request.slurm) == (ray, slurm)
    with pytest.raises(JobError, match=r"is no mapping.*null this machine"):
        changes_of(parsed("new-version", "a", "--ray", ""))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"kind": "darts-core saved parameters", "schema_version": 2, "code": "c"}',
            "newer program",
        ),
        ("{", "damaged"),
        ("[]", "damaged"),
        *(
            (f'{{"kind": "darts-core saved parameters", "config_files": {files}}}', "The job files")
            for files in (
                '["../../../her.yaml"]',
                '["/her.yaml"]',
                '[".."]',
                "[1]",
                '"a"',
                "7",
                "[[]]",
            )
        ),
    ],
)
def test_what_cannot_be_read_here_is_refused_by_name_and_hides_nothing_else(
    store, capsys, caplog, content, words
):
    saved = SavedParams(store)
    for name in ("first", "second"):
        saved.save(name, {"code": "c"}, [])
    (saved.folder / "first" / "params.json").write_text(content)
    with pytest.raises(JobError, match=words) as told:
        saved.load("first")
    run_params(store, parsed("params", "list", "--json"))
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["second"]
    assert f"left out: {told.value}" in caplog.text


def test_a_record_names_no_file_of_another_folder(store, tmp_path):
    """A version that somebody sent: what it names would be read, copied and shown."""
    (tmp_path / "her.yaml").write_text("seed: 1")
    made = version(store)
    record = made.record()
    (made.path / "config").mkdir()
    (made.path / "config" / "1-job.yaml").symlink_to(tmp_path / "her.yaml")
    for name in ("../../../../her.yaml", str(tmp_path / "her.yaml"), "1-job.yaml"):
        record["commands"]["autosearch"]["request"]["config_files"] = [name]
        write_record(made.path, record)
        with pytest.raises(JobError, match="its record is damaged"):
            request_of(made)


def test_a_job_file_that_is_not_there_is_a_sentence(store, monkeypatch):
    SavedParams(store).save("mine", {"code": "/c"}, [])
    with pytest.raises(JobError, match=r"no file none\.yaml"):
        run_params(store, parsed("params", "edit", "mine", "--config", "none.yaml"))
    monkeypatch.setenv("HOME", "/her/home")
    with pytest.raises(JobError, match=r"no file /her/home/none\.yaml"):
        run_params(store, parsed("params", "edit", "mine", "--config=~/none.yaml"))
    assert [path.name for path in SavedParams(store).folder.iterdir()] == ["mine"]


def test_an_output_that_is_no_folder_is_refused_before_anything_is_searched(
    store, tmp_path, monkeypatch
):
    (tmp_path / "code").mkdir()
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setattr(
        request, "engine", lambda *_, **__: pytest.fail("it was looked at too late")
    )
    store.create_job("a", kind="script")
    for output in (tmp_path / "taken", tmp_path / "taken/below"):
        given = Request(code=str(tmp_path / "code"), output=str(output))
        with pytest.raises(JobError, match=r"--output .*taken.* is no folder"):
            request.create(store, "a", given)
    assert store.versions("a") == []


def test_options_that_would_not_count_are_refused(store, capsys):
    save_params(store, "pipe", version(store, job="p", kind="pipeline"), "")
    with pytest.raises(JobError, match="are a pipeline's and --code, --arg is for scripts"):
        run_params(store, parsed("params", "edit", "pipe", "--code", "x", "--arg", "y=1"))
    assert run_params(store, parsed("params", "edit", "pipe", "--set", "seed=3")) == 0
    assert SavedParams(store).load("pipe")["overrides"] == ["seed=3"]
    for run, words in (
        (run_params, ("params", "edit", "pipe")),
        (verbs.run_new_version, ("new-version", "p")),
    ):
        with pytest.raises(JobError, match="--set job= would not count"):
            run(store, parsed(*words, "--set", "seed=4", "--set", "job=other"))
    assert SavedParams(store).load("pipe")["overrides"] == ["seed=3"]
    for words in (("--wait",), ("--save-params", "other")):
        with pytest.raises(SystemExit):
            parsed("params", "edit", "pipe", *words)
    assert "unrecognized arguments" in capsys.readouterr().err


def test_a_job_whose_versions_are_all_gone_is_begun_anew(store, monkeypatch):
    for kind, how in (("script", "jobs create --name a"), ("pipeline", "job=a")):
        made = version(store, kind=kind)
        if kind == "pipeline":
            save_params(store, "pipe", made, "")
            with pytest.raises(JobError, match=r"nothing to resume.*new-version a --set KEY=VALUE"):
                control.resume(store, made)
        store.delete_version(made)
        with pytest.raises(
            JobError, match=f"'a' has no version any more; begin it anew with {how}"
        ):
            store.version("a")
        if kind == "script":
            store.delete_job("a")
    begun = []
    monkeypatch.setattr(pipeline, "start", lambda *words, **_: begun.append(words[1]) or (0, 0))
    monkeypatch.setattr("darts_core.commands.jobs.saved.follow", lambda *_, **__: 0)
    assert run_params(store, parsed("params", "use", "pipe", "--name", "a")) == 0
    assert begun == ["a"]


def test_what_several_processes_ran_is_not_begun_by_one(store):
    made = version(store, job="p", kind="pipeline")
    record = made.record()
    record["commands"]["search"]["resume_line"] = "torchrun --nproc-per-node=2 -m x search seed=1"
    write_record(made.path, record)
    for run, words in (
        (verbs.run_new_version, ("new-version", "p", "--set", "seed=2")),
        (run_params, ("params", "save", "mine", "--job", "p")),
    ):
        with pytest.raises(JobError, match=r"several processes.*:  torchrun --nproc-per-node=2"):
            run(store, parsed(*words))
    assert SavedParams(store).names() == []


def test_a_job_that_somebody_keeps_to_herself_hides_no_other(store, monkeypatch, caplog):
    version(store, job="hers")
    version(store, job="mine")
    scan = os.scandir

    def closed(folder):  # whoever runs the tests may be root
        if Path(folder).name == "hers":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr("darts_core.store.jobs.os.scandir", closed)
    assert store.jobs() == store.jobs() == ["mine"]
    assert caplog.messages == [f"left out: you may not read {store.root / 'hers'}"]
    with pytest.raises(PermissionError):
        store.version("hers")


def test_a_folder_of_another_name_breaks_no_list(store, capsys):
    SavedParams(store).save("mine", {"code": "/c"}, [])
    other = SavedParams(store).folder / "mine (copy)"
    other.mkdir()
    (other / "params.json").write_text("{}")
    assert run_params(store, parsed("params", "list", "--json")) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["mine"]


def test_code_that_a_version_was_made_from_a_copy_of_is_saved_with_its_parameters(store, tmp_path):
    """The page makes a version from its parent's copy of the code, which goes with the parent."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "boot.py").write_text("# own")
    first = version(store, own)
    second = version(store, first.path / "code")
    saved = SavedParams(store)
    save_params(store, "mine", second, "")
    save_params(store, "theirs", first, "")
    # a folder of the user's stays a path: jobs made from it take it as it is then
    assert saved.load("theirs")["code"] == str(own)
    store.delete_job("a")
    for _ in range(2):
        code = Path(saved.load("mine")["code"])
        assert (code / "boot.py").read_text() == "# 1"
        assert code == saved.folder / "mine" / "code"
        run_params(store, parsed("params", "edit", "mine", "--arg", "x=1"))
    # a version made from the saved copy has one of its own, and another may be saved under this name
    assert request_of(version(store, code)).code == str(store.root / "a" / "V001" / "code")
    run_params(store, parsed("params", "edit", "mine", "--code", str(own)))
    assert saved.load("mine")["code"] == str(own)
    assert not code.exists()


def test_only_what_lies_in_a_version_goes_with_it(tmp_path):
    """`--root .`: the user's own code lies in the store's root, too."""
    store = Store(tmp_path)
    made = version(store)
    for folder in ("own", "own/deep/code", "a", ".params"):
        assert not store.keeps(tmp_path / folder), folder
    for folder in (made.path / "code", made.path / "code/deep", tmp_path / ".params/mine/code"):
        assert store.keeps(folder), folder
    assert not store.keeps("/elsewhere/a/V001/code")


def test_a_job_that_is_not_there_is_not_edited_and_its_root_not_made(tmp_path):
    with pytest.raises(JobError, match="There is no job 'x'"):
        Store(tmp_path / "typo").edit_job("x", "text")
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("setting", ["data.path=*.csv", "model=@small", "note=%d", "x='a: b'"])
def test_settings_of_a_pipeline_are_taken_as_they_are_typed(store, monkeypatch, setting):
    started = []
    monkeypatch.setattr(
        pipeline, "start", lambda *args, **_: started.append(args[2]) or (None, None)
    )
    monkeypatch.setattr(verbs, "follow", lambda *_, **__: 0)
    version(store, job="p", kind="pipeline")
    # they are Hydra's, and need be no YAML
    assert verbs.run_new_version(store, parsed("new-version", "p", "--set", setting)) == 0
    assert started[0].overrides == ("seed=1", setting)
    save_params(store, "s", store.version("p"), "")
    run_params(store, parsed("params", "edit", "s", "--set", setting))
    assert SavedParams(store).load("s")["overrides"] == ["seed=1", setting]
