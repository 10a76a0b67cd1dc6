"""Does a search find an operation that is known to be right? Every strategy and relaxation over seeds.

    python -m benchmarks.planted_field                       # all, 5 seeds, about 10 minutes of one core
    python -m benchmarks.planted_field --only first_order gumbel --seeds 2

The toy space has 16 architectures, one of which is planted in its data (`darts_core.spaces.toy`). A run
succeeds when both edges hold the planted operation. All runs see the data equally often. What the files'
settings become at this size (`SMALLER`, `SEARCH`, `WIDER`) is the same for all seeds and was chosen on seeds
10 to 19; the table's seeds are 0 to 4, and other first seeds have files of their own. With `--finalists` the
search ends as the command ends it by default: eight finalists are trained briefly, and the best of them on
val is what is found.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from darts_core.architecture import Architecture
from darts_core.data import DataBundle, RawData, make_bundle
from darts_core.runlog import environment, read_json, write_json, write_text
from darts_core.search import SearchConfig, SearchResult, search
from darts_core.search.finalists import Limits, choose_pool, prior_of, shared_weights_of
from darts_core.search.halving import Halving
from darts_core.settings import Search, TrainConfig
from darts_core.spaces import get_space
from darts_core.spaces.toy import PLANTED, planted_images
from darts_core.stages.targets import instantiate
from darts_core.strategies import FirstOrder
from darts_core.supernet import Supernet, build

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
CHANNELS = 8
# operations see half of the channels: as many as they see elsewhere
WIDER = {"partial_channels": 16}
CONFIG: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 64,
    "learning_rate": 0.1,
    "alpha_learning_rate": 0.02,
    "alpha_warmup_epochs": 6,
    "evaluate": False,
}
# one cell and 8 channels: what the files' settings become here; everything else is the files'
SMALLER: dict[str, dict[str, Any]] = {
    "p_darts": {
        "stages": [{}, {"operations": 3, "skip_dropout": 0.4}],
        "rest_share": 0.3,
        "max_skips": None,
    },
    "drnas_progressive": {
        "stages": [{"channel_fraction": 2}, {"operations": 2, "channel_fraction": 1}],
        "rest_share": 0.2,
    },
    # what is measured must have been learnt: half of 20 epochs is too early
    "darts_pt": {"warmup_share": 0.7},
    # alpha moves fast here: it must not be left to make up for the last of the auxiliary skip
    "darts_minus": {"decay_share": 0.15},
    # four operations of weight 1/4: 0.3 would turn any of them off
    "smooth_adversarial": {"epsilon_end": 0.1, "ascent_steps": 3},
    "rsps": {"samples": 64, "batches": 8},
    "random_search": {"candidates": 4},
    "regularized_evolution": {"candidates": 10, "population": 4},
    "zero_cost": {"samples": 16},
    "partial_channels": {"channel_fraction": 2},
    # a mean over 8 alphas and not over some 220: the paper's force on each of them
    "sigmoid": {"zero_one": 0.36},
}
# what a strategy is made for; the others run with softmax
RELAXATION = {"drnas_progressive": "dirichlet"}
# a stage has half of the epochs and a rest of its own: smaller batches give it enough steps
SEARCH: dict[str, dict[str, Any]] = {
    # half the batch: as many steps of params and alpha in each stage as others take in all
    "p_darts": {"batch_size": 32, "alpha_warmup_epochs": 0},
    "drnas_progressive": {"batch_size": 16, "alpha_warmup_epochs": 0},
    # the auxiliary skip hides the second pattern while it is there: what it hid is learnt first
    "darts_minus": {"alpha_warmup_epochs": 12},
}
NO_ALPHA = ("rsps", "random_search", "regularized_evolution", "zero_cost")


def planted_bundle() -> DataBundle:
    """1,600 planted images, divided as a search needs them."""
    images, labels = planted_images(1600, seed=0)
    raw = RawData(images, labels, ("--", "+-", "-+", "++"), "planted")
    return make_bundle("planted", raw).without_test()


def made(group: str, name: str) -> Any:
    """The strategy or relaxation of the YAML file, at the toy's size."""
    node = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    return instantiate(group, {**copy.deepcopy(node), **SMALLER.get(name, {})})


