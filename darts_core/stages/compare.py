"""`bench what=models model=...`: one model over several seeds in every runtime, and the joint picture.

Elements of a multirun share the trained networks, which lie in `<version>/trained/<name>-<hash>/`; after
each element the rows of all finished ones are drawn together in `<version>/models.png`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from darts_core.architecture import Architecture
from darts_core.bench.models import (
    ModelCase,
    bench_case,
    saved_case,
    seed_settings,
    train_seeds,
)
from darts_core.bench.results import slug, write_results
from darts_core.bench.runtimes import available_runtimes, check_runtimes
from darts_core.bench.table import markdown_table, print_models
from darts_core.bench.timed import with_times
from darts_core.data import DataBundle
from darts_core.errors import ConfigError, DartsError
from darts_core.models.baselines import is_baseline
from darts_core.models.named import is_named
from darts_core.reading import read_text
from darts_core.report import ModelRow
from darts_core.report.elements import OVERRIDES
from darts_core.report.read import read_rows, read_settings
from darts_core.runlog import code_mark, config_hash, environment, read_mapping, write_text
from darts_core.settings import TrainConfig, to_plain
from darts_core.settings.train import as_before
from darts_core.stages.fronts import draw_together, is_element
from darts_core.stages.inputs import (
    Network,
    describe_network,
    named_network,
    policy_node,
    recipe,
)
from darts_core.stages.models import trained_kind, with_whole_cost
from darts_core.stages.schema import PLACES, BenchStage
from darts_core.store.locks import FileLock
from darts_core.train import save_model
from darts_core.train.model_data import tell_other_test

__all__ = ["compare", "join_rows", "keep_results"]

log = logging.getLogger("darts_core")
_KINDS = {"searched": "searched", "export": "exported", "prune": "pruned", "shrink": "pruned"}
# words of an element that say how a network is measured, not which one it is
_MEASURED = (*PLACES, "runtime", "device", "logger")
_OF_THE_NETWORK = ("bench.options.seeds", "bench.options.width")
# characters of a name that a table shows
_LONGEST = 60


def compare(
    config: BenchStage, folder: Path, bundle: DataBundle, device: torch.device
) -> list[ModelRow]:
    """Rows of `model=` in `runtime=` (null: all that the device can run).

    `model=` is a hand-designed or a named network (see `models.named`) or an architecture (name, text or
    YAML file), which are trained here with the `train` recipe over `bench.options.seeds` seeds, or a
    trained model's file or folder, or a named network with its `weights=`, which are taken as they are.

    Raises:
        ConfigError: an option, runtime or precision is unknown.
    """
    options, wanted = config.bench.options, config.runtime
    runtimes = check_runtimes([wanted], device) if wanted else available_runtimes(device)
    root = _root(folder)
    case, settings = _case(config, root, bundle)
    home = root / "trained" / f"{slug(case.name)}-{config_hash(settings)}"
    # a changed policy lies beside the networks that it trained: an older program wrote one into each element,
    # so that the second found networks of another recipe
    alone = bool(case.trained) or (folder / "policy.yaml").is_file()
    # of elements that run side by side one trains them, the others wait and take what it left
    with contextlib.nullcontext() if case.trained else FileLock(home / ".lock").held():
        settled = recipe(config, folder if alone else home)
        seeds = range(config.seed, config.seed + options.seeds)
        if _is_ours(config) and not case.trained:
            _take_over(case, bundle, settled, seeds, home)
        runs = train_seeds(case, bundle, settled, seeds=seeds, device=device, folder=home)
    rows = bench_case(
        case,
        runs,
        bundle,
        runtimes=runtimes,
        device=device,
        folder=folder / "files",
        precisions=options.precisions or ("fp32",),
    )
    if len(case.trained) == 1:  # of a version, whose search and study are part of what it cost
        place = case.trained[0].absolute().parent
        rows = (replace(one, row=with_whole_cost(one.row, place)) for one in rows)
    return with_times(
        rows, device=device, batch_sizes=options.batch_sizes, seconds=config.bench.seconds
    )


def _is_ours(config: BenchStage) -> bool:
    """Whether all code of the network is of this program: what a user's file holds may have changed."""
    text = str(config.model)
    return not config.plugins and (is_baseline(text) or not is_named(text))


