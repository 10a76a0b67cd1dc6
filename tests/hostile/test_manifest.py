"""Doctored manifests end in the export's own error, with the file and the place."""

import copy
import json

import pytest

from darts_core import cli
from darts_core.errors import ExportError
from darts_core.export import load, read_manifest
from darts_core.export.manifest import sha256

DEEP = "x"
for _ in range(200):
    DEEP = [DEEP]


def manifest_of(folder) -> dict:
    (folder / "model.onnx").write_bytes(b"no graph")
    return {
        "schema_version": 1,
        "classes": ["a", "b"],
        "input_shape": [3, 8, 8],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "artifacts": {
            "onnx": {
                "kind": "onnx",
                "precision": "fp32",
                "device": "cpu",
                "files": [{"name": "model.onnx", "sha256": sha256(folder / "model.onnx")}],
            }
        },
    }


# (path of keys, value put there, words of the sentence)
CHANGES = [
    (["artifacts"], [], "artifacts"),
    (["artifacts"], "onnx", "artifacts"),
    (["artifacts"], None, "artifacts"),
    (["artifacts", "onnx"], [1], "artifacts.onnx"),
    (["artifacts", "onnx"], None, "artifacts.onnx"),
    (["artifacts", "onnx", "kind"], 5, "kind"),
    (["artifacts", "onnx", "kind"], None, "kind"),
    (["artifacts", "onnx", "kind"], ["onnx"], "kind"),
    (["artifacts", "onnx", "precision"], {}, "precision"),
    (["artifacts", "onnx", "device"], 7, "device"),
    (["artifacts", "onnx", "device"], "moon", "device"),
    (["artifacts", "onnx", "device"], "meta", "device"),
    (["artifacts", "onnx", "chunk"], -1, "chunk"),
    (["artifacts", "onnx", "chunk"], True, "chunk"),
    (["artifacts", "onnx", "chunk"], 1e9, "chunk"),
    (["artifacts", "onnx", "files"], {}, "files"),
    (["artifacts", "onnx", "files"], [], "files"),
    (["artifacts", "onnx", "files"], ["model.onnx"], "files"),
    (["artifacts", "onnx", "files", 0, "name"], None, "files"),
    (["artifacts", "onnx", "files", 0, "name"], "/etc/passwd", "no plain file"),
    (["artifacts", "onnx", "files", 0, "name"], "..", "name"),
    (["artifacts", "onnx", "files", 0, "name"], "a\0b", "model"),
    (["artifacts", "onnx", "files", 0, "sha256"], None, "sha256"),
    (["artifacts", "onnx", "files", 0, "sha256"], "", "was changed"),
    (["artifacts", "onnx", "latency"], 3, "latency"),
    (["artifacts", "onnx", "latency"], {"1": 3}, "latency"),
    (["artifacts", "onnx", "latency"], {"1": {}}, "latency"),
    (["artifacts", "onnx", "latency"], {"one": {"median_ms": 1}}, "latency"),
    (["artifacts", "onnx", "latency"], {"1": {"median_ms": "fast"}}, "latency"),
    (["artifacts", "onnx", "latency"], {"1": {"median_ms": -1}}, "latency"),
    (["mean"], None, "mean"),
    (["mean"], "abc", "mean"),
    (["mean"], [0.5, 0.5], "mean"),
    (["mean"], ["a", "b", "c"], "mean"),
    (["mean"], [float("nan"), 0, 0], "mean"),
    (["std"], [0.5, 0.5, 0.0], "std"),
    (["std"], [0.5, 0.5, float("inf")], "std"),
    (["std"], {"a": 1}, "std"),
    (["classes"], 5, "class"),
    (["classes"], "ab", "class"),
    (["classes"], [], "class"),
    (["classes"], None, "class"),
    (["input_shape"], [3, 8, 8, 8], "shape"),
    (["input_shape"], [3, -8, 8], "shape"),
    (["input_shape"], [3, 2**20, 2**20], "shape"),
    (["input_shape"], [3, 1e400, 8], "shape"),
    (["input_shape"], 3, "shape"),
    (["schema_version"], "1", "schema_version"),
    (["schema_version"], True, "schema_version"),
    (["schema_version"], 99, "schema_version"),
    (["note"], DEEP, "deep"),
    (["note"], 10**30, "64 bits"),
    (["note"], "\ud800", "half a character"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "value", "words"), CHANGES, ids=[f"{c[0]}-{str(c[1])[:20]!a}" for c in CHANGES]
)
def test_a_doctored_manifest_is_a_sentence(tmp_path, keys, value, words):
    manifest = copy.deepcopy(manifest_of(tmp_path))
    place = manifest
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match=words) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("key", ["classes", "mean", "std", "input_shape", "artifacts"])
def test_a_missing_key_is_a_sentence(tmp_path, key):
    manifest = manifest_of(tmp_path)
    del manifest[key]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match=key):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        "\udcff",
    ],
    ids=["empty", "list", "null", "cut", "twice", "deep", "digits", "latin-1"],
)
def test_a_manifest_that_is_no_mapping_is_a_sentence(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ExportError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_file_that_is_no_graph_is_a_sentence(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest_of(tmp_path)))
    with pytest.raises(ExportError, match="cannot load"):
        load(tmp_path)
    assert cli.main(["predict", "--model", str(tmp_path), "a.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
