"""Begun afresh, as a damaged checkpoint asks for: nothing of two trainings is mixed."""

from dataclasses import replace

import pytest
import torch
from test_elastic_shrink import CONFIG, META, SETTINGS, Counting

from darts_core.data import load_data
from darts_core.elastic import network
from darts_core.elastic.fit import norm_batches
from darts_core.elastic.points import given_network, write_points
from darts_core.elastic.shrink import grow_family
from darts_core.errors import ResumeError
from darts_core.models.baselines import baseline
from darts_core.prune.rounds import take_batches
from darts_core.runlog import read_json, read_jsonl, write_json
from darts_core.train import load_model


@pytest.fixture(scope="module")
def bundle():
    return load_data("digits", limit=160, test_limit=40)


def _model(seed):
    torch.manual_seed(seed)
    return baseline("resnet8", 10, 1, 4).eval()


def _clock(bundle):
    return Counting(bundle.image_shape, torch.device("cpu"), batch=1)


def _grow(bundle, folder, seed):
    folder.mkdir(exist_ok=True)
    given = _model(seed)
    return grow_family(
        given, bundle.without_test(), SETTINGS, CONFIG, _clock(bundle), folder, seed=1
    )


def _front(bundle, folder, seed):
    """All that a shrinking of the network of a seed leaves in `folder`, and its points' parameters."""
    family, clock, given = _grow(bundle, folder, seed), _clock(bundle), _model(seed)
    base, first = given_network(given, bundle, clock, folder)
    rows = write_points(family, given, bundle, clock, first, folder, META)
    models = [load_model(folder / row["folder"] / "model.pt")[0].state_dict() for row in rows]
    return family, {key: base[key] for key in ("metric", "val_metric")}, rows, models


def test_nothing_of_a_training_whose_checkpoint_is_gone_counts_for_the_next_one(
    bundle, tmp_path, caplog
):
    _front(bundle, tmp_path / "again", 0)
    assert "no checkpoint any more" not in caplog.text
    (tmp_path / "again" / "checkpoint.pt").unlink()
    found, base, rows, models = _front(bundle, tmp_path / "again", 1)
    assert caplog.text.count("no checkpoint any more") == 1
    wanted, own, same, alike = _front(bundle, tmp_path / "alone", 1)
    assert found.net.orders == wanted.net.orders
    assert read_json(tmp_path / "again" / "widths.json") == read_json(
        tmp_path / "alone" / "widths.json"
    )
    judged = [read_jsonl(tmp_path / name / "judged.jsonl") for name in ("again", "alone")]
    assert judged[0] == judged[1]
    assert (base, rows) == (own, same)
    for left, right in zip(models, alike, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in right)


def test_a_point_whose_network_was_taken_away_is_made_anew(bundle, tmp_path, caplog):
    family, _, rows, models = _front(bundle, tmp_path, 0)
    gone = tmp_path / rows[0]["folder"]
    (gone / "model.pt").unlink()
    clock, given = _clock(bundle), _model(0)
    _, first = given_network(given, bundle, clock, tmp_path)
    assert write_points(family, given, bundle, clock, first, tmp_path, META) == rows
    again = load_model(gone / "model.pt")[0].state_dict()
    assert all(torch.equal(again[name], value) for name, value in models[0].items())
    assert f"{gone} is made anew: it holds no model.pt any more" in caplog.text


def test_orders_of_other_weights_are_found_anew_where_nothing_was_trained_yet(
    bundle, tmp_path, monkeypatch
):
    wanted = _grow(bundle, tmp_path / "alone", 1)
    folder = tmp_path / "again"

    class Killed(Exception):
        pass

    def kill(*given, **named):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("darts_core.elastic.shrink.fit_elastic", kill)
        with pytest.raises(Killed):
            _grow(bundle, folder, 0)
    assert (folder / "latency.json").is_file()
    first = read_json(folder / "widths.json")
    assert _grow(bundle, folder, 1).net.orders == wanted.net.orders != first["orders"]
    # those of the same weights are kept: near ties may fall otherwise where it goes on
    kept = read_json(folder / "widths.json")
    monkeypatch.setattr(network, "most_important_first", lambda *_: pytest.fail("they are known"))
    assert kept["of"] != first["of"]
    write_json(folder / "widths.json", {k: v for k, v in kept.items() if k != "of"})  # an older one
    assert _grow(bundle, folder, 1).net.orders == wanted.net.orders


def test_a_teacher_that_cannot_be_read_names_both_files_to_be_moved_away(bundle, tmp_path):
    _grow(bundle, tmp_path, 0)
    (tmp_path / "teacher.pt").write_bytes(b"damaged")
    both = r"move it and checkpoint\.pt beside it away to start afresh"
    with pytest.raises(ResumeError, match=both):
        _grow(bundle, tmp_path, 0)
    (tmp_path / "teacher.pt").unlink()
    with pytest.raises(ResumeError, match=r"no file .*teacher\.pt.* checkpoint\.pt beside it away"):
        _grow(bundle, tmp_path, 0)


class _Small(type(baseline("resnet8", 10, 1, 4))):
    """A network on a device whose memory holds the activations of 16 images, and runs 64 without them."""

    def forward(self, x):
        if len(x) > (16 if torch.is_grad_enabled() else 64):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(x)


def test_nothing_but_the_training_s_batch_size_decides_how_much_memory_it_takes(bundle, tmp_path):
    given = _model(0)
    given.__class__ = _Small
    config = replace(CONFIG, epochs=1, batch_size=16)
    family = grow_family(
        given, bundle.without_test(), SETTINGS, config, _clock(bundle), tmp_path, seed=1
    )
    assert sum(family.chosen.found_by.values()) == SETTINGS.points
    assert read_json(tmp_path / "alphas.json").keys() == {"0", "1", "2"}
    few = take_batches(bundle, torch.device("cpu"), 16)
    assert [len(x) for x, _ in few] == [16] * (bundle.size("params") // 16)
    assert [len(x) for x, _ in norm_batches(bundle, 20)] == [20]
    assert [len(x) for x, _ in norm_batches(bundle)] == [128]
