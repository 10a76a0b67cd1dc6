import json
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_fixture as fixture

from darts_core.architecture import Architecture, CellChoice
from darts_core.errors import ConfigError
from darts_core.report import (
    front_png,
    write_report,
    write_seeds_report,
)
from darts_core.report.models_table import reference
from darts_core.report.overview import costs, total_cost
from darts_core.report.prune_export import pruned_layers
from darts_core.report.read import StageRun, VersionRun, read_version
from darts_core.report.results import final_row, headline
from darts_core.report.rows import ModelRow
from darts_core.report.seeds import agreement, seeds_summary
from darts_core.report.trials import read_trials
from darts_core.report.tuning import tune_section
from darts_core.runlog import read_json, write_json, write_text
from darts_core.study.importance import importance

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Checker(HTMLParser):
    """Collects tags, attributes and text, and checks that elements nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parse(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text())
    checker.close()
    assert checker.open == []
    return checker


def assert_inert(page: Checker) -> None:
    """No scripts, no handlers, nothing loaded from outside."""
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "link", "img", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href", "action"}:
                assert (value or "").startswith("#")
            assert "url(" not in (value or "")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture.make_version(tmp_path_factory.mktemp("runs"))


def test_whole_report_is_one_self_contained_page(version: Path) -> None:
    page = parse(write_report(version))
    assert_inert(page)
    policy = [
        a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    source = (version / "report.html").read_text()
    assert "prefers-color-scheme:dark" in source
    assert not re.search(r"https?://", source)
    assert len(source) < 600_000
    sections = [a["id"] for t, a in page.tags if t == "section"]
    assert sections == [
        "result", "architecture", "search", "train", "tune", "prune", "export", "cost", "guards", "again",
    ]  # fmt: skip


def test_report_states_the_result_against_the_baseline(version: Path) -> None:
    page = parse(write_report(version))
    text = " ".join(page.words)
    # exported ONNX: 4.0 ms * 0.3 at batch 32, the baseline in ONNX 6.9 ms * 0.36
    assert "98.3 % test accuracy at 1.2 ms for a batch of 32" in text
    assert "2.07× faster than resnet8 (onnxruntime)" in text
    assert "dominant eigenvalue grew" in text
    assert (
        "<b>similarity</b> watched the search and did not fire"
        in (version / "report.html").read_text()
    )
    assert "<b>eigenvalue</b> watched" not in (version / "report.html").read_text()
    assert "darts-core run experiment=demo seed=0" in text
    assert "kept out of the front (hollow marks): exported (onnxruntime int8)" in text
    for op in ("sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3", "skip_connect"):
        assert op in text


def test_sections_appear_only_with_their_stage(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "V001"
    fixture.make_search(folder / "search", space="nasbench201", epochs=3)
    page = parse(write_report(folder))
    assert [a["id"] for t, a in page.tags if t == "section"] == [
        "architecture", "search", "cost", "guards", "again",
    ]  # fmt: skip
    assert "An architecture found in 2 min 6 s" in " ".join(page.words)


def test_every_further_number_is_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "V001"
    fixture.make_search(folder / "search", epochs=3)
    path = folder / "search" / "metrics.jsonl"
    rows = [{**json.loads(line), "expected_latency_ms": 3.0 - i, **{f"m{n}": i for n in range(30)}}
            for i, line in enumerate(path.read_text().splitlines())]  # fmt: skip
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    text = " ".join(parse(write_report(folder)).words)
    assert "expected latency ms" in text
    assert "m9" in text
    assert re.search(r"More measurements \(24 of \d+\)", text)


def test_unfinished_and_damaged_stages_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "V001"
    fixture.make_search(folder / "search", epochs=2)
    (folder / "search" / "result.json").unlink()
    (folder / "train").mkdir()
    (folder / "train" / "result.json").write_text("{torn")
    (folder / "bench").mkdir()
    write_json(folder / "bench" / "results.json", {"rows": [{"nameless": 1}]})
    text = " ".join(parse(write_report(folder)).words)
    assert "search has not finished" in text.replace("  ", " ")
    assert "is not valid JSON" in text
    assert "has no name" in text


def test_a_seed_of_a_version_is_named_with_its_commands(tmp_path: Path) -> None:
    version = tmp_path / "digits-darts" / "V003"
    fixture.make_search(version / "seed1" / "search", epochs=2)
    details = {"overrides": ["seeds=2", "architecture='|a~0|'"], "multirun": True}
    more = {"tune": {"config_dir": "/my conf"}, "train": {"resume_line": "torchrun -m x train"}}
    write_json(version / "version.json", {"commands": {"search": details, **more}})
    text = " ".join(parse(write_report(version / "seed1")).words)
    assert "digits-darts · V003/seed1" in text
    assert shlex.join(["darts-core", "search", "-m", *details["overrides"]]) in text
    assert "darts-core tune --config-dir '/my conf'\ntorchrun -m x train" in text


def test_a_folder_without_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match="at least one run folder"):
        seeds_summary([])


EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e'


def test_hostile_names_are_inert_everywhere(tmp_path: Path) -> None:
    folder = fixture.make_version(tmp_path)
    for name in ("search", "train", "tune", "prune", "export"):
        result = read_json(folder / name / "result.json")
        result["guards"] = [{"guard": EVIL, "message": EVIL}, EVIL]
        result["warnings"] = EVIL
        result["tabular"] = {EVIL: EVIL}
        result[EVIL] = EVIL
        if name == "tune":
            result["objective"] = EVIL
            for trial in result["trials"]:
                trial["params"] = {EVIL: EVIL + str(trial["number"]), "x": trial["number"]}
        write_json(folder / name / "result.json", result)
        write_json(folder / name / "environment.json", {EVIL: EVIL, "packages": {EVIL: EVIL}})
        write_text(folder / name / "config.yaml", f"{name!r}: {{name: {EVIL.encode()!r}}}\n")
    rows = [{"epoch": e, "alphas": {EVIL: [[0.5, 0.5]]}, "ops": [EVIL, "b"], "train_loss": EVIL}
            for e in range(3)]  # fmt: skip
    write_text(
        folder / "search" / "metrics.jsonl",
        "".join(f"{json.dumps(r)}\n" for r in rows),
    )
    evil = Architecture("darts", (("normal" + EVIL, CellChoice(((0, 1, EVIL),), (1,))),))
    evil.to_yaml(folder / "search" / "architecture.yaml")
    write_json(
        folder / "prune" / "pruning.json", {"layers": [{"name": EVIL, "before": 9, "after": 3}]}
    )
    write_json(folder / "export" / "manifest.json", {"artifacts": {EVIL: {EVIL: EVIL}}, EVIL: EVIL})
    bench = fixture.bench_rows()
    for item in bench:
        item.update(name=EVIL + item["name"], runtime=EVIL, precision=EVIL, data=EVIL)
    write_json(folder / "bench" / "results.json", {"rows": bench})
    write_json(folder / "version.json", {"commands": {EVIL: {"overrides": [EVIL]}}})
    page = parse(write_report(folder, title=EVIL))
    assert_inert(page)
    source = (folder / "report.html").read_text()
    assert "<script" not in source
    assert "\x1b" not in source
    assert "\u202e" not in source
    seeds = tmp_path / "seeds.html"
    write_seeds_report([folder, folder], seeds, title=EVIL)
    assert_inert(parse(seeds))
    assert "<script" not in seeds.read_text()


def test_metrics_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "V001"
    fixture.make_train(folder / "train", epochs=2)
    write_text(
        folder / "train" / "metrics.jsonl",
        '{"epoch": "x", "loss": 1}\n{"epoch": 1, "loss": null}\n{"epoch": 2, "loss": [1]}\n3\n'
        '{"epoch": 3, "loss": 1e400, "val_accuracy": true}\n{"torn',
    )
    result = read_json(folder / "train" / "result.json")
    result.update(test_accuracy="high", params={"a": 1}, device_seconds=-1)
    write_json(folder / "train" / "result.json", result)
    page = parse(write_report(folder))
    text = " ".join(page.words)
    # the accuracy that is a number stays; the others leave no tile and no curve
    assert "val accuracy" in text
    for word in ("high", "test accuracy", "parameters"):
        assert word not in text
    assert 'class="series' not in (folder / "report.html").read_text()


def test_cost_is_a_multiple_of_one_training(version: Path) -> None:
    run = read_version(version)
    seconds, unit = costs(run)
    assert unit == 61.0
    assert total_cost(run) == pytest.approx(sum(seconds.values()) / 61.0)


def test_comparison_takes_the_same_runtime_and_the_latest_step() -> None:
    rows = [ModelRow.from_dict(item) for item in fixture.bench_rows()]
    last = final_row(rows, 32)
    assert last is not None
    assert (last.kind, last.runtime) == ("exported", "onnxruntime")
    base = reference(rows, last, 32)
    assert base is not None
    assert (base.name, base.runtime) == ("resnet8", "onnxruntime")
    without = [row for row in rows if not (row.baseline and row.runtime == "onnxruntime")]
    fallback = reference(without, last, 32)
    assert fallback is not None
    assert fallback.runtime == "eager"


def test_report_admits_when_nothing_beats_the_baseline(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "V001"
    fixture.make_train(folder / "train", epochs=2)
    rows = [item for item in fixture.bench_rows() if item["name"] in ("resnet8", "searched")]
    for item in rows:
        if item["name"] == "searched":
            item["accuracies"] = [0.9, 0.91, 0.92]
    write_json(folder / "bench" / "results.json", {"rows": rows})
    text = " ".join(parse(write_report(folder)).words)
    assert "nothing is both faster than resnet8" in text
    assert "slower than resnet8" in text
    assert "less accurate" in text


def test_an_eager_baseline_is_named_as_such_beside_another_runtime(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "V001"
    fixture.make_train(folder / "train", epochs=2)
    rows = [
        r for r in fixture.bench_rows() if not (r["kind"] == "baseline" and r["runtime"] != "eager")
    ]
    write_json(folder / "bench" / "results.json", {"rows": rows})
    text = " ".join(parse(write_report(folder)).words)
    assert "5.75× faster than resnet8 (eager)" in text


def test_times_under_load_are_shown_but_not_compared(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "V001"
    fixture.make_train(folder / "train", epochs=2)
    rows = fixture.bench_rows()
    for item in rows:
        for time in item["latency"].values():
            time["flagged"] = True
    write_json(folder / "bench" / "results.json", {"rows": rows})
    page = parse(write_report(folder))
    text = " ".join(page.words)
    assert re.search(
        r"98.3 % test accuracy The exported \(\w+\) model is .* resnet8\. All",
        " ".join(text.split()),
    )
    assert "none is compared" in text
    assert "faster than" not in text
    source = (folder / "report.html").read_text()
    assert source.count('class="hollow') == 2 * len(rows)
    assert 'class="front"' not in source
    assert front_png([ModelRow.from_dict(r) for r in rows], tmp_path / "f.png").is_file()


def test_two_devices_give_a_sentence_instead_of_a_front(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "V001"
    fixture.make_train(folder / "train", epochs=2)
    rows = fixture.bench_rows()[:4] + fixture.bench_rows(device="other card")[4:6]
    write_json(folder / "bench" / "results.json", {"rows": rows})
    text = " ".join(parse(write_report(folder)).words)
    assert "cannot share one front" in text


def test_importance_finds_the_parameter_that_matters() -> None:
    rng = np.random.default_rng(0)
    draws = zip(rng.random(60), rng.random(60), rng.choice(["a", "b"], 60), strict=True)
    items = [
        {"number": i, "state": "COMPLETE", "params": {"rate": r, "noise": n, "fixed": 1, "opt": o},
         "value": float(-((r - 0.5) ** 2))}
        for i, (r, n, o) in enumerate(draws)
    ]  # fmt: skip
    shares = importance([i["params"] for i in items], [i["value"] for i in items], maximize=True)
    assert next(iter(shares)) == "rate"
    assert shares["rate"] > 0.5
    assert max(shares["noise"], shares["opt"]) < 0.2
    assert "fixed" not in shares
    some = items[:3]
    assert importance([i["params"] for i in some], [i["value"] for i in some], maximize=True) == {}


def test_pruned_widths_run_from_the_first_round_to_the_last() -> None:
    rounds = [{"widths": {"a": [32, 24], "b": [8, 8]}}, {"widths": {"a": [24, 12], "c": "no"}}, 3]
    assert pruned_layers({"rounds": rounds}) == [("a", 32, 12), ("b", 8, 8)]
    assert pruned_layers({"layers": [{"name": "x", "before": 4, "after": 2}, {"name": "y"}]}) == [
        ("x", 4, 2)
    ]
    assert pruned_layers(None) == []


def test_study_shows_every_curve_and_the_front_of_two_objectives(version: Path) -> None:
    page = parse(write_report(version))
    text = re.sub(r"\s+", " ", " ".join(page.words))
    assert (
        "24 trials: 19 complete, 1 fail, 4 pruned; device time 3 min 25 s (forecast 4 min 0 s)"
        in text
    )
    assert "the budget of 24 trials is spent" in text
    assert "Objectives against each other" in text
    source = (version / "report.html").read_text()
    curves = source.split("Every trial&#39;s curve")[2].split("</svg>")[0]
    assert curves.count('class="series') == 24


def test_artifacts_state_error_size_and_time(version: Path) -> None:
    source = re.sub(r"<[^>]+>", " ", write_report(version).read_text())
    line = re.sub(r"\s+", " ", source[source.index("Artifacts") :])[:400]
    assert "pt2 pt2 fp32 cpu 2.1e-7 1 0.48 MB 1.1 onnx" in line
    assert "0.33 (loaded)" in line


def test_trials_are_read_leniently() -> None:
    items = [{"number": 2, "state": "TrialState.COMPLETE", "value": 1.0, "params": {"a": 1}},
             {"number": 1, "state": "FAIL", "value": "nan"}, {"state": "x"}, 3]  # fmt: skip
    trials = read_trials(items)
    assert [t.number for t in trials] == [1, 2]
    assert [t.complete for t in trials] == [False, True]
    assert read_trials(None) == []


def test_seeds_page_states_mean_spread_and_agreement(tmp_path: Path) -> None:
    folders = []
    for seed in range(3):
        folder = tmp_path / "job" / "V001" / str(seed)
        fixture.make_search(folder / "search", epochs=3, seed=seed)
        fixture.make_train(folder / "train", epochs=3, test=0.96 + 0.01 * seed)
        folders.append(folder)
    Architecture.named("DARTS_V1").to_yaml(folders[0] / "search" / "architecture.yaml")
    summary = seeds_summary(folders)
    assert summary["test_accuracy"]["mean"] == pytest.approx(0.97)
    assert summary["test_accuracy"]["std"] == pytest.approx(0.01)
    assert summary["test_accuracy"]["worst"] == pytest.approx(0.96)
    assert summary["distinct_architectures"] == 2
    page = parse(write_seeds_report(folders, tmp_path / "seeds.html"))
    assert_inert(page)
    assert "97.00 ± 1.00 % test accuracy over 3 seeds" in " ".join(page.words)


def test_agreement_is_the_mean_overlap_of_edges() -> None:
    first, second = Architecture.named("DARTS_V1"), Architecture.named("DARTS_V2")
    assert agreement([first, first, first]) == 1.0
    assert agreement([first]) is None
    value = agreement([first, second])
    assert value is not None
    a = {(k, *e) for k, c in first.cells for e in c.edges}
    b = {(k, *e) for k, c in second.cells for e in c.edges}
    assert value == pytest.approx(len(a & b) / len(a | b))


def test_the_package_loads_neither_torch_nor_matplotlib() -> None:
    import subprocess

    code = (
        "import sys, darts_core.report as r; r.write_report; r.accuracy_latency_front; r.write_seeds_report;"
        "print([m for m in ('torch', 'matplotlib', 'optuna', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_version_that_was_only_tuned_is_headed_by_what_tuning_gave(tmp_path):
    result = {"val_accuracy": 0.875, "trials": [{}, {}, {}], "device_seconds": 90.0}
    tune = StageRun("tune", tmp_path, result=result, finished=True)
    title, more = headline(VersionRun(tmp_path, "job", "V001", {"tune": tune}), [])
    assert title.startswith("87.5")
    assert "3 trials" in more
    running = VersionRun(tmp_path, "job", "V001", {"tune": StageRun("tune", tmp_path)})
    assert headline(running, []) == ("job V001", "Not finished yet: tune.")


def test_a_version_that_was_only_pruned_is_headed_by_what_that_gave(tmp_path):
    result = {"test_accuracy": 0.979, "latency_before_ms": 8.4, "latency_after_ms": 4.2}
    prune = StageRun("prune", tmp_path, result=result, finished=True)
    title, more = headline(VersionRun(tmp_path, "job", "V001", {"prune": prune}), [])
    assert title.startswith("97.9")
    assert "Pruned from 8.4 to 4.2 ms, 2× faster." in more


def test_a_study_states_the_gain_against_the_users_own_settings(tmp_path):
    rows = ((n, {"x": v}, v) for n, v in enumerate((0.5, 0.75)))
    trials = [{"number": n, "state": "complete", "params": p, "value": v} for n, p, v in rows]
    result = {"trials": trials, "best_number": 1, "best_value": 0.75}
    own = {"baseline_number": 0, "baseline_value": 0.5, "gain": 0.25}

    def note(**more):
        stage = StageRun("tune", tmp_path, result={**result, **more}, finished=True)
        return tune_section(VersionRun(tmp_path, "job", "V001", {"tune": stage})).note

    assert "0.75 against 0.5 with your own settings, 0.25 better (one seed)" in note(**own)
    assert "own settings" not in note()
    beaten = {**own, "best_number": 0, "best_value": 0.5, "gain": 0.0}
    assert "nothing beat your own settings (0.5)" in note(**beaten)
    equal = {"baseline_value": 0.75, "gain": 0.0}  # where another objective decides
    assert "; 0.75 as with your own settings (one seed)" in note(**{**own, **equal})
    outside = note(**{**own, "baseline_value": 1.0, "gain": -0.25})
    assert "1 with your own settings, which break a constraint: 0.25 worse (one seed)" in outside
