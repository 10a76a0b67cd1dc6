"""What benchmarks keep from one call to the next: settings, costs and seeds of the same run only."""

import importlib.util
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import (
    augmentation,
    collapse,
    default_space,
    export_cpu,
    export_gpu,
    finalists,
    full_search,
    models_cpu,
    planted_field,
    spoken_digits,
    sweep_asha,
    sweep_front,
)
from benchmarks.resumable import same_settings
from darts_core.bench.results import read_results
from darts_core.runlog import read_json, write_json


def test_settings_are_noted_once_and_others_are_refused_by_name(tmp_path):
    folder = tmp_path / "new"
    same_settings(folder, {"epochs": 3, "data": ("a", "b")})
    same_settings(folder, {"data": ["a", "b"], "trials": 4})
    with pytest.raises(SystemExit, match=r"results of trials=4, not 5: repeat those settings, or"):
        same_settings(folder, {"epochs": 3, "trials": 5})
    kept = {"epochs": 3, "data": ["a", "b"], "trials": 4}
    assert json.loads((folder / "settings.json").read_text()) == kept
    assert [path.name for path in folder.iterdir()] == ["settings.json"]


def _search(out, *words):
    args = Namespace(out=out, minutes=9.0)
    return full_search.go_on(
        args, {"search-a": ["search", *words]}, lambda folder, _: {"at": folder}
    )


def test_a_part_of_a_small_try_is_no_result_of_the_whole(tmp_path, monkeypatch):
    ran = []

    def run_part(args, name, words, until):
        ran.append(words)
        write_json(full_search.stage_folder(args, name) / "result.json", {})
        return True

    monkeypatch.setattr(full_search, "run_part", lambda *_: sys.exit("no such data"))
    with pytest.raises(SystemExit, match="no such data"):
        _search(tmp_path, "data.path=/a/tran.parquet")
    monkeypatch.setattr(full_search, "run_part", run_part)
    words = ["device=cuda", "search.epochs=2"]
    rows, left = _search(tmp_path, "data.path=/a/train.parquet", f"out={tmp_path}", *words)
    assert (len(rows), left) == (1, [])
    # its state went on on another machine
    rows, _ = _search(tmp_path, "data.path=/b/train.parquet", "out=/elsewhere", *words)
    assert (len(rows), len(ran)) == (1, 1)
    for other in (["device=cpu", "search.epochs=2"], ["device=cuda", "search.epochs=50"]):
        with pytest.raises(SystemExit, match="holds results of search-a="):
            _search(tmp_path, "data.path=/a/train.parquet", f"out={tmp_path}", *other)


def _run(monkeypatch, module, *words):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, words)])
    module.main()


def test_a_seed_of_other_trials_is_no_row_of_these(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sweep_front, "_bundle", lambda _: type("Data", (), {"size": lambda *_: 1})()
    )
    shares = ("hypervolume_share_stopped", "hypervolume_share_fewer", "epochs_share")
    write_json(tmp_path / "seed0" / "row.json", dict.fromkeys(shares, 0.5))
    words = ("--runs", tmp_path, "--out", tmp_path / "out", "--seeds", 1)
    _run(monkeypatch, sweep_front, *words)
    (path,) = (tmp_path / "out").glob("*.json")
    assert read_results(path).rows[-1]["epochs_share_standard_error"] is None
    with pytest.raises(SystemExit, match="holds results of trials=40, not 60"):
        _run(monkeypatch, sweep_front, *words, "--trials", 60)


def test_a_search_or_pruning_of_another_budget_is_no_result_of_this_one(tmp_path, monkeypatch):
    bench = object.__new__(models_cpu.Bench)
    bench.runs = tmp_path
    bench.config = SimpleNamespace(data=SimpleNamespace(limit=9))
    bench.args = Namespace(only=["latency_searched"], budget_ms=2.6, search_epochs=3)
    asked = []

    def main(words):
        asked.append(words)
        if len(asked) == 1:
            return 2
        write_json(bench.architecture("latency_searched"), {})
        return 0

    monkeypatch.setattr(models_cpu.cli, "main", main)
    with pytest.raises(SystemExit):
        bench.search()
    bench.search()
    bench.search()
    assert len(asked) == 2  # what failed is asked again, what is there is not
    bench.args.budget_ms = 5.0
    with pytest.raises(SystemExit, match=r"results of search of latency_searched=\["):
        bench.search()

    monkeypatch.setattr(bench, "cases", lambda: [SimpleNamespace(name="resnet18")])
    monkeypatch.setattr(bench, "train", lambda case: [SimpleNamespace(seed=0)])
    write_json(tmp_path / "pruned" / "resnet18" / "seed0" / "result.json", {})
    bench.prune("resnet18", budget="50%", epochs=3, distillation=0.5)
    bench.prune("resnet18", budget="50%", epochs=3, distillation=0.5)
    with pytest.raises(SystemExit, match=r"results of pruning of resnet18=\{'budget': '50%'"):
        bench.prune("resnet18", budget="1.65 ms", epochs=3, distillation=0.5)


