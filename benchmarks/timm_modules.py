"""How many of timm's networks can be exported and pruned: the smallest model of each of its modules.

    python -m benchmarks.timm_modules --list-only
    python -m benchmarks.timm_modules --seconds 300

The list (`timm-modules.list.json` in --work) is written before the first model is tried: every model of timm
is made without memory for its values and counted (one that has made three times the parameters of its
module's smallest so far is left there), and of each module the one of fewest parameters is taken. Then each
is tried in a process of its own with a limit on its processor time, with random weights at its own image
size: `export_model` writes ONNX, which holds the file against eager (1e-4 of the largest output, batches of
1, 2 and 5); the network is pruned to at most 60 % of its multiply-adds, exported again and compared. Pruned
are equal shares of every group of channels and heads; where all of them leave more, half of each stays and
the last residual blocks go. What is found lies in one file a model, so a run that is stopped goes on where it
was, and a model whose file is deleted is tried again. Failures name their cause.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import math
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.bench.results import write_results
from darts_core.errors import DartsError
from darts_core.export import export_model
from darts_core.prune.groups import ChannelGroup, channels_to_remove, find_groups, least_width
from darts_core.prune.heads import groups_of_heads, open_attentions, remove
from darts_core.prune.importance import channel_importance
from darts_core.prune.proof import movable
from darts_core.prune.structure import find_cuts
from darts_core.supernet import count
from darts_core.supernet.replace import replace_modules

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def import_timm() -> Any:
    """timm, also beside a torchvision whose binary does not load as it was built for another torch.

    timm only imports that one, so that the names of its operators are enough.

    Raises:
        ImportError: there is no timm here.
    """
    with contextlib.suppress(ImportError):
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            for schema in (
                "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            ):
                with contextlib.suppress(RuntimeError):
                    _LIBRARY.define(schema)
    import timm

    return timm


SHARE = 0.6
Shape = tuple[int, ...]


def made(name: str) -> nn.Module:
    """The model with random weights, in eval mode."""
    model: nn.Module = import_timm().create_model(name, pretrained=False)
    for parameter in model.parameters():
        # a classifier that begins at zero would hide whatever goes wrong before it
        if parameter.ndim > 1 and not parameter.is_meta and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


class _TooLarge(BaseException):
    """Ends the making of a model."""


@contextlib.contextmanager
def at_most(limit: float) -> Iterator[None]:
    """End the making of a model as soon as it has made more parameters than `limit`."""
    register, left = nn.Module.register_parameter, limit

    def counted(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if param is None else param.numel()
        if left < 0:
            raise _TooLarge
        register(self, name, param)

    nn.Module.register_parameter = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def size(name: str, limit: float) -> float:
    """Parameters of a model, counted without memory for their values; infinity above `limit` made."""
    try:
        with at_most(limit):
            try:
                with torch.device("meta"):
                    model = made(name)
            except Exception:  # some read values while they are made
                model = made(name)
    except _TooLarge:
        return math.inf
    return sum(p.numel() for p in model.parameters())


def looks_small(name: str) -> int:
    """Place of a name in the order of counting: those of small models first."""
    hints = (
        "test",
        "atto",
        "femto",
        "zepto",
        "pico",
        "nano",
        "micro",
        "_xxs",
        "xxt",
        "tiny",
        "small",
        "_s",
    )
    return next((place for place, hint in enumerate(hints) if hint in name), len(hints))


def smallest() -> dict[str, dict[str, Any]]:
    """Module -> its model of fewest parameters, how many these are, and of how many models.

    A model that has made three times the parameters of the smallest so far is not finished.
    """
    timm = import_timm()
    found: dict[str, dict[str, Any]] = {}
    for module in timm.list_modules():
        names = sorted(timm.list_models(module=module), key=lambda name: (looks_small(name), name))
        least: tuple[float, str] = (math.inf, "")
        for name in names:
            least = min(least, (size(name, 3 * least[0]), name))
        if names:
            found[module] = {"name": least[1], "params": least[0], "of": len(names)}
            print(module, found[module], flush=True)
    return found


def exported(model: nn.Module, shape: Shape) -> float:
    """The relative error of the ONNX file that `export_model` writes."""
    channels = shape[0]
    with torch.no_grad():  # some have no classifier (`num_classes` 0) and give features
        outputs = model(torch.zeros(2, *shape)).shape[1]
    meta = {
        "class_names": tuple(map(str, range(outputs))), "image_shape": shape,
        "mean": (0.5,) * channels, "std": (0.5,) * channels, "name": "random",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        manifest = export_model(
            model, folder, meta, formats=("onnx",), time_artifacts=False, batch_sizes=(1,),
            channels_last=False,
        )  # fmt: skip
    return float(manifest["artifacts"]["onnx"]["relative_error"])


def pruned(model: nn.Module, shape: Shape, note: dict[str, Any]) -> nn.Module:
    """A copy with at most 60 % of the multiply-adds, by magnitude; `note` receives what was found."""
    whole = copy.deepcopy(model)
    open_attentions(whole, shape)
    found: list[ChannelGroup] = [*find_groups(whole, shape), *groups_of_heads(whole, shape)]
    able = movable(whole, shape, found)
    groups = [group for group in found if able[group.root]]
    note["groups"] = len(groups)
    scores = channel_importance(whole, groups, "magnitude")
    before = count(whole, shape).macs

    def cut(model: nn.Module, kept: float) -> nn.Module:
        removed = {
            group.root: channels_to_remove(
                group, scores[group.root], max(least_width(group), round(kept * group.channels))
            )
            for group in groups
        }
        return remove(copy.deepcopy(model), shape, groups, removed)

    low, high, kept = 0.05, 1.0, math.sqrt(SHARE)
    best: nn.Module | None = None
    for _ in range(5):
        tried = cut(whole, kept)
        share = count(tried, shape).macs / before
        if share <= SHARE:
            best, low, note["macs_left"] = tried, kept, round(share, 3)
            if share > SHARE - 0.1:
                break
        else:
            high = kept
            note["least_macs"] = round(min(share, note.get("least_macs", 1.0)), 3)
        kept = (low + high) / 2
    return best if best is not None else shorter(cut(whole, 0.5), shape, before, note)


def shorter(model: nn.Module, shape: Shape, before: int, note: dict[str, Any]) -> nn.Module:
    """`model` without its last blocks, so many that 60 % of the multiply-adds are left."""
    gone: list[str] = []
    for found in reversed([c for c in find_cuts(model, shape) if c.by == "skip_connect"]):
        if any(found.path.startswith(f"{path}.") for path in gone):
            continue
        replace_modules(model, {found.path: found.by})
        gone.append(found.path)
        share = count(model, shape).macs / before
        note["blocks_gone"], note["least_macs"] = len(gone), round(share, 3)
        if share <= SHARE:
            note["macs_left"] = round(share, 3)
            return model
    raise RuntimeError(
        f"{note['least_macs']:.0%} of the multiply-adds are left where {note['groups']} groups are cut and "
        f"{len(gone)} blocks are gone"
    )


def one(name: str, path: Path, seconds: int) -> None:
    """Try one model; what became of it is written to `path`, step by step."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    row: dict[str, Any] = {"name": name}

    def attempt(key: str, action: Callable[[], Any]) -> Any:
        row[key] = f"not done after {seconds} s of the processor"
        path.write_text(json.dumps(row), encoding="utf-8")
        try:
            found = action()
            row[key] = "agrees"
        except Exception as error:
            what = str(error).strip().replace(tempfile.gettempdir(), "")[:400]
            row[key] = what if isinstance(error, DartsError) else f"{type(error).__name__}: {what}"
            found = None
        row["seconds"] = round(sum(os.times()[:2]) - started, 1)
        path.write_text(json.dumps(row), encoding="utf-8")
        return found

    started = sum(os.times()[:2])
    row["prune"] = "not reached"
    model = attempt("export", lambda: made(name))
    if model is None:
        return
    shape = tuple(model.pretrained_cfg.get("input_size", (3, 224, 224)))
    row |= {"params": sum(p.numel() for p in model.parameters()), "shape": shape}
    row["export_error"] = attempt("export", lambda: exported(model, shape))
    cut = attempt("prune", lambda: pruned(model, shape, row))
    if cut is not None:
        row["prune_error"] = attempt("prune", lambda: exported(cut, shape))
    path.write_text(json.dumps(row), encoding="utf-8")


