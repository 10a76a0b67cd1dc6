"""Export: folding is exact, files agree with eager, wrong or hostile ones are refused."""

import errno
import io
import json
import logging
import pickle
import threading
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from darts_core.bench.runtimes import _Typed
from darts_core.errors import DataError, ExportError
from darts_core.export import export as export_module
from darts_core.export import export_model, fold_batch_norms, load, predict, read_manifest
from darts_core.export.archive import load_program
from darts_core.export.fold import trace
from darts_core.export.formats import Cast
from darts_core.export.manifest import data_meta, sha256

SHAPE = (3, 8, 8)
META = {
    "class_names": ["ant", "bee", "cow"],
    "image_shape": SHAPE,
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "name": "toy",
}


class Reduce(nn.Module):
    """A norm behind two concatenated convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels, channels - channels // 2, 1, 2, bias=True)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        x = F.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        Reduce(6),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 9, 1, bias=False),
        nn.BatchNorm2d(9, affine=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(9, 3),
    )
    for _ in range(3):  # statistics and scales away from their start
        model(2 * torch.randn(16, *SHAPE) + 1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    model = network()
    manifest = export_model(model, folder, META, max_seconds=0.1, accuracy=0.75)
    return model, folder, manifest


def test_folding_is_exact_in_fp64_and_leaves_no_norm():
    model = network().double()
    folded = fold_batch_norms(model, SHAPE)
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 3


def test_norms_that_others_read_past_stay():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.twice, self.second = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
            self.last, self.both = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(8)

        def forward(self, x):
            y = self.conv(x)
            z = self.norm(y) + y  # the convolution's own output is needed too
            z = self.last(self.second(self.twice(self.twice(z))))  # one weight used twice
            return self.both(torch.cat([z, z], 1))  # and one output joined twice

    model = Shared()
    model(torch.randn(8, *SHAPE))
    model.eval()
    folded = fold_batch_norms(model, SHAPE)
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(folded(x), model(x))
    assert isinstance(folded.norm, nn.BatchNorm2d)
    assert isinstance(folded.second, nn.BatchNorm2d)
    assert isinstance(folded.both, nn.BatchNorm2d)


def test_files_agree_with_eager_at_any_batch(exported):
    model, folder, manifest = exported
    assert sorted(manifest["artifacts"]) == ["onnx", "pt2"]
    for runtime in ("pt2", "onnx"):
        loaded = load(folder, runtime)
        assert loaded.classes == ("ant", "bee", "cow")
        for batch in (1, 3, 7):
            x = torch.randn(batch, *SHAPE)
            wanted = model(x).detach()
            error = (loaded(x) - wanted).abs().max() / wanted.abs().max()
            assert error < 1e-4
        assert manifest["artifacts"][runtime]["relative_error"] <= 1e-4


def test_manifest_states_what_a_user_needs(exported):
    _, folder, written = exported
    manifest = read_manifest(folder)
    assert manifest == json.loads(json.dumps(written))
    assert manifest["schema_version"] == 1
    assert manifest["input_shape"] == list(SHAPE)
    assert manifest["test_accuracy"] == 0.75
    for artifact in manifest["artifacts"].values():
        (entry,) = artifact["files"]
        assert entry["sha256"] == sha256(folder / entry["name"])
        assert artifact["latency"]["1"]["median_ms"] > 0
        assert artifact["latency"]["32"]["n"] >= 5
    assert not list(folder.glob(".*tmp*"))
    assert b"/test_export.py" not in (folder / "model.pt2").read_bytes()


def test_default_runtime_is_the_fastest_timed(exported):
    _, folder, manifest = exported
    times = {n: a["latency"]["1"]["median_ms"] for n, a in manifest["artifacts"].items()}
    assert load(folder).runtime == min(times, key=times.get)


def test_model_is_left_as_it_was(exported):
    model, _, _ = exported
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert isinstance(model[1], nn.BatchNorm2d)


def test_predict_reads_resizes_and_normalises(exported, tmp_path):
    model, folder, _ = exported
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., 0]).resize((19, 5)).save(tmp_path / "grey.png")
    first, second = predict(folder, [tmp_path / "a.png", tmp_path / "grey.png"])
    mean, std = (torch.tensor(META[key]).view(3, 1, 1) for key in ("mean", "std"))
    x = (torch.from_numpy(pixels).permute(2, 0, 1) / 255.0 - mean) / std
    wanted = model(x[None]).detach().softmax(1)[0]
    assert first.label == ("ant", "bee", "cow")[int(wanted.argmax())]
    assert first.probability == pytest.approx(float(wanted.max()), rel=1e-3)
    assert sum(second.probabilities.values()) == pytest.approx(1.0, rel=1e-5)
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            predict(folder, [tmp_path / name])


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.zeros(1, 3, 9, 8), "not \\[1, 3, 9, 8\\]"),
        (torch.zeros(3, 8, 8), "not \\[3, 8, 8\\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
    ],
)
def test_wrong_images_are_refused(exported, x, text):
    with pytest.raises(ExportError, match=text):
        load(exported[1], "onnx")(x)


def test_file_that_disagrees_is_not_written(tmp_path, monkeypatch):
    real = export_module.open_artifact
    monkeypatch.setattr(
        export_module,
        "open_artifact",
        lambda *a, **k: lambda x: real(*a, **k)(x) * 1.001,
    )
    with pytest.raises(ExportError, match=r"model.pt2 was not written: its outputs differ"):
        export_model(network(), tmp_path, META, formats=["pt2"], time_artifacts=False)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_draws_or_gives_nan_by_itself_is_told_as_such(tmp_path):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(F.dropout(x.mean((2, 3))))  # on in every mode

    broken = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    nn.init.constant_(broken[1].bias, float("nan"))
    options = {"formats": ["pt2"], "time_artifacts": False}
    with pytest.raises(ExportError, match=r"itself gives other outputs when .*, such as dropout"):
        export_model(Noisy(), tmp_path, META, **options)
    with pytest.raises(ExportError, match=r"the network itself gives NaN or infinite outputs"):
        export_model(broken, tmp_path, META, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_such_with_the_file(tmp_path, monkeypatch):
    def full(self, destination, **_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", full)
    with pytest.raises(OSError, match="No space left") as caught:
        export_model(network(), tmp_path, META, formats=["onnx"], time_artifacts=False)
    assert caught.value.filename == str(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_rejected_models_and_formats_are_sentences(tmp_path):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x.mean((2, 3))) if x.sum() > 0 else x.mean((2, 3))

    with pytest.raises(ExportError, match=r"torch.export rejects the model Branching"):
        export_model(Branching(), tmp_path, META, time_artifacts=False)

    class Two(nn.Flatten):
        def forward(self, x):
            return {"logits": super().forward(x)[:, :3], "features": x}

    with pytest.raises(ExportError, match=r"The network gives a dict, and exported files"):
        export_model(Two(), tmp_path, META, time_artifacts=False)
    with pytest.raises(ExportError, match=r"'onxx'.*'onnx'"):
        export_model(network(), tmp_path, META, formats=["onxx"])
    with pytest.raises(ExportError, match=r"lacks 'class_names'|lacks 'input_shape'"):
        export_model(network(), tmp_path, {"mean": (0.5,), "std": (0.5,)})
    with pytest.raises(ExportError, match="one mean"):
        data_meta({**META, "mean": (0.5,)})


def test_of_a_model_that_torch_rejects_the_error_alone_is_told_and_where_it_is(capsys):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            y = self.layer(x.mean((2, 3)))
            return y * 2 if y.sum() > 0 else y

    level = logging.getLogger("torch").level
    with pytest.raises(ExportError, match=r"Branching: .*\(.*test_export\.py, line \d+\)\. Keep"):
        trace(Branching(), SHAPE)
    assert capsys.readouterr().err == ""
    assert logging.getLogger("torch").level == level


def test_a_model_whose_weight_is_derived_is_exported_as_it_was_made(tmp_path):
    # torch's weight_norm keeps the weight that it computed, which torch itself does not copy
    torch.manual_seed(0)
    parts = (
        nn.utils.weight_norm(nn.Conv2d(3, 8, 3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    model = nn.Sequential(*parts).eval()
    assert not model[0].weight.is_leaf
    model.train()[1].eval()  # a part that is held in another mode stays in it
    export_model(model, tmp_path, META, formats=["pt2"], time_artifacts=False)
    x = torch.randn(5, *SHAPE)
    torch.testing.assert_close(load(tmp_path)(x), model(x).detach(), rtol=1e-4, atol=1e-5)
    assert [module.training for module in model] == [True, False, True, True]
    model.held = threading.Lock()
    with pytest.raises(
        ExportError, match=r"Sequential cannot be copied \(TypeError: cannot pickle"
    ):
        export_model(model, tmp_path, META, formats=["pt2"], time_artifacts=False)


def test_sizes_that_are_products_of_the_batch_are_read(tmp_path):
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.each, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x):
            rows = self.each(x.reshape(x.shape[0] * 24, 8)).relu()
            return self.head(rows.reshape(x.shape[0], 24, 6).mean(1))

    torch.manual_seed(0)
    model, x = Joined().eval(), torch.randn(5, *SHAPE)
    export_model(model, tmp_path, META, formats=["pt2"], time_artifacts=False)
    torch.testing.assert_close(load(tmp_path)(x), model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Cast, _Typed])
def test_beside_three_dimensional_convolutions_the_others_are_laid_out_channels_last(kind):
    class Bands(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.deep = nn.Conv2d(3, 4, 3), nn.Conv3d(1, 2, 3)

        def forward(self, x):
            return self.deep(self.flat(x)[:, None]).mean((2, 3, 4))

    torch.manual_seed(0)
    model, x = Bands().eval(), torch.randn(2, *SHAPE)
    wanted = model(x).detach()
    made = kind(model, torch.float32, channels_last=True).eval()
    assert made.model.flat.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made(x).detach(), wanted, rtol=1e-4, atol=1e-5)


def test_unknown_runtime_missing_folder_and_newer_manifest(exported, tmp_path):
    with pytest.raises(ExportError, match="'tensorrt'"):
        load(exported[1], "tensorrt")
    with pytest.raises(ExportError, match=r"no manifest.json"):
        load(tmp_path)
    manifest = {**exported[2], "schema_version": 99}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="has schema_version 99; this program reads up to"):
        load(tmp_path)


def copy_of(exported, folder, change) -> None:
    """The export with one member of model.pt2 changed and a fitting hash."""
    with zipfile.ZipFile(exported[1] / "model.pt2") as source:
        members = {name: source.read(name) for name in source.namelist()}
    members = change(members)
    with zipfile.ZipFile(folder / "model.pt2", "w", zipfile.ZIP_STORED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    manifest = json.loads(json.dumps(exported[2]))
    manifest["artifacts"]["pt2"]["files"][0]["sha256"] = sha256(folder / "model.pt2")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def member(members, end) -> str:
    return next(name for name in members if name.endswith(end))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a doctored archive ran code",))


def ask_for_pickle(members):
    name = member(members, "model_weights_config.json")
    config = json.loads(members[name])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    buffer = io.BytesIO()
    torch.save(Bomb(), buffer)
    members[member(members, f"data/weights/{first['path_name']}")] = buffer.getvalue()
    members[name] = json.dumps(config).encode()
    return members


def pickled_inputs(members):
    members[member(members, "sample_inputs/model.pt")] = pickle.dumps(Bomb())
    return members


def foreign_operator(members):
    name = member(members, "models/model.json")
    members[name] = members[name].replace(b"torch.ops.aten.relu.default", b"torch.load")
    return members


def foreign_expression(members):
    name = member(members, "models/model.json")
    text = members[name].decode()
    start = text.index("Symbol('")
    end = text.index('"', start)
    bomb = "__import__('os').system('true')"
    members[name] = (text[:start] + bomb + text[end:]).encode()
    return members


def native_code(members):
    root = member(members, "models/model.json").removesuffix("models/model.json")
    members[f"{root}data/aotinductor/model/code.so"] = b"\x7fELF"
    return members


def python_guards(members):
    name = member(members, "models/model.json")
    program = json.loads(members[name])
    program["guards_code"] = ["__import__('os').system('true')"]
    members[name] = json.dumps(program).encode()
    return members


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (ask_for_pickle, "asks to be unpickled"),
        (pickled_inputs, "pickled example inputs"),
        (foreign_operator, "'torch.load' is not a plain aten one"),
        (foreign_expression, "is no arithmetic"),
        (native_code, "native code"),
        (python_guards, "Python guards"),
    ],
)
def test_doctored_archives_are_refused(exported, tmp_path, change, text):
    copy_of(exported, tmp_path, change)
    with pytest.raises(ExportError, match=text):
        load(tmp_path, "pt2")


def test_undoctored_copy_loads(exported, tmp_path):
    copy_of(exported, tmp_path, lambda members: members)
    assert load(tmp_path, "pt2")(torch.zeros(1, *SHAPE)).shape == (1, 3)


def test_changed_and_damaged_files_are_refused(exported, tmp_path):
    copy_of(exported, tmp_path, lambda members: members)
    content = (tmp_path / "model.pt2").read_bytes()
    (tmp_path / "model.pt2").write_bytes(content + b" ")
    with pytest.raises(ExportError, match="was changed"):
        load(tmp_path, "pt2")
    (tmp_path / "cut.pt2").write_bytes(content[:1000])
    with pytest.raises(ExportError, match="no readable"):
        load_program(tmp_path / "cut.pt2")
    manifest = json.loads(json.dumps(exported[2]))
    manifest["artifacts"]["pt2"]["files"][0]["name"] = "../model.pt2"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="no plain file"):
        load(tmp_path, "pt2")