def test_a_single_seed_has_no_standard_error():
    row = {"difference": 0.5, "cost_share": 0.4}
    assert sweep_asha.mean_of([row])["standard_error"] is None
    two = sweep_asha.mean_of([row, {"difference": 1.5, "cost_share": 0.6}])
    assert (two["difference"], two["standard_error"], two["cost_share"]) == (1.0, 0.5, 0.5)


def test_searches_of_so_many_epochs_say_so_and_stand_beside_no_others(tmp_path, monkeypatch):
    def run(guarded, seed, epochs):
        return {
            "guarded": guarded,
            "seed": seed,
            "reports": [],
            "epochs": [],
            "skips": 1,
            "edges": 8,
        }

    monkeypatch.setattr(collapse, "run", run)
    _run(monkeypatch, collapse, "--seeds", 1, "--epochs", 5, "--out", tmp_path)
    (path,) = tmp_path.glob("*.json")
    assert read_json(path)["config"]["epochs"] == 5
    with pytest.raises(SystemExit, match="holds searches of 5 epochs, not 20"):
        _run(monkeypatch, collapse, "--seeds", 1, "--out", tmp_path)


def test_seeds_that_settings_were_chosen_on_are_in_no_table_of_the_others(tmp_path, monkeypatch):
    def run(group, name, seed, bundle, *, finalists):
        row = {"group": group, "name": name, "seed": seed, "cpu_seconds": 1.0}
        return {**row, "right_edges": 2 if seed >= 10 else 0, "success": seed >= 10}

    monkeypatch.setattr(planted_field, "run", run)
    monkeypatch.setattr(planted_field, "planted_bundle", lambda: None)
    words = ("--only", "first_order", "--seeds", 2, "--out", tmp_path)
    _run(monkeypatch, planted_field, *words, "--first-seed", 10)
    _run(monkeypatch, planted_field, *words)
    found = {
        path.stem.partition("_from-")[2]: [row["seed"] for row in read_json(path)["rows"]]
        for path in tmp_path.glob("*.json")
    }
    assert found == {"seed-10": [10, 11], "": [0, 1]}
    (table,) = (path for path in tmp_path.glob("*.md") if "from" not in path.name)
    assert "| 0 of 2 | 0.0 |" in table.read_text()
    with pytest.raises(SystemExit, match="No such method: firstorder; there are darts_minus, "):
        _run(monkeypatch, planted_field, "--only", "firstorder", "--out", tmp_path)


def test_a_finished_stage_keeps_what_it_took(tmp_path, monkeypatch):
    """Killed in its training, a way goes on with the seconds of its finished search."""
    calls, clock = [], iter(range(0, 1000, 7))
    monkeypatch.setattr(default_space.time, "process_time", lambda: next(clock))

    def main(words):
        calls.append(words[0])
        if calls == ["search", "train"]:
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(default_space.cli, "main", main)
    monkeypatch.setattr(default_space, "write_fold", lambda *_: tmp_path / "fold.npz")
    with pytest.raises(KeyboardInterrupt):
        default_space.made("digits", "convnet", 0, tmp_path)
    _, taken = default_space.made("digits", "convnet", 0, tmp_path)
    assert calls == ["search", "train", "train"]
    assert taken == {"search": 7, "train": 7}
    assert list(tmp_path.glob("digits-*.json")) == []  # where the rows are looked for


def test_a_policy_search_costs_what_it_took_however_often_the_benchmark_was_killed(
    tmp_path, monkeypatch
):
    sittings, given = [], []

    def search(options, bundle, config, method, seed, seconds, folder):
        # what a search that was cut off left would make this one cheaper
        assert not folder.exists()
        sittings.append(method)
        folder.mkdir(parents=True)
        if len(sittings) == 1:
            raise KeyboardInterrupt
        return augmentation._unlearned(3, 0), 30.0

    def train(self, name, policy, **more):
        given.append(more["search_trainings"])
        if len(given) == 1:
            raise KeyboardInterrupt
        return more

    monkeypatch.setattr(augmentation, "_search", search)
    monkeypatch.setattr(augmentation._Seed, "train", train)
    runs = object.__new__(augmentation._Seed)
    runs.options, runs.seed, runs.folder, runs.bundle, runs.config = None, 0, tmp_path, None, None
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runs.find("gradient", 10.0)
    assert runs.find("gradient", 10.0) == {"search_trainings": 3.0}
    assert (len(sittings), given) == (2, [3.0, 3.0])


