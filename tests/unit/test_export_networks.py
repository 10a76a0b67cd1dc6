"""Networks with ways of their own: what they do to inputs, in which formats they work, what they give."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from darts_core.bench.runtimes import prepare
from darts_core.errors import ExportError, LatencyError
from darts_core.export import export_model, load, predict
from darts_core.latency.deployed import in_runtime
from darts_core.prune.graph import follow
from darts_core.supernet import count

SHAPE = (3, 4, 4)
META = {"class_names": list("abc"), "image_shape": SHAPE, "mean": [0.5] * 3, "std": [0.2] * 3}


def _exported(model, folder, **options):
    manifest = export_model(model, folder, META, formats=["pt2"], time_artifacts=False, **options)
    return load(folder), manifest["artifacts"]["pt2"]


class InPlace(nn.Module):
    def forward(self, x):
        return x.mul_(2).add_(1).mean((2, 3))


class View(nn.Module):
    def forward(self, x):
        return x.view(x.shape[0], -1)[:, ::16]


class DoubleHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3).double()

    def forward(self, x):
        return self.head(x.mean((2, 3)).double()).float()


def test_a_network_that_computes_in_its_input_draws_no_numbers(tmp_path):
    loaded, row = _exported(InPlace(), tmp_path)
    assert row["relative_error"] < 1e-5
    x = torch.ones(2, *SHAPE)
    for _ in range(2):  # the caller's samples stay what they are
        assert torch.allclose(loaded(x), torch.full((2, 3), 3.0))


def test_a_file_takes_samples_in_whatever_layout_they_lie(tmp_path):
    loaded, _ = _exported(View(), tmp_path, channels_last=False)
    x = torch.arange(96.0).view(2, *SHAPE)
    for laid in (
        x.to(memory_format=torch.channels_last),
        x.numpy()[..., ::-1, :].copy()[..., ::-1, :],
    ):
        assert torch.equal(loaded(laid), x[:, :, 0, 0])
    assert torch.equal(loaded(x.numpy().astype(">f4")), x[:, :, 0, 0])


def test_layers_that_work_in_double_precision_keep_it(tmp_path):
    model, x = DoubleHead(), torch.rand(2, *SHAPE)
    loaded, _ = _exported(model, tmp_path, channels_last=True)
    assert torch.allclose(loaded(x), model(x), atol=1e-6)
    for runtime in ("eager", "channels_last"):
        ready = prepare(model, runtime, device=x.device, bundle=None, folder=tmp_path)
        assert torch.allclose(ready.call(x), model(x), atol=1e-6)


@pytest.mark.parametrize("outputs", [2, 4])
def test_outputs_that_the_description_does_not_name_are_refused(tmp_path, outputs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, outputs))
    with pytest.raises(ExportError, match=rf"shape \[2, {outputs}\] .* takes \[2, 3\]\."):
        _exported(model, tmp_path)
    assert not list(tmp_path.iterdir())


class Squeezed(nn.Module):
    """Of a single sample it gives no row, or nothing."""

    def __init__(self, then):
        super().__init__()
        self.then = then

    def forward(self, x):
        return self.then(x.mean((2, 3), keepdim=True).squeeze())


@pytest.mark.parametrize(
    ("then", "found"),
    [
        (lambda z: z, r"gives values of shape \[3\], .* one gives \[1, 3\]"),
        (lambda z: z.log_softmax(1), r"does not run \(IndexError: Dimension out of range"),
    ],
    ids=["no row", "nothing"],
)
def test_a_network_that_takes_no_single_sample_is_refused_before_anything_is_written(
    tmp_path, then, found
):
    """The first passed, and its files refused each single image, told to export the model again."""
    with pytest.raises(ExportError, match=f"On a single sample the network {found}"):
        _exported(Squeezed(then), tmp_path)
    assert not list(tmp_path.iterdir())


def test_of_two_classes_of_one_name_each_has_its_own_answer(tmp_path):
    meta = {**META, "class_names": ["crane", "crane", "heron"]}
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    export_model(model, tmp_path, meta, formats=["pt2"], time_artifacts=False)
    assert load(tmp_path).classes == ("crane (0)", "crane (1)", "heron")
    np.save(tmp_path / "one.npy", np.zeros(SHAPE, dtype=np.uint8))
    [found] = predict(tmp_path, tmp_path / "one.npy")
    assert list(found.probabilities) == ["crane (0)", "crane (1)", "heron"]
    assert sum(found.probabilities.values()) == pytest.approx(1.0, abs=1e-6)


def test_a_network_that_calls_view_is_exported_and_run_as_it_lies_by_default(tmp_path, monkeypatch):
    """The look at the other layout ended the export, and each compiled or captured run of a comparison."""
    options = {"formats": ["pt2"], "max_seconds": 0.01, "batch_sizes": [1]}
    manifest = export_model(View(), tmp_path, META, **options)
    assert manifest["channels_last"] is False
    x = torch.arange(96.0).view(2, *SHAPE)
    assert torch.equal(load(tmp_path)(x), x[:, :, 0, 0])
    with pytest.raises(ExportError, match=r"channels_last=true does not go .* calls view\(\)"):
        export_model(View(), tmp_path, META, channels_last=True, **options)
    monkeypatch.setattr("darts_core.bench.runtimes._compiled", lambda model, best: model)
    monkeypatch.setattr("darts_core.bench.runtimes.check_runtimes", lambda names, device: names)
    place = {"device": x.device, "bundle": SimpleNamespace(input_shape=SHAPE), "folder": tmp_path}
    assert torch.equal(prepare(View(), "compile", **place).call(x), x[:, :, 0, 0])
    with pytest.raises(ExportError, match=r"calls view\(\) .* fails with channels last"):
        prepare(View(), "channels_last", **place)


class Mixed(nn.Module):
    """Its first parameters are no weights of layers, and of other number formats than what it is given."""

    def __init__(self, first):
        super().__init__()
        self.first = nn.Parameter(first, requires_grad=False)
        self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x):
        return self.body(x).mean((2, 3)) * self.first.sum().real.float()


@pytest.mark.parametrize(
    "first",
    [
        torch.ones(3, dtype=torch.float64),
        torch.ones(3, 2, dtype=torch.complex64),
        torch.ones(3).int(),
    ],
    ids=["double", "complex", "whole"],
)
def test_a_parameter_of_another_format_that_comes_first_is_not_that_of_the_inputs(tmp_path, first):
    """The network was counted, followed and traced on inputs of that format, and refused."""
    model = Mixed(first).eval()
    assert count(model, SHAPE).macs == 3 * 3 * 16
    follow(model, SHAPE)
    loaded, _ = _exported(model, tmp_path)
    x = torch.rand(2, *SHAPE)
    assert torch.allclose(loaded(x), model(x), atol=1e-5)


class Doubled(nn.Module):
    """Convolves in double precision whatever it is given."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 4, 1).double(), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layer(x.double()).mean((2, 3)).float())


