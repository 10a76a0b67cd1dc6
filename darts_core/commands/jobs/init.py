"""`jobs init DIR`: reads a training script and proposes its job file; the person looks at it and keeps it."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.commands.jobs.options import place_of
from darts_core.commands.jobs.script_reading import Network, Script, read_script
from darts_core.commands.jobs.suggest import Suggestion
from darts_core.errors import JobError
from darts_core.report.tables import neutral
from darts_core.store.jobs import Store

__all__ = ["proposal"]

# settings that are worth a search, by a part of their name, with the factor to either side
_WORTH = {"lr": 10, "learning": 10, "decay": 10, "wd": 10, "momentum": 0, "dropout": 0, "smoothing": 0,
          "hidden": 2, "width": 2, "blocks": 2, "depth": 2, "layers": 2, "gamma": 0}  # fmt: skip
# of options that take some values alone
_WORTH_CHOOSING = (*_WORTH, "optimizer", "optim", "opt", "activation", "act", "scheduler", "schedule",
                   "sched", "norm", "pool", "pooling")  # fmt: skip
_HELD_OUT = ("val", "valid", "validation", "dev", "eval")
_TIMES = ("latency", "inference", "ms")
# what is read off a network before its loss, which most scripts print of the training
_GOOD = ("acc", "accuracy", "top1", "f1", "auc", "r2", "rmse", "mae", "mape", "mse", "perplexity", "ppl",
         "wer", "cer", "loss")  # fmt: skip
# of numbers that a training only tells of itself
_ASIDE = {"lr", "learning", "wd", "momentum", "grad", "time", "elapsed", "eta", "seconds", "secs", "sec",
          "s", "it", "speed", "throughput", "samples", "images", "memory", "mem", "gpu", "params",
          "parameters"}  # fmt: skip
# with one of these a name is a figure of a network all the same: `S-measure`, `val_time_error`
_FIGURE = {"measure", "score", "error", "err"}


def _words(name: str) -> list[str]:
    return re.split(r"[\W_]+", name.lower())


def _range(name: str, default: float) -> dict[str, Any] | None:
    """The range to propose for an option, or None for one that is no matter of a search."""
    parts = _words(name)
    factor = next((f for word, f in _WORTH.items() if word in parts), None)
    if factor is None or default <= 0:
        return None
    if factor:
        low, high = default / factor, default * factor
        whole = isinstance(default, int)
        kind = {"integer": True} if whole else {"log": True}
        return {
            "start": max(1, round(low)) if whole else low,
            "stop": round(high) if whole else high,
            **kind,
        }
    if default >= 1:
        return None
    between = (1.0 + default) / 2
    # a decay of 0.999 lies in its range, too
    return {"start": default / 2, "stop": between if default > 0.99 else min(between, 0.99)}


def _rank(metric: Suggestion) -> tuple[int, int]:
    """What to optimise: held-out figures first, training figures late, test figures last.

    Behind them what is no figure of a network, such as the learning rate.
    """
    words = _words(metric.name)
    kind = (
        0 if set(words) & set(_HELD_OUT) else 3 if "test" in words else 2 if "train" in words else 1
    )
    good = next((i for i, good in enumerate(_GOOD) if good in words), len(_GOOD))
    aside = not _ASIDE.isdisjoint(words) and _FIGURE.isdisjoint(words)
    return (4 if good == len(_GOOD) and aside else kind), good


def _names(metrics: Sequence[Suggestion]) -> dict[str, str]:
    """Each metric's name in the job file: a test figure's begins with `test`: shown, never chosen by."""
    names: dict[str, str] = {}
    for metric in metrics:
        found = re.search(r"(?<![^\W_])test.*", metric.name, re.IGNORECASE)
        name = found[0].lower() if found else metric.name
        names[metric.name] = metric.name if name in names.values() else name
    return names


def _part(width: str, by: int) -> str:
    """A fraction of a width as it is written: `32` or `2 * channels`."""
    if width.isdigit():
        return str(int(width) // by)
    return f"{width} // {by}" if width.isidentifier() else f"({width}) // {by}"


def _searchable(name: str, network: Network) -> list[str]:
    """The lines that make a network searchable, as remarks."""
    lines = [
        f"to search the network {name} by gradient, change these lines (jobs init --network proposes its "
        "job file):",
        "  from darts_core import autosearch",
    ]
    for line, layer, width in network.layers[:3]:
        options = f"[{_part(width, 4)}, {_part(width, 2)}, {width}]"
        lines.append(
            f"  line {line}, behind {layer} and its norm and activation: autosearch.WidthChoice({options})"
        )
    if not network.layers:
        lines.append("  behind a layer of 32 channels: autosearch.WidthChoice([8, 16, 32])")
    where, call = "", f"{name}(...)"
    if network.made is not None:
        file, line, call = network.made
        where = f"{file}:{line}: "
    lines.append(
        f"  {where}model = autosearch.searchable({call}, {network.takes})  # one input's shape"
    )
    return lines


def proposal(script: Script, *, network: bool = False) -> str:
    """The job file as text, with remarks on what to look at.

    Args:
        script: what was read.
        network: search the script's network by gradient, instead of its options.
    """
    chosen = {
        name: allowed
        for name, allowed in script.choices.items()
        if len(allowed) > 1 and set(_words(name)) & set(_WORTH_CHOOSING)
    }
    # the parser would refuse what lies between the values of a choice
    free = {n: d for n, d in script.options.items() if n not in script.choices}
    ranges = {n: r for n, d in free.items() if (r := _range(n, d))}
    good = sorted(script.metrics, key=_rank)
    names = _names(good)
    reward = names[good[0].name] if good else "accuracy"
    mode = good[0].mode if good else "max"
    lines = ["# proposed from the script; look at every line before you keep it", "general:"]
    words = [f"{script.flags[name]} {{{name}}}" for name in (*ranges, *chosen) if not network]
    words += [f"{script.seed} {{seed}}"] if script.seed else []
    command = " ".join(["python", shlex.quote(script.boot_file), *words])
    lines.append(f"  command: {json.dumps(command, ensure_ascii=False)}")
    if not script.seed:
        lines.append(
            "  # the script takes no seed: random, numpy and torch are seeded when it imports them"
        )
    lines += _metrics(good, names)
    if script.model_file:
        lines.append(
            f"  model_file: {script.model_file}  # what the script saves; `best` takes it home"
        )
    goals = _goals(good, names, reward, mode)
    if network:
        return "\n".join([*lines, *_by_gradient(script, goals)])
    lines += _space(script, ranges, chosen)
    lines += ["search_algorithm:", "  type: tpe_search", *goals, "  num_samples: 20"]
    if script.epochs:
        lines.append(
            f"# max_iterations: {script.epochs}  # printed values of that metric in one training: with it, "
            "--dry-run tells the time\n"
            f"# scheduler: {{type: async_hyperband, grace_period: {max(1, script.epochs // 3)}}}  # ... and "
            "hopeless trials are stopped early"
        )
    return "\n".join(lines)


def _goals(
    good: Sequence[Suggestion], names: Mapping[str, str], reward: str, mode: str
) -> list[str]:
    """What to optimise: the held-out figure, and the time of an inference where the script prints one."""
    parts = {names[m.name]: set(_words(m.name)) for m in good}
    time = next((n for n, words in parts.items() if n != reward and words & set(_TIMES)), None)
    if time is None:
        return [f"  reward_attr: {reward}", f"  mode: {mode}"]
    return [
        "  objectives:",
        f"    - {{metric: {reward}, mode: {mode}, tolerance: 0}}  # how much of it may be given up for speed",
        f"    - {{metric: {time}, mode: min}}",
    ]


def _metrics(good: Sequence[Suggestion], names: Mapping[str, str]) -> list[str]:
    lines = ["  metrics:"]
    for item in good:
        quoted = neutral(item.regex, 500).replace("'", "''")
        lines.append(f"    - {{name: {names[item.name]}, regex: '{quoted}'}}")
    if not good:
        lines.append(
            "    - {name: accuracy, regex: 'accuracy ([0-9.]+)'}  # what does your script print?"
        )
    return lines


def _number(value: float) -> str:
    """An end of a range, or a truth value, as YAML has it: without the rounding error of a product."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _space(
    script: Script,
    ranges: Mapping[str, Mapping[str, Any]],
    chosen: Mapping[str, Sequence[float | str]],
) -> list[str]:
    lines = ["search_space:", "  - params:"]
    for name, kept in ranges.items():
        shown = ", ".join(f"{key}: {_number(value)}" for key, value in kept.items())
        lines.append(
            f"      - {{type: continuous_param, name: {name}, {shown}, default: {script.options[name]!r}}}"
        )
    for name, allowed in chosen.items():
        # a list of JSON is one of YAML
        values, usual = (
            json.dumps(allowed, ensure_ascii=False),
            json.dumps(allowed[0], ensure_ascii=False),
        )
        lines.append(
            f"      - {{type: discrete_param, name: {name}, values: {values}, default: {usual}}}"
        )
    if not ranges and not chosen:
        lines.append("      # no option looks worth a search; name one that your script has")
        lines.append(
            "      - {type: continuous_param, name: lr, start: 0.001, stop: 0.1, log: true}"
        )
    return lines