def test_features_of_one_recording_are_no_features_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr(spoken_digits, "features", lambda *_: pytest.fail("read"))
    monkeypatch.setattr(spoken_digits.torch, "set_num_threads", lambda _: None)
    settings = {"search": spoken_digits.SEARCH, "train": spoken_digits.TRAIN}
    same_settings(tmp_path, {"data": "six.npz", **settings})
    with pytest.raises(SystemExit, match=r"holds results of data='six.npz', not 'ten.npz'"):
        _run(monkeypatch, spoken_digits, "--data", "ten.npz", "--work", tmp_path)


def test_equal_values_share_a_place():
    """Accuracies of a few images are often equal: the order of the networks must not part them."""
    assert finalists.spearman([1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 1.0, 2.0]) == pytest.approx(0.0)
    assert finalists.spearman([3.0, 1.0, 2.0], [30.0, 10.0, 20.0]) == pytest.approx(1.0)


def test_results_of_exports_on_a_gpu_can_be_read_and_do_not_replace_each_other(
    tmp_path, monkeypatch
):
    row = {
        "runtime": "eager",
        "device": "NVIDIA H200",
        "median_ms": 1.0,
        "q05_ms": 1.0,
        "q95_ms": 1.0,
    }
    # the benchmark sets flags for all of its process
    flags = SimpleNamespace(cudnn=SimpleNamespace(), cuda=SimpleNamespace(matmul=SimpleNamespace()))
    own = SimpleNamespace(device=torch.device, backends=flags)
    monkeypatch.setattr(export_gpu, "torch", own)
    monkeypatch.setattr(export_gpu, "network", lambda *_: export_gpu.nn.Identity())
    monkeypatch.setattr(export_gpu, "plain_rows", lambda *_: [{**row, "n": 3}])
    words = ("--rehearse", "--models", "resnet18", "--batches", 1, "--out", tmp_path)
    _run(monkeypatch, export_gpu, *words)
    _run(monkeypatch, export_gpu, *words, "--seconds", 2)
    found = sorted(tmp_path.glob("*.json"))
    assert [path.name.partition("_")[2].partition("_")[0] for path in found] == ["nvidia-h200"] * 2
    assert [dict(read_results(path).rows[0])["model"] for path in found] == ["resnet18"] * 2
    assert all(str(tmp_path) not in read_results(path).command for path in found)


def test_runtimes_that_do_not_exist_are_refused_and_those_that_cannot_run_are_named(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(export_cpu, "available_runtimes", lambda _: ["eager"])
    monkeypatch.setattr(export_cpu, "in_fresh_process", lambda name, runtime, args: print(runtime))
    words = ("time", "--models", "resnet18", "--runs", tmp_path, "--runtimes", "eager")
    _run(monkeypatch, export_cpu, *words, "openvino")
    said = capsys.readouterr()
    assert (said.out, "cannot run here: openvino" in said.err) == ("eager\n", True)
    with pytest.raises(SystemExit) as error:
        _run(monkeypatch, export_cpu, *words, "onxx")
    assert error.value.code == 2


@pytest.fixture
def versions():
    place = Path(__file__).resolve().parents[1] / "versions.py"
    spec = importlib.util.spec_from_file_location("versions_of_packages", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_newest_set_is_that_of_now_and_another_is_made_once(versions, tmp_path, monkeypatch):
    ran = []

    def run(words, **_):
        ran.append([str(word) for word in words])
        if "venv" in ran[-1]:
            Path(words[-1]).mkdir()
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(versions, "HOME", tmp_path)
    monkeypatch.setattr(versions, "_version", lambda _: "3.11")
    monkeypatch.setattr(versions.subprocess, "run", run)
    for name, installed in (("oldest", 1), ("newest", 2)):
        ran.clear()
        for _ in range(2):
            assert versions.environment("python", name, None)[1] is None
        assert sum("venv" in words for words in ran) == 1
        assert ["--upgrade" in words for words in ran if "install" in words] == [False, True][
            :installed
        ]


def test_an_interpreter_that_is_not_there_is_a_sentence(versions, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["versions.py", "--pythons", "python9.9"])
    with pytest.raises(SystemExit) as error:
        versions.main()
    assert error.value.code == 2
    assert "--pythons: 'python9.9' does not start here" in capsys.readouterr().err
