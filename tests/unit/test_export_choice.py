"""Which artifact is run when none is named."""

import json
import logging
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from darts_core import cli
from darts_core.errors import DeviceError, ExportError
from darts_core.export import choice, load, predict
from darts_core.export.choice import choose
from darts_core.latency import device_name


def artifact(kind="onnx", precision="fp32", error=1e-6, ms=None, **row):
    rows = {} if ms is None else {"latency": {"1": {"median_ms": ms, **row}}}
    return {"kind": kind, "precision": precision, "relative_error": error, "device": "cpu", **rows}


ALL = {
    "pt2": artifact("pt2", error=2e-7, ms=9.0),
    "onnx": artifact(error=1e-6, ms=5.0),
    "onnx_int8": artifact(precision="int8", error=0.2, ms=2.0),
    "pt2_bf16": artifact("pt2", "bf16", 1e-2, ms=3.0),
    "aoti": artifact("aoti", error=0.0, ms=1.0),
    "tensorrt_fp16": {**artifact("tensorrt", "fp16", 1e-3, ms=0.1), "device": "cuda"},
}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_speed_is_the_best_time_of_any_precision_that_runs_here():
    assert choose({"artifacts": ALL}, "speed") == "onnx_int8"
    assert choose({"artifacts": ALL}, "speed", trust=True) == "aoti"


def test_machine_code_is_for_its_own_device_and_needs_no_compiler(monkeypatch):
    monkeypatch.setattr("darts_core.export.extras.shutil.which", lambda _: None)
    assert choose({"artifacts": ALL}, "speed", trust=True) == "aoti"
    of_a_gpu = {"artifacts": {**ALL, "aoti": {**ALL["aoti"], "device": "cuda"}}}
    for prefer, wanted in (("speed", "onnx_int8"), ("exact", "pt2")):
        assert choose(of_a_gpu, prefer, trust=True) == wanted
        assert choose(of_a_gpu, prefer, trust=True, device=torch.device("cpu")) == wanted


def test_without_onnx_runtime_what_torch_runs_is_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    wanted = {None: "pt2", "exact": "pt2", "speed": "pt2_bf16"}
    assert {prefer: choose({"artifacts": ALL}, prefer) for prefer in wanted} == wanted


def test_exact_is_full_precision_with_the_smallest_error():
    assert choose({"artifacts": ALL}, "exact") == "pt2"
    assert choose({"artifacts": ALL}, "exact", trust=True) == "aoti"
    low = {name: ALL[name] for name in ("onnx_int8", "pt2_bf16")}
    assert choose({"artifacts": low}, "exact") == "pt2_bf16"
    unknown = {"a": artifact(error=float("nan")), "b": artifact(error=None), "c": artifact()}
    assert choose({"artifacts": unknown}, "exact") == "c"


def test_without_a_preference_the_fastest_portable_fp32_is_taken():
    assert choose({"artifacts": ALL}) == "onnx"
    assert choose({"artifacts": ALL}, trust=True) == "onnx"


