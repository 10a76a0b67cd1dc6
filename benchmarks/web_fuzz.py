"""Schemathesis against the live page's `/api`: every operation of its description, good and bad values.

    python -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install schemathesis
    python -m benchmarks.web_fuzz --st /tmp/fuzz/bin/st --examples 200

The server shows a made-up store and may start actions. Checked are: no error of the server, statuses, types
and contents as described, bad values refused. The names asked for are the fuzzer's own, so that most answers
are refusals; what is answered for names that exist is asked by `tests/unit/test_web_pages.py`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.jobs_list import make
from benchmarks.web_page import Search, Served
from darts_core.bench.results import command_line, write_results
from darts_core.runlog import processor_name
from darts_core.store.jobs import Store

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method"
)


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def main() -> None:
    """Fuzz, print and store what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--st", required=True, help="schemathesis' command, in an environment of its own"
    )
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        make(root, 4)
        Search(root, 5, 4)
        served = Served(root)
        words = [
            args.st, "run",
            f"http://127.0.0.1:{served.port}/api/openapi.json", "-H", f"Authorization: Bearer {served.token}",
            "--max-examples", str(args.examples), "--seed", str(args.seed), "--checks", CHECKS,
            "--request-timeout", "60", "--no-color",
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", cwd=folder)
        served.end()
        jobs = Store(root).jobs()
    print(done.stdout)
    row: dict[str, Any] = {
        "name": "schemathesis over /api",
        "exit_status": done.returncode,
        "operations": _number(r"Tested: (\d+)", done.stdout),
        "generated": _number(r"(\d+) generated", done.stdout),
        "passed": _number(r"generated, (\d+)\s+passed", done.stdout),
        "jobs_after": len(jobs),
        "version": (re.search(r"Schemathesis v([\d.]+)", done.stdout) or ["", ""])[1],
    }
    path = write_results(
        "web-api-fuzzing",
        [row],
        folder=args.out,
        device=processor_name(),
        command=command_line(without=("--out",)),
        notes={**vars(args), "checks": CHECKS},
    )
    print(path)


if __name__ == "__main__":
    main()
