import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from darts_core.bench.models import (
    ModelCase,
    SeedRun,
    bench_case,
    saved_case,
    saved_runs,
    train_seeds,
)
from darts_core.bench.runtimes import (
    Prepared,
    available_runtimes,
    check_runtimes,
    evaluate_prepared,
    prepare,
)
from darts_core.bench.timed import Untimed, time_models, with_times
from darts_core.data import load_data
from darts_core.errors import ConfigError, ExportError, ResumeError
from darts_core.report.rows import Latency, ModelRow
from darts_core.runlog import write_json, write_yaml
from darts_core.train import TrainConfig, baseline, evaluate, load_model

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    epochs=1, batch_size=64, learning_rate=0.05, drop_path=0.0, cutout=0, crop_padding=0, flip=False
)


@pytest.fixture(scope="module")
def bundle() -> Any:
    return load_data("digits", limit=400, test_limit=100)


@pytest.fixture(scope="module")
def case(bundle: Any) -> ModelCase:
    node = {"name": "resnet8", "num_classes": 10, "in_channels": 1, "width": 4}
    return ModelCase("resnet8", "baseline", make=lambda: baseline(**node), meta={"baseline": node})


@pytest.fixture(scope="module")
def runs(bundle: Any, case: ModelCase, tmp_path_factory: pytest.TempPathFactory) -> list[SeedRun]:
    folder = tmp_path_factory.mktemp("trained")
    return train_seeds(case, bundle, CONFIG, seeds=(0, 1), device=CPU, folder=folder)


def test_seeds_are_trained_once_and_tested(
    bundle: Any, case: ModelCase, runs: list[SeedRun]
) -> None:
    assert [run.seed for run in runs] == [0, 1]
    for run in runs:
        model, _ = load_model(run.path)
        assert evaluate(model, bundle, "test").accuracy == run.test
    reads = bundle.test_reads
    folder = runs[0].path.parent.parent
    again = train_seeds(case, bundle, CONFIG, seeds=(0, 1), device=CPU, folder=folder)
    assert again == runs
    assert bundle.test_reads == reads
    changed = TrainConfig(**{**vars(CONFIG), "epochs": 2})
    with pytest.raises(ResumeError, match="another configuration"):
        train_seeds(case, bundle, changed, seeds=(0,), device=CPU, folder=folder)
    for split in ("val", "test"):  # of a file that was changed, which no setting tells
        other = replace(bundle, parts={**bundle.parts, split: bundle.parts[split][1:]})
        with pytest.raises(ResumeError, match=r"result\.json was written on other data"):
            train_seeds(case, other, CONFIG, seeds=(0,), device=CPU, folder=folder)


def test_rows_hold_size_spread_and_times(
    bundle: Any, case: ModelCase, runs: list[SeedRun], tmp_path: Path
) -> None:
    untimed = bench_case(
        case, runs, bundle, runtimes=["eager", "onnx"], device=CPU, folder=tmp_path,
        precisions=("fp32", "bf16"),
    )  # fmt: skip
    rows = with_times(untimed, device=CPU, batch_sizes=(1, 4), seconds=0.05)
    assert [(r.runtime, r.precision) for r in rows] == [
        ("eager", "fp32"), ("eager", "bf16"), ("onnx", "fp32"),
    ]  # fmt: skip
    for row in rows:
        assert row.baseline
        assert row.n == 2
        assert set(row.latency) == {1, 4}
        assert row.device == row.latency[1].device
        assert row.latency[1].n >= 5
        assert 0 < row.latency[1].q05_ms <= row.latency[1].median_ms <= row.latency[1].q95_ms
    plain, low, onnx = rows
    assert plain.accuracies == onnx.accuracies == tuple(run.test for run in runs)
    assert low.accuracies == pytest.approx(plain.accuracies, abs=0.03)
    assert plain.params == sum(p.numel() for p in load_model(runs[0].path)[0].parameters())
    assert plain.macs > 10_000
    assert plain.extra["seeds"] == [0, 1]


