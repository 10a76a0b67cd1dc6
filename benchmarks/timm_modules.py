"""How many of timm's networks can be exported and pruned: the smallest model of each of its modules.

    python -m benchmarks.timm_modules --seconds 120 --out benchmarks/results

The list is written down first (`timm-modules.list.json` in --work), then every model is tried in a process of
its own with a time limit, with random weights: exported to ONNX and run against eager; pruned to at most 60 %
of its multiply-adds by equal shares of every group of channels and heads, exported again and compared. What
is found lies in one file a model, so a run that is stopped goes on where it was. A failure is named by its
cause.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.bench.results import write_results
from darts_core.export.fold import trace
from darts_core.prune.groups import channels_to_remove, find_groups, least_width
from darts_core.prune.heads import groups_of_heads, open_attentions, remove
from darts_core.prune.importance import channel_importance
from darts_core.supernet import count

# beside a CPU build of torch, torchvision's own binary is not loaded and its operators are unknown: timm only
# imports it, so their names are enough
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    with contextlib.suppress(RuntimeError):
        _LIBRARY.define(_schema)

SHARE = 0.6
TOLERANCE = 1e-3


def smallest() -> dict[str, str]:
    """Module -> its model of fewest parameters, counted without memory for them."""
    import timm

    found: dict[str, str] = {}
    for module in timm.list_modules():
        sizes: dict[str, int] = {}
        for name in timm.list_models(module=module):
            try:
                with torch.device("meta"):
                    model = timm.create_model(name, pretrained=False)
                sizes[name] = sum(p.numel() for p in model.parameters())
            except Exception:  # some read values while they are made
                continue
        if sizes:
            found[module] = min(sizes, key=lambda name: sizes[name])
    return found


def relative_error(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Of ONNX Runtime against eager on two random images, by the largest output."""
    import onnxruntime

    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        program = torch.onnx.export(trace(model, shape), dynamo=True, verbose=False)
        program.save(str(path))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    scale = float(wanted.abs().max().clamp_min(1e-12))
    return float((torch.from_numpy(given) - wanted).abs().max()) / scale


def pruned(model: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, float]:
    """(a copy with at most 60 % of the multiply-adds, the share that is left), by magnitude."""
    whole = copy.deepcopy(model)
    open_attentions(whole, shape)
    groups = [*find_groups(whole, shape), *groups_of_heads(whole, shape)]
    scores = channel_importance(whole, groups, "magnitude")
    before = count(whole, shape).macs
    low, high = 0.05, 1.0
    best: tuple[nn.Module, float] | None = None
    for _ in range(5):
        kept = (low + high) / 2
        removed = {
            group.root: channels_to_remove(
                group, scores[group.root], max(least_width(group), round(kept * group.channels))
            )
            for group in groups
        }
        tried = remove(copy.deepcopy(whole), shape, groups, removed)
        share = count(tried, shape).macs / before
        if share <= SHARE:
            best, low = (tried, share), kept
        else:
            high = kept
    if best is None:
        raise RuntimeError(f"{len(groups)} groups: no plan leaves 60 % of the multiply-adds")
    return best


def one(name: str) -> dict[str, Any]:
    """What became of one model."""
    import timm

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = timm.create_model(name, pretrained=False).eval()
    shape = tuple(model.pretrained_cfg.get("input_size", (3, 224, 224)))
    row: dict[str, Any] = {"name": name, "params": sum(p.numel() for p in model.parameters())}

    def attempt(key: str, action: Any) -> Any:
        try:
            return action()
        except Exception as error:
            row[key] = f"{type(error).__name__}: {str(error).strip()[:300]}"
            return None

    def judge(key: str, network: nn.Module) -> None:
        error = attempt(key, lambda: relative_error(network, shape))
        if error is not None:
            row[f"{key}_error"] = error
            row[key] = "agrees" if error <= TOLERANCE else f"relative error {error:.2g}"

    judge("export", model)
    cut = attempt("prune", lambda: pruned(model, shape))
    if cut is not None:
        row["macs_left"] = round(cut[1], 3)
        judge("prune", cut[0])
    return row


def main() -> None:
    """Try every model, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="for one model")
    parser.add_argument("--limit", type=float, default=1e9, help="seconds in all; then stop")
    parser.add_argument("--work", default="timm-modules")
    parser.add_argument("--out", default="benchmarks/results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one)))
        return
    work = Path(given.work)
    work.mkdir(parents=True, exist_ok=True)
    listed = work / "timm-modules.list.json"
    if not listed.exists():
        listed.write_text(json.dumps(smallest(), indent=1), encoding="utf-8")
    models = json.loads(listed.read_text(encoding="utf-8"))
    started = time.monotonic()
    for name in models.values():
        file = work / f"{name}.json"
        if file.exists() or time.monotonic() - started > given.limit:
            continue
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.timm_modules", "--one", name]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, encoding="utf-8", timeout=given.seconds
            )
            last = (done.stdout.strip().splitlines() or [""])[-1]
            row = json.loads(last) if done.returncode == 0 else None
            why = f"ended with status {done.returncode}: {done.stderr.strip()[-200:]}"
        except subprocess.TimeoutExpired:
            row, why = None, f"not done after {given.seconds:g} s"
        file.write_text(
            json.dumps(row or {"name": name, "export": why, "prune": why}), encoding="utf-8"
        )
        print(file.read_text(encoding="utf-8"))
    rows = [
        json.loads(f.read_text(encoding="utf-8"))
        for f in (work / f"{n}.json" for n in models.values())
        if f.exists()
    ]
    counts = {
        key: Counter(row[key] == "agrees" for row in rows)[True] for key in ("export", "prune")
    }
    print(f"{counts} of {len(rows)} tried; {len(models)} listed")
    path = write_results(
        "timm-modules",
        rows,
        device=f"{platform.machine()}, {os.cpu_count()} cores",
        folder=given.out,
        notes={**vars(given), "listed": models, "tried": len(rows), "agree": counts},
        command=f"python -m benchmarks.timm_modules {' '.join(sys.argv[1:])}",
    )
    print(path)


if __name__ == "__main__":
    main()
