"""What an exported file is, not what its manifest says, decides whether trust is needed."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import torch._inductor
from onnx import TensorProto, helper

from darts_core import cli
from darts_core.autosearch import interpreter, request
from darts_core.commands.serve_bench import _in_fresh_process
from darts_core.errors import ExportError
from darts_core.export import load, runtime
from darts_core.export.choice import choose
from darts_core.export.manifest import sha256
from darts_core.export.runtime import open_artifact
from darts_core.store import control, procs
from darts_core.store.keeper import start_keeper
from darts_core.web import actions
from darts_core.web.shares import RemoteShares

NATIVE = {
    "data/aotinductor/model/code.wrapper.so": b"\x7fELF",
    "data/aotinductor/model/code_metadata.json": b"{}",
    "archive_format": b"pt2",
}


@pytest.fixture(autouse=True)
def nothing_native_runs(monkeypatch):
    def ran(*arguments, **options):
        pytest.fail("native code was loaded")

    monkeypatch.setattr(torch._inductor, "aoti_load_package", ran)


def package(path, members=NATIVE):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)


def small_onnx(path, op="ReduceMean", domain=""):
    options = {"axes": [2, 3], "keepdims": 0} if op == "ReduceMean" else {}
    node = helper.make_node(op, ["images"], ["logits"], domain=domain, **options)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [value("images", TensorProto.FLOAT, ["b", 3, 8, 8])],
        [value("logits", TensorProto.FLOAT, ["b", 3])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


def folder_of(tmp_path, file, kind, **flags):
    """An export folder whose manifest calls `file` an artifact of `kind`."""
    entry = {
        "kind": kind,
        "precision": "fp32",
        "native": False,
        "device": "cpu",
        "files": [{"name": file, "sha256": sha256(tmp_path / file)}],
        **flags,
    }
    manifest = {
        "schema_version": 1,
        "classes": ["a", "b", "c"],
        "input_shape": [3, 8, 8],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "artifacts": {"model": entry},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.parametrize("kind", ["aoti", "pt2", "onnx", "openvino", "tensorrt", "fused_fp16"])
@pytest.mark.parametrize("native", [False, None, 0, ""])
def test_native_code_needs_trust_whatever_the_manifest_calls_it(tmp_path, kind, native):
    package(tmp_path / "model.pt2")
    folder_of(tmp_path, "model.pt2", kind, native=native)
    with pytest.raises(ExportError, match=r"native code .*trust=True"):
        load(tmp_path, "model")


@pytest.mark.parametrize("content", [b"\x7fELF\2\1\1", b"MZ\x90\0", b"\xcf\xfa\xed\xfe"])
def test_a_bare_library_is_native_code(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content + bytes(100))
    folder_of(tmp_path, "model.onnx", "onnx")
    with pytest.raises(ExportError, match=r"native code .*trust=True"):
        load(tmp_path, "model")


def test_trust_opens_native_code_as_what_it_is_only(tmp_path):
    package(tmp_path / "model.pt2")
    folder_of(tmp_path, "model.pt2", "pt2")
    with pytest.raises(ExportError, match=r"the manifest calls it 'pt2'"):
        load(tmp_path, "model", trust=True)


def test_what_is_no_native_code_is_not_given_to_the_native_loader(tmp_path):
    small_onnx(tmp_path / "model.onnx")
    folder_of(tmp_path, "model.onnx", "aoti")
    with pytest.raises(ExportError, match="trust=True"):
        load(tmp_path, "model")
    with pytest.raises(ExportError, match="no AOTInductor package"):
        load(tmp_path, "model", trust=True)


def test_a_flag_alone_asks_for_no_trust(tmp_path):
    small_onnx(tmp_path / "model.onnx")
    folder_of(tmp_path, "model.onnx", "onnx", native=True)
    assert load(tmp_path, "model")(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 3)


def test_a_compiled_engine_inside_onnx_needs_trust(tmp_path):
    small_onnx(tmp_path / "model.onnx", op="EPContext", domain="com.microsoft")
    folder_of(tmp_path, "model.onnx", "onnx")
    with pytest.raises(ExportError, match=r"native code .*trust=True"):
        load(tmp_path, "model")


def test_an_aoti_artifact_is_never_the_default(tmp_path):
    artifacts = {
        "a": {"kind": "aoti", "native": False, "precision": "fp32", "files": [],
              "latency": {"1": {"median_ms": 0.001}}},
        "onnx": {"kind": "onnx", "native": False, "precision": "fp32", "files": []},
    }  # fmt: skip
    assert choose({"artifacts": artifacts}) == "onnx"


def test_hashes_are_compared_before_anything_is_parsed(tmp_path, monkeypatch):
    package(tmp_path / "model.pt2")
    folder_of(tmp_path, "model.pt2", "pt2")
    with (tmp_path / "model.pt2").open("ab") as stream:
        stream.write(b" ")
    monkeypatch.setattr(runtime, "what_is", lambda path: pytest.fail("parsed before the hash"))
    with pytest.raises(ExportError, match="was changed"):
        load(tmp_path, "model", trust=True)


def test_opening_a_file_directly_needs_trust_too(tmp_path):
    package(tmp_path / "model.pt2")
    with pytest.raises(ExportError, match="trust=True"):
        open_artifact("aoti", [tmp_path / "model.pt2"], torch.device("cpu"))


def test_the_predict_command_runs_no_native_code(tmp_path, capsys):
    package(tmp_path / "model.pt2")
    folder_of(tmp_path, "model.pt2", "aoti")
    assert cli.main(["predict", "--model", str(tmp_path), "--runtime", "model", "a.png"]) == 2
    assert "native code" in capsys.readouterr().err


def test_serve_bench_leaves_native_code_out_by_what_it_is(tmp_path, capsys):
    package(tmp_path / "model.pt2")
    folder_of(tmp_path, "model.pt2", "aoti")
    cli.main(["serve-bench", str(tmp_path)])
    assert "model: native code, left out; add --trust" in capsys.readouterr().out
    cli.main(["serve-bench", str(tmp_path), "--json"])
    out, err = capsys.readouterr()
    assert (out, "left out; add --trust" in err) == ("", True), "standard output is for rows alone"


def test_a_fresh_process_takes_no_module_from_the_folder_that_one_stands_in(tmp_path, monkeypatch):
    """`cd` into an export that somebody sent, then `darts-core serve-bench .`"""
    (tmp_path / "json.py").write_text("raise SystemExit('was run')")
    (tmp_path / "hers.py").write_text("")
    monkeypatch.chdir(tmp_path)
    real = subprocess.run
    look = f"import hers, json; print(json.dumps({{'from': float(json.__file__ == {json.__file__!r})}}))"

    def run(command, **options):
        first, ours, _ = command[2].partition("from darts_core")
        assert ours
        return real([*command[:2], first + look], **options)

    monkeypatch.setattr(subprocess, "run", run)
    given = SimpleNamespace(place=".", settings=[], plugins=[])
    args = SimpleNamespace(batch=[1], device=None, seconds=1.0, trust=False)
    assert _in_fresh_process(given, args, "onnx") == {"from": 1.0}
    # nor does that of the live page, which is started where results lie
    shares = RemoteShares()
    shares._busy.acquire()
    shares._work("key", {}, 4)
    assert shares._known["key"] == (4, {"from": 1.0})
    # nor does what is started as `python -m` would: there json.tool is a module of json.py
    started, done = [], real(procs.program("json.tool"), input="{}", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{}\n", "")
    monkeypatch.setattr(subprocess, "run", real)
    # nor is it asked by whoever looks whether another interpreter will do
    assert interpreter._tried(Path(sys.executable), "import json, hers; json.loads('{}')") == ""
    monkeypatch.setattr(subprocess, "Popen", lambda words, **options: started.append(words))
    monkeypatch.setattr(subprocess, "run", lambda words, **options: started.append(words))
    start_keeper("mark")
    control.start("darts_core.cli", ["search"], log=tmp_path / "log", mark="mark")
    actions._start(["jobs"], tmp_path)
    with pytest.raises(AttributeError):
        request.engine("check")
    modules = ["darts_core.store.keeper", *["darts_core.cli"] * 2, "darts_core.autosearch"]
    assert [words[:3] for words in started] == [procs.program(module) for module in modules]