def _by_gradient(script: Script, goals: Sequence[str]) -> list[str]:
    """A differentiable search whose found network is retrained and compared with the script's own."""
    return [
        "  baseline: {architecture: baseline}  # the network as it is",
        "search_algorithm:",
        "  type: differentiable_search",
        "  setting: architecture",
        "  base: own",
        "  target_cost: 0.5  # of the multiply-accumulates of your own network",
        *goals,
        f"max_iterations: {script.epochs or 10}  # printed values of that metric in one training",
    ]


def run_init(store: Store, args: argparse.Namespace) -> int:
    """`jobs init`."""
    script = read_script(Path(args.folder), Path(args.log) if args.log else None)
    text = proposal(script, network=args.network)
    if args.write:
        target = place_of(args.write, "--write")
        if target.exists():
            raise JobError(f"{target} exists already; name another file with --write.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n", encoding="utf-8")
        print(f"Written to {target}; look at it, then:")
        code, config = (shlex.quote(neutral(path, 4000)) for path in (args.folder, target))
        print(f"  darts-core jobs create --name NAME --code {code} --config {config} --dry-run")
    else:
        print(text)
    for name, network in list(script.networks.items())[:3]:
        print("\n" + "\n".join(f"# {line}" for line in _searchable(name, network)))
    return 0
