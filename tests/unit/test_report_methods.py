"""Methods by seeds: paired differences, their test against scipy's, Holm's correction, files and page."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml

from darts_core.report.elements import best_element
from darts_core.report.methods import method_table, paired_p
from darts_core.report.multirun import write_multirun_report


def test_the_p_of_paired_differences_is_students():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    for count in (2, 3, 10):
        a, b = rng.normal(size=count), rng.normal(size=count)
        assert paired_p(list(a - b)) == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-9)
    assert paired_p([1.0]) is None
    assert paired_p([0.5, 0.5, 0.5]) is None


def test_differences_are_taken_over_the_seeds_that_both_have():
    table = method_table(
        "val_accuracy",
        [("a", "0", 0.5), ("a", "1", 0.6), ("a", "2", 0.9), ("b", "0", 0.7), ("b", "1", 0.6),
         ("b", "2", None), ("c", "0", None)],
    )  # fmt: skip
    first, second, third = table.methods
    assert table.seeds == ("0", "1", "2")
    assert first.mean == pytest.approx(2 / 3)
    assert first.difference is None
    assert second.difference == pytest.approx(0.1)
    assert second.error == pytest.approx(0.1)  # std of (0.2, 0.0) over sqrt(2)
    assert second.p == pytest.approx(0.5)  # t = 1 with one degree of freedom
    assert third.mean is None
    assert third.p is None


def test_equal_differences_of_decimals_have_no_spread_to_test_by():
    """0.52 - 0.50 and 0.48 - 0.46 differ in their last bits, of which p would be 1e-15."""
    rows = [("a", "0", 0.50), ("a", "1", 0.46), ("b", "0", 0.52), ("b", "1", 0.48)]
    assert rows[2][2] - rows[0][2] != rows[3][2] - rows[1][2]
    second = method_table("val_accuracy", rows).methods[1]
    assert second.difference == pytest.approx(0.02)
    assert (second.error, second.p) == (0.0, None)


def test_several_comparisons_are_corrected_after_holm():
    rng = np.random.default_rng(3)
    shifts = {"a": 0.0, "b": 0.9, "c": 0.05, "d": 0.4}
    found = [
        (m, str(s), shift + 0.3 * rng.normal()) for m, shift in shifts.items() for s in range(6)
    ]
    table = method_table("x", found)
    values = {m.name: [m.values[s] for s in table.seeds] for m in table.methods}
    raw = {m: paired_p([y - x for x, y in zip(values["a"], values[m], strict=True)]) for m in "bcd"}
    small, middle, large = sorted(raw.values())
    expected = [3 * small, max(3 * small, 2 * middle), max(3 * small, 2 * middle, large)]
    found_p = sorted(m.p for m in table.methods if m.p is not None)
    assert found_p == pytest.approx([min(1.0, p) for p in expected])


@pytest.fixture
def multirun(tmp_path):
    """Two strategies by two seeds, as `search -m` leaves them."""
    version = tmp_path / "job" / "V001"
    number = 0
    for strategy, gain in (("first_order", 0.0), ("=evil|<b>", 0.1)):
        for seed in (0, 1):
            folder = version / str(number) / "search"
            folder.mkdir(parents=True)
            words = ["data=digits", f"strategy={strategy}", f"seed={seed}"]
            (folder.parent / "overrides.yaml").write_text(yaml.safe_dump(words))
            (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed}))
            rows = [
                {"epoch": e, "seconds": 2.0 * e + 1, "val_accuracy": 0.2 + 0.1 * e + gain}
                for e in range(3)
            ]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            value = 0.4 + gain * (1 + seed) + 0.01 * seed
            result = {"val_accuracy": value, "device_seconds": 5.0, "schema_version": 1}
            (folder / "result.json").write_text(json.dumps(result))
            number += 1
    return version


def test_a_multirun_leaves_a_table_as_csv_markdown_and_page(multirun):
    page = write_multirun_report(multirun).read_text()
    with (multirun / "methods.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["method"] == "strategy=first_order"
    assert float(first["seed 1"]) == pytest.approx(0.41)
    assert float(second["difference"]) == pytest.approx(0.15)
    assert float(second["standard error"]) == pytest.approx(0.05)
    assert float(second["p"]) == pytest.approx(paired_p([0.1, 0.2]))
    lines = (multirun / "methods.md").read_text().splitlines()
    assert lines[0].startswith("| method | seed 0 | seed 1 | n | mean")
    assert "strategy==evil\\|<b>" in lines[3]
    assert "Methods and seeds" in page
    # of two accuracies, in points; the spread of each in per cent
    assert ">+15.00 points<" in page
    assert ">5.00 points<" in page
    assert ">7.78 %<" in page
    assert "val accuracy over time" in page
    told = "not of what it found: train that to compare methods."
    assert told in lines[-1]
    assert told in page
    for element in multirun.glob("[0-9]"):
        (element / "search").rename(element / "train")
    write_multirun_report(multirun)
    assert told not in (multirun / "methods.md").read_text()
    assert "<b>" not in page.replace("&lt;b&gt;", "")


def test_a_seed_with_a_plus_before_it_makes_no_method(multirun):
    for path in multirun.glob("*/overrides.yaml"):
        path.write_text(path.read_text().replace("- seed=", "- ++seed="))
    write_multirun_report(multirun)
    lines = (multirun / "methods.md").read_text().splitlines()
    assert lines[0].startswith("| method | seed 0 | seed 1 | n | mean")
    assert [line.split(" | ")[0] for line in lines[2:4]] == [
        "| strategy=first_order",
        "| strategy==evil\\|<b>",
    ]


def test_an_element_of_several_seeds_counts_with_each(multirun):
    """As `search -m strategy=first_order,other seeds=2` leaves them: each was shown as begun by nobody."""
    target = multirun.parent / "V002"
    for number, strategy in enumerate(("first_order", "other")):
        for seed in (0, 1):
            place = target / str(number) / f"seed{seed}" / "search"
            shutil.copytree(multirun / str(2 * number + seed) / "search", place)
        words = yaml.safe_dump(["seeds=2", f"strategy={strategy}"])
        (target / str(number) / "overrides.yaml").write_text(words)
    (target / "0" / "report.html").write_text("of its seeds")
    page = write_multirun_report(target).read_text()
    lines = (target / "methods.md").read_text().splitlines()
    assert lines[2].startswith("| strategy=first_order | 0.4 | 0.41 | 2 | 0.405 |")
    assert "nothing yet" not in page
    assert page.count("2 seeds") == 2
    assert "on val is element 1 (strategy=other): 55.50 %" in page
    assert 'href="0/report.html"' in page or "href=0/report.html" in page
    assert (target / "0" / "report.html").read_text() == "of its seeds"
    assert best_element(target) == target / "1" / "seed1"


def test_the_page_of_compared_models_says_where_they_stand_together(tmp_path):
    version = tmp_path / "job" / "V001"
    (version / "0" / "bench").mkdir(parents=True)
    (version / "0" / "bench" / "result.json").write_text('{"schema_version": 1, "rows": []}')
    assert "None has an accuracy on val yet." in write_multirun_report(version).read_text()
    (version / "models.md").write_text("| model |")
    page = write_multirun_report(version).read_text()
    assert "All models stand in one table in models.md." in page
    assert "on val yet" not in page
    (version / "models.png").touch()
    page = write_multirun_report(version).read_text()
    assert "in one table in models.md, and in one picture in models.png." in page


def test_elements_that_are_alone_have_no_table(tmp_path, multirun):
    for number in (1, 2, 3):
        shutil.rmtree(multirun / str(number))
    page = write_multirun_report(multirun).read_text()
    assert "Methods and seeds" not in page
    assert not (multirun / "methods.csv").exists()


def test_a_metric_that_is_better_low_says_so(multirun):
    metric = {"name": "perplexity", "direction": "minimize", "share": False}
    for path in multirun.glob("*/search/result.json"):
        content = json.loads(path.read_text())
        value = 10 * content.pop("val_accuracy")
        path.write_text(json.dumps({**content, "val_perplexity": value, "metric": metric}))
    page = write_multirun_report(multirun).read_text()
    assert "Lower is better." in page
    assert (
        (multirun / "methods.md").read_text().splitlines()[-1].startswith("val_perplexity. Lower")
    )


def test_the_seconds_of_a_training_add_up_over_its_epochs(tmp_path):
    """Its rows hold those of each epoch; the rows of a search hold all so far."""
    version = tmp_path / "job" / "V001"
    for number, layers in enumerate((2, 3)):
        folder = version / str(number) / "train"
        folder.mkdir(parents=True)
        words = ["data=digits", f"train.layers={layers}"]
        (folder.parent / "overrides.yaml").write_text(yaml.safe_dump(words))
        rows = [
            {"epoch": e, "seconds": 3.0, "train_accuracy": 0.2, "val_accuracy": 0.2 + 0.1 * e}
            for e in range(3)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "result.json").write_text(json.dumps({"schema_version": 1, "val_accuracy": 0.4}))
    page = write_multirun_report(version).read_text()
    assert "train.layers=2: 40 % at 9" in page


def test_an_export_of_the_network_before_it_was_pruned_is_not_what_a_run_ended_with(tmp_path):
    """It keeps the accuracy of what it exported, and stands behind `prune` in the order of the stages."""
    version = tmp_path / "job" / "V001"
    for number, pruned in enumerate((0.6, 0.7)):
        element = version / str(number)
        whole = {"val_accuracy": 0.9 - 0.1 * number, "model": str(element / "train" / "model.pt")}
        for stage, result in (
            ("train", whole), ("prune", {"val_accuracy": pruned}), ("export", whole),
        ):  # fmt: skip
            (element / stage).mkdir(parents=True)
            (element / stage / "result.json").write_text(json.dumps(result))
        (element / "overrides.yaml").write_text(yaml.safe_dump([f"train.layers={number + 1}"]))
    page = write_multirun_report(version).read_text()
    lines = (version / "methods.md").read_text().splitlines()
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["0.6", "0.7"]
    assert best_element(version) == version / "1"
    assert "on val is element 1 (train.layers=2): 70.00 %" in page
