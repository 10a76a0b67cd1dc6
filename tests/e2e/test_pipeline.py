"""The whole pipeline in small: every stage on real images, selection without the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from darts_core import cli
from darts_core.runlog import read_json, read_jsonl, read_yaml
from darts_core.train import load_model

SMALL = [
    "run", "experiment=demo", "space=nasbench201", "relax=softmax", "aim=null",
    "reduce=prune", "search.epochs=1",
    "search.finalists=1", "search.learning_rate=0.025", "search.alpha_warmup_epochs=0", "search.channels=4",
    "search.alpha_learning_rate=null",  # by the steps: at the demo's own rate so few leave near-ties
    "search.batch_size=128", "train.channels=4", "train.epochs=2", "train.batch_size=128", "tune.trials=2",
    "prune.epochs=1", "prune.budget=90%", "prune.options.rounds=1", "prune.options.seconds=0.05",
    "export.options.max_seconds=0.05",
    "bench.baseline_width=4", "bench.seconds=0.05",
    "may_lose=1",  # what is pruned follows from timings, and what two epochs taught is soon lost
]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The version's folder after one small run, and where the test split was read."""
    from darts_core.data import DataBundle

    folder = tmp_path_factory.mktemp("pipeline")
    reads: list[str] = []
    original = DataBundle.split

    def watched(self: DataBundle, names: Any) -> Any:
        wanted = (names,) if isinstance(names, str) else tuple(names)
        if "test" in wanted:
            import traceback

            frames = [f.filename for f in traceback.extract_stack() if "/stages/" in f.filename]
            reads.append(Path(frames[-1]).stem)
        return original(self, names)

    patch = pytest.MonkeyPatch()
    patch.setattr(DataBundle, "split", watched)
    patch.chdir(folder)
    try:
        assert cli.main(SMALL) == 0
    finally:
        patch.undo()
    return folder / "runs" / "digits-nasbench201" / "V001", reads


def test_every_stage_leaves_its_folder(done: tuple[Path, list[str]]) -> None:
    version, _ = done
    stages = ["search", "searched", "tune", "train", "prune", "export", "bench"]
    stages += ["baseline/tune", "baseline/train"]
    for name in stages:
        for file in ("config.yaml", "environment.json", "result.json"):
            assert (version / name / file).is_file(), f"{name}/{file}"
    for artifact in ("search/architecture.yaml", "train/model.pt", "prune/model.pt", "tune/best.yaml",
                     "export/model.pt2", "export/model.onnx", "export/manifest.json",
                     "report.html"):  # fmt: skip
        assert (version / artifact).stat().st_size > 0, artifact


def test_the_picture_is_drawn_unless_every_time_was_taken_under_load(
    done: tuple[Path, list[str]],
) -> None:
    version, _ = done
    rows = read_json(version / "bench" / "results.json")["rows"]
    quiet = any(not time["flagged"] for row in rows for time in row["latency"].values())
    assert (version / "bench" / "front.png").is_file() or not quiet


def test_only_final_evaluations_read_the_test_split(done: tuple[Path, list[str]]) -> None:
    _, reads = done
    # searched, tuned and baseline network once each; the pruned one once; each exported file once
    assert sorted(reads) == ["models", "models", "prune", "train", "train", "train"]


def test_the_table_has_every_model_with_its_figures(done: tuple[Path, list[str]]) -> None:
    version, _ = done
    rows = read_json(version / "bench" / "results.json")["rows"]
    kinds = [(row["kind"], row["runtime"]) for row in rows]
    forms = ["eager", "pt2", "onnx"]
    # the baseline and the unpruned network stand in every form that the exported one comes in
    expected = [("baseline", form) for form in forms] + [("searched", form) for form in forms]
    expected += [("pruned", "eager"), ("tuned", "eager")]
    assert kinds == expected + [("exported", form) for form in forms[1:]]
    for row in rows:
        assert row["params"] > 0
        assert row["macs"] > 0
        assert 0.0 <= row["accuracy_mean"] <= 1.0
        assert set(row["latency"]) >= {"1"}
        for time in row["latency"].values():
            assert 0 < time["q05_ms"] <= time["median_ms"] <= time["q95_ms"]
            assert time["n"] >= 5


def test_the_final_training_uses_the_best_settings(done: tuple[Path, list[str]]) -> None:
    version, _ = done
    best = read_yaml(version / "tune" / "best.yaml")["params"]
    used = read_yaml(version / "train" / "config.yaml")["train"]
    assert best == {name: used[name] for name in best}


def test_what_is_tuned_trained_and_shipped_is_the_pruned_network(
    done: tuple[Path, list[str]],
) -> None:
    version, _ = done
    assert read_yaml(version / "prune" / "config.yaml")["model"] == "searched"
    for stage in ("tune", "train"):
        assert read_yaml(version / stage / "config.yaml")["model"] == "prune"
    saved = [
        load_model(version / stage / "model.pt")[0] for stage in ("prune", "train", "searched")
    ]
    pruned, trained, whole = ({n: p.shape for n, p in net.named_parameters()} for net in saved)
    assert trained == pruned != whole
    rows = read_json(version / "bench" / "results.json")["rows"]
    spent = {row["kind"]: row["extra"]["device_seconds"] for row in rows}
    stages = ("search", "searched", "prune", "tune", "train")
    took = {name: read_json(version / name / "result.json")["device_seconds"] for name in stages}
    assert spent["exported"] == spent["tuned"] == pytest.approx(sum(took.values()))
    assert spent["pruned"] == pytest.approx(took["search"] + took["searched"] + took["prune"])


def test_the_exported_files_agree_with_the_shipped_network(done: tuple[Path, list[str]]) -> None:
    version, _ = done
    manifest = read_json(version / "export" / "manifest.json")
    assert set(manifest["artifacts"]) == {"pt2", "onnx"}
    assert manifest["source"].endswith("train/model.pt")
    for artifact in manifest["artifacts"].values():
        assert artifact["relative_error"] <= 1e-4


def test_the_cost_of_each_stage_is_stated_in_trainings(done: tuple[Path, list[str]]) -> None:
    version, _ = done
    costs = read_json(version / "costs.json")["trainings"]
    assert costs["train"] == 1.0
    assert {"search", "tune", "prune", "export", "baseline tune"} <= set(costs)
    assert all(cost > 0 for cost in costs.values())


def test_metrics_hold_each_epoch_once(done: tuple[Path, list[str]]) -> None:
    version, _ = done
    assert [row["epoch"] for row in read_jsonl(version / "search" / "metrics.jsonl")] == [0]
    assert [row["epoch"] for row in read_jsonl(version / "train" / "metrics.jsonl")] == [0, 1]


def test_the_same_command_again_does_nothing(
    done: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    version, _ = done
    monkeypatch.chdir(version.parents[2])
    assert cli.main(SMALL) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out


def test_the_exported_model_predicts_from_the_command_line(
    done: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    version, _ = done
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    argv = ["predict", "--model", str(version / "export"), "--top", "3", str(tmp_path / "a.png")]
    assert cli.main(argv) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith(str(tmp_path / "a.png"))
    assert line.count(",") == 2
