"""The table of aims on the page of elastic networks: from the newest files, and a miss is called one."""

from pathlib import Path

import pytest

from benchmarks import elastic_aims
from benchmarks.elastic_aims import AIMS, BEGIN, EARLIER, END, PAGES, Aim, newest, put_into, table
from darts_core.bench.results import read_results
from darts_core.runlog import write_json

ROOT = Path(__file__).parents[2]
FILES = ROOT / "benchmarks" / "results"


def written(folder: Path, name: str, created: str, rows: list[dict], **notes: object) -> None:
    content = {
        "schema_version": 1,
        "theme": "elastic",
        "created": f"{created}T12:00:00+0000",
        "rows": rows,
        "notes": notes,
    }
    write_json(folder / f"elastic_cpu_{created}_{name}.json", content)


@pytest.mark.parametrize("path", PAGES)
def test_the_page_has_the_table_of_the_files(path):
    page = (ROOT / path).read_text(encoding="utf-8")
    assert put_into(page, table(PAGES[path], FILES)) == page


def test_the_newest_file_of_a_name_counts_and_a_miss_is_called_one(tmp_path):
    aim = Aim("cost", "at most 3", "mine", elastic_aims.costs(3.0))
    written(
        tmp_path, "mine", "2026-01-02", [{"cost_in_trainings": 3.9}, {"cost_in_trainings": 4.1}]
    )
    written(tmp_path, "mine", "2026-01-01", [{"cost_in_trainings": 2.0}])
    written(tmp_path, "not-mine", "2026-01-03", [{"cost_in_trainings": 2.0}])
    assert table([aim], tmp_path).splitlines()[2:] == [
        "| cost | at most 3 | 2.9, 3.1 | **no** | "
        "[2026-01-02](../benchmarks/results/elastic_cpu_2026-01-02_mine.json) |"
    ]
    with pytest.raises(FileNotFoundError, match=r"elastic_\.\.\._theirs\.json"):
        newest("theirs", tmp_path)


def half(share: float, gain: float) -> dict:
    point = {"share": share, "budget": 0.5, "val_metric": 0.9}
    return {"half_minus_base": gain, "shares": {"points": [point]}}


def rival(mean: float, error: float) -> dict:
    return {"mean": mean, "standard_error": error}


OTHERS = {"prune": rival(0.2, 0.01), "taylor": rival(0.2, 0.01)}


def step(ratio: float) -> dict:
    return {"step": {"ratio_teacher_asked": {"median": ratio, "std": 0.1, "n": 3}}}


def memory(*ratios: float) -> dict:
    sizes = [{"batch_size": 64, "process_ratio": {"median": ratio}} for ratio in ratios]
    return {"memory": {"sizes": sizes}}


def lone(*losses: float) -> dict:
    return {"alone": {"rows": [{"ours": 0.9, "alone": 0.9 + loss} for loss in losses]}}


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (elastic_aims.counts(8, 200), {"points": 8, "judged": 200}, {"points": 8, "judged": 199}),
        (elastic_aims.counts(5), {"points": 5, "judged": 1}, {"points": 4, "judged": 300}),
        (elastic_aims.whole, {"whole_minus_base": -0.002}, {"whole_minus_base": -0.004}),
        (elastic_aims.half(-0.01), half(0.5, -0.009), half(0.5, -0.011)),
        (elastic_aims.alone, lone(0.0, 0.009), lone(*[0.0] * 9, 0.011)),
        (elastic_aims.alone, lone(0.004, 0.005), lone(0.006, 0.007)),
        (elastic_aims.step, step(1.24), step(1.26)),
        (elastic_aims.memory, memory(1.0, 1.29), memory(1.0, 1.31)),
    ],
)
def test_a_row_is_met_by_what_stands_in_it(tmp_path, read, good, bad):
    for created, last in (("2026-01-01", good), ("2026-01-02", bad)):
        written(tmp_path, "mine", created, [last, good])
        results = read_results(tmp_path / f"elastic_cpu_{created}_mine.json")
        assert read(results).met == (last is good)


def test_a_mean_makes_up_for_a_seed_only_where_the_row_says_so(tmp_path):
    written(tmp_path, "mine", "2026-01-01", [half(0.29, 0.001), half(0.4, -0.009)])
    found = newest("mine", tmp_path)
    assert not elastic_aims.half(-0.005)(found).met
    reached = elastic_aims.half(-0.005, of_mean=True)(found)
    assert reached.met
    assert reached.text == "- 0.40 in the mean: + 0.10 (29 %), - 0.90 (40 %)"


def test_a_gain_within_two_errors_is_none(tmp_path):
    for error, met in ((0.04, True), (0.06, False)):
        notes = {**OTHERS, "scaled": rival(0.1, error)}
        written(tmp_path, "mine", "2026-01-01", [{"seed": 0}], rule=notes)
        assert elastic_aims.ahead("rule")(newest("mine", tmp_path)).met is met


def test_the_page_keeps_what_stands_around_the_table(tmp_path):
    page = f"before\n{BEGIN}\nold\n{END}\nbehind\n"
    assert put_into(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nbehind\n"
    with pytest.raises(ValueError, match="no place"):
        put_into("nothing", "new")


def test_every_aim_names_a_file_that_is_there():
    assert len({aim.what for aim in AIMS}) >= 12
    assert all(newest(aim.file, FILES).rows for aim in (*AIMS, *EARLIER))
