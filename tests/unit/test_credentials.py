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


def test_an_at_sign_that_was_not_encoded_is_part_of_the_password(monkeypatch):
    """What stood behind it was taken for the host: shown, logged and saved."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    assert keep_password("postgresql://me:p@ss@@h:1/db?a=b@c") == "postgresql://me:***@h:1/db?a=b@c"
    assert with_password("postgresql://me:***@h/db") == "postgresql://me:p%40ss%40@h/db"
    assert masked("postgresql://h/db?password=p@ss&x=1") == "postgresql://h/db?password=***&x=1"
    # of two addresses in one text each keeps its host
    assert masked("{a: x://u:p@h/d, b: y://k:s@g/e}") == "{a: x://u:***@h/d, b: y://k:***@g/e}"
    assert masked("[x://u:p@h,y://k:s@g], me@b") == "[x://u:***@h,y://k:***@g], me@b"
