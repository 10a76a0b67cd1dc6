"""What was aimed at with elastic networks, and what the newest results files hold of it, as a table.

    python -m benchmarks.elastic_aims            # prints both tables: today's way of training, earlier ones
    python -m benchmarks.elastic_aims --write    # puts them into docs/elastic.md and docs/elastic-results.md

A row counts as met by what stands in it alone; a mean counts where its row says so.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.elastic import at_budgets, mean_of
from darts_core.bench.results import Results, read_results

RESULTS = Path("benchmarks/results")
BEGIN, END = "<!-- python -m benchmarks.elastic_aims --write -->", "<!-- end of the aims -->"
RIVALS = {"prune": "`prune`", "taylor": "Taylor", "scaled": "narrower networks"}


@dataclass(frozen=True)
class Reached:
    """What a results file says about an aim.

    Attributes:
        text: in the page's words.
        met: whether that is what was aimed at.
    """

    text: str
    met: bool


@dataclass(frozen=True)
class Aim:
    """A row of the table.

    Attributes:
        what: is measured.
        aimed: at what.
        file: the end of the name of its results file.
        read: from that file.
    """

    what: str
    aimed: str
    file: str
    read: Callable[[Results], Reached]


def newest(name: str, folder: Path = RESULTS) -> Results:
    """The results file of elastic networks that was written last under a name (`write --name`).

    Raises:
        FileNotFoundError: there is none.
    """
    found = [read_results(path) for path in folder.glob(f"elastic_*_20??-??-??_{name}.json")]
    if not found:
        raise FileNotFoundError(f"No results file in {folder} is named elastic_..._{name}.json.")
    return max(found, key=lambda results: results.created)


def points_of(share: float, digits: int = 2) -> str:
    """A difference of two accuracies (shares of one) in points, with its sign apart: `- 0.27`."""
    return signed(100 * share, digits)


def signed(value: float, digits: int) -> str:
    """A difference with its sign apart."""
    text = f"{value:+.{digits}f}"
    return f"{text[0]} {text[1:]}"


def listed(values: Iterable[str]) -> str:
    """Values of seeds, in their order."""
    return ", ".join(values)


def costs(most: float) -> Callable[[Results], Reached]:
    """Trainings of the given network, its own left out."""

    def read(results: Results) -> Reached:
        spent = [row["cost_in_trainings"] - 1.0 for row in results.rows]
        return Reached(listed(f"{cost:.1f}" for cost in spent), max(spent) <= most)

    return read


def counts(points: int, judged: int = 0) -> Callable[[Results], Reached]:
    """Points of a front, and the sub-networks that were judged for it."""

    def read(results: Results) -> Reached:
        rows = results.rows
        met = all(row["points"] >= points and row["judged"] >= judged for row in rows)
        text = f"{listed(str(row['points']) for row in rows)} of {listed(str(row['judged']) for row in rows)}"
        return Reached(text, met)

    return read


def alone(results: Results) -> Reached:
    """Points against their networks trained alone."""
    gains = [[p["ours"] - p["alone"] for p in row["alone"]["rows"]] for row in results.rows]
    means = [statistics.mean(seed) for seed in gains]
    found, worst = mean_of(means), min(min(seed) for seed in gains)
    error = found["standard_error"]
    spread = "" if error is None else f" ± {100 * error:.2f}"
    text = f"{points_of(found['mean'])}{spread}, worst {points_of(worst)}"
    met = found["mean"] >= -0.005 and worst >= -0.01
    return Reached(f"{text} ({sum(map(len, gains))} points)", met)


def whole(results: Results) -> Reached:
    """The whole network against the given one."""
    gains = [row["whole_minus_base"] for row in results.rows]
    return Reached(listed(points_of(gain) for gain in gains), min(gains) >= -0.003)


def half(least: float, *, of_mean: bool = False) -> Callable[[Results], Reached]:
    """The best on val within half of the time against the given network: each seed, or their mean."""

    def read(results: Results) -> Reached:
        gains = [row["half_minus_base"] for row in results.rows]
        shares = [at_budgets(row["shares"]["points"], [0.5])[0]["share"] for row in results.rows]
        text = listed(
            f"{points_of(gain)} ({100 * share:.0f} %)"
            for gain, share in zip(gains, shares, strict=True)
        )
        if of_mean:
            text = f"{points_of(statistics.mean(gains))} in the mean: {text}"
        return Reached(text, (statistics.mean(gains) if of_mean else min(gains)) >= least)

    return read


def half_over_speakers(results: Results) -> Reached:
    """The same, the mean over who was left out."""
    found = results.notes["over_speakers"]["half_minus_base"]
    text = f"{points_of(found['mean'], 1)} ± {100 * found['standard_error']:.1f}, the mean of {found['n']}"
    return Reached(text, found["mean"] >= -0.01)


def ahead(rule: str) -> Callable[[Results], Reached]:
    """The hypervolume that the front has more than each rival's that was run."""

    def read(results: Results) -> Reached:
        found = results.notes[rule]
        run = [key for key in RIVALS if key in found]
        text = listed(
            f"{RIVALS[key]} {signed(found[key]['mean'], 3)} ± {found[key]['standard_error']:.3f}"
            for key in run
        )
        met = all(found[key]["mean"] > 2 * found[key]["standard_error"] for key in run)
        return Reached(text, met and bool(run))

    return read