def test_low_precision_rows_are_evaluated_themselves(
    bundle: Any,
    case: ModelCase,
    runs: list[SeedRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def spy(ready: Any, data: Any, split: str = "test") -> float:
        seen.append(ready.precision)
        return evaluate_prepared(ready, data, split)

    monkeypatch.setattr("darts_core.bench.models.evaluate_prepared", spy)
    list(bench_case(case, runs, bundle, runtimes=["eager"], device=CPU, folder=tmp_path,
                    precisions=("fp32", "bf16")))  # fmt: skip
    assert seen == ["bf16", "bf16"]


COMPILES = [pytest.mark.full, pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")]


@pytest.mark.parametrize(
    "runtime", ["eager", "channels_last", "pt2", pytest.param("compile_max", marks=COMPILES)]
)
def test_every_runtime_gives_the_logits_of_the_model(
    runtime: str, bundle: Any, runs: list[SeedRun], tmp_path: Path
) -> None:
    model, _ = load_model(runs[0].path)
    ready = prepare(model, runtime, device=CPU, bundle=bundle, folder=tmp_path)
    x_BCHW = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        wanted = model(x_BCHW)
    torch.testing.assert_close(ready.call(x_BCHW), wanted, rtol=1e-3, atol=1e-4)
    assert next(model.parameters()).dtype == torch.float32


class _Tokens(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.nn.Embedding(16, 8)

    def forward(self, x_BT: torch.Tensor) -> torch.Tensor:
        return self.rows(x_BT).mean(1)


class _Several(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # torch copies no weight that weight_norm derived
        self.layer = torch.nn.utils.weight_norm(torch.nn.Conv1d(3, 4, 3))

    def forward(self, x_BCT: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.layer(x_BCT)
        return {"values": found, "best": found.argmax(1)}


@pytest.mark.parametrize("runtime", ["eager", "channels_last"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tokens_series_and_several_outputs_run_in_memory_too(
    runtime: str, precision: str, tmp_path: Path
) -> None:
    options = {"device": CPU, "bundle": None, "folder": tmp_path, "precision": precision}
    tokens, x_BT = _Tokens(), torch.randint(16, (2, 5))
    with torch.no_grad():
        wanted = tokens(x_BT)
    found = prepare(tokens, runtime, **options).call(x_BT)
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
    several = prepare(_Several(), runtime, **options).call(torch.randn(2, 3, 9))
    assert (several["values"].dtype, several["best"].dtype) == (torch.float32, torch.int64)
    assert several["values"].shape == (2, 4, 7)


def test_a_table_of_networks_of_tokens_is_timed(tmp_path: Path) -> None:
    ready = prepare(_Tokens(), "eager", device=CPU, bundle=None, folder=tmp_path)
    times = time_models([(ready, (5,))] * 2, device=CPU, batch_sizes=(2,), seconds=0.01)
    assert [list(one) for one in times] == [[2], [2]]


def test_the_best_mode_of_torch_compile_freezes_the_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs_of: dict[str, list[int]] = {"compile": [], "compile_max": []}
    now = ""
    whole = torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        inputs_of[now].append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, options: whole(model, backend=backend))
    monkeypatch.setattr("darts_core.export.extras.shutil.which", lambda _: "g++")
    for now in inputs_of:
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 3))
        ready = prepare(model, now, device=CPU, bundle=None, folder=tmp_path)
        for batch in (3, 5, 3):
            x_BCHW = torch.randn(batch, 1, 2, 4)
            with torch.no_grad():
                wanted = model(x_BCHW)
            torch.testing.assert_close(ready.call(x_BCHW), wanted)
    # images, and the batch where it is left open; beside them weights and biases that are no constants
    assert inputs_of["compile"]
    assert min(inputs_of["compile"]) >= 3
    assert len(inputs_of["compile_max"]) == len(inputs_of["compile"])
    assert max(inputs_of["compile_max"]) <= 2


@pytest.mark.parametrize(
    ("device", "order"),
    [("cpu", ["make", "make", "time 2"]), ("cuda", ["make", "time 1", "make", "time 1"])],
)
def test_on_a_gpu_a_model_is_timed_before_the_next_one_is_made(
    device: str, order: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def rows() -> Any:
        for name in ("a", "b"):
            steps.append("make")
            ready = prepare(_Tokens(), "eager", device=CPU, bundle=None, folder=tmp_path)
            yield Untimed(ModelRow(name), ready, (5,))

    def times(group: Any, **_: Any) -> Any:
        steps.append(f"time {len(group)}")
        return [{1: Latency(1.0, device="here")} for _ in group]

    monkeypatch.setattr("darts_core.bench.timed.time_models", times)
    found = with_times(rows(), device=torch.device(device))
    assert [(row.name, row.device) for row in found] == [("a", "here"), ("b", "here")]
    assert steps == order


def test_trained_files_are_taken_as_they_are(
    bundle: Any, runs: list[SeedRun], tmp_path: Path
) -> None:
    found = saved_case(runs[0].path.parent.parent, name="again", kind="tuned")
    assert len(found.trained) == 2
    taken = train_seeds(found, bundle, CONFIG, seeds=(), device=CPU, folder=tmp_path)
    assert [run.test for run in taken] == [run.test for run in runs]
    assert saved_case(runs[1].path).trained == (runs[1].path,)
    with pytest.raises(ConfigError, match=r"neither a saved model nor a folder"):
        saved_case(tmp_path)


def test_a_file_that_comes_alone_does_not_tell_what_it_cost(
    bundle: Any, runs: list[SeedRun], tmp_path: Path
) -> None:
    shutil.copy(runs[0].path, tmp_path / "model.pt")
    alone = saved_case(tmp_path, name="alone")
    for case, costed in ((alone, False), (saved_case(runs[0].path), True)):
        (run,) = saved_runs(case, bundle, device=CPU)
        (row,) = bench_case(case, [run], bundle, runtimes=["eager"], device=CPU, folder=tmp_path)
        assert ("device_seconds" in row.row.extra) is costed
        assert (run.device_seconds is not None) is costed


def test_what_a_stage_found_counts_for_its_own_data_alone(
    bundle: Any, runs: list[SeedRun], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(runs[0].path, tmp_path / "model.pt")
    own = {"name": "digits", "limit": 400, "test_limit": 100}
    write_yaml(tmp_path / "config.yaml", {"data": own, "seed": 5})
    write_json(tmp_path / "result.json", {"test_accuracy": 0.125, "seed": 5, "device_seconds": 2.0})

    def found(data: Any) -> SeedRun:
        (run,) = saved_runs(saved_case(tmp_path), bundle, device=CPU, data=data)
        return run

    assert (found(own).test, found(own).seed) == (0.125, 5)
    assert found({**own, "seed": 0, "path": None}).test == 0.125  # the defaults, which it lacks
    for other in ({**own, "limit": 300}, {"name": "mnist"}, None):
        assert found(other).test == runs[0].test
        assert (found(other).seed, found(other).device_seconds) == (5, 2.0)
    kept, marks = {"test_accuracy": 0.125, "seed": 5}, bundle.marks
    for split in (None, "params", "test"):  # nothing of the settings tells that a file was changed
        told = marks if split is None else {**marks, split: "0"}
        write_json(tmp_path / "result.json", {**kept, "data_marks": told})
        caplog.clear()
        assert found(own).test == (0.125 if split is None else runs[0].test)
        assert (f"other samples or targets in {split})" in caplog.text) == (split is not None)
    (tmp_path / "config.yaml").write_text("data: [")
    assert found(own).test == runs[0].test


def test_mistakes_end_in_sentences(
    bundle: Any, case: ModelCase, runs: list[SeedRun], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'eager'"):
        check_runtimes(["eagre"], CPU)
    for captured in ("graph", "compile_graph", "compile_max_graph"):
        with pytest.raises(ConfigError, match="needs a CUDA device"):
            check_runtimes([captured], CPU)
    model, _ = load_model(runs[0].path)
    with pytest.raises(ConfigError, match="Unknown precision 'tf32'"):
        prepare(model, "eager", device=CPU, bundle=bundle, folder=tmp_path, precision="tf32")
    with pytest.raises(ConfigError, match="at least one seed"):
        train_seeds(case, bundle, CONFIG, seeds=(), device=CPU, folder=tmp_path)
    with pytest.raises(ConfigError, match="no trained network"):
        next(bench_case(case, [], bundle, runtimes=["eager"], device=CPU, folder=tmp_path))
    assert "graph" not in available_runtimes(CPU)
    assert {"eager", "onnx", "pt2"} <= set(available_runtimes(CPU))
    assert not {"fused_fp16", "fused_bf16", "tensorrt_fp16"} & set(available_runtimes(CPU))
    with pytest.raises(ConfigError, match="cannot run here: the fused path runs on a GPU"):
        check_runtimes(["fused_fp16"], CPU)


def test_exports_stay_below_the_folder_whatever_a_model_is_called(
    bundle: Any,
    case: ModelCase,
    runs: list[SeedRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places: list[Path] = []

    def spy(*_: Any, folder: Path, **__: Any) -> Prepared:
        places.append(folder)
        return Prepared(lambda x: x, "eager", "fp32")

    monkeypatch.setattr("darts_core.bench.models.prepare", spy)
    for name in (str(tmp_path / "runs" / "prune"), "../../up", "A b", "a-b"):
        one = replace(case, name=name)
        next(bench_case(one, runs, bundle, runtimes=["pt2"], device=CPU, folder=tmp_path / "files"))
    assert all(place.resolve().is_relative_to(tmp_path / "files") for place in places)
    assert len(set(places)) == 4


def test_nothing_is_compiled_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    there: dict[str, str | None] = {"found": "/usr/bin/g++"}
    monkeypatch.setattr("darts_core.export.extras.shutil.which", lambda _: there["found"])
    compiled = {"compile", "compile_max"}
    assert compiled <= set(available_runtimes(CPU))
    there["found"] = None
    assert not compiled & set(available_runtimes(CPU))
    assert "eager" in available_runtimes(CPU)
    with pytest.raises(
        ConfigError, match=r"'compile' cannot run here: torch\.compile needs a C\+\+"
    ):
        check_runtimes(["compile"], CPU)


def test_a_form_that_loses_too_much_has_no_row(
    bundle: Any, case: ModelCase, runs: list[SeedRun], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("darts_core.export.verify.FP32_LIMIT", -1.0)
    options = {"device": CPU, "folder": tmp_path}
    rows = bench_case(case, runs, bundle, runtimes=["eager", "pt2"], **options)
    assert [one.row.runtime for one in rows] == ["eager"]
    with pytest.raises(ExportError, match="was not written"):
        next(bench_case(case, runs, bundle, runtimes=["pt2"], **options))