def tried(name: str, path: Path, seconds: int) -> None:
    """`one` in a process of its own, so that none ends the others."""
    process = multiprocessing.get_context("fork").Process(target=one, args=(name, path, seconds))
    process.start()
    process.join(10 * seconds)
    if process.is_alive():
        process.kill()
        process.join()
    print(path.read_text(encoding="utf-8"), flush=True)


def main() -> None:
    """Try every model, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=300, help="of the processor, for one model")
    parser.add_argument("--limit", type=float, default=1e9, help="seconds in all; then stop")
    parser.add_argument("--list-only", action="store_true", help="write the list, try nothing")
    parser.add_argument("--work", default="timm-modules")
    parser.add_argument("--out", default="benchmarks/results")
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads would not outlive the fork
    work = Path(given.work)
    work.mkdir(parents=True, exist_ok=True)
    listed = work / "timm-modules.list.json"
    if not listed.exists():
        listed.write_text(json.dumps(smallest(), indent=1), encoding="utf-8")
    models = json.loads(listed.read_text(encoding="utf-8"))
    if given.list_only:
        return
    import onnxruntime  # noqa: F401  # once, for all the processes
    import onnxscript  # noqa: F401
    import torch_pruning  # noqa: F401

    import_timm()

    started = time.monotonic()
    for entry in sorted(models.values(), key=lambda entry: entry["params"]):
        path = work / f"{entry['name']}.json"
        if not path.exists() and time.monotonic() - started < given.limit:
            tried(entry["name"], path, given.seconds)
    found = {
        module: work / f"{entry['name']}.json"
        for module, entry in models.items()
        if (work / f"{entry['name']}.json").exists()
    }
    rows = [
        {"module": module, **json.loads(path.read_text(encoding="utf-8"))}
        for module, path in found.items()
    ]
    agree = {key: sum(row[key] == "agrees" for row in rows) for key in ("export", "prune")}
    print(f"{agree} of {len(rows)} tried; {len(models)} listed")
    path = write_results(
        "timm-modules",
        rows,
        folder=given.out,
        command=f"python -m benchmarks.timm_modules --seconds {given.seconds}",
        notes={
            "seconds": given.seconds, "listed": models, "tried": len(rows), "agree": agree,
            "timm": version("timm"), "onnxruntime": version("onnxruntime"),
            "torch_pruning": version("torch-pruning"),
        },
    )  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
