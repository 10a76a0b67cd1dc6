"""`bench` of what a version holds: how sure its rows are, which settings count, what has no row."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from darts_core.bench.models import seed_settings
from darts_core.bench.results import read_results
from darts_core.bench.timed import Untimed
from darts_core.commands.compose import compose, session
from darts_core.data import DataBundle
from darts_core.errors import ConfigError, ExportError
from darts_core.export.manifest import sha256
from darts_core.models.baselines import baseline
from darts_core.report import ModelRow
from darts_core.runlog import RunFolder, code_mark, config_hash, write_yaml
from darts_core.settings import BenchOptions, to_plain
from darts_core.stages import bench as bench_stage
from darts_core.stages import compare, models
from darts_core.stages.bench import _READ, _say_unread, _untimed_rows, bench
from darts_core.stages.export import export
from darts_core.stages.inputs import load_bundle
from darts_core.stages.models import entries_of, measurable, untimed_row
from darts_core.store.locks import FileLock
from darts_core.train import evaluate, load_model, save_model

CPU = torch.device("cpu")
NODE = {"name": "resnet8", "num_classes": 10, "in_channels": 1, "width": 4}
DATA = ["data=digits", "data.limit=400", "data.test_limit=100", "device=cpu", "logger=none"]


def settings(*overrides: str) -> Any:
    with session() as extra:
        return compose("bench", [*DATA, "bench.seconds=0.02", *overrides], extra)


@pytest.fixture(scope="module")
def bundle() -> DataBundle:
    return load_bundle(settings(), CPU)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """A version with one network."""
    place = tmp_path / "runs" / "mine" / "V001"
    (place / "searched").mkdir(parents=True)
    (place / "version.json").write_text("{}")
    torch.manual_seed(0)
    save_model(place / "searched" / "model.pt", baseline(**NODE), {"baseline": NODE})
    return place


def exported(version: Path, **files: tuple[str, bytes]) -> None:
    """An export folder with a file for each form: (kind, content)."""
    folder = version / "export"
    folder.mkdir(exist_ok=True)
    artifacts = {}
    for name, (kind, content) in files.items():
        path = folder / f"{name}.bin"
        path.write_bytes(content)
        artifacts[name] = {
            "kind": kind, "precision": "fp32", "files": [{"name": path.name, "sha256": sha256(path)}],
        }  # fmt: skip
    manifest = {
        "schema_version": 1, "classes": [str(i) for i in range(10)], "input_shape": [1, 8, 8],
        "mean": [0.3], "std": [0.4], "artifacts": artifacts,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_row_of_one_seed_is_as_unsure_as_its_test_examples_leave_it(
    version: Path, bundle: DataBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(version, onnx=("onnx", b"plain"))
    monkeypatch.setattr(models, "load", lambda *_, **__: lambda x: torch.zeros(len(x), 10))
    entries = entries_of(version)
    assert [entry.name for entry in entries] == ["searched", "exported"]
    for entry in entries:
        row = untimed_row(entry, bundle, CPU).row
        share = row.accuracy_mean
        assert row.extra["test_examples"] == 100
        assert row.standard_error == pytest.approx((share * (1 - share) / 100) ** 0.5)


def test_what_was_pruned_and_what_was_shrunk_in_one_version_have_names_of_their_own(
    version: Path,
) -> None:
    shutil.copytree(version / "searched", version / "shrink")
    assert [entry.name for entry in entries_of(version)] == ["searched", "pruned"]
    shutil.copytree(version / "searched", version / "prune")
    found = [(entry.name, entry.kind, entry.folder.name) for entry in entries_of(version)]
    assert found[1:] == [("shrunk", "pruned", "shrink"), ("pruned", "pruned", "prune")]


def told(folder: Path, **result: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))


def exported_row(version: Path, source: str, bundle: DataBundle) -> Any:
    """The row of an export that names `source` as what was exported."""
    exported(version, onnx=("onnx", b"plain"))
    path = version / "export" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": source}))
    return untimed_row(entries_of(version)[-1], bundle, CPU).row


def test_what_was_exported_is_found_from_any_folder(
    version: Path, bundle: DataBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", lambda *_, **__: lambda x: torch.zeros(len(x), 10))
    (version / "searched" / "result.json").write_text('{"macs": 123, "device_seconds": 2.0}')
    told(version / "search", device_seconds=1.0)
    # what bears the same names here is another's
    told(tmp_path / "here" / "runs" / "mine" / "V001" / "searched", macs=9, device_seconds=9.0)
    told(tmp_path / "here" / "nets", macs=9)
    monkeypatch.chdir(tmp_path / "here")
    row = exported_row(version, "runs/mine/V001/searched/model.pt", bundle)
    assert (row.macs, row.extra["device_seconds"]) == (123, 3.0)
    # of a network that was given by name nothing is known
    (tmp_path / "here" / "result.json").write_text('{"macs": 9}')
    assert exported_row(version, "mynets:small", bundle).macs is None
    # another one's file is looked for from here
    assert exported_row(version, "nets/model.pt", bundle).macs == 9


def test_a_network_that_is_named_by_its_path_cost_what_its_search_took_too(
    version: Path, bundle: DataBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(version / "searched", device_seconds=2.0)
    row = ModelRow("searched", extra={"device_seconds": 2.0, "test_examples": 100})
    monkeypatch.setattr(compare, "train_seeds", lambda *_, **__: [])
    monkeypatch.setattr(compare, "bench_case", lambda *_, **__: [Untimed(row, None, ())])
    monkeypatch.setattr(compare, "with_times", lambda rows, **_: [one.row for one in rows])
    config = settings(f"model={version / 'searched'}", "runtime=eager")

    def cost() -> Any:
        (found,) = compare.compare(config, version / "bench", bundle, CPU)
        assert found.extra["test_examples"] == 100
        return found.extra.get("device_seconds")

    assert cost() == 2.0, "of a network that was not searched here its training is all"
    told(version / "search", device_seconds=1.0)
    assert cost() == 3.0
    told(version / "search")
    assert cost() is None


def test_all_rows_of_a_network_state_what_it_cost_in_all(
    version: Path, bundle: DataBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    (version / "searched").rename(version / "train")
    told(version / "train", device_seconds=2.0)
    one = Untimed(ModelRow("trained", extra={"device_seconds": 2.0}), None, ())  # type: ignore[arg-type]
    monkeypatch.setattr(models, "load", lambda *_, **__: lambda x: torch.zeros(len(x), 10))
    monkeypatch.setattr(bench_stage, "saved_runs", lambda *_, **__: [])
    monkeypatch.setattr(bench_stage, "bench_case", lambda *_, **__: [one])
    exported_row(version, str(version / "train" / "model.pt"), bundle)

    def costs() -> list[Any]:
        rows = _untimed_rows(settings(), version / "bench", bundle, CPU, entries_of(version))
        return [own.row.extra.get("device_seconds") for own in rows]

    assert costs() == [2.0] * 3  # eager, in the export's form, exported
    told(version / "search", device_seconds=1.0)
    assert costs() == [3.0] * 3
    told(version / "search")
    assert costs() == [None] * 3
    alone = version.parent / "V002" / "prune"
    told(alone, device_seconds=5.0)  # of a network that was trained elsewhere
    assert models._spent(alone, "pruned") == {}


def test_an_exported_int8_file_is_of_the_kind_that_no_headline_is_of(
    version: Path, bundle: DataBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", lambda *_, **__: lambda x: torch.zeros(len(x), 10))
    exported(version, onnx=("onnx", b"plain"), onnx_int8=("onnx", b"plain"))
    path = version / "export" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["artifacts"]["onnx_int8"]["precision"] = "int8"
    path.write_text(json.dumps(manifest))
    rows = [untimed_row(entry, bundle, CPU).row for entry in entries_of(version)[1:]]
    assert [(row.name, row.kind) for row in rows] == [
        ("exported", "exported"),
        ("exported", "int8"),
    ]


def test_a_format_that_loses_too_much_ends_no_pipeline(
    version: Path,
    bundle: DataBundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (version / "searched").rename(version / "train")
    monkeypatch.setattr(
        "darts_core.export.verify.judge",
        lambda precision, *_, **__: None if precision == "fp32" else "it loses 9 points",
    )
    words = ["export.formats=[pt2,pt2_bf16]", "export.options.time_artifacts=false"]
    with session() as extra:
        config = compose("export", [*DATA, *words], extra)
    # nor is what a stage found stated of a class whose code computes something else since
    data = to_plain(config.data)
    write_yaml(version / "train" / "config.yaml", {"data": data})
    told(version / "train", val_accuracy=0.99, test_accuracy=0.98)
    found = export(config, version / "export")
    assert list(found["formats"]) == ["pt2"]
    said = "model_bf16.pt2 was not written: it loses 9 points."
    assert found["warnings"] == [{"name": "pt2_bf16", "message": said}]
    assert [entry.runtime for entry in entries_of(version)] == ["eager", "pt2"]
    assert (found["test_accuracy"], found["val_accuracy"]) == (None, None)
    warned = "here, its training found 99.00 %: the code of the network or the inputs have changed"
    assert caplog.text.count(warned) == 1
    entry = entries_of(version)[0]
    model, _ = load_model(version / "train" / "model.pt")
    val, test = (evaluate(model, bundle, split).value for split in ("val", "test"))
    assert untimed_row(entry, bundle, CPU, data).row.accuracies == (test,)
    told(version / "train", val_accuracy=val, test_accuracy=0.98)
    assert untimed_row(entry, bundle, CPU, data).row.accuracies == (0.98,)
    assert caplog.text.count(warned) == 2


def test_native_code_and_what_cannot_run_here_have_no_row(
    version: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exported(
        version,
        pt2=("pt2", b"plain"),
        aoti=("aoti", b"\x7fELF and more"),
        onnx=("onnx", b"a graph with EPContext in it"),
        fused_fp16=("fused_fp16", b"plain"),
    )
    with caplog.at_level(logging.WARNING):
        kept = measurable(entries_of(version), CPU)
    assert [(e.kind, e.runtime) for e in kept] == [("searched", "eager"), ("exported", "pt2")]
    assert "exported in aoti is left out" in caplog.text
    assert "exported in onnx is left out: it is native code; `darts-core serve-bench" in caplog.text
    assert "exported in fused_fp16 is left out: the fused path runs on a GPU" in caplog.text
    shutil.rmtree(version / "searched")
    exported(version, aoti=("aoti", b"\x7fELF and more"))
    with pytest.raises(ExportError, match=r"can be measured here: exported in aoti is left out"):
        measurable(entries_of(version), CPU)


def test_a_form_that_one_network_cannot_take_leaves_the_other_rows(
    version: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (version / "searched").rename(version / "train")
    exported(version, pt2=("pt2", b"plain"))
    monkeypatch.setattr(models, "load", lambda *_, **__: lambda x: torch.zeros(len(x), 10))
    monkeypatch.setattr("darts_core.export.verify.FP32_LIMIT", -1.0)
    found = bench(settings(), version / "bench")
    rows = [(row["kind"], row["runtime"]) for row in found["rows"]]
    assert rows == [("trained", "eager"), ("exported", "pt2")]
    assert "trained is left out in pt2: model.pt2 was not written" in caplog.text


def test_the_settings_of_a_comparison_count_for_the_models_of_a_version(
    version: Path, tmp_path: Path
) -> None:
    words = ["runtime=channels_last", "bench.options.precisions=[bf16]",
             "bench.options.batch_sizes=[2]", f"bench.options.results={tmp_path}/kept"]  # fmt: skip
    found = bench(settings(*words), version / "bench")
    (row,) = found["rows"]
    assert (row["runtime"], row["precision"]) == ("channels_last", "bf16")
    assert list(row["latency"]) == ["2"]
    (kept,) = (tmp_path / "kept").glob("models_*_mine-v001.json")
    assert [one.runtime for one in read_results(kept).models()] == ["channels_last"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench.options.seeds=5", "bench.options.width=8"],
         "bench.options.seeds, bench.options.width: not read by bench without model="),
        (["what=step", "runtime=onnx", "bench.options.batch_sizes=[8]"],
         "runtime, bench.options.batch_sizes: not read by bench what=step"),
        (["what=tabular", "bench.options.results=kept"],
         "bench.options.results: not read by bench what=tabular"),
        (["model=resnet8", "bench.options.seeds=5", "bench.options.results=kept"], ""),
        (["what=kernels", "bench.options.precisions=[bf16]"], ""),
    ],
)  # fmt: skip
def test_what_a_comparison_does_not_read_is_said(
    words: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    _say_unread(settings(*words))
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text
    known = {item.name for item in fields(BenchOptions)}
    assert {name for names in _READ.values() for name in names} == known


def test_a_runtime_in_which_nothing_of_a_version_runs_is_a_sentence(version: Path) -> None:
    shutil.rmtree(version / "searched")
    exported(version, pt2=("pt2", b"plain"))
    with pytest.raises(
        ConfigError, match=r"no model that runs as runtime='eager'; name one of pt2"
    ):
        bench(settings("runtime=eager"), version / "bench")


def test_elements_of_a_multirun_share_the_networks_of_a_changed_policy(
    bundle: DataBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, Path]] = []

    def trained(case: Any, bundle: Any, config: Any, *, folder: Path, **_: Any) -> list[Any]:
        given.append((config.policy, folder))
        # elements that run side by side do not train the same networks at once
        assert not FileLock(folder / ".lock").try_acquire()
        return []

    monkeypatch.setattr(compare, "train_seeds", trained)
    monkeypatch.setattr(compare, "bench_case", lambda *_, **__: [])
    config = settings(
        "model=resnet8", "runtime=eager", "augment=randaugment", "augment.magnitude=7"
    )
    for element in ("0", "1"):
        compare.compare(config, tmp_path / "V001" / element / "bench", bundle, CPU)
    first, second = given
    # a policy's file is a part of the recipe: another one would be refused
    assert first == second
    assert Path(first[0]).parent == first[1].resolve()
    assert "magnitude: 7" in Path(first[0]).read_text()
    assert FileLock(first[1] / ".lock").try_acquire()


def test_a_seed_more_trains_one_more(
    bundle: DataBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another version of the job trained all of them again, also where it is only timed otherwise."""
    caplog.set_level("INFO", "darts_core")
    fresh: list[tuple[str, int]] = []

    def trained(
        case: Any, bundle: Any, config: Any, *, seeds: range, folder: Path, **_: Any
    ) -> list[Any]:
        for seed in seeds:
            stamp = seed_settings(case, bundle, config, seed)
            run = RunFolder.create(folder / f"seed{seed}", stamp, tensorboard=False)
            if not run.finished:
                fresh.append((folder.parent.parent.name, seed))
                (run.path / "model.pt").write_text(folder.parent.parent.name)
                run.finish(data_mark=config_hash(bundle.marks), code_mark=code_mark())
        return []

    monkeypatch.setattr(compare, "train_seeds", trained)
    monkeypatch.setattr(compare, "bench_case", lambda *_, **__: [])

    def measured(version: str, *words: str, seeds: int = 1, data: DataBundle = bundle) -> list[int]:
        fresh.clear()
        found = settings("model=resnet8", f"bench.options.seeds={seeds}", *words)
        compare.compare(found, tmp_path / version / "0" / "bench", data, CPU)
        assert {name for name, _ in fresh} <= {version}
        return [seed for _, seed in fresh]

    assert measured("V001", seeds=2) == [0, 1]
    assert measured("V002", "bench.options.batch_sizes=[1]", seeds=3) == [2]
    (kept,) = tmp_path.glob("V002/trained/*/seed1/model.pt")
    assert kept.read_text() == "V001"
    with monkeypatch.context() as patch:  # its version is deleted meanwhile
        patch.setattr(shutil, "copytree", lambda *_: Path("gone").rename("away"))
        assert measured("V002b") == [0]
    assert measured("V003", "train.epochs=3") == [0]
    changed = replace(bundle, parts={**bundle.parts, "val": bundle.parts["val"][1:]})
    assert measured("V004", data=changed) == [0]
    # what a file of the user's holds may have changed
    assert measured("V005", "plugins=[mine]") == [0]
    # edits of a checkout that are not committed make another program
    with monkeypatch.context() as patch:
        patch.setattr(compare, "code_mark", lambda: "edited")
        assert measured("V006") == [0]
    assert "not taken over: the program's own files were edited since" in caplog.text
    monkeypatch.setattr(compare, "environment", lambda: {"packages": {}, "commit": None})
    assert measured("V007") == [0]
