"""The pictures of a sweep: which side of its metric is better, which baselines are drawn."""

import json
from types import SimpleNamespace

import pytest

from darts_core.bench.table import markdown_table
from darts_core.report import ModelRow
from darts_core.report.models_table import reference
from darts_core.report.rows import Latency
from darts_core.runlog import write_json, write_yaml
from darts_core.stages import compare, fronts


@pytest.mark.parametrize("way", ["minimize", "maximize"])
def test_the_front_of_searches_follows_the_metric_s_direction(tmp_path, monkeypatch, way):
    told = {}
    monkeypatch.setattr(
        fronts, "scatter_png", lambda points, path, **more: told.update(more) or path
    )
    metric = {"name": "perplexity", "direction": way, "share": False}
    for index in range(2):
        folder = tmp_path / str(index) / "search"
        folder.mkdir(parents=True)
        cost = {"unit": "M MACs", "budget": None, "found": 1.0 + index}
        result = {"metric": metric, "val_perplexity": 9.0 - index, "cost": cost}
        (folder / "result.json").write_text(json.dumps(result))
    # an element that has not ended says nothing of its metric
    (tmp_path / "2").mkdir()
    assert fronts.search_front(folder) is not None
    assert told["y_direction"] == way[:3]


def test_a_version_that_bears_a_number_is_no_element_of_a_multirun(tmp_path, monkeypatch):
    monkeypatch.setattr(fronts, "scatter_png", lambda *_, **__: pytest.fail("drawn"))
    for name in ("1", "2"):
        write_json(tmp_path / "job" / name / "version.json", {})
        cost = {"unit": "M MACs", "budget": None, "found": 1.0}
        result = {"val_accuracy": 0.5, "cost": cost}
        write_json(tmp_path / "job" / name / "search" / "result.json", result)
    assert fronts.search_front(tmp_path / "job" / "2" / "search") is None
    assert fronts.run_front(tmp_path / "job" / "2") is None
    assert compare._root(tmp_path / "job" / "2" / "bench") == tmp_path / "job" / "2"
    assert compare._root(tmp_path / "job" / "2" / "0" / "bench") == tmp_path / "job" / "2"


