"""Low-precision, native and fused artifacts: judged on val, refused when they lose, loaded with care."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import ExportError
from darts_core.export import FORMATS, chunk_size, export_model, extras, load, read_manifest, verify
from darts_core.export.fold import fold_batch_norms, trace
from darts_core.export.fused import FusedProgram, plan_steps
from darts_core.export.verify import (
    Check,
    compare_on_fresh_inputs,
    compare_on_split,
    judge,
)
from darts_core.models.baselines import baseline
from darts_core.supernet import build
from darts_core.tasks import Classification
from darts_core.tasks.multi_label import MultiLabel

SHAPE = (3, 8, 8)


class Data:
    """Learnable random images that remember which splits were read."""

    name, class_names, image_shape = "toy", ("a", "b", "c"), SHAPE
    num_classes, mean, std = 3, (0.5,) * 3, (0.2,) * 3
    task, device = Classification(outputs=3, names=class_names), torch.device("cpu")

    def __init__(self) -> None:
        self.read: list[str] = []
        self.y = torch.arange(96) % 3
        self.x = 0.3 * torch.randn(96, *SHAPE, generator=torch.Generator().manual_seed(0))
        self.x += (self.y.view(-1, 1, 1, 1) - 1).float()

    def size(self, names) -> int:
        return len(self.y)

    def batches(self, names, batch_size, *, seed, epoch, drop_last=True, shuffle=True):
        self.read.append(names)
        for start in range(0, len(self.y), batch_size):
            yield self.x[start : start + batch_size], self.y[start : start + batch_size]


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    data = Data()
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()
    return model.eval(), data


def test_low_precision_and_int8_are_judged_on_val(trained, tmp_path):
    model, data = trained
    data.read.clear()
    manifest = export_model(
        model, tmp_path, data, formats=["pt2_bf16", "onnx_int8"], time_artifacts=False
    )
    assert set(data.read) == {"val", "params"}  # calibration reads params, judgement val
    bf16, int8 = manifest["artifacts"]["pt2_bf16"], manifest["artifacts"]["onnx_int8"]
    assert bf16["val_agreement"] >= 0.995
    assert int8["precision"] == "int8"
    with torch.no_grad():
        right = float((model(data.x).argmax(1) == data.y).float().mean())
    assert int8["val_accuracy"] >= right - 0.005
    for name in manifest["artifacts"]:
        logits = load(tmp_path, name)(data.x[:5])
        assert logits.dtype == torch.float32
        assert (logits.argmax(1) == model(data.x[:5]).argmax(1)).all()
    with pytest.raises(ExportError, match="holds only pt2_bf16, onnx_int8"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["pt2_bf16", "onnx_int8"])
def test_low_precision_needs_data(trained, tmp_path, name):
    meta = {k: getattr(trained[1], k) for k in ("class_names", "image_shape", "mean", "std")}
    with pytest.raises(ExportError, match=r"data bundle|pass a bundle"):
        export_model(trained[0], tmp_path, meta, formats=[name], time_artifacts=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("precision", "check", "text"),
    [
        ("fp32", Check(2e-4), "differ from eager by 2.00e-04"),
        ("fp32", Check(float("nan")), "differ"),
        ("bf16", Check(0.01, 0.99, 0.9, 0.9, 1000), "99.00%"),
        ("int8", Check(0.01, 0.99, 0.894, 0.9, 1000), "loses 0.60 points"),
        ("int8", Check(0.01), "data bundle"),
        (
            "int8",
            Check(0.01, 0.99, float("nan"), 0.9, 1000),
            "is no number to compare (90.00 % in eager",
        ),
        (
            "int8",
            Check(0.01, 0.99, 0.9, 0.9, 1000, finite=0.9),
            "NaN or infinite for 10.00% of the 1000",
        ),
        (
            "fp16",
            Check(0.01, 0.999, 0.9, 0.9, 1000, finite=0.5),
            "NaN or infinite for 50.00% of the",
        ),
    ],
)
def test_losses_are_refused_with_numbers(precision, check, text):
    assert text in str(judge(precision, check))
    if check.value is not None:
        assert judge(precision, check, allow_accuracy_loss=True) is None


def test_small_losses_pass():
    assert judge("fp32", Check(9e-5)) is None
    assert judge("fp16", Check(0.01, 0.996, 0.9, 0.9, 1000)) is None
    assert judge("int8", Check(0.1, 0.98, 0.895, 0.9, 1000)) is None  # all that is allowed


def test_answers_of_nan_are_none_though_they_agree():
    reference = nn.Linear(4, 3)
    nn.init.constant_(reference.bias, -9.0)  # no label anywhere, as of NaN
    labels = torch.zeros(8, 3).fill_diagonal_(1.0)
    bundle = SimpleNamespace(
        task=MultiLabel(outputs=3, names=("a", "b", "c")),
        device=torch.device("cpu"),
        batches=lambda *_, **__: iter([(0.1 * torch.randn(8, 4), labels)]),
    )
    check = compare_on_split(
        reference, lambda x: torch.full((len(x), 3), float("nan")), bundle, device=bundle.device
    )
    assert (check.agreement, check.finite, check.samples) == (1.0, 0.0, 8)
    assert "NaN or infinite" in str(judge("fp16", check))
    # minus infinity is what masks an answer
    for runner in (reference, lambda x: torch.full((len(x), 3), -math.inf)):
        check = compare_on_split(reference, runner, bundle, device=bundle.device)
        assert (check.agreement, check.finite) == (1.0, 1.0)


def test_nan_of_the_network_itself_is_no_agreement_and_an_answer_ruled_out_in_both_is():
    def error(*outputs, width=2):
        runs = [lambda x, one=one: torch.tensor([one]).expand(len(x), width) for one in outputs]
        return compare_on_fresh_inputs(*runs, SHAPE, device=torch.device("cpu"))

    # as a runtime whose relu makes 0 of NaN
    assert error([math.nan, 1.0], [0.0, 1.0]) == math.inf
    assert error([0.0, 1.0], [math.nan, 1.0]) == math.inf
    assert error([-math.inf, 1.0], [-math.inf, 1.0]) == 0.0
    assert error([-math.inf, 2.0], [-math.inf, 1.0]) == 0.5
    assert error([-math.inf, 1.0], [-9.0, 1.0]) == math.inf
    # what is put in place of a logit hides no difference of the others, and is compared itself
    for fill in (-1e9, -3e38, -1e4, 1e9):
        assert error([fill, 2.0], [fill, 1.0]) == 0.5
        assert error([fill, 2.0], [0.0, 2.0]) == 1.0
    assert error([-1e9, 0.0], [-1e9, 1e-6]) == pytest.approx(1e-6)  # rounding, of a certain answer
    # large outputs that differ among each other rule nothing out
    assert error([2e6, 1e6], [2e6, 1e6 + 20]) == pytest.approx(1e-5)
    assert error([3e4, -2e4, 1.0], [3e4, -2e4, 2.5], width=3) == pytest.approx(5e-5)


def test_a_long_split_is_compared_some_batches_at_a_time(trained, monkeypatch):
    model, data = trained
    sizes, usual = [], Classification.agreement

    def agreement(task, output, reference):
        sizes.append(len(output))
        return usual(task, output, reference)

    def runner(x):
        found = model(x)
        return torch.cat([-found[:1], found[1:]])  # one wrong answer a batch

    monkeypatch.setattr(Classification, "agreement", agreement)
    options = {"batch_size": 20, "device": torch.device("cpu")}
    whole = compare_on_split(model, runner, data, **options)
    monkeypatch.setattr(verify, "_GROUP", 100)
    parts = compare_on_split(model, runner, data, **options)
    assert sizes == [96, 40, 40, 16]
    assert whole.agreement == pytest.approx(91 / 96)
    assert parts.agreement == pytest.approx(whole.agreement)
    assert (parts.value, parts.samples, parts.finite) == (whole.value, 96, 1.0)


def test_a_format_that_loses_too_much_is_left_out_beside_others(
    trained, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(
        verify, "judge", lambda precision, *_, **__: "it loses 9" if precision == "bf16" else None
    )
    options = {"time_artifacts": False}
    manifest = export_model(
        trained[0], tmp_path, trained[1], formats=["pt2_bf16", "pt2"], leave_out=True, **options
    )
    assert list(manifest["artifacts"]) == ["pt2"]
    assert manifest["left_out"] == {"pt2_bf16": "model_bf16.pt2 was not written: it loses 9."}
    assert read_manifest(tmp_path)["left_out"] == manifest["left_out"]
    assert load(tmp_path).runtime == "pt2"
    assert "the format pt2_bf16 is left out: model_bf16.pt2 was not written" in caplog.text
    for formats, leave_out in ((["pt2", "pt2_bf16"], False), (["pt2_bf16"], True)):
        with pytest.raises(ExportError, match=r"model_bf16.pt2 was not written: it loses 9"):
            export_model(*trained[:1], tmp_path, trained[1], formats=formats, leave_out=leave_out,
                         **options)  # fmt: skip


def test_fused_formats_need_a_gpu(trained, tmp_path):
    with pytest.raises(ExportError, match="runs on a GPU"):
        export_model(*trained[:1], tmp_path, trained[1], formats=["fused_fp16"])
    assert {form.kind for form in FORMATS.values()} >= {"pt2", "onnx", "aoti", "fused_fp16"}


def test_a_batch_in_pieces_gives_the_same_logits(trained, tmp_path, monkeypatch):
    model, data = trained
    monkeypatch.setattr("darts_core.export.export.chunk_entry", lambda *arguments: {"chunk": 3})
    manifest = export_model(model, tmp_path, data, formats=["onnx"], time_artifacts=False)
    assert manifest["artifacts"]["onnx"]["chunk"] == 3
    loaded = load(tmp_path, "onnx", threads=2)
    for batch in (1, 5, 6, 11):  # whole, whole, two pieces, four of which one is smaller
        x = torch.randn(batch, *SHAPE)
        torch.testing.assert_close(loaded(x), model(x).detach(), rtol=1e-4, atol=1e-5)
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["artifacts"]["onnx"]["chunk"] = "3; import os"
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match="chunk is"):
        load(tmp_path, "onnx")


@pytest.fixture
def timed_chunks(monkeypatch):
    """Times by chunk size, and how many cores other work keeps busy at each attempt."""
    sizes, speed, busy = [], {None: 10.0, 1: 9.9, 2: 7.0, 4: 8.0}, [0.0]
    monkeypatch.setattr(
        chunk_size, "open_artifact", lambda *a, chunk, **k: sizes.append(chunk) or (lambda x: x)
    )
    monkeypatch.setattr(chunk_size, "quick_ms", lambda call, **k: speed.get(sizes[-1], 20.0))

    class Seen:
        def foreign(self):
            return busy.pop(0) if len(busy) > 1 else busy[0]

    monkeypatch.setattr(chunk_size, "Load", Seen)
    return speed, busy


def test_the_chunk_size_is_the_fastest_that_was_measured(timed_chunks, tmp_path):
    speed, _ = timed_chunks
    asked = (tmp_path / "m.onnx", SHAPE, 32, torch.device("cpu"))
    assert chunk_size.chunk_entry(*asked) == {"chunk": 2}
    speed[2] = speed[4] = 9.8  # not clearly faster: no pieces
    assert chunk_size.chunk_entry(*asked) == {"chunk": None}


def test_a_batch_whose_samples_depend_on_each_other_is_not_taken_in_pieces(
    timed_chunks, tmp_path, monkeypatch
):
    def opened(*_, chunk, **__):
        # as a norm over the statistics of the batch that it is given
        return lambda x: torch.cat([part - part.mean(0) for part in x.split(chunk or len(x))])

    times = iter([10.0, 5.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr(chunk_size, "open_artifact", opened)
    monkeypatch.setattr(chunk_size, "quick_ms", lambda *_, **__: next(times))
    asked = (tmp_path / "m.onnx", SHAPE, 32, torch.device("cpu"))
    assert chunk_size.chunk_entry(*asked) == {"chunk": None}


def test_no_chunk_size_is_kept_beside_other_work(timed_chunks, tmp_path, caplog):
    _, busy = timed_chunks
    asked = (tmp_path / "m.onnx", SHAPE, 32, torch.device("cpu"))
    busy[:] = [0.9, 0.1]
    assert chunk_size.chunk_entry(*asked) == {"chunk": 2}  # quiet the second time
    busy[:] = [0.9]
    assert chunk_size.chunk_entry(*asked) == {}
    assert "kept 0.9 cores busy" in caplog.text


def test_chunk_sizes_are_measured_anew_on_request(trained, monkeypatch, tmp_path):
    export_model(trained[0], tmp_path, trained[1], formats=["onnx", "pt2"], time_artifacts=False)
    monkeypatch.setattr(chunk_size, "chunk_entry", lambda *arguments: {"chunk": 7})
    assert chunk_size.tune_chunks(tmp_path) == {"onnx": 7}
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["artifacts"]["onnx"]["chunk"] == 7
    monkeypatch.setattr(chunk_size, "chunk_entry", lambda *arguments: {})
    assert chunk_size.tune_chunks(tmp_path) == {}
    assert json.loads((tmp_path / "manifest.json").read_text()) == content
    load(tmp_path, "onnx")


def test_openvino_reads_the_same_network(trained, tmp_path):
    pytest.importorskip("openvino")
    model, data = trained
    export_model(model, tmp_path, data, formats=["openvino"], time_artifacts=False)
    loaded = load(tmp_path, "openvino")
    kept = []
    for batch in (1, 5, 1):
        x = torch.randn(batch, *SHAPE)
        kept.append((loaded(x), model(x).detach()))
    for found, wanted in kept:  # an earlier result is not written over
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_openvino_runs_in_its_own_precision_and_in_int8(trained, tmp_path):
    openvino = pytest.importorskip("openvino")
    model, data = trained
    manifest = export_model(
        model, tmp_path, data, formats=["openvino_default", "openvino_int8"], time_artifacts=False
    )
    own = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    found = manifest["artifacts"]["openvino_default"]
    assert found["precision"] == {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}[own]
    assert (
        found["kind"] == {"f32": "openvino", "bf16": "openvino_bf16", "f16": "openvino_fp16"}[own]
    )
    assert manifest["artifacts"]["openvino_int8"]["val_agreement"] > 0.9
    for name in manifest["artifacts"]:
        logits = load(tmp_path, name)(data.x[:5])
        assert (logits.argmax(1) == model(data.x[:5]).argmax(1)).all()


def test_the_precision_is_what_the_runtime_says(monkeypatch):
    class Core:
        said = "bf16"

        def get_property(self, *names):
            return SimpleNamespace(get_type_name=lambda: Core.said)

    monkeypatch.setattr(extras, "obstacle", lambda *a: None)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=Core))
    cpu = torch.device("cpu")
    form = FORMATS["openvino_default"].settled(cpu)
    assert (form.kind, form.precision) == ("openvino_bf16", "bf16")
    Core.said = "f8"
    with pytest.raises(ExportError, match="'f8'"):
        FORMATS["openvino_default"].settled(cpu)
    assert FORMATS["onnx"].settled(cpu) is FORMATS["onnx"]


def test_absent_runtimes_are_named_with_their_remedy(trained, tmp_path, monkeypatch):
    real = extras.importlib.util.find_spec
    monkeypatch.setattr(
        extras.importlib.util, "find_spec", lambda name: None if name == "openvino" else real(name)
    )
    with pytest.raises(ExportError, match=r"darts-core\[openvino\]"):
        export_model(*trained[:1], tmp_path, trained[1], formats=["openvino"])
    with pytest.raises(ExportError, match="TensorRT runs on an NVIDIA GPU"):
        export_model(*trained[:1], tmp_path, trained[1], formats=["tensorrt_fp16"])
    assert not list(tmp_path.glob("model*"))


def settled(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        model.train()(torch.randn(8, 3, 16, 16))
    return model.eval()


NETWORKS = {
    "DARTS_V2": lambda: build(Architecture.named("DARTS_V2"), channels=8, layers=4),
    "nasbench201": lambda: build(
        Architecture.from_text(
            "|nor_conv_1x1~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|avg_pool_3x3~1|skip_connect~2|"
        ),
        channels=8,
        layers=1,
    ),
    "mobilenetv2": lambda: baseline("mobilenetv2", 10, 3, 8),
}


@pytest.fixture(scope="module")
def programs():
    made = {}

    def program(name):
        if name not in made:
            model, shape = settled(NETWORKS[name]()), (3, 16, 16)
            made[name] = (model, trace(fold_batch_norms(model, shape), shape))
        return made[name]

    return program


@pytest.mark.parametrize(
    "name", ["DARTS_V2", "nasbench201", pytest.param("mobilenetv2", marks=pytest.mark.full)]
)
def test_fused_program_computes_what_eager_computes(programs, name):
    """On a CPU the stages run their reference: this proves matching, sums and placements."""
    model, program = programs(name)
    shape = (3, 16, 16)
    fused = FusedProgram(program, torch.device("cpu"), torch.float32)
    x = torch.randn(3, *shape)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)
    assert fused.fused > 0


def test_every_separable_convolution_of_a_darts_net_is_one_stage(programs):
    model, program = programs("DARTS_V2")
    steps = plan_steps(program)
    stages = [step for step in steps if step.point is not None]
    depthwise = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    ]
    assert sum(step.deep is not None for step in stages) == len(depthwise)
    left = [str(s.node.target) for s in steps if s.point is None]
    assert left.count("aten.conv2d.default") == 1  # the stem
    assert "aten.batch_norm.default" not in left
    # in a normal cell of DARTS_V2 every node with a convolution has its sum inside a stage
    assert sum(step.addend is not None for step in stages) >= 6
    assert all(step.into is not None for step in stages if step.addend is not None)


@pytest.mark.full
def test_native_code_is_written_verified_and_trusted_only_on_request(trained, tmp_path):
    model, data = trained
    manifest = export_model(model, tmp_path, data, formats=["aoti"], time_artifacts=False)
    assert manifest["artifacts"]["aoti"]["native"]
    with pytest.raises(ExportError, match="trust=True"):
        load(tmp_path, "aoti")
    loaded = load(tmp_path, "aoti", trust=True)
    for batch in (1, 5):
        x = torch.randn(batch, *SHAPE)
        torch.testing.assert_close(loaded(x), model(x).detach(), rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "manifest.json").read_text())["artifacts"]["aoti"]
