"""Passwords in database URLs: kept out of every file, log, hash and screen, and found again when needed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from darts_core.errors import TuneError

__all__ = ["PASSWORD_VARIABLE", "keep_password", "masked", "refuse_password", "with_password"]

PASSWORD_VARIABLE = "DARTS_STORAGE_PASSWORD"
# `user:password@` of a URL (the password may hold a colon), or `?password=`
_PASSWORD = re.compile(
    r"(?:(?P<user>://[^/@:]*:(?=[^@\n]+@))|(?P<query>[?&]password=))"
    # before the @ anything is part of it, & and quotes too; so is an @ behind which no host ends before the
    # next one
    r"(?P<word>(?(user)[^@\n]+(?:@[^@/?#,\s'\"]*(?=@))*|[^&'\"\s]+))"
)


def masked(url: str | None) -> str | None:
    """A storage URL that may be shown and saved: without its password."""
    return None if url is None else _PASSWORD.sub(r"\g<user>\g<query>***", url)


def keep_password(url: str | None) -> str | None:
    """`masked(url)`; the password goes into this process's environment, for `open_storage`.

    Also of a whole override that holds such a URL.
    """
    found = _PASSWORD.search(url or "")
    if found and found["word"] != "***":
        os.environ[PASSWORD_VARIABLE] = found["word"]
    return masked(url)


def with_password(url: str) -> str:
    """The URL with the password that its `***` stands for.

    Raises:
        TuneError: neither the environment nor a file holds it.
    """
    found = _PASSWORD.search(url)
    if found is None or found["word"] != "***":
        return url
    password, file = os.environ.get(PASSWORD_VARIABLE), os.environ.get(f"{PASSWORD_VARIABLE}_FILE")
    if password is None and file:
        try:
            # as it stands in a URL: characters that mean something there are percent-encoded
            password = quote(Path(file).read_text(encoding="utf-8").strip(), safe="%")
        except OSError as error:
            raise TuneError(f"{PASSWORD_VARIABLE}_FILE={file} cannot be read ({error}).") from None
    if password is None:
        raise TuneError(
            f"The password of {url} is kept nowhere; give it in {PASSWORD_VARIABLE}, or name a file that "
            f"holds it in {PASSWORD_VARIABLE}_FILE."
        )
    # what reads the URL would take such a sign for the end of the password
    password = password.replace("@", "%40")
    return f"{url[: found.start('word')]}{password}{url[found.end('word') :]}"


def refuse_password(url: str | None, name: str, remedy: str | None = None) -> None:
    """Raise when a setting that will be written to files holds a password.

    Args:
        url: the setting's value.
        name: the setting.
        remedy: what to do instead, if not what a database's URL takes.

    Raises:
        TuneError: it does.
    """
    if masked(url) != url:
        usual = (
            f"write *** in its place and give the password in {PASSWORD_VARIABLE}, or a file with it in "
            f"{PASSWORD_VARIABLE}_FILE"
        )
        raise TuneError(
            f"{name}={masked(url)} holds a password, which would be written into files; {remedy or usual}."
        )