class Eigen(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return torch.linalg.eigvals(self.layer(x)).real


def test_onnx_in_double_precision_is_refused_in_a_sentence_that_tells_what_to_do(tmp_path):
    """ONNX Runtime has no convolution of float64, and told it with a temporary file's name."""
    options = {"time_artifacts": False, "channels_last": False}
    with pytest.raises(
        ExportError, match=r"computes in float64, .*model\.float\(\), without casts"
    ) as told:
        export_model(Doubled().eval(), tmp_path, META, formats=["onnx"], **options)
    assert str(tmp_path) not in str(told.value)
    with pytest.raises(LatencyError, match=r"Doubled computes in float64, .* use model\.float\(\)"):
        in_runtime(Doubled().eval(), torch.rand(2, *SHAPE), "onnx")
    # what the exporter lacks has nothing to do with the format
    with pytest.raises(LatencyError, match=r"Eigen cannot run in ONNX Runtime") as told:
        in_runtime(Eigen().double(), torch.rand(2, 4, 4, dtype=torch.float64), "onnx")
    assert "float64" not in str(told.value)
    manifest = export_model(
        Doubled().eval(), tmp_path, META, formats=["pt2", "onnx"], leave_out=True, **options
    )
    assert [*manifest["left_out"]] == ["onnx"]
