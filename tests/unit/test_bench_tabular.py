import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_fixture as fixture

from darts_core.architecture import Architecture
from darts_core.bench.tabular import TabularBenchmark, canonical, summarize
from darts_core.bench.tabular_compare import evolution, random_search, run
from darts_core.bench.tabular_read import open_table
from darts_core.bench.tabular_runs import found_in_runs
from darts_core.errors import ArchitectureError, ConfigError, DataError
from darts_core.runlog import read_json, read_yaml, write_yaml
from darts_core.settings import BenchOptions

OPS = ("none", "skip_connect", "nor_conv_3x3")


def text(ops: tuple[str, ...]) -> str:
    a, b, c, d, e, f = ops
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


@pytest.fixture(scope="module")
def table() -> TabularBenchmark:
    """All 729 cells of three operations; more convolutions are better, val follows test with noise."""
    texts, test = [], []
    for ops in itertools.product(OPS, repeat=6):
        texts.append(text(ops))
        test.append(0.1 + 0.12 * ops.count("nor_conv_3x3") + 0.02 * ops.count("skip_connect"))
    exact = np.array(test)
    val = np.clip(exact + np.random.default_rng(0).normal(0, 0.01, len(exact)), 0, 1)
    return TabularBenchmark(
        "toy", tuple(texts), {"toy:test": exact, "toy:val": val}, {"cpu": exact * 10}
    )


def test_lookup_gives_accuracy_regret_and_rank(table: TabularBenchmark) -> None:
    best = table.lookup(text(("nor_conv_3x3",) * 6))
    assert (best.rank, best.total, best.regret) == (1, 729, 0.0)
    assert best.percentile == 1.0
    assert best.latency_ms == {"cpu": pytest.approx(8.2)}
    second = table.lookup(text(("nor_conv_3x3",) * 5 + ("skip_connect",)), "toy:test")
    assert second.rank == 2  # six cells share it
    assert second.regret == pytest.approx(0.1)
    assert table.lookup(text(("none",) * 6)).rank == 729
    assert text(("none",) * 6) in table
    assert "|x~0|" not in table


def test_the_same_architecture_written_otherwise_is_found(table: TabularBenchmark) -> None:
    swapped = "|none~0|+|skip_connect~1|none~0|+|none~0|none~1|none~2|"
    assert table.lookup(swapped).architecture == text(
        ("none", "none", "skip_connect", "none", "none", "none")
    )
    assert table.lookup(Architecture.from_text(swapped)) == table.lookup(swapped)
    a = "Genotype(normal=[('x', 1), ('y', 0)], normal_concat=[2])"
    assert canonical(a) == canonical(a.replace("('x', 1), ('y', 0)", "('y', 0), ('x', 1)"))
    assert canonical(" 64:32:16 ") == "64:32:16"