def _take_over(
    case: ModelCase, bundle: DataBundle, settled: TrainConfig, seeds: range, home: Path
) -> None:
    """Copy into `home` the seeds that another version of the job has trained alike."""
    mark, versions = config_hash(bundle.marks), home.parent.parent.parent
    for seed in seeds:
        own = home / f"seed{seed}"
        stamp = config_hash(seed_settings(case, bundle, settled, seed))
        others = sorted(versions.glob(f"*/trained/{home.name}/{own.name}"), reverse=True)
        alike = (place for place in others if _trained_alike(place, stamp, mark))
        place = None if own.exists() else next(alike, None)
        if place is None:
            continue
        half = home / ".taken"  # whose copy was cut off is no seed that has begun
        shutil.rmtree(half, ignore_errors=True)
        try:
            shutil.copytree(place, half)
            half.rename(own)
        except OSError as error:  # that version may be deleted meanwhile
            shutil.rmtree(half, ignore_errors=True)
            log.warning("%s cannot be copied, so that it is trained anew: %s", place, error)
        else:
            log.info("%s, seed %d: trained already, taken from %s", case.name, seed, place)


def _trained_alike(place: Path, stamp: str, mark: str) -> bool:
    """Whether a seed was trained to its end with these settings, on these data, by this very program."""
    try:
        known = read_mapping(place / "result.json")
        if known.get("data_mark") != mark or read_text(place / "config.hash").strip() != stamp:
            return False
        then, now = read_mapping(place / "environment.json"), environment()
    except DartsError:
        return False
    if any(then.get(key) != now[key] for key in ("packages", "commit")):
        return False
    if known.get("code_mark") != code_mark():
        log.info("%s is not taken over: the program's own files were edited since", place)
        return False
    return True


def _case(config: BenchStage, root: Path, bundle: DataBundle) -> tuple[ModelCase, dict[str, Any]]:
    """The model that `model=` names, and everything that decides what its training gives."""
    text, options = str(config.model), config.bench.options
    if is_named(text) and not is_baseline(text):
        return _named_case(config, root, bundle)
    if config.weights is not None or config.model_args:
        raise ConfigError(
            "weights= and model_args= go with a named model, such as model=package.module:function."
        )
    path = Path(text).expanduser()
    if len(text) < 250 and path.exists() and path.suffix not in (".yaml", ".yml"):
        home = path.parent if path.is_file() else path
        tell_other_test(home, to_plain(config.data))
        kind = trained_kind(home.parent) if home.name == "train" else _KINDS.get(home.name, "")
        kind = options.kind or kind
        return saved_case(path, name=options.name or kind or home.name, kind=kind), {}
    # `train.channels` is the width of cells; a hand-designed network has its own
    width = options.width if is_baseline(text) else config.train.channels
    network = describe_network(text, config.train, root, bundle, width=width)
    if is_baseline(text):
        kind, name = "searched" if ":" in text else "baseline", text
    else:
        named = text in Architecture.names()
        kind, name = ("published", text) if named else ("searched", "searched")
    case = ModelCase(
        options.name or name,
        options.kind or kind,
        make=network.make,
        meta=network.meta,
    )
    return case, _deciding(config, network)


def _deciding(config: BenchStage, network: Network) -> dict[str, Any]:
    policy = policy_node(config.augment)
    return {
        "meta": network.meta,
        "train": as_before(to_plain(config.train)),
        "data": to_plain(config.data),
        # folders without a policy keep the names that they had before it counted
        **({"augment": to_plain(policy)} if policy else {}),
    }


