"""Formats that cannot express a network are left out beside others; what the machine lacks is an error."""

import errno

import pytest
import torch
from test_export import META, network

from darts_core.errors import ExportError, NoFormatError, NotInstalledError
from darts_core.export import export as export_module
from darts_core.export import export_model, extras, formats, load
from darts_core.export.manifest import data_meta

OPTIONS = {"time_artifacts": False, "leave_out": True}


def _exported(folder, *names, **options):
    return export_model(network(), folder, META, formats=names, **{**OPTIONS, **options})


def _fails(error):
    def fail(*_, **__):
        raise error

    return fail


def test_an_operation_that_onnx_lacks_leaves_that_format_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.onnx, "export", _fails(RuntimeError("No ONNX function for aten.foo")))
    (tmp_path / "model.onnx").write_bytes(b"of another network")
    manifest = _exported(tmp_path, "onnx", "pt2")
    assert list(manifest["artifacts"]) == ["pt2"]
    assert f"{tmp_path} also holds model.onnx, not of this export" in caplog.text
    assert manifest["left_out"]["onnx"].startswith("The model cannot be written as ONNX")
    assert "the format onnx is left out" in caplog.text
    assert load(tmp_path).runtime == "pt2"
    with pytest.raises(ExportError, match=r"No ONNX function for aten\.foo"):
        _exported(tmp_path, "onnx", "pt2", leave_out=False)
    with pytest.raises(NoFormatError, match=r"No ONNX function for aten\.foo"):
        _exported(tmp_path, "onnx")


def test_weights_that_torch_lays_beside_the_onnx_file_are_refused(tmp_path, monkeypatch):
    def in_two(model, job, path):
        for name in (path.name, f"{path.name}.data"):
            (tmp_path / name).write_bytes(b"0")

    monkeypatch.setattr(formats, "write_onnx", in_two)
    monkeypatch.setattr(extras, "obstacle", lambda *_: None)
    job = formats.Job(torch.nn.Flatten(), data_meta(META), torch.device("cpu"))
    for name in ("onnx", "onnx_fp16", "openvino"):
        with pytest.raises(ExportError, match=r"more than the 1\.5 GiB that torch puts into one"):
            formats.FORMATS[name].write(job, tmp_path / "model.onnx")
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_precision_in_which_an_operation_does_not_run_is_left_out(tmp_path, monkeypatch):
    real = export_module.open_artifact
    broken = _fails(RuntimeError("\"foo_cpu\" not implemented for 'BFloat16'"))

    def opened(kind, paths, *rest, **more):
        return broken if "bf16" in paths[0].name else real(kind, paths, *rest, **more)

    monkeypatch.setattr(export_module, "open_artifact", opened)
    manifest = _exported(tmp_path, "pt2_bf16", "pt2")
    assert list(manifest["artifacts"]) == ["pt2"]
    said = manifest["left_out"]["pt2_bf16"]
    assert said.startswith("model_bf16.pt2 was not written: it cannot be run here (")
    assert "not implemented for 'BFloat16'" in said
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "model.pt2"}


@pytest.mark.parametrize(
    "cause",
    [
        ModuleNotFoundError("No module named 'onnxscript'"),
        MemoryError("of the exporter"),
    ],
)
def test_what_the_machine_lacks_is_an_error_beside_others(tmp_path, monkeypatch, cause):
    monkeypatch.setattr(torch.onnx, "export", _fails(cause))
    with pytest.raises(ExportError, match=type(cause).__name__):
        _exported(tmp_path, "pt2", "onnx")
    assert not (tmp_path / "manifest.json").exists()


def test_a_full_disk_is_an_error_beside_others(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    told = ExportError("The model cannot be quantised to INT8.")
    told.__cause__ = full
    monkeypatch.setattr(formats, "write_onnx", lambda *_: None)
    monkeypatch.setattr(formats, "quantize", _fails(told))
    with pytest.raises(ExportError, match="cannot be quantised"):
        _exported(tmp_path, "pt2", "onnx_int8")
    told.__cause__ = ValueError("a scale that is none")
    assert list(_exported(tmp_path, "pt2", "onnx_int8")["left_out"]) == ["onnx_int8"]


def test_a_runtime_that_is_not_installed_is_an_error_and_one_for_another_device_is_not(
    tmp_path, monkeypatch
):
    real = extras.importlib.util.find_spec
    monkeypatch.setattr(
        extras.importlib.util, "find_spec", lambda name: None if name == "openvino" else real(name)
    )
    for name in ("openvino", "openvino_default"):
        with pytest.raises(NotInstalledError, match=r"darts-core\[openvino\]"):
            _exported(tmp_path, "pt2", name)
    # no installation makes a CPU run what is for a GPU
    manifest = _exported(tmp_path, "tensorrt_fp16", "pt2", "fused_fp16")
    assert list(manifest["artifacts"]) == ["pt2"]
    assert set(manifest["left_out"]) == {"tensorrt_fp16", "fused_fp16"}


class _Around(torch.nn.Module):
    def __init__(self, give):
        super().__init__()
        self.network, self.give = network(), give

    def forward(self, x):
        return self.give(self.network(x))


def test_a_network_that_runs_otherwise_than_files_do_is_refused_in_a_sentence(tmp_path):
    for give in (lambda logits: {"logits": logits}, lambda logits: (logits, None)):
        with pytest.raises(ExportError, match=r"gives a (dict|tuple), and exported files"):
            export_model(_Around(give), tmp_path, META, **OPTIONS)
    with pytest.raises(ExportError, match=r"has weights of bfloat16 .* export model\.float\(\)"):
        export_model(network().bfloat16(), tmp_path, META, **OPTIONS)
    with pytest.raises(ExportError, match=r"has weights of float64 .* export model\.float\(\)"):
        export_model(network().double(), tmp_path, META, **OPTIONS)
