"""A `--config-dir` from elsewhere: a sentence, status 2, nothing run, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from darts_core import cli

RUNS = "from pathlib import Path\nPath({mark!r}).write_text('ran')\n"
CALLBACK = """# @package _global_
hydra:
  callbacks:
    evil:
      _target_: hydra.test_utils.test_utils.run_process
      cmd: [touch, {mark}]
"""
LOGGING = """# @package hydra.job_logging
version: 1
handlers:
  evil:
    (): os.mkdir
    path: {mark}
root: {{handlers: [evil]}}
"""

# name -> (file, content, arguments, words of the sentence); {mark} is a path that must not come to be
HOSTILE = {
    "a function of ours that writes": (
        "strategy/evil.yaml",
        "_target_: darts_core.runlog.write_text\npath: {mark}\ntext: ran\n",
        ["strategy=evil"],
        ["darts_core.runlog.write_text", "refused"],
    ),
    "a function of ours that loads native code": (
        "relax/evil.yaml",
        "_target_: darts_core.export.load\nfolder: {mark}\ntrust: true\n",
        ["relax=evil"],
        ["darts_core.export.load", "refused"],
    ),
    "a class of another group": (
        "strategy/evil.yaml",
        "_target_: darts_core.data.load_data\nname: digits\n",
        ["strategy=evil"],
        ["darts_core.data.load_data", "refused"],
    ),
    "a guard that is none": (
        "experiment/evil.yaml",
        "# @package _global_\nsearch:\n  guards:\n    x:\n      _target_: darts_core.runlog.write_text\n"
        "      path: {mark}\n      text: ran\n",
        ["experiment=evil"],
        ["search.guards.x", "refused"],
    ),
    "a file of guards that names none": (
        "guards/evil.yaml",
        "# @package search.guards\nx:\n  _target_: darts_core.runlog.write_text\n  path: {mark}\n",
        ["guards=evil"],
        ["search.guards.x", "darts_core.search.guards.SkipCount", "refused"],
    ),
    "a file of guards for another place": (
        "guards/evil.yaml", "x:\n  _target_: os.system\n  command: touch {mark}\n", ["guards=evil"],
        ["guards", "# @package search.guards"],
    ),
    "a callback that is none": (
        "callbacks/evil.yaml",
        "x:\n  _target_: darts_core.loggers.Csv\n",
        ["callbacks=evil"],
        ["callbacks.x", "darts_core.callbacks.EarlyStopping", "refused"],
    ),
    "a target below a node": (
        "relax/evil.yaml",
        "_target_: darts_core.relax.Softmax\ntemperature:\n  _target_: os.system\n  command: touch {mark}\n",
        ["relax=evil"],
        ["relax.temperature", "os.system"],
    ),
    "callbacks of Hydra": (
        "experiment/evil.yaml", CALLBACK, ["experiment=evil"], ["hydra.callbacks", "refused"],
    ),
    "callbacks in a multirun": (
        "experiment/evil.yaml", CALLBACK, ["-m", "experiment=evil", "seed=1,2"],
        ["hydra.callbacks", "refused"],
    ),
    "callbacks while the configuration is shown": (
        "experiment/evil.yaml", CALLBACK, ["--cfg", "all", "experiment=evil"],
        ["hydra.callbacks", "refused"],
    ),
    "a logging handler as a group of Hydra's": (
        "hydra/job_logging/evil.yaml", LOGGING, ["hydra/job_logging=evil"], ["hydra", "refused"],
    ),
    "a logging handler through the package of a file": (
        "experiment/evil.yaml", LOGGING, ["experiment=evil"], ["hydra.job_logging", "refused"],
    ),
    "a logging handler through a defaults list": (
        "experiment/evil.yaml",
        "# @package _global_\ndefaults:\n  - /other@hydra.job_logging: evil\n",
        ["experiment=evil"],
        ["hydra.job_logging", "refused"],
    ),
    "the environment of the run": (
        "experiment/evil.yaml",
        "# @package _global_\nhydra:\n  job:\n    env_set:\n      LD_PRELOAD: {mark}\n",
        ["experiment=evil"],
        ["hydra.job.env_set", "refused"],
    ),
    "another search path": (
        "experiment/evil.yaml",
        "# @package _global_\nhydra:\n  searchpath: ['file://{mark}']\n",
        ["experiment=evil"],
        ["searchpath"],
    ),
    "a launcher's own target": (
        "experiment/evil.yaml",
        "# @package _global_\nhydra:\n  launcher:\n    _target_: os.system\n",
        ["-m", "experiment=evil", "seed=1,2"],
        ["os.system", "refused"],
    ),
    "settings of the launcher": (
        "experiment/evil.yaml",
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: darts\n",
        ["-m", "experiment=evil", "seed=1,2"],
        ["hydra.sweeper", "no say"],
    ),
    "a directory of its own": (
        "experiment/evil.yaml",
        "# @package _global_\nhydra:\n  sweep:\n    dir: {mark}\n",
        ["-m", "experiment=evil", "seed=1,2"],
        ["hydra.sweep.dir", "refused"],
    ),
    "plugins": (
        "experiment/evil.yaml", "# @package _global_\nplugins: [evil_module]\n", ["experiment=evil"],
        ["plugins", "command line"],
    ),
    "plugins that the command line names too": (
        "experiment/evil.yaml", "# @package _global_\nplugins: [evil_module, json]\n",
        ["experiment=evil", "search.epochs=1"], ["plugins", "command line"],
    ),
    "the environment through a resolver": (
        "data/evil.yaml", "_target_: darts_core.data.load_data\nname: ${{oc.env:HOME}}\n",
        ["data=evil"], ["oc.env", "resolver"],
    ),
    "a resolver in a defaults list": (
        "experiment/evil.yaml", "# @package _global_\ndefaults:\n  - override /data: ${{oc.env:HOME}}\n",
        ["experiment=evil"], ["oc.env", "resolver"],
    ),
    "a resolver with an inner one": (
        "data/evil.yaml", "_target_: darts_core.data.load_data\nname: 'a ${{ oc.env : ${{out}}}}'\n",
        ["data=evil"], ["oc.env", "resolver"],
    ),
    "a file of the name of one of ours": (
        "strategy/unrolled.yaml", "_target_: darts_core.strategies.FirstOrder\n",
        ["strategy=unrolled"], ["unrolled.yaml", "name of one of ours"],
    ),
    "a duplicate key": (
        "relax/evil.yaml", "temperature: 1\ntemperature: 2\n", ["relax=evil"], ["evil.yaml", "twice"],
    ),
    "latin-1": (
        "relax/evil.yaml", "description: caf\u00e9\n", ["relax=evil"], ["evil.yaml", "UTF-8"],
    ),
    "deep nesting": (
        "relax/evil.yaml", "a: " + "[" * 500 + "]" * 500 + "\n", ["relax=evil"], ["evil.yaml", "nest"],
    ),
    "an anchor bomb": (
        "relax/evil.yaml",
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        ["relax=evil"],
        ["evil.yaml", "values"],
    ),
    "a YAML tag": (
        "relax/evil.yaml", "a: !!python/object/apply:os.system ['touch {mark}']\n", ["relax=evil"],
        ["evil.yaml", "tag"],
    ),
    "a value tag": ("relax/evil.yaml", "a: =\n", ["relax=evil"], ["evil.yaml", "not valid YAML"]),
    "no mapping": ("relax/evil.yaml", "- 1\n- 2\n", ["relax=evil"], ["evil.yaml", "key: value"]),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tree_is_a_sentence_and_does_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content, arguments, words = HOSTILE[name]
    mark = tmp_path / "mark"
    path = tmp_path / "conf" / file
    path.parent.mkdir(parents=True)
    text = content if "{{" not in content and "{mark}" not in content else content.format(mark=mark)
    path.write_bytes(text.encode("latin-1" if name == "latin-1" else "utf-8"))
    (tmp_path / "conf" / "other").mkdir()
    (tmp_path / "conf" / "other" / "evil.yaml").write_text(f"handlers: {{e: {{(): {mark}}}}}\n")
    (tmp_path / "evil_module.py").write_text(RUNS.format(mark=str(mark)))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    status = cli.main(["search", "--config-dir", "conf", *arguments])
    said = capsys.readouterr()
    assert status == 2, said.err
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert said.out == ""
    for word in words:
        assert word in lines[0]
    after = [item for item in sorted(tmp_path.rglob("*")) if "__pycache__" not in item.parts]
    assert after == before


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("+hydra.callbacks.x={_target_: hydra.test_utils.test_utils.run_process, cmd: [touch, m]}",
         ["hydra.callbacks"]),
        ("hydra.job_logging={version: 1, root: {handlers: [x]}}", ["hydra.job_logging"]),
        ("+hydra.job.env_set.LD_PRELOAD=m", ["hydra.job.env_set"]),
        ("hydra.job.env_copy=[HOME]", ["hydra.job.env_copy"]),
        ("hydra.launcher._target_=os.system", ["os.system"]),
        ("+hydra.sweeper.x={_target_: os.system}", ["hydra.sweeper.x"]),
        ("hydra/launcher=ray_aws", ["ray_aws"]),
        ("hydra.mode=MULTIRUN", ["hydra.mode"]),
        ("hydra.output_subdir=m", ["hydra.output_subdir"]),
        ("hydra.run.dir=m", ["hydra.run.dir=m", "Results go where out=, job= and version= say."]),
        ("hydra.sweep.dir=m", ["hydra.sweep.dir=m"]),
        ("hydra.sweep.subdir=${hydra.job.override_dirname}", ["hydra.sweep.subdir"]),
    ],
)  # fmt: skip
def test_the_command_line_chooses_launchers_and_sweepers_and_no_other_code_of_hydra(
    argument: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", argument]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_a_tree_that_adds_to_our_groups_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine, [with] 'odd' words"
    (folder / "relax").mkdir(parents=True)
    (folder / "experiment").mkdir()
    (folder / "relax" / "soft.yaml").write_text(
        "_target_: darts_core.relax.softmax.Softmax\ntemperature: 2.0\n"
    )
    (folder / "experiment" / "short.yaml").write_text(
        "# @package _global_\nsearch:\n  epochs: 3\n  batch_size: ${search.epochs}\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["relax=soft", "experiment=short", "hydra/sweeper=darts"]
    assert cli.main(["search", "--cfg", "job", "--config-dir", str(folder), *arguments]) == 0
    said = capsys.readouterr().out
    assert "temperature: 2.0" in said
    assert "batch_size: ${search.epochs}" in said


def _refused(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which a search with this tree is refused."""
    assert cli.main(["search", "--config-dir", str(folder), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_resolver_in_a_file_that_another_calls_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_PLACE", "/hush-hush")
    folder = tmp_path / "conf"
    (folder / "experiment").mkdir(parents=True)
    (folder / "hidden").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - /hidden/evil@_global_\n"
    )
    (folder / "hidden" / "evil.yaml").write_text("data:\n  path: ${oc.env:MY_PLACE}\n")
    for more in ([], ["-m", "seed=1,2"]):
        line = _refused(folder, capsys, "experiment=mine", *more)
        assert "data.path" in line
        assert "call no resolver" in line
        assert "hush" not in line
    # the command line may
    typed = ["data.path=${oc.env:MY_PLACE}", "--cfg", "job", "--resolve"]
    assert cli.main(["search", "--config-dir", str(folder), *typed]) == 0
    assert "path: /hush-hush" in capsys.readouterr().out


def test_a_file_in_place_of_our_declarations_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "schema_search.yaml").write_text("seed: 77\n")
    line = _refused(tmp_path / "conf", capsys)
    assert "schema_search.yaml" in line
    assert "declarations" in line