@pytest.mark.parametrize(
    ("there", "homes"),
    [(0, ["cpu", "cpu", "cpu"]), (1, ["cpu", "cuda", "cuda:0"]), (4, ["cpu", "cuda", "cuda:3"])],
)
def test_an_artifact_of_a_gpu_that_is_not_there_runs_on_the_first(monkeypatch, there, homes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    found = [choice.home_of({"device": name}) for name in ("cpu", "cuda", "cuda:3")]
    assert [str(device) for device in found] == homes


def test_what_is_not_installed_is_not_chosen(monkeypatch):
    real = choice.obstacle
    monkeypatch.setattr(
        choice, "obstacle", lambda kind, device: kind == "openvino" or real(kind, device)
    )
    artifacts = {"openvino": artifact("openvino", error=0.0, ms=0.1), "onnx": artifact(ms=5.0)}
    for prefer in (None, "speed", "exact"):
        assert choose({"artifacts": artifacts}, prefer) == "onnx"


def test_times_of_elsewhere_or_under_load_are_said_to_be(caplog, monkeypatch):
    calm = {"a": artifact(ms=2.0, device=device_name("cpu")), "b": artifact(ms=3.0)}
    assert choose({"artifacts": calm}, "speed") == "a"
    assert not caplog.records
    for row in ({"device": "another"}, {"flagged": True}):
        caplog.clear()
        choose({"artifacts": {**calm, "c": artifact(ms=4.0, **row)}}, "speed")
        assert "serve-bench DIR --tune" in caplog.text
    # as those of a card are, of what was exported for it and is to run on the processor
    caplog.clear()
    monkeypatch.setattr(choice, "device_name", lambda place: str(place))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    of_a_card = {"artifacts": {"a": {**artifact(ms=2.0, device="cuda"), "device": "cuda"}}}
    choose(of_a_card, "speed")
    assert not caplog.records
    choose(of_a_card, "speed", device=torch.device("cpu"))
    assert "serve-bench DIR --device cpu` measures them there" in caplog.text


@pytest.mark.parametrize(
    ("prefer", "artifacts", "text"),
    [
        ("speeed", ALL, "speed"),
        ("speed", {"onnx": artifact()}, "was timed at batch 1"),
        ("exact", {"aoti": ALL["aoti"]}, "holds only aoti"),
        (None, {"onnx_int8": ALL["onnx_int8"]}, "holds only onnx_int8"),
    ],
)
def test_what_cannot_be_chosen_is_a_sentence(prefer, artifacts, text):
    with pytest.raises(ExportError, match=text):
        choose({"artifacts": artifacts}, prefer)


@pytest.fixture
def folder(tmp_path):
    manifest = {
        "schema_version": 1, "classes": ["a"], "input_shape": [3, 8, 8], "mean": [0.5] * 3, "std": [0.5] * 3,
        "artifacts": {n: {**a, "files": [{"name": f"{n}.x", "sha256": ""}]} for n, a in ALL.items()},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.parametrize(("prefer", "file"), [("speed", "onnx_int8.x"), ("exact", "pt2.x")])
def test_commands_and_calls_take_the_preferred_artifact(folder, prefer, file, capsys, monkeypatch):
    with pytest.raises(ExportError, match=file):  # the file is missing, and named
        predict(folder, ["a.png"], prefer=prefer)
    monkeypatch.setenv("HOME", str(folder))
    for place in (str(folder), "~"):  # which no shell reads in --model=~/best
        assert cli.main(["predict", f"--model={place}", "--prefer", prefer, "a.png"]) == 2
        assert file in capsys.readouterr().err


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx", "model_bf16.pt2"])
def test_one_file_of_an_export_is_answered_with_its_folder(folder, file, capsys):
    (folder / file).touch()
    said = f"{file} is one file of an export: name its folder, {folder}, and by runtime"
    for call in (lambda place: predict(place, ["a.png"]), load):
        with pytest.raises(ExportError, match=re.escape(said)):
            call(folder / file)
    for command in (["predict", "a.png", "--model"], ["serve-bench"]):
        assert cli.main([*command, str(folder / file)]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_a_name_and_a_preference_exclude_each_other(folder, capsys):
    both = ["--runtime", "onnx", "--prefer", "speed"]
    for command in (["predict", "--model", str(folder), "a.png"], ["serve-bench", str(folder)]):
        assert cli.main([*command, *both]) == 2
        assert "not both" in capsys.readouterr().err


def test_serve_bench_holds_nothing_on_the_gpu_on_which_its_child_times_a_network(monkeypatch):
    """What another process holds there counts as other work: every time would be flagged."""
    from darts_core.commands import serve_bench

    asked = []
    monkeypatch.setattr(serve_bench.GivenModel, "loaded", lambda _, device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)  # would hold memory there
    args = SimpleNamespace(tune=False, prefer=None, device="cuda:1")
    assert serve_bench._eager(serve_bench.GivenModel("kept"), args) == ["eager"]
    assert asked == ["cpu"]


def test_serve_bench_of_a_network_refuses_a_device_that_is_not_there(monkeypatch):
    from darts_core.commands import serve_bench

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, said in (("cuda:1", "no CUDA device is"), ("tpu", "is no device"), ("mps", "kind")):
        args = SimpleNamespace(tune=False, prefer=None, device=device)
        with pytest.raises(DeviceError, match=said):
            serve_bench._eager(serve_bench.GivenModel("kept"), args)


def test_serve_bench_keeps_undisturbed_times_where_it_tunes(folder, monkeypatch, capsys):
    from darts_core.commands import serve_bench

    rows = {
        name: {"1": {"median_ms": ms, "q05_ms": ms, "q95_ms": ms, "flagged": flagged}}
        for name, ms, flagged in (("pt2", 1.5, False), ("onnx", 0.5, True))
    }
    monkeypatch.setattr("darts_core.export.tune_chunks", lambda folder: {})
    monkeypatch.setattr(serve_bench, "_is_native", lambda *a: False)
    monkeypatch.setattr(
        serve_bench,
        "_in_fresh_process",
        lambda given, args, name: {"runtime": name, "load_seconds": 0.1, "rows": rows[name]},
    )
    only = ["--runtime", "pt2", "--runtime", "onnx"]
    assert cli.main(["serve-bench", str(folder), *only]) == 0
    before = json.loads((folder / "manifest.json").read_text())
    assert before["artifacts"]["pt2"]["latency"]["1"]["median_ms"] == 9.0
    assert cli.main(["serve-bench", str(folder), *only, "--tune"]) == 0
    found = json.loads((folder / "manifest.json").read_text())["artifacts"]
    assert found["pt2"]["latency"]["1"]["median_ms"] == 1.5
    assert found["onnx"]["latency"]["1"]["median_ms"] == 5.0  # disturbed: not kept
    # on a device that is named they are kept where the artifact runs there by itself, else that is told
    rows["pt2"]["1"]["median_ms"] = 1.25
    for device, kept, said in (
        ("cpu", 1.25, ""),
        ("cuda", 1.25, "pt2: times on cuda are not kept, as it runs on cpu"),
    ):
        capsys.readouterr()
        asked = ["serve-bench", str(folder), "--runtime", "pt2", "--tune", "--device", device]
        assert cli.main(asked) == 0
        found = json.loads((folder / "manifest.json").read_text())["artifacts"]
        assert found["pt2"]["latency"]["1"]["median_ms"] == kept
        err = capsys.readouterr().err
        assert err.startswith(said)
        assert ("not kept" in err) == bool(said)
        rows["pt2"]["1"]["median_ms"] = 0.75


def test_what_the_process_that_times_warns_of_is_told(folder, monkeypatch, capsys):
    from darts_core.commands import serve_bench

    def timed():
        logging.getLogger("darts_core").warning("ONNX Runtime runs on CPU instead of CUDA")
        return {"runtime": "onnx", "load_seconds": 0.1, "rows": {}}

    monkeypatch.setattr(serve_bench, "time_artifact", timed)
    serve_bench.child("{}")
    row = json.loads(capsys.readouterr().out)
    assert row["warnings"] == ["ONNX Runtime runs on CPU instead of CUDA"]
    monkeypatch.setattr(serve_bench, "_in_fresh_process", lambda *_: row)
    monkeypatch.setattr(serve_bench, "_is_native", lambda *_: print("as a module of hers"))
    asked = ["serve-bench", str(folder), "--runtime", "onnx"]
    assert cli.main(asked) == 0
    assert "onnx: ONNX Runtime runs on CPU instead of CUDA\n" in capsys.readouterr().err
    # rows alone, where a program reads them
    assert cli.main([*asked, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == row
    assert "as a module of hers\n" in told.err