def step(results: Results) -> Reached:
    """Time of a step over the sum of plain ones, the teacher asked."""
    found = results.rows[0]["step"]["ratio_teacher_asked"]
    text = f"{found['median']:.2f} (sd {found['std']:.2f}, n={found['n']})"
    return Reached(text, found["median"] <= 1.25)


def memory(results: Results) -> Reached:
    """Peak of the process over plain training's, by batch."""
    found = results.rows[0]["memory"]["sizes"]
    ratios = [(size["batch_size"], size["process_ratio"]["median"]) for size in found]
    text = listed(f"{ratio:.2f} (batch {batch})" for batch, ratio in ratios)
    return Reached(text, max(ratio for _, ratio in ratios) <= 1.3)


TODAY = "rivals-today"
IN_PLACE, AGAIN, LONGER, DEFAULTS = (
    "other-seeds-in-place",
    "other-seeds-again",
    "rivals-other-seeds",
    "rivals-again",
)
# of today's way of training
AIMS: tuple[Aim, ...] = (
    Aim("elastic training and all choosing, in trainings of the given network", "at most 3, better 2",
        TODAY, costs(3.0)),
    Aim("the same trainings with less beside them", "at most 3, better 2", IN_PLACE, costs(3.0)),
    Aim("the same, defaults (10 epochs), a former way", "at most 3, better 2", DEFAULTS, costs(3.0)),
    Aim("points of the front, sub-networks judged", "8 of 200", TODAY, counts(8, 200)),
    Aim("a point against its network trained alone for as long, same teacher",
        "- 0.5, worst - 1.0", TODAY, alone),
    Aim("whole network", "- 0.3", TODAY, whole),
    Aim("half of the time", "- 0.5", TODAY, half(-0.005, of_mean=True)),
    Aim("CIFAR-10 (JPEG), half of the time, ten epochs of fine-tuning", "- 1.0", "cifar10-jpeg-half",
        half(-0.01)),
    Aim("hypervolume at *four budgets* against each rival's", "more, by 2 errors", TODAY,
        ahead("hypervolume_more_than")),
    Aim("the same, *best four*", "more, by 2 errors", TODAY, ahead("best_four_more_than")),
    Aim("the same, *bounded*", "more, by 2 errors", TODAY, ahead("bounded_more_than")),
    Aim("vision transformer: points", "5", "vit", counts(5)),
    Aim("vision transformer: half of the time", "- 1.5", "vit", half(-0.015)),
    Aim("spoken digits, half of the time, ten epochs of fine-tuning", "- 1.0",
        "spoken-digits-ten-epochs", half_over_speakers),
    Aim("time of a step over plain steps of its sub-networks", "at most 1.25", "step-memory-today", step),
    Aim("memory of the process over plain training's", "at most 1.3", "step-memory-today", memory),
)  # fmt: skip
GIVEN_ALONE = "the same, taught by the given network alone as well"
# of earlier ways, and of other days
EARLIER: tuple[Aim, ...] = (
    Aim("a point against its network trained alone, fine-tuned at the whole learning rate",
        "- 0.5, worst - 1.0", IN_PLACE, alone),
    Aim(GIVEN_ALONE, "- 0.5, worst - 1.0", AGAIN, alone),
    Aim("the same in an earlier run of that", "- 0.5, worst - 1.0", LONGER, alone),
    Aim("the same on seeds 0 to 2", "- 0.5, worst - 1.0", "15-epochs", alone),
    Aim("points with the defaults, taught so", "8 of 200", DEFAULTS, counts(8, 200)),
    Aim("whole network with the defaults, taught so", "- 0.3", DEFAULTS, whole),
    Aim("half of the time with the defaults, taught so", "- 0.5", DEFAULTS, half(-0.005, of_mean=True)),
    Aim("half of the time, fine-tuned at the whole learning rate", "- 0.5", IN_PLACE,
        half(-0.005, of_mean=True)),
    Aim(GIVEN_ALONE, "- 0.5", AGAIN, half(-0.005, of_mean=True)),
    Aim("the same in an earlier run of that", "- 0.5", LONGER, half(-0.005, of_mean=True)),
    Aim("CIFAR-10 (JPEG), half of the time, one epoch of fine-tuning", "- 1.0", "cifar10-jpeg-15-epochs",
        half(-0.01)),
    Aim("hypervolume at *four budgets*, taught by the given network alone", "more, by 2 errors", LONGER,
        ahead("hypervolume_more_than")),
    Aim("the same, *best four*", "more, by 2 errors", LONGER, ahead("best_four_more_than")),
    Aim("the same, *bounded*", "more, by 2 errors", LONGER, ahead("bounded_more_than")),
    Aim("at *four budgets* with the defaults, taught so", "more, by 2 errors", DEFAULTS,
        ahead("hypervolume_more_than")),
    Aim("spoken digits, half of the time, ten epochs at a third of the learning rate", "- 1.0",
        "spoken-digits-ten-epochs-at-a-third", half_over_speakers),
    Aim("ten epochs at all of it, taught by the given network alone", "- 1.0",
        "spoken-digits-half-six-speakers", half_over_speakers),
    Aim("one epoch, taught so", "- 1.0", "spoken-digits-six-speakers", half_over_speakers),
    Aim("time of a step over plain steps of its sub-networks, the day before", "at most 1.25",
        "step-memory-mended", step),
    Aim("the same some hours before that", "at most 1.25", "step-memory-again", step),
)  # fmt: skip
# which table stands on which page
PAGES = {Path("docs/elastic.md"): AIMS, Path("docs/elastic-results.md"): EARLIER}