def best_finalist(
    found: SearchResult, supernet: Supernet, bundle: DataBundle, settings: SearchConfig, seed: int
) -> Architecture:
    """What the finalists' brief trainings choose, by the command's defaults."""
    usual, space = Search(), get_space("toy")

    def make(architecture: Architecture) -> nn.Module:
        return build(architecture, channels=CHANNELS, layers=1, num_classes=4, in_channels=3)

    batch = next(iter(bundle.batches("alpha", settings.batch_size, seed=seed, epoch=0)))
    rankings = {"prior": prior_of(make, batch)}
    rankings["shared weights"] = shared_weights_of(supernet, [batch])
    pool = choose_pool(
        found, space, Limits(lambda _: True), rankings, count=usual.finalists, seed=seed
    )
    recipe = TrainConfig(
        epochs=usual.finalist_epochs, batch_size=settings.batch_size,
        learning_rate=settings.learning_rate, drop_path=0.0, crop_padding=0, flip=False, cutout=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bracket = Halving(make, bundle, recipe, seeds=1, seed=seed, folder=Path(folder))(pool)
    return pool[bracket.winner].architecture


def run(
    group: str, name: str, seed: int, bundle: DataBundle, *, finalists: bool = False
) -> dict[str, Any]:
    """One search; says what was found and whether it is right."""
    torch.manual_seed(seed)
    relaxation = made("relax", name if group == "relax" else RELAXATION.get(name, "softmax"))
    strategy = made("strategy", name) if group == "strategy" else FirstOrder()
    supernet = Supernet(
        get_space("toy"),
        channels=WIDER.get(name, CHANNELS),
        layers=1,
        num_classes=4,
        relaxation=relaxation,
    )
    settings = SearchConfig(**{**CONFIG, **SEARCH.get(name, {})})
    started = time.process_time()
    found = search(supernet, strategy, bundle, settings, seed=seed)
    chosen = found.architecture
    if finalists:
        chosen = best_finalist(found, supernet, bundle, settings, seed)
    ops, alone = (
        tuple(op for _, _, op in a.cell("cell").edges) for a in (chosen, found.architecture)
    )
    return {
        "group": group,
        "name": name,
        "seed": seed,
        "found": list(ops),
        **({"of_the_alphas": list(alone)} if finalists else {}),
        "right_edges": sum(a == b for a, b in zip(ops, PLANTED, strict=True)),
        "success": ops == PLANTED,
        "cpu_seconds": round(time.process_time() - started, 2),
        "commit": environment()["commit"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: successes of each method."""
    lines = [
        "| method | kind | successes | right edges of 2 (mean) | CPU seconds a run |",
        "|---|---|---|---|---|",
    ]
    for (group, name), part in itertools.groupby(rows, key=lambda r: (r["group"], r["name"])):
        runs = list(part)
        kind = f"strategy with {RELAXATION.get(name, 'softmax')}"
        if group == "relax":
            kind = "relaxation with first order"
        if name in NO_ALPHA:
            kind = "without gradients of alpha"
        right = sum(r["right_edges"] for r in runs) / len(runs)
        seconds = sum(r["cpu_seconds"] for r in runs) / len(runs)
        wins = sum(r["success"] for r in runs)
        lines.append(f"| {name} | {kind} | {wins} of {len(runs)} | {right:.1f} | {seconds:.1f} |")
    chance = 1 / len(get_space("toy").ops) ** 2
    lines.append(f"| chance | one random architecture | {chance:.4f} | 0.5 | 0 |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run and write `benchmarks/results/planted_field_cpu_<date>.{json,md}`.

    Raises:
        SystemExit: there is no such method.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="10 and up: to choose settings")
    parser.add_argument(
        "--finalists", action="store_true", help="end with finalists, as the command does"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    bundle = planted_bundle()
    cases = [
        (group, path.stem)
        for group in ("strategy", "relax")
        for path in sorted((CONF / group).glob("*.yaml"))
        if path.stem != "softmax"
    ]
    unknown = sorted(set(arguments.only or ()) - {name for _, name in cases})
    if unknown:
        raise SystemExit(
            f"No such method: {', '.join(unknown)}; there are {', '.join(name for _, name in cases)}."
        )
    cases = [case for case in cases if arguments.only is None or case[1] in arguments.only]
    theme = "planted_field_finalists" if arguments.finalists else "planted_field"
    # seeds that settings were chosen on never lie among those that judge them
    seeds = f"_from-seed-{arguments.first_seed}" if arguments.first_seed else ""
    stem = arguments.out / f"{theme}_cpu_{datetime.date.today().isoformat()}{seeds}"
    kept = stem.with_suffix(".json")
    rows: list[dict[str, Any]] = read_json(kept)["rows"] if kept.exists() else []
    command = f"python -m benchmarks.planted_field --first-seed {arguments.first_seed}"
    command += f" --seeds {arguments.seeds}{' --finalists' if arguments.finalists else ''}"
    done = {(row["group"], row["name"], row["seed"]) for row in rows}
    for group, name in cases:
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            if (group, name, seed) not in done:
                rows.append(run(group, name, seed, bundle, finalists=arguments.finalists))
                write(stem, rows, command)
        own = [row["right_edges"] for row in rows if (row["group"], row["name"]) == (group, name)]
        print(name, own, flush=True)
    print(table(rows))


def write(stem: Path, rows: list[dict[str, Any]], command: str) -> None:
    """Both result files, after every run, so that a stopped benchmark goes on."""
    rows.sort(key=lambda row: (row["group"] != "strategy", row["name"], row["seed"]))
    write_json(
        stem.with_suffix(".json"),
        {
            "theme": "planted_field",
            "command": command,
            "environment": environment(),
            "config": CONFIG,
            "channels": {"all": CHANNELS, **WIDER},
            "changed": SMALLER,
            "search": SEARCH,
            "relaxation": RELAXATION,
            "planted": PLANTED,
            "rows": rows,
        },
    )
    note = (
        "\nSuccess: both edges hold the planted operation. One search configuration and one number of "
        "passes over the\ndata for all; what methods change at this size is under `changed` and `search` "
        "in the JSON file, the same for all\nseeds and chosen on seeds 10 to 19; `channels` says the width "
        "(partial channels: twice as wide, for operations\nsee half of it).\n"
    )
    write_text(stem.with_suffix(".md"), "# Planted receptive field\n\n" + table(rows) + note)


if __name__ == "__main__":
    main()
