"""A study's result as files for machines: `result.json`, `trials.csv`, and the front as a picture.

python -m darts_core.study.table FOLDER --json | --csv
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import DartsError
from darts_core.runlog import RunFolder, plain, read_json, write_json, write_text
from darts_core.study.records import StudyResult

__all__ = ["log_hparams", "main", "to_csv", "write_tables"]


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """`rows` as CSV text with a header; lists and dictionaries are JSON inside their cell."""
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: _cell(v) for k, v in row.items()})
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    # a spreadsheet would run such a text as a formula
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return "'" + value
    return value


def write_tables(result: StudyResult, folder: Path) -> None:
    """Write `result.json` and `trials.csv` of a study, and `front.png` for several objectives."""
    write_json(folder / "result.json", {"schema_version": 1, **result.to_dict()})
    write_text(folder / "trials.csv", to_csv(result.rows()))
    if len(result.objectives) > 1:
        draw_front(result, folder / "front.png")


def log_hparams(result: StudyResult, folder: Path) -> None:
    """Write every ended trial to TensorBoard's hparams page, anew."""
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    run = RunFolder(folder)
    for record in result.trials:
        if record.value is None:
            continue
        known = {k: v for k, v in record.params.items() if isinstance(v, (int, float, str))}
        outcome = dict(zip(result.objectives, record.values, strict=False))
        run.tensorboard.add_hparams(
            known,
            {f"hparam/{name}": value for name, value in outcome.items()},
            run_name=f"trial{record.number:04d}",
        )
    run.close()


def draw_front(result: StudyResult, path: Path) -> None:
    """Draw the first two objectives of every complete trial, the front joined by a line."""
    from matplotlib.figure import Figure

    (x_name, y_name), done = list(result.objectives)[1::-1], []
    done = [r for r in result.trials if r.state == "complete"]
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for feasible, colour, label in (
        (True, "#4c78a8", "trials"),
        (False, "#bbbbbb", "outside the constraints"),
    ):
        points = [r.values for r in done if r.feasible is feasible]
        if points:
            axes.scatter([p[1] for p in points], [p[0] for p in points], c=colour, label=label)
    front = sorted((r.values[1], r.values[0]) for r in done if r.number in result.front)
    axes.plot([p[0] for p in front], [p[1] for p in front], c="#e45756", label="front", marker="o")
    axes.set_xlabel(f"{x_name} ({result.objectives[x_name]})")
    axes.set_ylabel(f"{y_name} ({result.objectives[y_name]})")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a finished study's trials; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m darts_core.study.table", description=__doc__)
    parser.add_argument("folder", type=Path, help="the study's folder (it holds result.json)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="the whole result (default)")
    kind.add_argument("--csv", action="store_true", help="one row a trial")
    args = parser.parse_args(argv)
    try:
        result = read_json(args.folder / "result.json")
    except DartsError as error:
        print(f"darts-core: {error}", file=sys.stderr)
        return 2
    if not args.csv:
        print(json.dumps(plain(result), indent=2))
        return 0
    rows = []
    for trial in result["trials"]:
        values = dict(zip(result["objectives"], trial["values"], strict=False))
        head = {key: trial[key] for key in ("number", "state", "epochs", "device_seconds")}
        rows.append({**head, **values, **trial["params"], "reason": trial["reason"]})
    print(to_csv(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
