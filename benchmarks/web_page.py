"""How light the live page is: start, memory, long lists, 50 open pages of a running search, page size, soak.

    python -m benchmarks.web_page --pages 50 --soak-minutes 60

A made-up search runs: a trial reports twice a second and one ends every two seconds. Every page holds its
stream of events open and asks for the page again after each event, as the script in the browser does (at
least 2 s apart, with up to 0.5 s of its own). Answers are timed at the client, in a process of their own; the
server's processor time and resident memory are those of its process. The machine's load is stated: what
else runs stretches the answers and not the processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.jobs_list import make
from darts_core.bench.results import command_line, write_results
from darts_core.store.jobs import Store
from darts_core.store.record import SCRIPT, new_record
from darts_core.store.version import Version

GOALS = [{"metric": "accuracy", "mode": "max", "tolerance": 0.0}, {"metric": "ms", "mode": "min"}]
LEAST_SECONDS, JITTER_SECONDS = 2.0, 0.5


class Served:
    """A server process, its address and its cookie."""

    def __init__(self, root: Path) -> None:
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "darts_core.cli", "web", "--port", "0", "--root", str(root)],
            stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        assert self.process.stdout is not None
        self.process.stdout.readline()
        address = self.process.stdout.readline().split()[1]
        base, _, self.token = address.partition("/?token=")
        self.port = int(base.rpartition(":")[2])
        self.usage = psutil.Process(self.process.pid)
        asyncio.run(self.get("/"))
        self.start_seconds = time.perf_counter() - begun

    def request(self, path: str) -> bytes:
        """The bytes of a request that keeps nothing open."""
        return (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        ).encode()

    async def get(self, path: str) -> tuple[float, int]:
        """Seconds and bytes of an answer."""
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.request(path))
        answer = await reader.read(-1)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head[:200]
        return time.perf_counter() - begun, len(body)

    @property
    def mib(self) -> float:
        """Resident memory."""
        return self.usage.memory_info().rss / 2**20

    @property
    def processor_seconds(self) -> float:
        """Processor time of the server's own process."""
        used = self.usage.cpu_times()
        return used.user + used.system

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Search:
    """A made-up search that runs in a version; `go` lets it report."""

    def __init__(self, root: Path, trials: int, iterations: int) -> None:
        store = Store(root)
        store.create_job("busy", kind=SCRIPT)
        with store.new_version(
            "busy", new_record(SCRIPT, commands={"autosearch": {"request": {}}})
        ) as made:
            (made / "autosearch" / "trials").mkdir(parents=True)
            (made / "autosearch" / "objectives.json").write_text(
                json.dumps(GOALS), encoding="utf-8"
            )
        self.version: Version = store.version("busy")
        self.version.set_state("running")
        self.iterations, self.count = iterations, 0
        self.going, self.over = threading.Event(), threading.Event()
        self.steady = False
        for _ in range(trials):
            for iteration in range(1, iterations + 1):
                self.report(iteration)
            self.finish()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def folder(self) -> Path:
        """The folder of the trial that runs."""
        return self.version.path / "autosearch" / "trials" / f"t{self.count:05d}"

    def report(self, iteration: int) -> None:
        """One iteration of the trial that runs."""
        self.folder.mkdir(exist_ok=True)
        value = 1 - 0.9 ** (iteration + self.count % 7)
        line = {
            "kind": "iteration",
            "iteration": iteration,
            "metrics": {"accuracy": value, "ms": 3.0},
        }
        if iteration == 1:
            row = {"trial_id": self.folder.name, "number": self.count, "config": self._config()}
            (self.folder / "trial.json").write_text(json.dumps(row), encoding="utf-8")
        with (self.folder / "reports.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def _config(self) -> dict[str, Any]:
        return {"lr": 0.01 * (1 + self.count % 31), "width": 8 * (1 + self.count % 5)}

    def finish(self) -> None:
        """End the trial that runs."""
        values = {"accuracy": 0.5 + 0.4 * random.random(), "ms": 1 + 5 * random.random()}
        row = {
            "trial_id": self.folder.name, "number": self.count, "state": "done", "config": self._config(),
            "values": values, "metrics": values, "is_baseline": self.count == 0, "time_total_s": 2.0,
            "ended": time.time(), "device": "cpu", "worker_index": 0, "training_iteration": self.iterations,
        }  # fmt: skip
        temporary = self.folder / "result.json.tmp"
        temporary.write_text(json.dumps(row), encoding="utf-8")
        temporary.rename(self.folder / "result.json")
        self.count += 1

    def _run(self) -> None:
        iteration = 0
        while not self.over.is_set():
            self.going.wait()
            iteration += 1
            self.report(iteration)
            if iteration % 4 == 0:
                if self.steady:
                    # the trial begins again: a soak must not mistake a longer search for a leak
                    (self.folder / "reports.jsonl").unlink()
                else:
                    self.finish()
                iteration = 0
            time.sleep(0.5)


async def _page(served: Served, path: str, topic: str, taken: list[float], end: float) -> None:
    """One open page: follow the events, ask again after each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(served.request(f"/events?of={topic}"))
    read = 0.0
    try:
        while time.monotonic() < end:
            try:
                line = await asyncio.wait_for(reader.readline(), max(0.1, end - time.monotonic()))
            except TimeoutError:
                return
            if not line.startswith(b"data: "):
                continue
            wait = (
                max(0.0, read + LEAST_SECONDS - time.monotonic()) + random.random() * JITTER_SECONDS
            )
            await asyncio.sleep(wait)
            read = time.monotonic()
            taken.append((await served.get(path))[0])
    finally:
        writer.close()


async def _watch(served: Served, pages: int, seconds: float) -> list[float]:
    taken: list[float] = []
    end = time.monotonic() + seconds
    own = [_page(served, "/jobs/busy/V001", "version:busy/V001", taken, end) for _ in range(pages)]
    await asyncio.gather(*own)
    return taken


def _times(name: str, taken: list[float], **more: Any) -> dict[str, Any]:
    ordered = sorted(taken)
    return {
        "name": name,
        "median_seconds": round(statistics.median(ordered), 4),
        "p90_seconds": round(ordered[int(0.9 * (len(ordered) - 1))], 4),
        "slowest_seconds": round(ordered[-1], 4),
        "n": len(ordered),
        **more,
    }


def _starts(root: Path, repeats: int) -> dict[str, Any]:
    times, memory = [], []
    for _ in range(repeats):
        served = Served(root)
        times.append(served.start_seconds)
        memory.append(served.mib)
        served.end()
    return _times("from the command to the first page", times, mib=round(max(memory), 1))


def _lists(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """1,000 jobs, and 100 versions of one; each answer is made anew."""
    root = folder / "lists"
    make(root, 1000)
    store = Store(root)
    store.create_job("deep", kind=SCRIPT)
    for number in range(100):
        command = {"state": "succeeded", "request": {}, "started": 1.0, "ended": 2.0}
        record = new_record(SCRIPT, commands={"autosearch": command}, parent=f"V{number:03d}")
        with store.new_version("deep", record):
            pass
    served, rows = Served(root), []
    for name, path in (("1,000 jobs", "/?sort=name"), ("100 versions of one job", "/jobs/deep")):
        taken, size = [], 0
        for number in range(repeats):
            store.edit_job("deep", f"edited {number}")
            seconds, size = asyncio.run(served.get(path))
            taken.append(seconds)
        rows.append(_times(f"a list of {name}", taken, page_kib=round(size / 1024, 1)))
    served.end()
    return rows


def _running(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    root = folder / "running"
    search = Search(root, args.trials, args.iterations)
    served = Served(root)
    path = "/jobs/busy/V001"
    _, size = asyncio.run(served.get(path))
    rows = [{"name": f"a page of {args.trials} trials of {args.iterations} iterations",
             "page_kib": round(size / 1024, 1), "n": 1}]  # fmt: skip
    search.going.set()
    before, begun = served.processor_seconds, time.monotonic()
    taken = asyncio.run(_watch(served, args.pages, args.seconds))
    used, passed = served.processor_seconds - before, time.monotonic() - begun
    rows.append(_times(f"{args.pages} open pages of a running search", taken,
                       processor_seconds_an_answer=round(used / len(taken), 5),
                       processor_share=round(used / passed, 4), mib=round(served.mib, 1)))  # fmt: skip
    search.going.clear()
    time.sleep(3)
    asyncio.run(served.get(path))
    rows.append(_quiet(served, args))
    search.steady = True
    search.going.set()
    rows.append(_soak(served, args))
    search.over.set()
    served.end()
    return rows


def _quiet(served: Served, args: argparse.Namespace) -> dict[str, Any]:
    """What 50 open pages cost while nothing changes and nobody asks."""

    async def hold() -> float:
        task = asyncio.create_task(_watch(served, args.pages, args.seconds + 8))
        await asyncio.sleep(8)
        before, begun = served.processor_seconds, time.monotonic()
        await asyncio.sleep(args.seconds - 2)
        share = (served.processor_seconds - before) / (time.monotonic() - begun)
        await task
        return share

    share = asyncio.run(hold())
    return {
        "name": f"{args.pages} open pages, nothing changes",
        "processor_share": round(share, 4),
        "n": 1,
    }


def _soak(served: Served, args: argparse.Namespace) -> dict[str, Any]:
    """Memory while a tenth of the pages follow a search that reports and whose trials stay as many."""
    samples: list[float] = []

    async def follow() -> None:
        task = asyncio.create_task(_watch(served, max(1, args.pages // 10), args.soak_minutes * 60))
        while not task.done():
            await asyncio.sleep(5)
            samples.append(served.mib)
        await task

    asyncio.run(follow())
    fifth, tenth = max(1, len(samples) // 5), max(1, len(samples) // 10)
    return {
        "name": f"soak of {args.soak_minutes:g} minutes",
        "first_fifth_mib": round(statistics.fmean(samples[:fifth]), 1),
        "last_fifth_mib": round(statistics.fmean(samples[-fifth:]), 1),
        "most_mib": round(max(samples), 1),
        # a leak rises to the end, a start levels off
        "mib_by_tenths": [
            round(statistics.fmean(samples[k : k + tenth]), 1)
            for k in range(0, len(samples) - tenth + 1, tenth)
        ],
        "n": len(samples),
    }


def main() -> None:
    """Measure, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--soak-minutes", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = [_starts(Path(folder) / "empty", args.repeats)]
        rows += _lists(Path(folder), args.repeats)
        rows += _running(Path(folder), args)
    for row in rows:
        print(row)
    path = write_results(
        "web-page",
        rows,
        folder=args.out,
        command=command_line(without=("--out",)),
        notes={**vars(args), "load_before": load, "load_after": os.getloadavg()[0]},
    )
    print(path)


if __name__ == "__main__":
    main()
