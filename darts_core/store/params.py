"""Saved parameters: everything `jobs create` needs, under a name, independent of any job."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import JobError, ResumeError
from darts_core.runlog import read_json, write_json
from darts_core.store.code import copy_code, kept_files, numbered
from darts_core.store.jobs import SAVED, Store
from darts_core.store.names import check_name, is_name
from darts_core.store.sweep import sweep_job, temporary_name

__all__ = ["SavedParams"]

KIND = "darts-core saved parameters"
SCHEMA_VERSION = 1

log = logging.getLogger("darts_core")


class SavedParams:
    """The parameters saved below a store's root, each a folder with the values and its job files.

    Code is a path of the user's; where it lies in the store, which may delete it, a copy is saved too.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.root / SAVED

    def _path(self, name: str) -> Path:
        return self.folder / check_name(name, "parameter set")

    def names(self) -> list[str]:
        """All saved names, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(
            e.name
            for e in self.folder.iterdir()
            if is_name(e.name) and not e.is_symlink() and (e / "params.json").is_file()
        )

    def load(self, name: str) -> dict[str, Any]:
        """The saved values; `config_paths`, and `code` where it was copied, are paths of the saved copies.

        Raises:
            JobError: there is none of that name, its file is damaged or names others, or a newer program
                wrote it.
        """
        path = self._path(name) / "params.json"
        if not path.is_file():
            known = ", ".join(self.names()) or "none"
            raise JobError(f"There are no saved parameters {name!r}; saved are {known}.")
        try:
            content = read_json(path)
        except ResumeError:
            content = None
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise JobError(f"{path} holds no saved parameters or is damaged; move its folder away.")
        schema = content.get("schema_version", 1)
        if type(schema) is not int or schema > SCHEMA_VERSION:
            raise JobError(
                f"{path} was written by a newer program, whose settings would be left out here; update "
                "darts-core."
            )
        files = kept_files(self._path(name), content.get("config_files"))
        content["config_paths"] = [str(path) for path in files]
        if content.pop("code_copied", False):
            content["code"] = str(self._path(name) / "code")
        return content

    def readable(self) -> Iterator[dict[str, Any]]:
        """What `load` gives of each name; what cannot be read is left out with a line in the log."""
        for name in self.names():
            try:
                yield {**self.load(name), "name": name}
            except JobError as error:
                log.warning("left out: %s", error)

    def check_free(self, name: str) -> None:
        """Refuse a name under which nothing can be saved.

        Raises:
            JobError: it is taken, or not allowed.
        """
        if self._path(name).exists():
            raise JobError(
                f"Saved parameters {name!r} exist already; delete them first or use another name."
            )

    def save(
        self,
        name: str,
        values: Mapping[str, Any],
        config_files: list[Path],
        *,
        description: str = "",
        replace: bool = False,
    ) -> None:
        """Save values and copies of the job files.

        Raises:
            JobError: the name is taken and `replace` is not set, or there is no such job file.
        """
        target = self._path(name)
        if not replace:
            self.check_free(name)
        missing = [str(path) for path in config_files if not Path(path).is_file()]
        if missing:
            raise JobError(f"There is no file {missing[0]}; name an existing job file.")
        sweep_job(self.folder)
        temporary = self.folder / temporary_name("new")
        temporary.mkdir(parents=True)
        kept = []
        for index, path in enumerate(config_files):
            kept.append(numbered(index + 1, Path(path)))
            shutil.copyfile(path, temporary / kept[-1])
        code = values.get("code")
        copied = bool(code) and self.store.keeps(str(code))
        if copied:
            copy_code(str(code), temporary / "code")
        write_json(
            temporary / "params.json",
            {
                # what was loaded to be changed brings an older description with it
                **{k: v for k, v in values.items() if k != "config_paths"},
                "kind": KIND,
                "schema_version": SCHEMA_VERSION,
                "name": name,
                "description": description[:10_000],
                "saved": time.time(),
                "config_files": kept,
                "code_copied": copied,
            },
        )
        doomed = self.folder / temporary_name("deleted")
        if target.exists():
            self._require_own(target)
            # aside first: a kill while much is deleted must not lose both
            target.rename(doomed)
        temporary.rename(target)
        if doomed.exists():
            shutil.rmtree(doomed)

    def delete(self, name: str) -> None:
        """Delete saved parameters; jobs made from them are not touched."""
        self.load(name)
        self._require_own(self._path(name))
        # out of sight in one step: what a kill left half deleted could be neither loaded, deleted nor saved
        doomed = self.folder / temporary_name("deleted")
        self._path(name).rename(doomed)
        shutil.rmtree(doomed)

    def _require_own(self, path: Path) -> None:
        if path.is_symlink() or path.resolve().parent != self.folder.resolve():
            raise JobError(f"{path} does not lie in {self.folder}; nothing was deleted.")
