"""Linked folders in a user's code, which a version copies."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from darts_core.store.code import copy_code, links_note, python_files


def test_a_link_to_a_folder_of_the_code_is_copied_as_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, runs = tmp_path / "code", tmp_path / "code" / "runs"
    inner = source / "src" / "pkg"
    inner.mkdir(parents=True)
    (inner / "a.py").write_text("x = 1")
    (inner / "sub").mkdir()
    (inner / "sub" / "b.py").write_text("y = 1")
    plain = copy_code(source, tmp_path / "plain")
    (source / "pkg").symlink_to(inner)
    copied = tmp_path / "copied"
    assert copy_code(source, copied, skip=runs) != plain
    assert links_note(source, skip=runs) is None
    assert (copied / "pkg" / "sub" / "b.py").read_text() == "y = 1"
    assert not [path for path in copied.rglob("*") if path.is_symlink()]
    # the copy of a copy is the same
    assert copy_code(copied, tmp_path / "again") == copy_code(source, tmp_path / "anew")
    # what is endless, no code, or a link within a linked folder is left out and named
    (runs / "a").mkdir(parents=True)
    (source / ".git").mkdir()
    (source / "store").symlink_to(runs / "a")
    (source / "history").symlink_to(source / ".git")
    (inner / "sub" / "up").symlink_to(inner)
    named = str(links_note(source, skip=runs)).partition("--data: ")[2]
    assert named == "history, pkg/sub/up, src/pkg/sub/up and 1 more"
    copy_code(source, tmp_path / "more", skip=runs)
    names = {path.name for path in (tmp_path / "more").rglob("*")}
    assert not names & {"store", "history", "up"}
    # where the limits are reached the link is left out, and nothing is refused that was not before
    monkeypatch.setattr("darts_core.store.code.MAX_FILES", 3)
    copy_code(source, tmp_path / "few", skip=runs)
    assert not (tmp_path / "few" / "pkg").exists()
    assert "pkg" in str(links_note(source, skip=runs)).partition("--data: ")[2].split(", ")


def test_a_file_whose_name_is_no_text_is_copied(tmp_path: Path) -> None:
    """An archive of another system left a name in its own letters: the job ended as a defect."""
    name, source = os.fsdecode(b"\xfcbung.py"), tmp_path / "code"
    source.mkdir()
    (source / name).write_text("x")
    told = hashlib.sha256(b"\xfcbung.py\0x\0").hexdigest()[:12]
    assert copy_code(source, tmp_path / "copy") == told
    assert (tmp_path / "copy" / name).read_text() == "x"


def test_a_file_that_goes_while_the_code_is_copied_is_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that ran there renamed its checkpoint: the job ended as a defect."""
    source = tmp_path / "code"
    source.mkdir()
    for name in ("a.py", "checkpoint.tmp", "train.py"):
        (source / name).write_text("x")
    copyfile = shutil.copyfile

    def beside_a_training(path: Path, target: Path) -> None:
        copyfile(path, target)
        (source / "checkpoint.tmp").unlink(missing_ok=True)

    monkeypatch.setattr("darts_core.store.code.shutil.copyfile", beside_a_training)
    told = copy_code(source, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["a.py", "train.py"]
    assert copy_code(source, tmp_path / "again") == told


def test_a_copy_may_be_read_and_run_by_whom_the_file_itself_may(tmp_path: Path) -> None:
    source = tmp_path / "code"
    source.mkdir()
    for name, rights in ((".env", 0o600), ("tool.sh", 0o755), ("fixed.py", 0o444)):
        (source / name).write_text("x")
        (source / name).chmod(rights)
    before = os.umask(0o022)
    try:
        copy_code(source, tmp_path / "copy")
    finally:
        os.umask(before)
    rights = {p.name: oct(p.stat().st_mode & 0o777) for p in (tmp_path / "copy").iterdir()}
    assert rights == {".env": "0o600", "tool.sh": "0o755", "fixed.py": "0o644"}


def test_a_virtual_environment_of_any_name_is_no_code(tmp_path: Path) -> None:
    source = tmp_path / "code"
    for name in ("train.py", "lib/net.py", "env/lib/a.py", ".hidden/b.py", "mini/conda-meta/c.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x = 1")
    (source / "env" / "pyvenv.cfg").write_text("home = /usr/bin")
    (source / "linked").symlink_to(source / "env")
    copy_code(source, tmp_path / "copy")
    copied = {
        p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*.py")
    }
    assert copied == {"train.py", "lib/net.py", ".hidden/b.py"}
    # the same for whoever only reads it; nothing hidden is looked at
    found = [path.relative_to(source).as_posix() for path in python_files(source)]
    assert found == ["train.py", "lib/net.py"]
