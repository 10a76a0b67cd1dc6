"""Tile search and its cache on disk."""

import json

import pytest
from triton.runtime.errors import OutOfResources, PTXASError

from darts_core.supernet.plan import plan_cell
from darts_kernels.tiles import Tiles, default_tiles, shape_key, user_cache
from darts_kernels.tune import GROUPS, save_tiles, tune_tiles

from .cells import make_cell


def cost(tiles: Tiles) -> float:
    if tiles.back_rows == 2:
        raise RuntimeError("out of registers")
    return abs(tiles.back_rows - 8) + abs(tiles.lanes - 64) / 32 + abs(tiles.chunk - 256) / 128 + 1


def test_finds_the_best_tiles():
    best, found = tune_tiles(Tiles(), cost)
    assert (best.back_rows, best.lanes, best.chunk) == (8, 64, 256)
    assert found == cost(best) == 1


@pytest.mark.parametrize(
    "error", [OutOfResources(300_000, 101_376, "shared memory"), PTXASError("too few registers")]
)
def test_tiles_that_the_card_has_no_room_for_are_passed_over(error):
    def timed(tiles: Tiles) -> float:
        if tiles.back_rows == 2:
            raise error
        return cost(tiles)

    best, found = tune_tiles(Tiles(), timed)
    assert (best.back_rows, best.lanes, best.chunk) == (8, 64, 256)
    assert found == 1


def test_stops_when_asked_and_keeps_the_best():
    asked = iter([False] * 16 + [True] * 1000)
    best, found = tune_tiles(Tiles(), cost, stop=lambda: next(asked))
    # better than at first, and not the best, which the whole search finds
    assert 1 < found == cost(best) < cost(Tiles())


def test_candidates_are_fields_and_fit_together():
    known = Tiles().to_dict()
    for candidates in GROUPS.values():
        for values in candidates:
            assert set(values) <= set(known)
            tiles = Tiles().with_values(values)
            assert tiles.chunk % min(tiles.point_block, tiles.chunk) == 0


def test_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    save_tiles("card", "one", Tiles(rows=8))
    path = save_tiles("card", "two", Tiles(rows=2))
    assert path == user_cache()
    table = json.loads(path.read_text())["card"]
    assert Tiles().with_values(table["one"]).rows == 8
    assert Tiles().with_values({**table["two"], "unknown": 1}).rows == 2
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


def test_what_changes_the_kernels_or_their_sizes_changes_the_key():
    def layout(*ops, **options):
        cell = make_cell(ops, channels=4, inputs=2, nodes=2, **options)
        return plan_cell(cell, 4).layout

    one = layout("skip_connect", "dil_conv_3x3")
    keys = [
        shape_key(one, 8, 8, "tf32", 64),
        shape_key(one, 8, 6, "tf32", 64),
        shape_key(one, 8, 8, "tf32", 256),
        shape_key(one, 8, 8, "bf16", 64),
        shape_key(layout("skip_connect", "dil_conv_5x5"), 8, 8, "tf32", 64),
        shape_key(layout("dil_conv_3x3"), 8, 8, "tf32", 64),
        shape_key(layout("skip_connect", "dil_conv_3x3", "max_pool_3x3"), 8, 8, "tf32", 64),
        shape_key(layout("skip_connect", "dil_conv_3x3", groups=2), 8, 8, "tf32", 64),
    ]
    assert len(set(keys)) == len(keys)
    assert shape_key(layout("skip_connect", "dil_conv_3x3"), 8, 8, "tf32", 64) == keys[0]


def test_register_caps_of_every_useful_occupancy_are_tried():
    for name in ("back_", "", "inner_back_", "inner_"):
        (group,) = (g for g in GROUPS.values() if f"{name}regs" in next(iter(g)))
        assert {values[f"{name}regs"] for values in group} >= {0, 64, 96, 128}
