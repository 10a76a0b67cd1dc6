"""What an elastic training must not lose or leave behind: what is frozen, forwards, seconds, old points."""

from dataclasses import replace

import pytest
import torch
from elastic_cases import SHAPE, Images, settled
from test_elastic_choose import LOSS, _branches, _judge, _one_hot
from test_elastic_shrink import CONFIG, SETTINGS, Counting
from test_elastic_shrink_settings import META
from test_elastic_structure import Stream

from darts_core.data import load_data
from darts_core.elastic import elastic, points
from darts_core.elastic import shrink as grown
from darts_core.elastic.archive import Archive, Judged
from darts_core.elastic.choose import SEARCHES, Chosen, budgets_of, choose
from darts_core.elastic.depths import find_depths
from darts_core.elastic.gates import Gates
from darts_core.elastic.norms import batch_statistics
from darts_core.elastic.points import remove_stale, write_points
from darts_core.elastic.shrink import Family, grow_family
from darts_core.errors import ExportError, NoFormatError, NotInstalledError
from darts_core.models.baselines import baseline
from darts_core.prune.trial import Trial
from darts_core.runlog import RunFolder, read_yaml, write_json
from darts_core.settings import Shrink
from darts_core.stages import shrink
from darts_core.stages.schema import ExportStage, ShrinkStage
from darts_core.supernet.replace import replace_modules

CPU = torch.device("cpu")
HELD = {"positions", "patch.weight", "patch.bias"}


class _Stop(Exception):
    pass


class _Plain(Images):
    def without_test(self):
        return self


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_what_is_frozen_is_not_fine_tuned(place, tmp_path, monkeypatch):
    model, data, seen = settled("vit").float(), _Plain(), []
    model.patch.requires_grad_(False)
    model.positions.requires_grad_(False)
    net = elastic(model, torch.randn(2, *SHAPE))
    width = next(v for v in net.variables if v.name == "blocks.0.up")
    row = Judged({**net.largest, width.name: width.options[0]}, 1.0, 0.5, 0.5, "greedy")
    family = Family(net, Chosen(rows=[row], budgets_ms=[1.0]), None, [], 0.0)
    clock = Counting(SHAPE, CPU, batch=1)

    def tuned(networks):
        seen.extend(networks.values())
        return dict.fromkeys(networks, 1.0)

    monkeypatch.setattr(points, "fine_tune", lambda network, *_, **__: seen.append(network) or 1.0)
    write_points(
        family, model, data, clock, clock(model), tmp_path, META, tuning=replace(CONFIG, epochs=1),
        elsewhere=tuned if place == "elsewhere" else None,
    )  # fmt: skip
    (network,) = seen
    assert {name for name, value in network.named_parameters() if not value.requires_grad} == HELD


def test_a_network_that_is_frozen_as_a_whole_learns_in_its_elastic_training(
    tmp_path, monkeypatch, caplog
):
    torch.manual_seed(0)
    bundle, seen = load_data("digits", limit=160, test_limit=40), []
    model = baseline("resnet8", 10, 1, 4).eval().requires_grad_(False)

    def trained(net, *_, **__):
        seen.extend(parameter.requires_grad for parameter in net.model.parameters())
        raise _Stop

    monkeypatch.setattr(grown, "fit_elastic", trained)
    clock = Counting(bundle.image_shape, CPU, batch=1)
    with caplog.at_level("INFO"), pytest.raises(_Stop):
        grow_family(model, bundle.without_test(), SETTINGS, CONFIG, clock, tmp_path)
    assert seen
    assert all(seen)
    assert "frozen: they are trained all the same" in caplog.text


def test_blocks_around_one_that_was_left_out_before_are_one_stage():
    """A point that is made elastic again: each was "the only block of its stage"."""
    torch.manual_seed(0)
    model = replace_modules(Stream(torch.nn.LayerNorm).eval(), {"blocks.1": "skip_connect"})
    (depth,), left = find_depths(Trial(model, torch.randn(2, 3, 8, 8)))
    assert (depth.blocks, depth.options) == (("blocks.0", "blocks.2"), (1, 2))
    assert not left


def test_a_block_keeps_the_forward_of_its_own():
    model, calls = settled("vit"), []
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    net = elastic(model, x)
    depth = next(v for v in net.variables if v.kind == "blocks")
    block = net.model.get_submodule(depth.blocks[-1])
    plain = block.forward

    def forward(tokens):
        calls.append(1)
        return plain(tokens)

    block.forward = forward
    with torch.no_grad():
        wanted = net.model(x)
        with Gates(net)(_one_hot(net, net.largest)) as network:
            found = network(x)
    assert len(calls) == 2
    assert vars(block)["forward"] is forward
    torch.testing.assert_close(found, wanted)
    others = [net.model.get_submodule(path) for path in depth.blocks[:-1]]
    assert not any("forward" in vars(other) for other in others)


def test_the_seconds_of_the_searches_are_those_of_all_sittings():
    net, cost, batches = _branches()
    budgets, noted = budgets_of(cost.of(net.smallest), cost.of(net.largest), (), 2), []

    def go(judge, **more):
        return choose(
            Archive(net, cost, judge), budgets, batches, LOSS, lambda model: 0.0, looks=4,
            examples=64, note=lambda seconds: noted.append(dict(seconds)), **more,
        )  # fmt: skip

    def stopped(model):
        raise _Stop

    with pytest.raises(_Stop):
        go(stopped, spent={"greedy": 50.0, "evolution": 7.0})
    (at_the_stop,) = noted
    assert at_the_stop["greedy"] >= 50.0
    assert at_the_stop["evolution"] == 7.0
    found = go(_judge(batches), spent=at_the_stop)
    assert set(found.seconds) == set(SEARCHES)
    assert found.seconds["greedy"] >= at_the_stop["greedy"]
    assert found.seconds["evolution"] >= 7.0
    assert noted[-1] == found.seconds


