"""What a trial costs in the books of a study that has had many: processor time, statements, bytes.

    python -m benchmarks.scale_study --trials 50 500 5000 10000 --storage journal postgresql

One worker runs trials that do nothing, their settings drawn at random, without a pruner; each count in turn
is reached by running the trials that lie before it. Processor time is that of this process and of the
database's server, a trial, over the last `--window` trials before the count; statements and commits are
counted at the driver. Beside it, in turns, the same trials by Optuna alone (`study.optimize`), which keeps
no folders, leases or files of results. At the end the books are looked at: each number once, each complete,
each with its result.

    python -m benchmarks.scale_study --trials 50 10000 --storage postgresql --in-turns

With `--in-turns` two studies stand in one PostgreSQL, one for each of two counts, and ten trials of the one
follow ten of the other, so that what else the machine does falls on both alike. The larger one has been run
to the first count; from there to the second trials are copied in the tables, complete as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil

from benchmarks.postgresql import postgresql_server, why_not
from darts_core.bench.results import command_line, write_results
from darts_core.runlog import read_json
from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.runner import CallableRunner
from darts_core.study.spec import StudySpec
from darts_core.study.storage import open_storage
from darts_core.study.study import open_study
from darts_core.study.worker import close, work

_WARM = 20
_TURN = 10


def space_of(settings: int) -> dict[str, Any]:
    """So many ranges."""
    return {f"x{index}": {"low": 0.0, "high": 1.0} for index in range(settings)}


def nothing(trial: Any) -> float:
    """The trial: its first parameter."""
    return float(trial.params["x0"])


class Meter:
    """Processor seconds of this process and of a server's, statements, commits and forced writes, so far."""

    def __init__(self, server: int | None) -> None:
        self._server = None if server is None else psutil.Process(server)
        self.counts: Counter[str] = Counter()

    def now(self) -> dict[str, float]:
        """All of them."""
        return {"here": time.process_time(), "server": self._server_seconds(), **self.counts}

    def _server_seconds(self) -> float:
        if self._server is None:
            return 0.0
        # a connection is a process of the server's, and ends with it
        ended = self._server.cpu_times()
        total = ended.user + ended.system + ended.children_user + ended.children_system
        for process in self._server.children():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count in the block."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        def statement(*_: Any) -> None:
            self.counts["statements"] += 1

        def commit(*_: Any) -> None:
            self.counts["commits"] += 1

        fsync = os.fsync

        def counted(file: Any) -> None:
            self.counts["fsyncs"] += 1
            fsync(file)

        event.listen(Engine, "before_cursor_execute", statement)
        event.listen(Engine, "commit", commit)
        os.fsync = counted
        try:
            yield
        finally:
            os.fsync = fsync
            event.remove(Engine, "before_cursor_execute", statement)
            event.remove(Engine, "commit", commit)


def a_trial(before: dict[str, float], after: dict[str, float], count: int) -> dict[str, float]:
    """What one of `count` trials took."""
    used = {key: (after[key] - before.get(key, 0.0)) / count for key in after}
    ms = {"processor_ms": 1000 * (used.pop("here") + used["server"])}
    ms["of_server_ms"] = 1000 * used.pop("server")
    return {key: round(value, 2) for key, value in {**ms, **used}.items()}


_COPIES = (
    "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) "
    "SELECT n, study_id, state, datetime_start, datetime_complete FROM trials, "
    "generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n "
    "WHERE number = 0 AND study_id = {study}",
    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
    "SELECT new.trial_id, param_name, random(), distribution_json FROM {both} trial_params {of}",
    "INSERT INTO trial_values (trial_id, objective, value, value_type) "
    "SELECT new.trial_id, objective, value, value_type FROM {both} trial_values {of}",
    "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
    "SELECT new.trial_id, key, value_json FROM {both} trial_user_attributes {of}",
)


