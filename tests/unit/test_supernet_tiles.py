"""Tiles are found once for every shape of cell, and the search does not notice."""

import json
import logging

import pytest
import torch

from darts_core.settings import Search
from darts_core.spaces import get_space
from darts_core.stages.search_setup import tune_kernels
from darts_core.supernet import Supernet
from darts_core.supernet.plan import plan_cell
from darts_core.supernet.tiles import cells_to_tune, tune_supernet
from darts_kernels import cell_run as launches
from darts_kernels import tiles as tables
from tests.kernels.cells import make_cell


@pytest.fixture
def net():
    torch.manual_seed(0)
    space = get_space("darts").with_ops(["none", "skip_connect", "dil_conv_3x3"])
    net = Supernet(space, channels=2, layers=4, in_channels=1)
    net.use_path("auto")
    return net.train()


def test_every_shape_once_and_nothing_else_moves(net, tmp_path, monkeypatch, caplog):
    path = tmp_path / "tiles.json"

    def known(device, key):
        return json.loads(path.read_text())["cpu"].get(key) if path.exists() else None

    monkeypatch.setattr(tables, "known_tiles", known)
    seen = []

    def time_ms(call):
        call()
        seen.append(launches.tiles_for())
        return float(abs(seen[-1].back_rows - 2) + 1)

    usual = launches.tiles_for
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    caplog.set_level(logging.INFO, logger="darts_core")
    found = tune_supernet(net, (1, 8, 8), 2, time_ms, seconds=1e3, path=path)
    # channels and resolution change at the two reductions
    sizes = ["c2-h8-w8-s1-b2", "c4-h4-w4-s2-b2", "c8-h2-w2-s2-b2", "c8-h2-w2-s1-b2"]
    assert [key.rsplit("-", 2)[0] for key in found] == sizes
    assert all(after == 1 <= start for start, after in found.values())
    assert all(row["back_rows"] == 2 for row in json.loads(path.read_text())["cpu"].values())
    assert "tuning the kernels for" in caplog.text
    assert "tune_seconds" in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert net.cells[0].packed.grad is None
    assert launches.tiles_for is usual
    assert not cells_to_tune(net, (1, 8, 8), 2)
    assert tune_supernet(net, (1, 8, 8), 2, time_ms, seconds=1e3, path=path) == {}


def test_time_is_shared_and_a_short_one_keeps_the_defaults(net, tmp_path):
    timed = []
    found = tune_supernet(
        net,
        (1, 8, 8),
        2,
        lambda call: timed.append(call) or 1.0,
        seconds=0.0,
        path=tmp_path / "t.json",
    )
    assert len(timed) == len(found) > 1


def test_a_cell_that_is_held_fast_is_tuned_like_the_others(net, tmp_path):
    net.cells[0].packed.requires_grad_(False)
    found = tune_supernet(
        net, (1, 8, 8), 2, lambda call: call() or 1.0, seconds=0.0, path=tmp_path / "t.json"
    )
    assert len(found) == 4


def test_nothing_is_tuned_on_a_cpu(net, monkeypatch):
    monkeypatch.setattr("darts_core.supernet.tiles.tune_supernet", lambda *_, **__: 1 / 0)
    tune_kernels(Search(tune_seconds=300, batch_size=2), net, None)


def test_new_tiles_are_read_at_once(tmp_path, monkeypatch):
    from darts_kernels.tune import save_tiles

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "card")
    tables.forget_tables()
    device = torch.device("cuda")
    cell = make_cell(["skip_connect", "dil_conv_3x3"], channels=16)
    layout = plan_cell(cell, 16).layout
    key = tables.shape_key(layout, 32, 32, "tf32", 64)
    assert tables.known_tiles(device, key) is None
    save_tiles("card", key, tables.Tiles(rows=2))
    assert tables.tiles_for(device, layout, 32, 32, "tf32", 64).rows == 2
    usual = tables.default_tiles(16, 32, 256, 32)
    assert tables.tiles_for(device, layout, 32, 32, "tf32", 256) == usual
    tables.forget_tables()


def test_where_tiles_cannot_be_kept_none_are_looked_for(net, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "tiles.json"
    assert tune_supernet(net, (1, 8, 8), 2, lambda _: 1 / 0, seconds=1e3, path=path) == {}
    assert "XDG_CACHE_HOME" in caplog.text
    assert str(tmp_path / "file") in caplog.text


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tables.Path, "home", staticmethod(homeless))
    assert tables.user_cache().name == "tiles.json"
