"""The files of trials at a path that all hosts reach: a folder, NFS, or `s3://`-like by fsspec.

Hosts that share a study's database and nothing else keep their trials' folders to themselves. What a trial
has written is put here with each report, and whoever goes on with the trial on another host begins from it.
Contents are stored under their hash and a list of them last, so that a host that dies on the way leaves the
files of the report before:

    <url>/<study>/0007/files.json    {name: hash}
    <url>/<study>/0007/<hash>
"""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darts_core.errors import TuneError, first_line
from darts_core.study.remote import changed_files, store_files

if TYPE_CHECKING:
    from darts_core.study.spec import StudySpec

__all__ = ["Artifacts", "artifacts_of", "kept_as"]

_LIST = "files.json"
# the user attribute of a study in a journal
_KEPT_AS = "artifacts"
# what fsspec's file systems raise: of the network, of rights, of a bucket that is not there
_ERRORS = (OSError, ValueError, ImportError)


class Artifacts:
    """Trials' files at `url`, those of a study below its name.

    Raises:
        TuneError: fsspec, or its package for that kind of URL, is not installed.
    """

    def __init__(self, url: str, study: str) -> None:
        self.url = url
        try:
            import fsspec  # type: ignore[import-untyped]

            self._files, base = fsspec.core.url_to_fs(url)
        except _ERRORS as error:
            raise TuneError(
                f"Trials' files cannot be kept at {url} ({first_line(error)[:200]}); it takes fsspec and, "
                "for s3:// and the like, its package: pip install fsspec s3fs."
            ) from error
        self._base = f"{base.rstrip('/')}/{study}"
        self._kept: dict[int, dict[str, str]] = {}
        self._seen: dict[int, dict[str, tuple[int, int]]] = {}

    def _place(self, number: int) -> str:
        return f"{self._base}/{number:04d}"

    def keep(self, number: int, folder: Path) -> None:
        """Put what is new in a trial's folder there.

        Raises:
            TuneError: it cannot be written.
        """
        changed = changed_files(folder, self._seen.setdefault(number, {}))
        if not changed:
            return
        place, before = self._place(number), self._kept.get(number, {})
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in changed.items()}
        known, after = set(before.values()), {**before, **hashes}
        try:
            self._files.makedirs(place, exist_ok=True)
            for name, content in changed.items():
                if hashes[name] not in known:
                    self._put(f"{place}/{hashes[name]}", content)
            self._put(f"{place}/{_LIST}", json.dumps(after).encode())
            for key in known - set(after.values()):
                self._files.rm_file(f"{place}/{key}")
        except _ERRORS as error:
            # they count as new until they are there
            self._seen.pop(number, None)
            raise self._failed(number, error) from error
        self._kept[number] = after

    def fetch(self, number: int, folder: Path) -> None:
        """Put the trial's files of the last report into `folder`; none where nothing was kept.

        Raises:
            TuneError: they cannot be read, or are not what was kept.
        """
        place = self._place(number)
        try:
            if not self._files.exists(f"{place}/{_LIST}"):
                return
            names: dict[str, str] = json.loads(self._files.cat_file(f"{place}/{_LIST}"))
            found = {name: self._files.cat_file(f"{place}/{key}") for name, key in names.items()}
        except _ERRORS as error:
            raise self._failed(number, error) from error
        for name, content in found.items():
            if hashlib.sha256(content).hexdigest() != names[name]:
                raise TuneError(f"{place}: the file {name!r} is damaged; remove this folder.")
        folder.mkdir(parents=True, exist_ok=True)
        store_files(folder, found)
        self._kept[number] = names
        changed_files(folder, self._seen.setdefault(number, {}))

    def forget(self, number: int) -> None:
        """Drop what is known of a trial's files; they stay where they are."""
        self._kept.pop(number, None)
        self._seen.pop(number, None)

    def _put(self, path: str, content: bytes) -> None:
        """A whole file or none, also where a file system writes piece by piece."""
        temporary = f"{path}.{uuid.uuid4().hex}"
        self._files.pipe_file(temporary, content)
        self._files.mv(temporary, path)

    def _failed(self, number: int, error: BaseException) -> TuneError:
        return TuneError(
            f"The files of trial {number} cannot be kept at, or read from, {self.url} "
            f"({first_line(error)[:200]})."
        )


def artifacts_of(url: str | None, study: str) -> Artifacts | None:
    """See `Artifacts`; None without a URL."""
    return None if url is None else Artifacts(url, study)


def kept_as(study: Any, spec: StudySpec) -> str:
    """The name of a study below the place of its artifacts; the caller holds the study's lock.

    In a database a name is one study's. Every journal calls its own alike, so it is given a name that no
    other has, which the journal keeps: two jobs would overwrite, and go on from, each other's files.
    """
    if spec.artifacts is None or spec.storage is not None:
        return spec.study_name
    known = study.user_attrs.get(_KEPT_AS)
    if known is None:
        parts = spec.folder.resolve().parts[1:][-3:]
        known = f"{'/'.join(parts)}-{uuid.uuid4().hex[:12]}"
        study.set_user_attr(_KEPT_AS, known)
    return str(known)
