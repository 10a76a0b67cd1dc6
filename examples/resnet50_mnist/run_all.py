"""Pure architecture search, multi-search and differentiable search, one table, and exported latencies.

    python run_all.py --root runs --width 16 --images 4000 --epochs 8 --batch 32
    python run_all.py --root runs ... --only nas        # one search now, the others later
    python run_all.py --root runs ... --only-table      # nothing is trained; latencies are measured again

Every search is a job: `darts-core jobs --root runs show nas` shows it in full. A finished job is taken as
it is, a stopped or interrupted one goes on where it was. `--out DIR` writes a results file.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from table import report

HERE = Path(__file__).resolve().parent
JOBS = {
    "nas": (["nas.yaml"], []),
    # the budget in nas.yaml is for that search alone; here two of them share one
    "multi": (["learning_rate.yaml", "nas.yaml"], ["--multi", "serial", "--budget", "8x"]),
    "differentiable": (["differentiable.yaml"], []),
}
SIZES = ("images", "epochs", "width", "batch")


def jobs(args: argparse.Namespace, *words: str, allowed: tuple[int, ...] = (0,)) -> str:
    """The output of `darts-core jobs WORDS`, run as a command of its own."""
    command = [sys.executable, "-c", "from darts_core.cli import main; raise SystemExit(main())"]
    done = subprocess.run(
        [*command, "jobs", "--root", args.root, *words],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode not in allowed:
        raise SystemExit(f"jobs {' '.join(words)} ended with status {done.returncode}")
    return done.stdout


def states(args: argparse.Namespace) -> dict[str, str]:
    """The state of every job there is."""
    rows = json.loads(jobs(args, "list", "--json"))
    return {row["name"]: row["state"] for row in rows}


def words_of(args: argparse.Namespace, name: str) -> list[str]:
    """The `create` command of a search."""
    files, more = JOBS[name]
    words = ["create", "--name", name, "--code", str(HERE / "code"), "--boot-file", "searched.py"]
    for file in files:
        words += ["--config", str(HERE / file)]
    for key in SIZES:
        words += ["--arg", f"{key}={getattr(args, key)}"]
    if Path(args.data).is_dir():
        words += ["--data", args.data]
    else:
        words += ["--arg", f"data_url={args.data}"]
    words += ["--set", f"max_iterations={args.epochs}"]
    words += ["--set", f"general.confirm_seeds={args.seeds}"]
    return [*words, *more, "--devices", args.device, "--wait"]


def search(args: argparse.Namespace, name: str) -> None:
    """Bring a search to its end: create its job, or go on with it."""
    state = states(args).get(name)
    if state is None:
        print(jobs(args, *words_of(args, name)))
        return
    shown(args, name)
    if state in ("queued", "running"):
        raise SystemExit(f"{name} is {state}; wait for it, or stop it with `jobs stop {name}`.")
    if state != "succeeded":
        print(jobs(args, "resume", name, "--wait"))


def shown(args: argparse.Namespace, name: str) -> dict:
    """Everything `jobs show` knows of a search, which must have been made with the same sizes."""
    found = json.loads(jobs(args, "show", name, "--json", "--limit", "1000"))
    own = found["parameters"]["arguments"]
    for key in SIZES:
        if own.get(key) != str(getattr(args, key)):
            raise SystemExit(
                f"{name} in {args.root} was made with {key}={own.get(key)}, not {getattr(args, key)}; "
                "give the same sizes, or another --root."
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default="runs", help="folder of the jobs")
    parser.add_argument(
        "--data", default="/usr/share/datasets/fashion-mnist", help="folder or 'digits'"
    )
    parser.add_argument("--images", type=int, default=4000, help="of the train split")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=16, help="of the stem; ResNet-50 has 64")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=5, help="fresh ones, for pick and ResNet-50")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--export-batch", type=int, default=32, help="images a call of the timing")
    parser.add_argument("--only", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument(
        "--only-table", action="store_true", help="no training: export, time, print"
    )
    parser.add_argument("--out", metavar="DIR", help="write a results file into this folder")
    args = parser.parse_args()
    if not args.only_table:
        for name in args.only:
            search(args, name)
    done = [name for name, state in states(args).items() if state == "succeeded" and name in JOBS]
    if not done:
        raise SystemExit(f"No search in {args.root} has finished yet; run without --only-table.")
    # in the order of the table, whatever was run when
    report({name: shown(args, name) for name in JOBS if name in done}, args, jobs)


if __name__ == "__main__":
    main()
