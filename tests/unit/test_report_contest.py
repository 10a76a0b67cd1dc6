"""Several seeds against their rivals: paired by seed, with hypervolumes; nothing where times do not count."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from darts_core.report.contest import OURS, contest, contest_section, contest_sentence
from darts_core.report.read import read_version
from darts_core.report.seeds import seeds_summary


def row(
    name: str, kind: str, accuracy: float, ms: float, *, flagged: bool = False
) -> dict[str, Any]:
    time = {"median_ms": ms, "q05_ms": ms, "q95_ms": ms, "n": 5, "flagged": flagged}
    return {"name": name, "kind": kind, "runtime": "onnx", "accuracies": [accuracy], "latency": {"32": time},
            "baseline": kind == "baseline", "extra": {"device_seconds": 10.0}}  # fmt: skip


def version(folder: Path, rows: list[dict[str, Any]]) -> Any:
    (folder / "bench").mkdir(parents=True)
    (folder / "bench" / "results.json").write_text(json.dumps({"schema_version": 1, "rows": rows}))
    return read_version(folder)


def seed(folder: Path, number: int, *, flagged: bool = False) -> Any:
    rows = [
        row("resnet8", "baseline", 0.95, 2.0, flagged=flagged), row("resnet8-w4", "rival", 0.90, 1.0),
        row("resnet8-w4", "rival", 0.90, 1.5), row("ours", "exported", 0.94 + 0.02 * number, 1.0),
    ]  # fmt: skip
    return version(folder / str(number), rows)


def test_differences_are_paired_and_hypervolumes_have_their_spread(tmp_path: Path) -> None:
    runs = [seed(tmp_path, number) for number in range(2)]
    told = contest(runs)
    assert told is not None
    assert (told["n"], told["batch"]) == (2, 32)
    ours, base, narrow = (told["networks"][name] for name in (OURS, "resnet8", "resnet8-w4"))
    assert ours["metric"]["mean"] == pytest.approx(0.95)
    assert ours["time_share"] == {"mean": pytest.approx(0.5), "std": pytest.approx(0.0)}
    assert base["found_better_by"] == {"mean": pytest.approx(0.0), "error": pytest.approx(1.0)}
    assert narrow["found_better_by"] == {"mean": pytest.approx(5.0), "error": pytest.approx(1.0)}
    assert narrow["device_seconds"] == 10.0
    # up to the slowest (the baseline) and the worst (90 %): half of its time is log 2 of room
    volume = told["hypervolume"]
    assert volume["found"]["mean"] == pytest.approx(math.log(2) * 5)
    assert volume["found"]["std"] == pytest.approx(math.log(2) * 2**0.5)
    assert volume["rivals"] == {"mean": 0.0, "std": 0.0}
    assert volume["found_more"]["error"] == pytest.approx(math.log(2))
    said = contest_sentence(told, runs[0].metric)
    assert "takes 0.5× of resnet8's time and differs by no more than the noise (+" in said
    assert said.endswith("points), at equal cost, paired over 2 seeds.")
    section = contest_section(told, runs[0])
    assert section is not None
    assert "over 2 seeds" in section.note
    assert "resnet8-w4" in str(section.body)
    assert "what was found is better by (points)" in str(section.body)


def test_what_is_worse_beyond_the_noise_is_no_win(tmp_path: Path) -> None:
    rows = [row("resnet8", "baseline", 0.95, 2.0), row("ours", "exported", 0.90, 1.0)]
    runs = [version(tmp_path / str(number), rows) for number in range(2)]
    said = contest_sentence(contest(runs), runs[0].metric)
    assert said.startswith(" Nothing was won: what was found takes 0.5×")
    assert "is worse by 5 ± 0 points" in said
    assert contest_sentence(None, runs[0].metric) == ""
    # what is shown as 1x of its time is no faster
    rows[1] = row("ours", "exported", 0.95, 1.9995)
    runs = [version(tmp_path / f"same{number}", rows) for number in range(2)]
    said = contest_sentence(contest(runs), runs[0].metric)
    assert said.startswith(
        " Nothing was won: what was found takes 1× of resnet8's time and differs"
    )


@pytest.mark.parametrize(("examples", "words"), [
    (400, "and differs by no more than what the test examples can show (+0.25 ± 0 points)"),
    (4_000_000, "and is better by 0.25 ± 0 points"),
])  # fmt: skip
def test_seeds_that_agree_show_no_more_than_their_test_examples_can(
    tmp_path: Path, examples: int, words: str
) -> None:
    rows = [row("resnet8", "baseline", 0.95, 2.0), row("ours", "exported", 0.9525, 1.0)]
    for each in rows:
        each["extra"]["test_examples"] = examples
    runs = [version(tmp_path / str(number), rows) for number in range(2)]
    assert words in contest_sentence(contest(runs), runs[0].metric)


def test_what_was_timed_beside_other_work_does_not_compare(tmp_path: Path) -> None:
    runs = [seed(tmp_path, 0), seed(tmp_path, 1, flagged=True)]
    assert contest(runs) is None
    assert contest_section(None, runs[0]) is None
    summary = seeds_summary([tmp_path / "0", tmp_path / "1"])
    assert summary["contest"] is None
