"""A damaged table of tiles in the user's cache costs a log line and no more."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from darts_kernels import tiles as tables
from darts_kernels.tiles import Tiles, known_tiles, read_tiles, user_cache
from darts_kernels.tune import save_tiles

DAMAGE = {
    "cut": b'{"cpu": {"key": {"rows": 4',
    "list": b"[]",
    "device": b'{"cpu": 3}',
    "row": b'{"cpu": {"key": 3}}',
    "value": b'{"cpu": {"key": {"rows": "four"}}}',
    "bytes": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tables, "SHIPPED", tmp_path / "shipped.json")
    tables.forget_tables()
    path = user_cache()
    path.parent.mkdir(parents=True)
    yield path
    tables.forget_tables()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tiles_are_set_aside_with_one_line(
    damage: str, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_bytes(DAMAGE[damage])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "cpu")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert known_tiles(torch.device("cuda"), "key") is None
    assert len(caplog.records) == 1
    assert str(cache) in caplog.text
    assert not cache.exists()
    assert cache.with_name("tiles.json.damaged").read_bytes() == DAMAGE[damage]


def test_tuned_tiles_are_saved_where_the_table_was_damaged(cache: Path) -> None:
    cache.write_bytes(DAMAGE["cut"])
    save_tiles("cpu", "key", Tiles(rows=2))
    assert json.loads(cache.read_text())["cpu"]["key"]["rows"] == 2
    assert cache.with_name("tiles.json.damaged").read_bytes() == DAMAGE["cut"]


def test_whole_tiles_are_read_and_a_missing_file_is_empty(cache: Path) -> None:
    assert read_tiles(cache) == {}
    cache.write_text(json.dumps({"cpu": {"key": {"rows": 2}}}))
    assert read_tiles(cache) == {"cpu": {"key": {"rows": 2}}}
    assert cache.exists()
