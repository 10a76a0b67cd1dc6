"""What was exported on one device or machine, and is written or opened beside others."""

import json
import zipfile
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import DeviceError, ExportError
from darts_core.export import archive, export_model, load, runtime
from darts_core.export.archive import save_program
from darts_core.export.export import _described
from darts_core.export.fold import trace
from darts_core.export.runtime import open_artifact

SHAPE = (3, 4, 4)
META = {"class_names": list("abc"), "image_shape": SHAPE, "mean": [0.5] * 3, "std": [0.2] * 3}


def test_a_program_that_names_its_device_runs_on_another(tmp_path):
    class Placed(nn.Module):
        def forward(self, x):
            # a cast is checked with its device, too
            return x.mean((2, 3)).double().float() + torch.arange(3, device=x.device)

    # a device without values takes the place of a GPU
    for made in ("meta", "cpu"):
        example = torch.zeros(2, *SHAPE, device=made)
        save_program(trace(Placed(), SHAPE, example=example), tmp_path / "model.pt2")
        for place in ("cpu", "meta"):
            run = open_artifact("pt2", [tmp_path / "model.pt2"], torch.device(place))
            found = run(torch.ones(3, *SHAPE, device=place))
            assert (found.shape, found.device.type) == ((3, 3), place)
            if place == "cpu":
                assert found.tolist() == [[1.0, 2.0, 3.0]] * 3


def test_tied_weights_are_written_once_from_whatever_device(tmp_path, monkeypatch):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
            self.last.weight = self.first.weight

        def forward(self, x):
            return self.last(self.first(x.mean((2, 3))))

    def moved(program, _):
        """As torch moves a program from a GPU: weight by weight."""
        for name, value in program.state_dict.items():
            program.state_dict[name] = nn.Parameter(value.detach().clone())
        return program

    monkeypatch.setattr(archive, "move_to_device_pass", moved)
    model, path = Tied().eval(), tmp_path / "model.pt2"
    save_program(trace(model, SHAPE), path)
    with zipfile.ZipFile(path) as file:
        assert sum("/weights/weight_" in name for name in file.namelist()) == 2
    x = torch.ones(3, *SHAPE)
    assert torch.allclose(open_artifact("pt2", [path], torch.device("cpu"))(x), model(x))


@pytest.mark.parametrize("device", ["mps", "cuda:77", "gpu"])
def test_files_are_written_for_devices_that_are_there_and_that_load_takes(tmp_path, device):
    with pytest.raises(DeviceError, match=f"device={device} is"):
        export_model(nn.Flatten(), tmp_path / "out", META, device=device)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ({"task": "defects"}, "extra names 'task', which the manifest holds already"),
        ({"found": Architecture.named("DARTS_V2")}, "Architecture is not JSON .* its to_dict"),
    ],
)
def test_what_the_manifest_cannot_hold_besides_is_refused_at_once(tmp_path, extra, text):
    with pytest.raises(ExportError, match=text):
        export_model(nn.Flatten(), tmp_path / "out", META, extra=extra)
    assert not (tmp_path / "out").exists()


def test_a_description_that_is_not_taken_is_told(caplog):
    data = SimpleNamespace(**META)
    assert _described({**META, "class_names": ["x", "y", "z"]}, data).classes == ("x", "y", "z")
    assert not caplog.records
    assert _described({"class_names": ["x", "y", "z"]}, data).classes == ("a", "b", "c")
    assert "instead of the one given: The description of the data lacks" in caplog.text


def test_threads_that_do_not_count_are_told(tmp_path, monkeypatch, caplog):
    kinds = ("onnx", "openvino", "pt2")
    one = {"precision": "fp32", "files": [{"name": "model", "sha256": ""}]}
    forms = {kind: {**one, "kind": kind} for kind in kinds}
    described = {
        "schema_version": 1,
        "classes": list("abc"),
        "input_shape": SHAPE,
        "artifacts": forms,
    }
    (tmp_path / "manifest.json").write_text(json.dumps({**META, **described}))
    monkeypatch.setattr(runtime, "check_files", lambda *_: [])
    monkeypatch.setattr(runtime, "open_artifact", lambda *_, **__: None)
    for kind in kinds:
        load(tmp_path, kind, threads=2)
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.startswith("threads=2 is for ONNX Runtime and OpenVINO: pt2 runs on as many as")
    with pytest.raises(ExportError, match="threads=0 must be at least 1"):
        load(tmp_path, "onnx", threads=0)
