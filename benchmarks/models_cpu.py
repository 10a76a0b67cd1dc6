"""Accuracy against latency on a CPU: hand-designed, searched and pruned networks on Fashion-MNIST.

    python -m benchmarks.models_cpu search train             # needs no quiet machine
    python -m benchmarks.models_cpu prune                    # measures: a quiet machine
    python -m benchmarks.models_cpu export                   # needs no quiet machine
    python -m benchmarks.models_cpu time write               # measures: a quiet machine, some minutes

Recipe and sizes are those of `conf/experiment/models_cpu.yaml`; further words are overrides of it. Every
step goes on where it was interrupted, and every timed row is kept (`--runs`); a search or a pruning that is
there is refused under other settings. All networks are trained on the same images for the same number
of epochs, but for the shape that was searched (`--shape-epochs`): it is small, and may use what it saves by
the epoch. What every training and fine-tuning cost stands in the results file in device seconds, so that
budgets can be compared.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.resumable import same_settings
from darts_core import cli
from darts_core.autosearch import ResNet18
from darts_core.bench.models import ModelCase, SeedRun, saved_runs, train_seeds
from darts_core.bench.results import write_results
from darts_core.bench.runtimes import Prepared, evaluate_prepared, prepare
from darts_core.bench.table import markdown_table
from darts_core.bench.timed import time_models
from darts_core.commands.compose import compose, session
from darts_core.data import DataBundle
from darts_core.errors import ExportError
from darts_core.export import FORMATS, export_model, load, tune_chunks
from darts_core.models.baselines import is_baseline
from darts_core.prune import prune_to_budget
from darts_core.report import ModelRow, front_png
from darts_core.runlog import read_json, write_json, write_text
from darts_core.settings import to_plain
from darts_core.stages.inputs import describe_network, load_bundle, recipe
from darts_core.supernet import count
from darts_core.train import evaluate, fit, load_model

# of the one supernet; networks have seeds 0, 1 ...
SUPERNET_SEED = 100
# every command that was given, as steps may have had different options
COMMANDS = "commands.txt"
STEPS = ("train", "search", "prune", "export", "time", "write")
PUBLISHED = {"resnet18": "baseline", "mobilenetv2": "baseline", "DARTS_V2": "published"}
RUNTIMES = ("eager", "compile", "compile_max", "pt2", "onnx", "openvino", "onnx_int8")
log = logging.getLogger("darts_core")


class Bench:
    """The settings of all steps and where they keep their files."""

    def __init__(self, args: argparse.Namespace) -> None:
        with session() as extra:
            self.config = compose("bench", ["experiment=models_cpu", *args.overrides], extra)
        self.args = args
        self.runs: Path = args.runs
        self.device = torch.device("cpu")
        self.bundle: DataBundle = load_bundle(self.config, self.device)
        self.seeds = range(self.config.bench.options.seeds)
        self.runs.mkdir(parents=True, exist_ok=True)

    def case(self, name: str, network: str, kind: str, *, layers: int | None = None) -> ModelCase:
        """A network of the comparison by its name or architecture file."""
        train, width = self.config.train, self.config.bench.options.width
        if layers is not None:
            train = replace(train, layers=layers)
        found = describe_network(
            network, train, self.runs, self.bundle,
            width=width if is_baseline(network) else train.channels,
        )  # fmt: skip
        return ModelCase(
            name,
            kind,
            # trains up to twice as fast on a CPU
            make=lambda: found.make().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            meta=found.meta,
        )

    def cases(self) -> list[ModelCase]:
        """Everything that is trained for all epochs."""
        found = [self.case(name, name, kind) for name, kind in PUBLISHED.items()]
        for name in ("searched", "latency_searched"):
            path = self.architecture(name)
            if path.is_file():
                found.append(self.case(name, str(path), "searched", layers=1))
        if self.shape_file.is_file():
            found.append(
                self.case("shape_searched", read_json(self.shape_file)["text"], "searched")
            )
        return found

    @property
    def shape_file(self) -> Path:
        """What the search over depths and widths leaves."""
        return self.runs / "shape_searched" / "found.json"

    def architecture(self, name: str) -> Path:
        """The file that a search leaves."""
        return self.runs / name / "V001" / "search" / "architecture.yaml"

    def train(self, case: ModelCase) -> list[SeedRun]:
        """The case's networks, one a seed; finished ones are read."""
        return train_seeds(
            case,
            self.bundle,
            recipe(self.config, self.runs, epochs=self.epochs(case.name)),
            seeds=self.seeds,
            device=self.device,
            folder=self.runs / "trained" / case.name,
        )

    def epochs(self, name: str) -> int:
        """Of one training of the network `name`."""
        usual = self.config.train.epochs
        return (self.args.shape_epochs or usual) if name == "shape_searched" else usual

    def search(self) -> None:
        """A gradient search by accuracy alone, and one by a zero-cost proxy within a latency budget.

        Both in NAS-Bench-201's space. A few hundred gradient steps move alphas too little for a budget:
        the proxy needs no training.
        """
        settings = [
            "search", "experiment=models_cpu", "space=nasbench201", f"out={self.runs}",
            "version=V001", f"data.limit={self.config.data.limit}",
            # a narrower supernet than the network that will be built, whose latency counts
            "search.channels=8", "search.layers=1", "latency.channels=16", "search.batch_size=64",
            "search.alpha_learning_rate=3.0e-3", "search.guards.eigenvalue.interval=100",
            "search.crop_padding=2", "search.flip=true",
        ]  # fmt: skip
        plain = [f"search.epochs={self.args.search_epochs}"]
        budget = [f"latency.budget_ms={self.args.budget_ms}", "strategy=zero_cost",
                  "strategy.samples=200", "search.epochs=1"]  # fmt: skip
        for name, more in (("latency_searched", budget), ("searched", plain)):
            if self.args.only and name not in self.args.only:
                continue
            if not self.architecture(name).is_file():
                status = cli.main([*settings, f"job={name}", *more])
                if status:
                    raise SystemExit(status)
            same_settings(self.runs, {f"search of {name}": more})

    def search_shape(self) -> None:
        """Depth and width of each stage of ResNet-18 by gradient, in one supernet training.

        Single level: params and alphas see the training splits; val is left to judge networks.
        """
        if self.args.only and "shape_searched" not in self.args.only:
            return
        if self.shape_file.is_file():
            same_settings(self.runs, {"share of shape_searched": self.args.target_share})
            return
        torch.manual_seed(SUPERNET_SEED)
        supernet: Any = ResNet18(
            "search:resnet18", width=self.config.bench.options.width, stem="small",
            in_channels=self.bundle.image_shape[0],
        )  # fmt: skip
        supernet.target = self.args.target_share
        head = nn.Linear(supernet.out_channels, self.bundle.num_classes)
        network = nn.Sequential(supernet, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        fitted = fit(
            network.to(memory_format=torch.channels_last), self.bundle.without_test(),  # type: ignore[call-overload]
            recipe(self.config, self.runs), seed=SUPERNET_SEED,
        )  # fmt: skip
        shares = {name: share.tolist() for name, share in supernet.shares().items()}
        text = f"resnet18:{supernet.derive()}"
        write_json(
            self.shape_file,
            {"text": text, "device_seconds": fitted.train_seconds, "shares": shares},
        )
        same_settings(self.runs, {"share of shape_searched": self.args.target_share})
        log.info("found %s", text)

    def prune(self, name: str, *, budget: str, epochs: int, distillation: float) -> None:
        """Every seed's network of `name` pruned to `budget`."""
        how = {"budget": budget, "epochs": epochs, "distillation": distillation}
        case = next(case for case in self.cases() if case.name == name)
        for run in self.train(case):
            folder = self.runs / "pruned" / name / f"seed{run.seed}"
            if (folder / "result.json").is_file():
                same_settings(self.runs, {f"pruning of {name}": how})
                continue
            model, meta = load_model(run.path, device=self.device)
            tuning = recipe(
                self.config, self.runs, epochs=epochs,
                learning_rate=0.5 * self.config.train.learning_rate,
            )  # fmt: skip
            found = prune_to_budget(
                model, self.bundle.without_test(), budget=budget, batch=32, device=self.device,
                fit_config=tuning, folder=folder, meta=meta, seed=run.seed,
                distillation=distillation, seconds=0.5,
            )  # fmt: skip
            test = evaluate(found.model, self.bundle, "test").accuracy
            write_json(
                folder / "result.json",
                {
                    "seed": run.seed,
                    "test_accuracy": test,
                    "unpruned_test_accuracy": run.test,
                    "epochs": self.epochs(name),
                    "fine_tuning_epochs": epochs,
                    **{k: v for k, v in found.report().items() if k not in ("rounds", "replaced")},
                    "fine_tuning_seconds": found.device_seconds,
                    "device_seconds": run.device_seconds + found.device_seconds,
                },
            )
            same_settings(self.runs, {f"pruning of {name}": how})
            log.info("pruned %s, seed %d: %.2fx, test %.4f", name, run.seed, found.speedup, test)

    def pruned_case(self, name: str) -> ModelCase | None:
        """The pruned networks of `name`, if there are any."""
        files = sorted((self.runs / "pruned" / name).glob("seed*/model.pt"))
        return ModelCase(f"{name}_pruned", "pruned", trained=tuple(files)) if files else None

    def all_cases(self) -> list[tuple[ModelCase, list[SeedRun]]]:
        """Every case with its trained networks."""
        pruned = [case for case in map(self.pruned_case, self.args.prune) if case is not None]
        wanted = [
            case for case in self.cases() if not self.args.only or case.name in self.args.only
        ]
        found = [(case, self.train(case)) for case in wanted]
        return found + [
            (case, saved_runs(case, self.bundle, device=self.device)) for case in pruned
        ]

    def export(self) -> None:
        """Write and judge every file, and fill torch.compile's cache: nothing of it is timed."""
        for case, runs in self.all_cases():
            for runtime in self.args.runtimes:
                folder = self.runs / "files" / case.name / runtime
                if (folder / "facts.json").is_file():
                    continue
                try:
                    facts = self._exported(runtime, runs, folder)
                except ExportError as error:
                    facts = {"left_out": str(error)}
                write_json(folder / "facts.json", facts)
                log.info("%s %s: %s", case.name, runtime, facts)

    def _exported(self, runtime: str, runs: list[SeedRun], folder: Path) -> dict[str, Any]:
        models = [load_model(run.path, device=self.device)[0] for run in runs]
        options: dict[str, Any] = {"device": self.device, "bundle": self.bundle}
        if runtime not in FORMATS:
            ready = prepare(models[0], runtime, folder=folder, **options)
            for batch in (1, 32):
                ready.call(torch.randn(batch, *self.bundle.image_shape))
            return {"precision": "fp32"}
        if FORMATS[runtime].precision == "fp32":
            models = models[:1]
        accuracies = []
        for index, model in enumerate(models):
            place = folder / str(index)
            export_model(
                model, place, self.bundle.without_test(), bundle=self.bundle.without_test(),
                formats=(runtime,), time_artifacts=False,
            )  # fmt: skip
            if FORMATS[runtime].precision != "fp32":
                ready = Prepared(load(place, runtime), runtime, FORMATS[runtime].precision)
                accuracies.append(evaluate_prepared(ready, self.bundle))
        return {"precision": FORMATS[runtime].precision, "accuracies": accuracies}

    def time(self) -> None:
        """One row a model and runtime; rows that are there and unflagged are kept."""
        for case, runs in self.all_cases():
            for runtime in self.args.runtimes:
                path = self.runs / "rows" / f"{case.name}-{runtime}.json"
                facts = self.runs / "files" / case.name / runtime / "facts.json"
                known = read_json(facts) if facts.is_file() else {"left_out": "not exported"}
                if "left_out" in known or (path.is_file() and not _flagged(read_json(path))):
                    continue
                write_json(path, self._timed(case, runs, runtime, known).to_dict())

    def _timed(
        self, case: ModelCase, runs: list[SeedRun], runtime: str, known: Mapping[str, Any]
    ) -> ModelRow:
        model, _ = load_model(runs[0].path, device=self.device)
        size = count(model, self.bundle.image_shape)
        place = self.runs / "files" / case.name / runtime
        if runtime in FORMATS:
            tune_chunks(place / "0")
            ready = Prepared(load(place / "0", runtime, trust=True), runtime, known["precision"])
        else:
            ready = prepare(model, runtime, device=self.device, bundle=self.bundle, folder=place)
        latency = time_models(
            [(ready, self.bundle.image_shape)],
            device=self.device,
            seconds=self.config.bench.seconds,
        )[0]
        accuracies = known.get("accuracies") or [run.test for run in runs]
        row = ModelRow(
            name=case.name,
            kind="int8" if ready.precision == "int8" else case.kind,
            runtime=runtime,
            precision=ready.precision,
            params=size.params,
            macs=size.macs,
            accuracies=tuple(accuracies),
            latency=latency,
            device=next(iter(latency.values())).device,
            data=self.bundle.name,
            baseline=case.kind == "baseline" and ready.precision != "int8",
        )
        times = ", ".join(f"{t.median_ms:.3f} ms at batch {b}" for b, t in latency.items())
        log.info("%s in %s: %s", case.name, runtime, times)
        return row

    def write(self, results: Path) -> Path:
        """The results file, its table and picture, from all rows that were measured."""
        order = [
            *PUBLISHED,
            "searched",
            "latency_searched",
            "shape_searched",
            *(f"{n}_pruned" for n in self.args.prune),
        ]
        paths = [self.runs / "rows" / f"{n}-{r}.json" for n in order for r in RUNTIMES]
        rows = [ModelRow.from_dict(read_json(path)) for path in paths if path.is_file()]
        facts = {
            path.parent.parent.name + "/" + path.parent.name: read_json(path)
            for path in sorted((self.runs / "pruned").glob("*/seed*/result.json"))
        }
        texts = {
            name: read_json(self.architecture(name).parent / "result.json")
            for name in ("searched", "latency_searched")
            if self.architecture(name).is_file()
        }
        if self.shape_file.is_file():
            texts["shape_searched"] = read_json(self.shape_file)
        trained = {
            f"{path.parent.parent.name}/{path.parent.name}": {
                key: value for key, value in read_json(path).items()
                if key in ("test_accuracy", "device_seconds")
            }
            for path in sorted((self.runs / "trained").glob("*/seed*/result.json"))
        }  # fmt: skip
        path = write_results(
            "models", rows, device=rows[0].device, folder=results,
            command="; ".join((self.runs / COMMANDS).read_text(encoding="utf-8").splitlines()),
            notes={
                "data": to_plain(self.config.data), "train": to_plain(self.config.train),
                "shape_epochs": self.epochs("shape_searched"), "trained": trained, "pruned": facts,
                "searches": {
                    name: {k: v for k, v in found.items() if k in ("text", "device_seconds")}
                    for name, found in texts.items()
                },
            },
        )  # fmt: skip
        write_text(path.with_suffix(".md"), markdown_table(rows))
        front_png(_best(rows), path.with_suffix(".png"))
        return path


def _best(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """Each model in its fastest runtime at batch 32, its INT8 form beside it: few enough to read."""
    found: dict[tuple[str, bool], ModelRow] = {}
    for row in rows:
        if any(time.flagged for time in row.latency.values()):
            continue
        key = (row.name, row.precision == "int8")
        if key not in found or row.latency[32].median_ms < found[key].latency[32].median_ms:
            found[key] = row
    return list(found.values())


def _flagged(row: Mapping[str, Any]) -> bool:
    return any(time.get("flagged") for time in row.get("latency", {}).values())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps that are named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("steps", nargs="+", choices=STEPS)
    parser.add_argument("--runs", type=Path, default=Path("runs/models_cpu"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", nargs="+", help="these unpruned networks only")
    parser.add_argument(
        "--prune", nargs="+", default=["resnet18", "shape_searched"], help="networks to prune"
    )
    parser.add_argument("--budget", default="50%", help="of the pruning, at batch 32")
    parser.add_argument(
        "--shape-epochs",
        type=int,
        default=None,
        help="of training the searched shape; as all others",
    )
    parser.add_argument("--prune-epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--distillation", type=float, default=0.5)
    parser.add_argument("--search-epochs", type=int, default=3)
    parser.add_argument("--budget-ms", type=float, default=5.0, help="of the latency search")
    parser.add_argument(
        "--target-share", type=float, default=0.45, help="of the blocks' MACs, in the shape search"
    )
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--overrides", nargs="*", default=[], help="of the experiment")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    bench = Bench(args)
    with (args.runs / COMMANDS).open("a", encoding="utf-8") as commands:
        commands.write(
            shlex.join(["python", "-m", "benchmarks.models_cpu", *(argv or sys.argv[1:])])
        )
        commands.write("\n")
    if "search" in args.steps:
        bench.search_shape()
        bench.search()
    if "train" in args.steps:
        for case in bench.cases():
            if not args.only or case.name in args.only:
                bench.train(case)
    if "prune" in args.steps:
        for name in args.prune:
            bench.prune(
                name, budget=args.budget, epochs=args.prune_epochs, distillation=args.distillation
            )
    if "export" in args.steps:
        bench.export()
    if "time" in args.steps:
        bench.time()
    if "write" in args.steps:
        print(bench.write(args.out))


if __name__ == "__main__":
    main()
