"""ONNX Runtime on a GPU: data stays where torch keeps it. A stand-in takes the session's place."""

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from darts_core.errors import NotInstalledError
from darts_core.export import onnx_session
from darts_core.export.onnx_session import open_onnx, open_tensorrt

CPU = torch.device("cpu")


def at(pointer, shape):
    """The float32 values that lie at an address."""
    size = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * size).from_address(pointer)).reshape(shape)


class Binding:
    def __init__(self, calls):
        self.calls, self.places = calls, {}

    def bind_input(self, name, *, element_type, shape, buffer_ptr, **place):
        self.calls.append(("input", name, element_type, place))
        self.places[name] = (buffer_ptr, shape)

    def bind_output(self, name, *, element_type, shape, buffer_ptr, **place):
        self.calls.append(("output", name, element_type, place))
        self.places[name] = (buffer_ptr, shape)

    def synchronize_outputs(self):
        self.calls.append(("synchronized",))


class Session:
    """Sums the channels of what is bound, as a GPU's session would."""

    made: list = []

    def __init__(self, path, options, providers):
        self.calls, self.chosen, self.sizes, self.kind = [], providers, ["b", 3], "tensor(float)"
        Session.made.append(self)

    def get_inputs(self):
        return [SimpleNamespace(name="images", shape=["b", 3, 4], type="tensor(float)")]

    def get_outputs(self):
        return [SimpleNamespace(name="logits", shape=self.sizes, type=self.kind)]

    def get_providers(self):
        return [p if isinstance(p, str) else p[0] for p in self.chosen]

    def io_binding(self):
        self.binding = Binding(self.calls)
        return self.binding

    def run_with_iobinding(self, binding):
        self.calls.append(("run",))
        at(*binding.places["logits"])[:] = at(*binding.places["images"]).sum(-1)

    def run(self, outputs, feeds):
        self.calls.append(("copied",))
        return [feeds["images"].sum(-1)]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    Session.made = []
    monkeypatch.setitem(
        sys.modules,
        "onnxruntime",
        SimpleNamespace(
            SessionOptions=SimpleNamespace, InferenceSession=Session, __version__="0",
            get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        ),
    )  # fmt: skip


def test_a_gpu_session_reads_and_writes_torch_memory(tmp_path):
    session = Session("m.onnx", None, [("CUDAExecutionProvider", {"device_id": 0})])
    run = onnx_session._runner(session, tmp_path / "m.onnx", CPU)  # the memory of a stand-in
    x = torch.randn(5, 4, 3).transpose(1, 2)  # not contiguous
    found = run(x)
    torch.testing.assert_close(found, x.sum(-1))
    place = {"device_type": "cpu", "device_id": 0}
    assert session.calls == [
        ("input", "images", np.float32, place),
        ("output", "logits", np.float32, place),
        ("run",),
        ("synchronized",),
    ]
    before = found.clone()
    run(torch.zeros(2, 3, 4))
    assert torch.equal(found, before)  # an earlier result is not written over


def test_without_onnx_runtime_a_file_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotInstalledError, match="pip install onnxruntime"):
        open_onnx(tmp_path / "m.onnx", CPU, 1, None)


def test_on_a_cpu_and_for_outputs_of_unknown_size_nothing_is_bound(tmp_path):
    run = open_onnx(tmp_path / "m.onnx", CPU, 1, None)
    session = Session.made[-1]
    assert session.get_providers() == ["CPUExecutionProvider"]
    torch.testing.assert_close(run(torch.ones(2, 3, 4)), torch.full((2, 3), 4.0))
    assert session.calls == [("copied",)]
    for change in ({"sizes": ["b", "anything"]}, {"kind": "tensor(float16)"}):
        session = Session("m.onnx", None, ["CUDAExecutionProvider"])
        vars(session).update(change)
        onnx_session._runner(session, tmp_path, CPU)(torch.ones(2, 3, 4))
        assert session.calls == [("copied",)]


def test_the_session_runs_on_the_card_that_is_asked_for(tmp_path):
    open_onnx(tmp_path / "m.onnx", torch.device("cuda:1"), 1, None)
    own = {"device_id": 1, "use_tf32": "0"}  # the file is one of fp32
    assert Session.made[-1].chosen[0] == ("CUDAExecutionProvider", own)
    open_tensorrt(tmp_path / "m.onnx", torch.device("cuda:1"))
    (name, settings), (second, _) = Session.made[-1].chosen
    assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert settings == {"device_id": 1, "trt_fp16_enable": True}


def test_a_session_that_does_not_run_where_it_was_to_is_told_once(tmp_path, monkeypatch, caplog):
    onnx_session._tell_once.cache_clear()
    gpu = torch.device("cuda")
    open_onnx(tmp_path / "m.onnx", gpu, 1, None)
    open_tensorrt(tmp_path / "m.onnx", gpu)
    assert not caplog.records
    monkeypatch.setattr(Session, "get_providers", lambda self: ["CPUExecutionProvider"])
    open_onnx(tmp_path / "m.onnx", CPU, 1, None)
    assert not caplog.records
    for _ in range(2):
        open_onnx(tmp_path / "m.onnx", gpu, 1, None)
        open_tensorrt(tmp_path / "m.onnx", gpu)
    told = [record.getMessage().partition(",")[0] for record in caplog.records]
    names = ("CUDA", "Tensorrt")
    assert told == [f"ONNX Runtime runs on CPU instead of {name}" for name in names]