def _named_case(
    config: BenchStage, root: Path, bundle: DataBundle
) -> tuple[ModelCase, dict[str, Any]]:
    """A network of a name: trained here, or kept as a file where its weights are given."""
    text, options = str(config.model), config.bench.options
    network = named_network(text, config.model_args, config.weights, bundle)
    name, kind = options.name or text, options.kind or ""
    settings = _deciding(config, network)
    if config.weights is None:
        return ModelCase(name, kind, make=network.make, meta=network.meta), settings
    home = root / "given" / f"{slug(name)}-{config_hash({**settings, 'weights': config.weights})}"
    home.mkdir(parents=True, exist_ok=True)
    save_model(home / "model.pt", network.make(), network.meta)
    return saved_case(home, name=name, kind=kind), {}


def _root(folder: Path) -> Path:
    """The version's folder of a stage's folder, also from within an element of a multirun."""
    above = folder.parent
    return above.parent if is_element(above) else above


def join_rows(folder: Path, config: BenchStage) -> list[ModelRow]:
    """Rows of all finished elements beside `folder`, drawn and tabled together in the version's folder.

    With `bench.options.results=DIR` they are also written to a results file there.
    """
    root = _root(folder)
    found: dict[Path, list[ModelRow]] = {}
    for path in sorted(root.glob("*/bench/results.json"), key=lambda p: (len(p.parts[-3]), p)):
        try:
            found[path.parent.parent] = read_rows(path)
        except DartsError as error:
            log.warning("left out: %s", error)
    rows = _told_apart(found)
    if not rows or folder.parent == root:
        rows = rows or read_rows(folder / "results.json")
    write_text(root / "models.md", markdown_table(rows))
    print_models(rows, title=", ".join(dict.fromkeys(row.device for row in rows)))
    draw_together(rows, root)
    keep_results(rows, config, f"{root.parent.name}-{root.name}", train=to_plain(config.train))
    return rows


def _told_apart(found: Mapping[Path, Sequence[ModelRow]]) -> list[ModelRow]:
    """The rows of all elements; of one name, networks of other settings are named by these as well.

    A picture joins what has one name, and a table compares it: two trained networks are both "trained".
    """
    words = {element: _network_words(element) for element in found}
    elements: dict[str, list[Path]] = {}
    for element, own in found.items():
        for name in {row.name for row in own}:
            elements.setdefault(name, []).append(element)
    shared = {n: set.intersection(*(set(words[e]) for e in of)) for n, of in elements.items()}
    rows: list[ModelRow] = []
    for element, own in found.items():
        for row in own:
            told = [row.name, *(word for word in words[element] if word not in shared[row.name])]
            name = " ".join(told)
            if len(name) > _LONGEST:
                first = next(e for e in elements[row.name] if words[e] == words[element])
                name = f"{row.name} {first.name}"
            rows.append(replace(row, name=name if len(told) > 1 else row.name))
    return rows


def _network_words(element: Path) -> list[str]:
    """The overrides of an element that decide which network it measures."""
    content = read_settings(element / OVERRIDES)
    kept = []
    for word in map(str, content if isinstance(content, list) else ()):
        key = word.lstrip("+~").partition("=")[0]
        measures = key.partition(".")[0] in (*_MEASURED, "bench")
        if key in _OF_THE_NETWORK or not measures:
            kept.append(word)
    return kept


def keep_results(rows: Sequence[ModelRow], config: BenchStage, name: str, **notes: Any) -> None:
    """A dated results file of the rows where `bench.options.results` names a folder for it."""
    folder = config.bench.options.results
    if not folder:
        return
    path = write_results(
        "models",
        rows,
        device=rows[0].device,
        folder=folder,
        # an element that a cluster runs has another command line of its own
        command=os.environ.get("DARTS_RESUME_COMMAND"),
        notes={"data": to_plain(config.data), **notes},
        name=name,
    )
    log.info("results file: %s", path)