def test_points_that_the_front_no_longer_lists_are_removed_and_nothing_else(tmp_path):
    for name in ("01", "02", "03", "mine"):
        at = tmp_path / "points" / name
        (at / "export").mkdir(parents=True)
        write_json(at / "point.json", {})
        (at / "model.pt").write_bytes(b"")
    (tmp_path / "points" / "03" / "notes.txt").write_text("somebody's own")
    (tmp_path / "points" / "04").write_text("no folder")
    remove_stale(tmp_path, [{"folder": "points/01"}])
    left = {path.name for path in (tmp_path / "points").iterdir()}
    assert left == {"01", "03", "04", "mine"}
    remove_stale(tmp_path / "nowhere", [])


def test_formats_that_a_point_s_export_leaves_out_are_warnings_of_the_stage(tmp_path, monkeypatch):
    exported = {"warnings": [{"name": "onnx_int8", "message": "it loses 9 points"}]}
    monkeypatch.setattr(shrink, "export", lambda *_: exported)
    at = tmp_path / "points" / "02"
    found = shrink._finish_point(ShrinkStage(shrink=Shrink(export=True), device="cpu"), at)
    assert found == [{"name": "points/02 onnx_int8", "message": "it loses 9 points"}]
    assert shrink._finish_point(ShrinkStage(shrink=Shrink(export=False), device="cpu"), at) == []


def test_a_point_of_which_no_form_can_be_written_goes_without_and_what_lacks_here_is_an_error(
    tmp_path, monkeypatch, caplog
):
    at, why = tmp_path / "points" / "02", "model_int8.onnx was not written: it loses 0.62 points"
    told = [NoFormatError(why), NotInstalledError("OpenVINO is not installed")]

    def refused(_, folder):
        folder.mkdir(parents=True)
        raise told.pop(0)

    monkeypatch.setattr(shrink, "export", refused)
    config = ShrinkStage(shrink=Shrink(export=True), device="cpu")
    assert shrink._finish_point(config, at) == [{"name": "points/02 export", "message": why}]
    assert not (at / "export").exists()
    assert f"points/02 is left without an export: {why}" in caplog.text
    with pytest.raises(NotInstalledError):
        shrink._finish_point(config, at)


def test_a_network_of_which_no_export_could_be_verified_is_refused_before_its_training(monkeypatch):
    monkeypatch.setattr(shrink, "trace", lambda *_: None)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LogSoftmax(-1))
    before = torch.get_rng_state()
    shrink._check_exportable(model, (1, 4))
    assert torch.equal(torch.get_rng_state(), before)
    model.register_forward_pre_hook(lambda _, inputs: (inputs[0].log(),))
    why = "gives NaN or infinite outputs for random inputs.*With shrink.export=false"
    with pytest.raises(ExportError, match=why):
        shrink._check_exportable(model, (1, 4))
    # which is judged on val alone
    shrink._check_exportable(model, (1, 4), formats=["pt2", "pt2_bf16"])


def test_token_numbers_of_the_whole_vocabulary_ask_whether_an_export_can_be_verified(monkeypatch):
    monkeypatch.setattr(shrink, "trace", lambda *_: None)
    asked = []

    def note(module, inputs):
        asked.append(int(inputs[0].max()))

    model = torch.nn.Embedding(100, 3)
    model.register_forward_pre_hook(note)
    shrink._check_exportable(model, (20,), 100)
    assert 2 <= asked[0] < 100


def test_a_budget_that_asks_for_nothing_is_told(caplog):
    grown._say_above([3.0, 1.5], 3.0)
    assert not caplog.records
    grown._say_above([75.0, 50.0, 1.5], 3.0)
    said = "shrink.budgets: budgets of 75, 50 ms are above the whole network's 3 ms"
    assert said in caplog.text
    points = [{"latency_ms": 1.0, "choices": {}}]
    for text in ("50%", "50 ms", "2.5"):
        shrink._wanted(text, 3.0, points, {"a": 1})
    assert "shrink.pick" not in caplog.text
    assert shrink._wanted("50", 3.0, points, {"a": 1}) == 50.0
    assert "shrink.pick=50 is 50 ms, more than the given network's 3 ms" in caplog.text


def test_alphas_descend_on_a_val_split_of_one_example():
    bundle = load_data("digits", limit=160, test_limit=40)
    ((x, y),) = grown._to_descend_on(bundle.take("val", 1), 1, 0)
    assert torch.equal(x[0], x[1])
    assert len(x) == len(y) == 2
    norm = torch.nn.BatchNorm1d(64)
    with batch_statistics(norm):  # which one example alone ends in an error
        assert norm(x.flatten(1)).isfinite().all()
    assert [len(one) for one, _ in grown._to_descend_on(bundle.take("val", 3), 3, 0)] == [3]


def test_a_point_that_was_exported_before_its_folder_was_moved_is_taken_as_it_is(tmp_path):
    config = ShrinkStage(shrink=Shrink(export=True), device="cpu", logger={})
    begun = config.part(ExportStage, model=str(tmp_path / "old" / "points" / "01" / "model.pt"))
    at = tmp_path / "new" / "points" / "01"
    RunFolder.create(at / "export", begun.described()).finish(warnings=[])
    assert shrink._finish_point(config, at) == []
    # whoever asks again finds the settings of today
    assert read_yaml(at / "export" / "config.yaml")["model"] == str(at / "model.pt")