def fill(spec: StudySpec, first: int, last: int) -> None:
    """Copy the first trial, complete as it is, into the numbers from `first` to `last`."""
    from sqlalchemy import text

    study = "(SELECT study_id FROM studies WHERE study_name = :study)"
    both = "trials AS old, trials AS new,"
    of = (
        "AS of WHERE old.number = 0 AND of.trial_id = old.trial_id AND new.study_id = old.study_id "
        f"AND new.number BETWEEN :first AND :last AND old.study_id = {study}"
    )
    values = {"first": first, "last": last, "study": spec.study_name}
    with open_storage(spec.folder, spec.storage).engine.begin() as connection:
        for copy in _COPIES:
            connection.execute(text(copy.format(study=study, both=both, of=of)), values)


def ours(
    counts: list[int], settings: int, window: int, url: str | None, server: int | None, folder: Path
) -> list[dict[str, Any]]:
    """Our books, at each count."""
    spec = StudySpec.make(
        space_of(settings),
        Budget(trials=counts[-1]),
        folder=folder,
        sampler="random",
        pruner="none",
        storage=url,
    )
    open_study(spec)
    marks: dict[int, tuple[float, dict[str, float]]] = {}
    meter = Meter(server)
    wanted = {c for count in counts for c in (max(_WARM, count - window), count)}
    ended = 0

    def note(record: Any) -> None:
        nonlocal ended
        ended += 1
        if ended in wanted:
            marks[ended] = (time.time(), meter.now())

    with meter.counting():
        work(spec, CallableRunner(nothing, spec.wanted), on_trial=note, say=False)
    rows = []
    for count in counts:
        first = max(_WARM, count - window)
        cost = a_trial(marks[first][1], marks[count][1], count - first)
        wall = 1000 * (marks[count][0] - marks[first][0]) / (count - first)
        rows.append({"trials": count, **cost, "wall_ms": round(wall, 2)})
    rows[-1] |= books(spec, range(0))
    return rows


