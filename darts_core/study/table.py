"""A study's result as files for machines: `result.json`, `trials.csv`, TensorBoard.

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

from darts_core.errors import DartsError, TuneError
from darts_core.runlog import (
    RunFolder,
    plain,
    read_mapping,
    utf8_streams,
    write_json,
    write_text,
)
from darts_core.study.records import StudyResult, setting_columns

__all__ = ["log_hparams", "main", "to_csv", "write_tables"]


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """`rows` as CSV text with a header; lists and dictionaries are JSON inside their cell."""
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_cell(name) for name in names])
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    # a terminal would obey what it cannot print, and a spreadsheet run such a beginning as a formula
    text = value if value.isprintable() else json.dumps(value)[1:-1]
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def write_tables(result: StudyResult, folder: Path) -> None:
    """Write `result.json` and `trials.csv` of a study.

    The best trial's numbers on val, and its first objective, stand there by name, as in any stage's result:
    lists and reports look for them.
    """
    told = {name: v for name, v in result.best.metrics.items() if name.startswith("val_")}
    told |= {next(iter(result.objectives)): result.best_value, "schema_version": 1}
    write_json(folder / "result.json", {**told, **result.to_dict()})
    write_text(folder / "trials.csv", to_csv(result.rows()))


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


def main(argv: Sequence[str] | None = None) -> int:
    """Print a finished study's trials; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m darts_core.study.table", description=__doc__)
    parser.add_argument("folder", type=Path, help="the study's folder (it holds result.json)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="the whole result (default)")
    kind.add_argument("--csv", action="store_true", help="one row a trial")
    args = parser.parse_args(argv)
    utf8_streams()
    try:
        result = read_mapping(args.folder / "result.json")
        # the search of a script has both, too, of another kind
        if not isinstance(result.get("trials"), list) or not isinstance(
            result.get("objectives"), dict
        ):
            raise TuneError(
                f"{args.folder / 'result.json'} is the result of no study; give a study's folder, such as "
                "runs/JOB/V001/tune."
            )
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
        columns = setting_columns(trial["params"], result["objectives"])
        params = {columns[name]: value for name, value in trial["params"].items()}
        rows.append({**head, **values, **params, "reason": trial["reason"]})
    print(to_csv(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