def table(aims: Sequence[Aim] = AIMS, folder: Path = RESULTS) -> str:
    """The table in Markdown, its files as links from docs/."""
    lines = ["| | aimed at | reached | met | file |", "|---|---|---|---|---|"]
    for aim in aims:
        results = newest(aim.file, folder)
        reached = aim.read(results)
        met = "yes" if reached.met else "**no**"
        name = results.path.name if results.path else ""
        link = f"[{results.created[:10]}](../benchmarks/results/{name})"
        lines.append(f"| {aim.what} | {aim.aimed} | {reached.text} | {met} | {link} |")
    return "\n".join(lines)


def put_into(page: str, text: str) -> str:
    """`page` with `text` between its two marks.

    Raises:
        ValueError: the page has no such place.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page has no place between {BEGIN} and {END}.")
    return f"{head}{begin}\n\n{text}\n\n{end}{tail}"


def main(words: list[str] | None = None) -> None:
    """Parse the command line; print the tables, or put them into their pages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument(
        "--write", action="store_true", help=f"put them into {' and '.join(map(str, PAGES))}"
    )
    args = parser.parse_args(words)
    for page, aims in PAGES.items():
        if args.write:
            page.write_text(
                put_into(page.read_text(encoding="utf-8"), table(aims)), encoding="utf-8"
            )
        else:
            print(table(aims), end="\n\n")


if __name__ == "__main__":
    main()