def in_turns(
    few: int, many: int, settings: int, window: int, url: str, server: int, folder: Path
) -> list[dict[str, Any]]:
    """Two studies with so many trials, and the next `window` trials of each in turns of ten."""
    meter = Meter(server)
    ledgers = {}
    for count in (few, many):
        spec = StudySpec.make(
            space_of(settings), Budget(trials=count + _TURN + window), folder=folder / str(count),
            sampler="random", pruner="none", storage=url, study_name=f"of-{count}",
        )  # fmt: skip
        open_study(spec)
        work(spec, CallableRunner(nothing, spec.wanted), limit=few, say=False)
        fill(spec, few, count - 1)
        ledgers[count] = Ledger(spec)
    used: dict[int, list[dict[str, float]]] = {few: [], many: []}
    with meter.counting():
        for turn in range(1 + window // _TURN):
            for count, ledger in ledgers.items():
                runner = CallableRunner(nothing, ledger.spec.wanted)
                before = meter.now()
                for _ in range(_TURN):
                    claim = ledger.claim()
                    assert claim is not None
                    with claim.beating():
                        ending = runner.run(claim, lambda epoch, row: None)
                    close(ledger, claim, *ending)
                if turn:  # in the first one all trials are read
                    used[count].append(a_trial(before, meter.now(), _TURN))
    rows = []
    for count, ledger in ledgers.items():
        each = [turn["processor_ms"] for turn in used[count]]
        means = {
            k: round(statistics.fmean(turn[k] for turn in used[count]), 2) for k in used[few][0]
        }
        spread = {"processor_ms_of_turns": [min(each), max(each)], "turns": len(each)}
        rows.append({"trials": count, **means, **spread, **books(ledger.spec, range(few, count))})
    return rows


def books(spec: StudySpec, copied: range) -> dict[str, Any]:
    """Whether each trial stands once in them, and how many bytes they take; copied ones have no files."""
    trials = Ledger(spec).trials()
    exact = [t.number for t in trials] == list(range(len(trials)))
    exact &= all(
        t.state.name == "COMPLETE" and t.user_attrs["reason"] == "finished" for t in trials
    )
    results = [read_json(p) for p in sorted(spec.folder.glob("trials/*/result.json"))]
    exact &= sorted(r["number"] for r in results) == [
        t.number for t in trials if t.number not in copied
    ]
    exact &= all(r["attempts"] == 1 and r["values"] == trials[r["number"]].values for r in results)
    journal = spec.folder / "study.journal"
    files = [p for p in (spec.folder / "trials").rglob("*") if p.is_file()]
    return {
        "books_exact": bool(exact),
        "copied": len(copied),
        "journal_bytes": journal.stat().st_size if journal.is_file() else None,
        "trial_files": len(files),
        "trial_bytes": sum(p.stat().st_size for p in files),
    }


def plain(
    trials: int, settings: int, url: str | None, server: int | None, folder: Path
) -> dict[str, Any]:
    """Optuna alone, over the same storage."""
    # its own way of connecting, too
    storage = open_storage(folder) if url is None else optuna.storages.RDBStorage(url)
    study = optuna.create_study(
        storage=storage, study_name="plain", sampler=optuna.samplers.RandomSampler(seed=0)
    )

    def drawn(trial: Any) -> float:
        values = [trial.suggest_float(name, 0.0, 1.0) for name in space_of(settings)]
        return float(values[0])

    study.optimize(drawn, n_trials=_WARM)
    meter = Meter(server)
    before = meter.now()
    with meter.counting():
        study.optimize(drawn, n_trials=trials - _WARM)
    return {"trials": trials, **a_trial(before, meter.now(), trials - _WARM)}


def main() -> None:
    """Run both ways over each storage, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[50, 500, 5000, 10000])
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--settings", type=int, default=1, help="drawn for each trial")
    kinds = ("journal", "sqlite", "postgresql")
    parser.add_argument("--storage", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--in-turns", action="store_true", help="two counts, PostgreSQL")
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    if args.in_turns and (args.storage != ["postgresql"] or len(args.trials) != 2):
        parser.error("--in-turns takes --storage postgresql and two counts")
    if min(args.trials) <= _WARM:
        parser.error(f"--trials takes counts above {_WARM}: the first {_WARM} trials warm up")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[dict[str, Any]] = []
    for kind in args.storage:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url: Any = None
            server: Any = None
            if kind == "sqlite":
                url = f"sqlite:///{folder}/study.db"
            elif kind == "postgresql":
                if (reason := why_not()) is not None:
                    print(f"{kind}: left out ({reason})")
                    continue
                running = stack.enter_context(postgresql_server(fsync="on"))
                url, server = running.url, running.pid
            found = [
                {
                    "way": "Optuna alone",
                    **plain(args.trials[0], args.settings, url, server, folder / "plain"),
                }
            ]
            counts, way = sorted(args.trials), (args.settings, args.window)
            if args.in_turns:
                mine = in_turns(*counts, *way, url, server, folder / "study")
            else:
                mine = ours(counts, *way, url, server, folder / "study")
            first = mine[0]["processor_ms"]
            found += [{"way": "darts-core", **row} for row in mine]
            for row in found[1:]:
                row["times_the_first"] = round(row["processor_ms"] / first, 2)
        for row in found:
            rows.append({"storage": kind, **row})
            print(rows[-1], flush=True)
    path = write_results(
        "scale-study",
        rows,
        folder=args.out,
        name="postgresql-in-turns" if args.in_turns else "",
        command=command_line(without=("--out",)),
        notes={
            "window": args.window,
            "settings": args.settings,
            "sampler": "random",
            "pruner": "none",
            "workers": 1,
            "in_turns": args.in_turns,
            "files": f"below {tempfile.gettempdir()}",
        },
    )
    print(path)


if __name__ == "__main__":
    main()
