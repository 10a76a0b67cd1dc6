"""Tab completion: what a shell offers for the word at the cursor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from darts_core import cli
from darts_core.commands.completion import candidates


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("darts-core ", ["search", "jobs", "doctor"]),
        ("darts-core se", ["search", "serve-bench"]),
        (
            "darts-core search ",
            ["data=", "space=", "search.", "latency.", "seed=", "hydra/launcher="],
        ),
        ("darts-core search da", ["data=", "data."]),
        ("darts-core search data=", ["data=digits", "data=npz"]),
        ("darts-core search -m data=digits,m", ["data=digits,mnist"]),
        ("darts-core search search.alpha_l", ["search.alpha_learning_rate="]),
        ("darts-core search search.guards.", ["search.guards.skips.", "search.guards.ties."]),
        ("darts-core search search.guards.skips.", ["search.guards.skips.share="]),
        ("darts-core search search.precision=", ["search.precision=bf16", "search.precision=fp32"]),
        ("darts-core search search.evaluate=t", ["search.evaluate=true"]),
        ("darts-core search strategy=unrolled strategy.", ["strategy.epsilon="]),
        ("darts-core search strategy=unrolled strategy.plain_sgd=", ["strategy.plain_sgd=true"]),
        ("darts-core search relax.", ["relax.temperature="]),
        ("darts-core search data=synthetic data.", ["data.reach=", "data.limit="]),
        ("darts-core search --c", ["--cfg", "--config-dir"]),
        ("darts-core search --cfg ", ["job", "hydra", "all"]),
        ("darts-core search --info de", ["defaults", "defaults-tree"]),
        ("darts-core search -m hydra/sweeper=", ["hydra/sweeper=darts", "hydra/sweeper=basic"]),
        ("darts-core search ++search.ep", ["++search.epochs="]),
        ("darts-core prune prune.options.", ["prune.options.rounds=", "prune.options.least="]),
        ("darts-core prune prune.options.importance=t", ["prune.options.importance=taylor"]),
        ("darts-core run ", ["train.", "bench.", "experiment=", "allow_doubtful="]),
    ],
)
def test_what_is_offered(line: str, among: list[str]) -> None:
    found = candidates(line)
    assert set(among) <= set(found)
    assert all(one.startswith(line.split()[-1]) for one in found if not line.endswith(" "))
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    "line",
    [
        "darts-core train search.", "darts-core search zzz", "darts-core", "darts-core search data.name.",
        "darts-core search strategy=p_darts strategy.stages.",
    ],
)  # fmt: skip
def test_what_is_not_a_setting_of_the_command_is_not_offered(line: str) -> None:
    assert candidates(line) == []


def test_files_of_the_users_tree_are_offered(tmp_path: Path) -> None:
    (tmp_path / "relax").mkdir()
    (tmp_path / "relax" / "mine.yaml").write_text("scale: 1.0\nloud: true\n")
    line = f"darts-core search --config-dir {tmp_path} "
    assert "relax=mine" in candidates(f"{line}relax=m")
    assert "relax.scale=" in candidates(f"{line}relax=mine relax.")
    assert candidates(f"{line}relax=mine relax.loud=t") == ["relax.loud=true"]


def test_a_word_that_is_no_shell_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "-sc", "install=fish"]) == 2
    assert "bash, zsh" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_with_what_is_installed(tmp_path: Path) -> None:
    command = tmp_path / "darts-core"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m darts_core.cli "$@"\n')
    command.chmod(0o755)
    script = """
eval "$(darts-core search -sc install=bash)"
typed() {
    COMP_LINE=$1 COMP_POINT=${#1}
    _darts_core_complete "${1%% *}"
    printf '%s\\n' "${COMPREPLY[@]}"
}
PATH=/usr/bin:/bin  # as where .venv/bin/darts-core is typed
typed '~/darts-core search data=di'
PATH=$HOME:$PATH  # where a variable is typed, which is not expanded
typed '$VENV/darts-core search search.epo'
complete -p darts-core
"""
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": path, "HOME": str(tmp_path)},
        capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    # bash replaces what stands behind the last break of words, here the equals sign
    assert lines[:2] == ["digits", "search.epochs="], done.stdout + done.stderr
    assert "-F _darts_core_complete darts-core" in lines[2]