def test_a_sweep_draws_every_baseline_that_was_trained_otherwise(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(fronts, "front_png", lambda rows, path: told.append(rows) or path)
    same = {"architecture": "resnet8", "train": {"epochs": 2}, "tune": {"trials": 2}}
    elements = [
        ("resnet8", {**same, "device": "cuda:0"}),
        # what the study of an equal cost may take is measured
        ("resnet8", {**same, "tune": {"trials": 2, "device_seconds": 1.5}}),
        ("resnet8", {**same, "train": {"epochs": 9}}),
        ("resnet14", {**same, "architecture": "resnet14"}),
        # a folder that does not say how
        ("resnet20", None),
    ]
    for index, (name, config) in enumerate(elements):
        base = [
            ModelRow(name, "baseline", runtime, baseline=True, accuracies=(0.9,))
            for runtime in ("eager", "onnx")
        ]
        rows = [row.to_dict() for row in (*base, ModelRow("tuned", "tuned", accuracies=(0.9,)))]
        folder = tmp_path / str(index)
        write_json(folder / "bench" / "results.json", {"rows": rows})
        if config is not None:
            write_yaml(folder / "baseline" / "tune" / "config.yaml", config)
    assert fronts.run_front(tmp_path / "0") is not None
    (rows,) = told
    assert [row.name for row in rows if row.baseline and row.runtime == "onnx"] == [
        "resnet8", "resnet8 2", "resnet14", "resnet20",
    ]  # fmt: skip
    assert [row.name for row in rows if not row.baseline] == [f"tuned {i}" for i in range(5)]


def test_networks_of_one_name_are_told_apart_by_what_was_swept(tmp_path, monkeypatch):
    """Two trained networks are both "trained": pictures join one name, tables compare it."""
    monkeypatch.setattr(compare, "print_models", lambda *_, **__: None)
    monkeypatch.setattr(fronts, "front_png", lambda *_: None)
    text = "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)])"
    elements = [
        ("trained", ["model=runs/a/V001/train", "runtime=eager"]),
        ("trained", ["model=runs/a/V001/train", "runtime=onnx"]),
        ("trained", ["model=runs/b/V001/train", "runtime=eager"]),
        ("resnet18", ["model=resnet18", "runtime=eager"]),
        ("resnet18", ["model=resnet18", "runtime=onnx"]),
        ("searched", [f"model='{text}'", "runtime=eager"]),
        ("searched", ["model=mine.yaml", "bench.options.width=4"]),
    ]
    for index, (name, words) in enumerate(elements):
        row = ModelRow(name, accuracies=(0.9,)).to_dict()
        write_json(tmp_path / str(index) / "bench" / "results.json", {"rows": [row]})
        write_yaml(tmp_path / str(index) / "overrides.yaml", ["++job=j", *words])
    config = SimpleNamespace(bench=SimpleNamespace(options=SimpleNamespace(results=None)), train={})
    rows = compare.join_rows(tmp_path / "0" / "bench", config)
    assert [row.name for row in rows] == [
        "trained model=runs/a/V001/train", "trained model=runs/a/V001/train",
        "trained model=runs/b/V001/train", "resnet18", "resnet18", "searched 5",
        "searched model=mine.yaml bench.options.width=4",
    ]  # fmt: skip
    assert "| trained model=runs/b/V001/train |" in (tmp_path / "models.md").read_text()


def test_a_network_is_compared_with_the_baseline_on_its_own_data():
    times = {32: Latency(2.0, device="cpu")}
    rows = [
        ModelRow(f"resnet8 data={data}", "baseline", latency=times, data=data, baseline=True)
        for data in ("digits", "mnist")
    ]
    ours = ModelRow("ours", latency=times, data="mnist")
    assert reference([*rows, ours], ours, 32) is rows[1]
    assert reference([rows[0], ours], ours, 32) is None


def test_a_table_of_several_devices_names_them_and_each_has_a_picture(tmp_path, monkeypatch):
    """Their rows looked alike, and the picture of what had ended first passed for one of all."""
    drawn = {}
    monkeypatch.setattr(fronts, "front_png", lambda rows, path: drawn.update({path.name: rows}))
    rows = [
        ModelRow("resnet8", accuracies=(0.9,), latency={1: Latency(ms, device=where)}, device=where,
                 baseline=ms > 1)
        for where, ms in (("CPU", 8.0), ("GPU", 4.0), ("GPU", 1.0))
    ]  # fmt: skip
    fronts.draw_together(rows[:1], tmp_path)
    (tmp_path / "models.png").touch()
    fronts.draw_together(rows, tmp_path)
    assert not (tmp_path / "models.png").exists()
    assert drawn == {"models.png": rows[:1], "models_cpu.png": rows[:1], "models_gpu.png": rows[1:]}
    head, rule, *lines = markdown_table(rows).splitlines()[:5]
    assert head.startswith("| model | runtime | device | params |")
    assert rule.startswith("| --- | --- | --- | ---: |")
    assert [line.split(" | ")[2] for line in lines] == ["CPU", "GPU", "GPU"]
    assert [" *" in line for line in lines] == [True, False, True]
    assert reference(rows, rows[2], 1) is rows[1]
    assert "| device |" not in markdown_table(rows[1:])


def test_what_does_not_compare_leaves_no_picture_of_what_had_ended_first(tmp_path):
    times = {1: Latency(2.0, device="CPU")}
    rows = [
        ModelRow("ours", accuracies=(0.9,), latency=times, device="CPU", data=data)
        for data in ("digits", "mnist")
    ]
    (tmp_path / "models.png").touch()
    assert fronts.draw_together(rows, tmp_path) is None
    assert not (tmp_path / "models.png").exists()