def test_unknown_names_end_in_sentences(table: TabularBenchmark) -> None:
    with pytest.raises(ArchitectureError, match="does not hold"):
        table.lookup("|nor_conv_7x7~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    with pytest.raises(ConfigError, match=r"Did you mean 'toy:test'"):
        table.lookup(table.architectures[0], "toy:tests")
    assert table.column("toy")[0] == "toy:test"
    two = TabularBenchmark("two", ("a",), {"x": np.array([0.5]), "y": np.array([0.5])})
    with pytest.raises(ConfigError, match="several data sets"):
        two.column()


def test_tables_are_checked() -> None:
    one = np.array([0.5])
    for arguments, words in (
        (((), {"x": one}), "needs architectures"),
        ((("a", "a"), {"x": np.array([0.1, 0.2])}), "twice"),
        ((("a",), {"x": np.array([0.1, 0.2])}), "has shape"),
        ((("a",), {"x": np.array([1.2])}), "between 0 and 1"),
        ((("a",), {"x": one}, {"cpu": np.array([0.0])}), "above 0 ms"),
    ):
        with pytest.raises(DataError, match=words):
            TabularBenchmark("t", *arguments)  # type: ignore[arg-type]


def test_npz_round_trip_is_compact_and_needs_no_pickle(
    table: TabularBenchmark, tmp_path: Path
) -> None:
    path = table.save(tmp_path / "toy.npz")
    assert path.stat().st_size < 20_000
    again = open_table(path)
    assert again.architectures == table.architectures
    assert list(again.accuracies) == list(table.accuracies)
    np.testing.assert_allclose(again.accuracies["toy:val"], table.accuracies["toy:val"], atol=1e-7)
    np.testing.assert_allclose(again.latencies["cpu"], table.latencies["cpu"], rtol=1e-6)
    with np.load(path, allow_pickle=False) as stored:
        assert all(stored[key].dtype != object for key in stored.files)


def test_damaged_and_foreign_tables_are_refused(table: TabularBenchmark, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        open_table(tmp_path / "none.npz")
    (tmp_path / "torn.npz").write_bytes(table.save(tmp_path / "t.npz").read_bytes()[:500])
    np.savez(tmp_path / "object.npz", schema_version=np.array(1), name=np.array([{}], dtype=object))
    np.savez(tmp_path / "new.npz", schema_version=np.array(9))
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    for name, words in (
        ("torn", "damaged"),
        ("object", "damaged"),
        ("new", "schema_version 9"),
        ("other", "damaged"),
    ):
        with pytest.raises(DataError, match=words):
            TabularBenchmark.load(tmp_path / f"{name}.npz")
    with pytest.raises(DataError, match="is no table"):
        open_table(tmp_path / "x.parquet")


def test_summary_orders_strategies_by_median_rank(table: TabularBenchmark) -> None:
    best, worst = text(("nor_conv_3x3",) * 6), text(("none",) * 6)
    middle = text(("nor_conv_3x3",) * 5 + ("none",))
    rows = summarize(
        table, {"bad": [worst, worst], "good": [best, middle, best], "one": [middle]}, "toy:test"
    )
    assert [row["strategy"] for row in rows] == ["good", "one", "bad"]
    good = rows[0]
    assert good["n"] == 3
    assert good["median_rank"] == 1
    assert good["accuracy_mean"] == pytest.approx((0.82 + 0.82 + 0.7) / 3)
    assert good["accuracy_std"] == pytest.approx(np.std([0.82, 0.82, 0.7], ddof=1))
    assert good["accuracy_worst"] == pytest.approx(0.7)
    assert rows[1]["accuracy_std"] is None
    with pytest.raises(ConfigError, match="brought no architecture"):
        summarize(table, {"none": []}, "toy:test")


def test_black_box_strategies_see_their_budget_and_repeat(table: TabularBenchmark) -> None:
    def score(strategy: Any, budget: int) -> float:
        found = [
            strategy(table, "toy:val", budget=budget, rng=np.random.default_rng(s))
            for s in range(8)
        ]
        again = [
            strategy(table, "toy:val", budget=budget, rng=np.random.default_rng(s))
            for s in range(8)
        ]
        assert found == again
        return float(np.mean([table.lookup(text, "toy:test").accuracy for text in found]))

    assert score(random_search, 1) < score(random_search, 100)
    assert score(evolution, 100) > score(random_search, 100)
    whole = random_search(table, "toy:test", budget=10_000, rng=np.random.default_rng(0))
    assert table.lookup(whole).rank == 1
    with pytest.raises(ConfigError, match="tournament"):
        evolution(table, None, budget=10, rng=np.random.default_rng(0), population=2, tournament=5)


def test_evolution_knows_operations_that_only_late_rows_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early = [text(ops) for ops in itertools.product(OPS[:2], ("none",), *[OPS[:2]] * 4)]
    early += [text(ops) for ops in itertools.product(OPS[:2], ("nor_conv_1x1",), *[OPS[:2]] * 4)]
    early += [text(ops) for ops in itertools.product(*[("nor_conv_1x1", "avg_pool_3x3")] * 6)]
    early += [text(ops) for ops in itertools.product(*[("none", "avg_pool_3x3")] * 6)][1:-1]
    early += [text(ops) for ops in itertools.product(*[("skip_connect", "avg_pool_3x3")] * 6)][1:-1]
    late = [text(("nor_conv_3x3",) * 6)]
    assert len(set(early)) == len(early) > 200
    texts = (*early, *late)
    table = TabularBenchmark("best last", texts, {"x": np.linspace(0.1, 0.9, len(texts))})
    seen: set[str] = set()

    def spy(parent: str, ops: Any, rng: np.random.Generator) -> str:
        seen.update(ops)
        return parent

    monkeypatch.setattr("darts_core.bench.tabular_compare._mutated", spy)
    evolution(table, None, budget=25, rng=np.random.default_rng(0))
    assert seen == {*OPS, "nor_conv_1x1", "avg_pool_3x3"}


def test_command_compares_runs_and_baselines_on_a_csv(
    table: TabularBenchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = tmp_path / "toy.csv"
    lines = [
        f"{a},{v}" for a, v in zip(table.architectures, table.accuracies["toy:test"], strict=True)
    ]
    csv.write_text("\n".join(["architecture,accuracy", *lines]) + "\n")
    for seed in (0, 1):
        folder = tmp_path / "runs" / "job" / f"V00{seed + 1}" / "search"
        fixture.make_search(folder, space="nasbench201", epochs=1, seed=seed)
        Architecture.from_text(text(("nor_conv_3x3",) * 6)).to_yaml(folder / "architecture.yaml")
    options = {
        "table": str(csv), "runs": [str(tmp_path / "runs")], "budget": 20, "seeds": 4,
        "select": "default",
    }  # fmt: skip
    result = run(BenchOptions(**options), tmp_path / "out")
    first = result["rows"][0]
    assert first["strategy"] == "FirstOrder"
    assert (first["n"], first["median_rank"], first["total"]) == (2, 1, 729)
    assert first["budget"] == "126.0 s on the device"
    assert {row["strategy"] for row in result["rows"][1:]} == {
        "random search",
        "regularised evolution",
    }
    assert read_json(tmp_path / "out" / "results.json")["rows"] == result["rows"]
    assert "random search" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"bench.options.table=PATH"):
        run(BenchOptions(), tmp_path)
    with pytest.raises(ConfigError, match="no finished search"):
        found_in_runs([tmp_path / "out"])


def test_facts_for_a_search_result(table: TabularBenchmark, tmp_path: Path) -> None:
    saved = open_table(table.save(tmp_path / "toy.npz"))
    facts = saved.lookup(text(("nor_conv_3x3",) * 6), "toy:test").to_dict()
    assert facts["rank"] == 1
    assert saved.name == "toy"
    assert facts["accuracy"] == pytest.approx(0.82)


def two_searches(folder: Path, changed: dict[str, Any], seeds: tuple[int, int] = (0, 1)) -> None:
    """Two finished searches, the second with changed settings."""
    for number, seed in enumerate(seeds, start=1):
        place = folder / "job" / f"V00{number}" / "search"
        fixture.make_search(place, space="nasbench201", epochs=1, seed=seed)
        Architecture.from_text(text(("nor_conv_3x3",) * 6)).to_yaml(place / "architecture.yaml")
        config = read_yaml(place / "config.yaml")
        config["seed"] = seed
        config.setdefault("search", {}).update(changed if number == 2 else {})
        write_yaml(place / "config.yaml", config)


def test_searches_of_other_settings_are_rows_of_their_own(tmp_path: Path) -> None:
    two_searches(tmp_path / "same", {"tabular": "another.csv"})
    (same,) = found_in_runs([tmp_path / "same"])
    assert (len(same.architectures), same.differs) == (2, {})
    two_searches(tmp_path / "other", {"epochs": 77})
    first, second = found_in_runs([tmp_path / "other"])
    assert [len(group.architectures) for group in (first, second)] == [1, 1]
    assert second.name == "FirstOrder, search.epochs=77"
    assert first.name.startswith("FirstOrder, search.epochs=")
    assert first.name != second.name


def test_a_search_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    two_searches(tmp_path / "runs", {})
    folders = [
        tmp_path / "runs",
        tmp_path / "runs" / "job" / "V001",
        tmp_path / "runs" / "job" / "V002" / "search",
    ]
    (group,) = found_in_runs(folders)
    assert (len(group.architectures), len(group.device_seconds)) == (2, 2)


@pytest.mark.parametrize("width", ["40", "60", "80", "200"])
def test_no_number_is_cut_however_narrow_the_terminal_is(
    table: TabularBenchmark, tmp_path: Path, width: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", width)
    two_searches(tmp_path / "runs", {"alpha_learning_rate": 0.00123456789, "weight_decay": 0.1})
    table.save(tmp_path / "t.npz")
    options = {
        "table": str(tmp_path / "t.npz"),
        "column": "toy:test",
        "runs": [str(tmp_path / "runs")],
    }
    result = run(BenchOptions(**options), tmp_path / "out")
    printed = capsys.readouterr().out
    assert "…" not in printed
    for row in result["rows"]:
        assert f"{100 * row['accuracy_mean']:.2f}" in printed
        assert f"{100 * row['regret_mean']:.2f}" in printed
    if int(width) >= 200:
        assert "search.alpha_learning_rate=0.00123456789" in printed


def test_nothing_selects_on_the_judging_column_unless_it_is_told_to(
    table: TabularBenchmark, tmp_path: Path
) -> None:
    table.save(tmp_path / "t.npz")
    one = TabularBenchmark("one", table.architectures, {"toy:test": table.accuracies["toy:test"]})
    one.save(tmp_path / "one.npz")
    rows = run(
        BenchOptions(table=str(tmp_path / "t.npz"), column="toy:test"),
        tmp_path / "out",
    )["rows"]
    assert {row["select"] for row in rows} == {"toy:val"}
    with pytest.raises(ConfigError, match=r"bench.options.select is needed.*budget=0"):
        run(BenchOptions(table=str(tmp_path / "one.npz")), tmp_path / "out")
    told = {"table": str(tmp_path / "one.npz"), "select": "toy:test"}
    assert run(BenchOptions(**told), tmp_path / "out")["rows"][0]["select"] == "toy:test"
    two_searches(tmp_path / "runs", {})
    alone = {"table": str(tmp_path / "one.npz"), "runs": [str(tmp_path / "runs")], "budget": 0}
    assert [r["n"] for r in run(BenchOptions(**alone), tmp_path / "out")["rows"]] == [2]
    with pytest.raises(ConfigError, match="nothing to compare"):
        run(BenchOptions(**{**alone, "runs": []}), tmp_path / "out")


def test_ranks_are_counted_among_the_rows_that_have_one(
    table: TabularBenchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = table.accuracies["toy:test"].copy()
    exact[:9] = np.nan
    TabularBenchmark("t", table.architectures, {"toy:test": exact}).save(tmp_path / "t.npz")
    two_searches(tmp_path / "runs", {})
    options = {"table": str(tmp_path / "t.npz"), "runs": [str(tmp_path / "runs")], "budget": 0}
    (row,) = run(BenchOptions(**options), tmp_path / "out")["rows"]
    assert row["total"] == 720
    assert "median rank among 720 architectures" in " ".join(capsys.readouterr().out.split())
    other = TabularBenchmark("other", ("64:32",), {"x:test": np.array([0.5])})
    other.save(tmp_path / "other.npz")
    with pytest.raises(ConfigError, match="can be judged by 'other'; the log says why"):
        run(BenchOptions(**{**options, "table": str(tmp_path / "other.npz")}), tmp_path / "out")
