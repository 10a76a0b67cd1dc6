"""Passwords in URLs: what is shown and saved of them."""

import pytest

from darts_core.credentials import PASSWORD_VARIABLE, keep_password, masked, with_password


@pytest.mark.parametrize("password", ["pa&ss", "pa'ss", 'pa"ss', "pa:ss", "pa ss", "pa/ss"])
def test_the_whole_of_a_password_is_masked_and_put_back(password, monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    url = f"postgresql://me:{password}@h/db?connect_timeout=1"
    assert masked(url) == "postgresql://me:***@h/db?connect_timeout=1"
    assert with_password(keep_password(url)) == url


def test_what_stands_behind_a_password_of_a_query_stays():
    assert masked("x='postgresql://h/db?password=s3'") == "x='postgresql://h/db?password=***'"
    assert masked("http://h:80/a\nme@b") == "http://h:80/a\nme@b"
