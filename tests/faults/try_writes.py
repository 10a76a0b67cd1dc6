"""Faults at the writes of one command: `try_writes.py PLACE COMMAND [--every N] [--only TEXT]`.

It is a process of its own, as it forks: the process of the tests may have threads. Prints each site with its
hits, each finding, and the counts; the exit status is 1 when there was a finding.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from commands import NAMES, Case, ready
from writes import FAULTS, Fault, faults


def some(all_of: list[Fault], every: int) -> list[Fault]:
    """Every so many, in such steps that each kind of fault comes."""
    step = every + 1 if every > 1 and every % len(FAULTS) == 0 else every
    return all_of[step // 2 :: step]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("command", choices=NAMES)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    ready()
    case = Case.recorded(args.command, args.place / args.command)
    for site, count in sorted(case.sound.hits.items()):
        print(f"{count:4d} x {site}", flush=True)
    start, done = time.time(), Counter[str]()
    tried = [f for f in some(list(faults(case.sound.hits)), args.every) if args.only in str(f)]
    for fault in tried:
        wrong = case.trial(fault)
        done["wrong" if wrong else "right"] += 1
        if wrong:
            print(f"WRONG {fault}\n{wrong.strip()}\n", flush=True)
    told = ", ".join(f"{count} {word}" for word, count in done.items())
    print(f"{args.command}: {len(case.sound.hits)} sites, {told}, {time.time() - start:.0f} s")
    return 1 if done["wrong"] or not done else 0


if __name__ == "__main__":
    sys.exit(main())
