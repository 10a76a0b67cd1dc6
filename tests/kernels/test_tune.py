"""Tile search and its cache on disk."""

import json

import pytest

from darts_kernels.tiles import Tiles, default_tiles, shape_key, user_cache
from darts_kernels.tune import GROUPS, save_tiles, tune_tiles


def cost(tiles: Tiles) -> float:
    if tiles.back_rows == 2:
        raise RuntimeError("out of registers")
    return abs(tiles.back_rows - 8) + abs(tiles.lanes - 64) / 32 + abs(tiles.chunk - 256) / 128 + 1


def test_finds_the_best_tiles():
    best, found = tune_tiles(Tiles(), cost)
    assert (best.back_rows, best.lanes, best.chunk) == (8, 64, 256)
    assert found == cost(best) == 1


def test_stops_when_asked_and_keeps_the_best():
    asked = iter([False] * 8 + [True] * 1000)
    best, found = tune_tiles(Tiles(), cost, stop=lambda: next(asked))
    assert found == cost(best) < cost(Tiles())


def test_candidates_are_fields_and_fit_together():
    known = Tiles().to_dict()
    for candidates in GROUPS.values():
        for values in candidates:
            assert set(values) <= set(known)
            tiles = Tiles().with_values(values)
            assert tiles.chunk % min(tiles.point_block, tiles.chunk) == 0


def test_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    save_tiles("card", shape_key(16, 32, 1, "tf32"), Tiles(rows=8))
    path = save_tiles("card", shape_key(32, 16, 2, "tf32"), Tiles(rows=2))
    assert path == user_cache()
    table = json.loads(path.read_text())["card"]
    assert Tiles().with_values(table["c16-h32-s1-tf32"]).rows == 8
    assert Tiles().with_values({**table["c32-h16-s2-tf32"], "unknown": 1}).rows == 2
    assert [p.name for p in path.parent.iterdir()] == ["tiles.json"]


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(16, 32, 32), (3, 7, 5), (64, 8, 8), (20, 1, 1)]
)
def test_defaults_fit_any_shape(channels, height, width):
    tiles = default_tiles(channels, height, 4, width)
    assert tiles.chunk % tiles.point_block == 0
    assert all(
        v & (v - 1) == 0 for v in (tiles.lanes, tiles.chunk, tiles.back_block, tiles.plain_block)
    )
    assert 1 <= tiles.rows <= max(1, height)
