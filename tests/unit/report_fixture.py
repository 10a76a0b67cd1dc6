"""Made-up run folders for the tests of reports. The numbers are invented and appear nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.architecture import Architecture
from darts_core.runlog import write_json, write_text, write_yaml

DARTS_OPS = [
    "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
]  # fmt: skip
NB201_OPS = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
NB201 = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
DEVICE = "Test CPU (2 cores)"


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _base(folder: Path, config: dict[str, Any]) -> None:
    write_yaml(folder / "config.yaml", config)
    write_json(
        folder / "environment.json",
        {
            "python": "3.11.7",
            "platform": "Linux-test",
            "cpu_count": 2,
            "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
            "commit": "0123abcd",
            "gpu": None,
        },
    )


def alphas(rng: np.random.Generator, shape: tuple[int, int], epochs: int) -> np.ndarray:
    """Softmax weights that drift from uniform to a favourite each edge; [epochs, E, K]."""
    goal = rng.normal(0, 1.6, shape)
    goal[:, 0] -= 1.0
    steps = np.linspace(0, 1, epochs)[:, None, None] ** 0.8
    noise = rng.normal(0, 0.05, (epochs, *shape)).cumsum(0) * 0.4
    logits = steps * goal + noise
    weights = np.exp(logits)
    return weights / weights.sum(-1, keepdims=True)


def make_search(folder: Path, *, space: str = "darts", epochs: int = 30, seed: int = 0) -> None:
    """A search folder with metrics, alphas, guards and an architecture."""
    rng = np.random.default_rng(seed)
    ops = DARTS_OPS if space == "darts" else NB201_OPS
    kinds = {"normal": (14, 8), "reduce": (14, 8)} if space == "darts" else {"cell": (6, 5)}
    table = {kind: alphas(rng, shape, epochs) for kind, shape in kinds.items()}
    architecture = (
        Architecture.named("DARTS_V2") if space == "darts" else Architecture.from_text(NB201)
    )
    _base(
        folder,
        {"seed": seed, "data": {"name": "digits"}, "space": {"name": space, "ops": ops},
         "strategy": {"_target_": "darts_core.strategies.FirstOrder"},
         "search": {"epochs": epochs, "guards": {"eigenvalue": {"lag": 5}, "similarity": {"least": 0}}}},
    )  # fmt: skip
    rows = []
    for e in range(epochs):
        gain = 1 - np.exp(-e / 7)
        rows.append(
            {
                "epoch": e,
                "train_loss": 2.3 - 1.9 * gain + rng.normal(0, 0.02),
                "alpha_loss": 2.3 - 1.75 * gain + rng.normal(0, 0.04),
                "train_accuracy": 0.1 + 0.87 * gain + rng.normal(0, 0.004),
                "alpha_accuracy": 0.1 + 0.83 * gain + rng.normal(0, 0.008),
                "seconds": 4.2,
                "guard/eigenvalue": 0.1 + 0.01 * e,
                "alphas": {kind: table[kind][e].round(5).tolist() for kind in table},
                "architecture": architecture.text(),
            }
        )
    _jsonl(folder / "metrics.jsonl", rows)
    architecture.to_yaml(folder / "architecture.yaml")
    write_json(
        folder / "result.json",
        {
            "schema_version": 1,
            "architecture": architecture.to_dict(),
            "device_seconds": 126.0,
            "val_accuracy": 0.93,
            "seed": seed,
            "guards": [
                {"guard": "skips", "fired": False, "message": "at most 1 skip a cell (budget 2)"},
                {"guard": "eigenvalue", "fired": True, "epoch": 24,
                 "message": "dominant eigenvalue grew 1.4 times in 5 epochs (limit 1.3); kept the "
                 "architecture of epoch 22"},
            ],
        },
    )  # fmt: skip


def make_train(folder: Path, *, epochs: int = 40, seed: int = 0, test: float = 0.982) -> None:
    """A training folder with curves and a result."""
    rng = np.random.default_rng(seed + 1)
    _base(folder, {"seed": seed, "data": {"name": "digits"}, "train": {"epochs": epochs}})
    rows = []
    for e in range(epochs):
        gain = 1 - np.exp(-e / 6)
        rows.append(
            {"epoch": e, "loss": 2.3 - 2.1 * gain + rng.normal(0, 0.02),
             "train_accuracy": 0.12 + 0.87 * gain + rng.normal(0, 0.003),
             "val_accuracy": 0.12 + 0.855 * gain + rng.normal(0, 0.006),
             "learning_rate": 0.025 * (1 + np.cos(np.pi * e / epochs)) / 2}
        )  # fmt: skip
    _jsonl(folder / "metrics.jsonl", rows)
    write_json(
        folder / "result.json",
        {"schema_version": 1, "val_accuracy": 0.979, "test_accuracy": test, "params": 214_410,
         "macs": 2_914_816, "device_seconds": 61.0},
    )  # fmt: skip


def make_tune(folder: Path, *, trials: int = 24, seed: int = 0) -> None:
    """A study folder with trials, some of them cut short or failed, and their curves."""
    rng = np.random.default_rng(seed + 2)
    _base(folder, {"seed": seed, "data": {"name": "digits"}, "tune": {"trials": trials}})
    items = []
    for number in range(trials):
        rate = float(10 ** rng.uniform(-3.2, -0.7))
        decay = float(10 ** rng.uniform(-5, -2.5))
        drop = float(rng.uniform(0, 0.3))
        batch = int(rng.choice([32, 64, 128]))
        value = 0.975 - 0.035 * (np.log10(rate) + 1.7) ** 2 - 0.06 * abs(drop - 0.1)
        value = float(min(0.99, value + rng.normal(0, 0.003)))
        state = "FAIL" if number == 7 else "PRUNED" if number > 4 and value < 0.955 else "COMPLETE"
        epochs = 12 if state == "COMPLETE" else 3
        curve = [[e, value * (1 - 0.9 * np.exp(-(e + 1) / 2.5))] for e in range(epochs)]
        if number % 2:  # some studies keep the curves in the trials' folders only
            rows = [{"epoch": e, "val_accuracy": v} for e, v in curve]
            _jsonl(folder / "trials" / f"{number:04d}" / "metrics.jsonl", rows)
            curve = []
        items.append(
            {"number": number, "state": state.lower(), "curve": curve,
             "value": value if state == "COMPLETE" else None,
             "values": [value, 1e5 * batch] if state == "COMPLETE" else None,
             "params": {"train.learning_rate": rate, "train.weight_decay": decay,
                        "train.drop_path": drop, "train.batch_size": batch}}
        )  # fmt: skip
    done = [item for item in items if item["value"] is not None]
    best = max(done, key=lambda item: item["value"])
    write_json(
        folder / "result.json",
        {"schema_version": 1, "objectives": {"val_accuracy": "maximize", "params": "minimize"},
         "best": best["params"], "best_value": best["value"], "best_number": best["number"],
         "trials": items, "forecast": {"device_seconds": 240.0}, "device_seconds": 205.0,
         "ended": "the budget of 24 trials is spent"},
    )  # fmt: skip


def make_prune(folder: Path) -> None:
    """A pruning folder with widths of every layer."""
    rng = np.random.default_rng(5)
    _base(folder, {"prune": {"budget": "50%"}})
    first, second = {}, {}
    for cell in range(6):
        for part in ("preprocess0", "preprocess1", "node2"):
            before = 24 * (1 + cell // 2)
            kept = max(int(before * rng.uniform(0.4, 1.0)) // 4 * 4, 4)
            middle = (before + kept) // 2
            first[f"cells.{cell}.{part}"] = [before, middle]
            second[f"cells.{cell}.{part}"] = [middle, kept]
    rounds = [
        {"round": 0, "target_ms": 6.3, "median_ms": 6.1, "replaced": {}, "widths": first},
        {"round": 1, "target_ms": 4.2, "median_ms": 4.1, "replaced": {}, "widths": second},
    ]
    write_json(folder / "pruning.json", {"rounds": rounds})
    write_json(
        folder / "result.json",
        {"schema_version": 1, "latency_before_ms": 8.4, "latency_after_ms": 4.1, "budget_ms": 4.2,
         "speedup": 2.05, "val_accuracy": 0.976, "test_accuracy": 0.979, "params_before": 214_410,
         "params": 98_300, "device_seconds": 48.0},
    )  # fmt: skip


def make_export(folder: Path) -> None:
    """An export folder with a manifest."""
    _base(folder, {"export": {"formats": ["pt2", "onnx"]}})
    manifest = {
        "classes": [str(i) for i in range(10)],
        "input_shape": [1, 8, 8],
        "artifacts": {
            "pt2": {"kind": "pt2", "precision": "fp32", "native": False, "device": "cpu",
                    "files": [{"name": "model.pt2", "sha256": "ab" * 32, "bytes": 480_112}],
                    "relative_error": 2.1e-7, "val_agreement": 1.0, "latency": {"1": timing(1.1)}},
            "onnx": {"kind": "onnx", "precision": "fp32", "native": False, "device": "cpu",
                     "files": [{"name": "model.onnx", "sha256": "cd" * 32, "bytes": 402_220}],
                     "relative_error": 9.4e-7, "val_agreement": 1.0,
                     "latency": {"1": timing(0.33, flagged=True)}},
        },
    }  # fmt: skip
    write_json(folder / "manifest.json", manifest)
    write_json(folder / "result.json", {"schema_version": 1, "device_seconds": 6.0})


def timing(median: float, *, flagged: bool = False, device: str = DEVICE) -> dict[str, Any]:
    """One latency record."""
    return {"median_ms": median, "q05_ms": median * 0.96, "q95_ms": median * 1.11, "n": 120,
            "peak_mib": 31.0, "flagged": flagged, "device": device, "runtime": "eager"}  # fmt: skip


def bench_rows(device: str = DEVICE) -> list[dict[str, Any]]:
    """Rows of five models in two runtimes each, one of them flagged."""
    models = [
        ("resnet8", "baseline", 78_042, 4_120_000, [0.9778, 0.9805, 0.9750], 0.62, 6.9),
        ("searched", "searched", 214_410, 2_914_816, [0.9806, 0.9833, 0.9778], 2.9, 8.4),
        ("tuned", "tuned", 214_410, 2_914_816, [0.9861, 0.9833, 0.9889], 2.9, 8.5),
        ("pruned", "pruned", 98_300, 1_400_000, [0.9833, 0.9806, 0.9861], 2.4, 4.1),
    ]
    rows = []
    for name, kind, params, macs, accuracies, one, many in models:
        for runtime, factor in (("eager", 1.0), ("onnxruntime", 0.36)):
            latency = {
                "1": timing(one * factor, device=device),
                "32": timing(many * factor, device=device),
            }
            rows.append(
                {"name": name, "kind": kind, "runtime": runtime, "params": params, "macs": macs,
                 "accuracies": accuracies, "latency": latency, "device": device, "data": "digits"}
            )  # fmt: skip
    for runtime, factor in (("pt2", 0.8), ("onnxruntime", 0.3)):
        rows.append(
            {"name": "exported", "kind": "exported", "runtime": runtime, "params": 98_300,
             "macs": 1_400_000, "accuracies": [0.9833, 0.9806, 0.9861], "device": device,
             "data": "digits",
             "latency": {"1": timing(1.1 * factor, device=device), "32": timing(4.0 * factor, device=device)}}
        )  # fmt: skip
    rows.append(
        {"name": "exported", "kind": "int8", "runtime": "onnxruntime int8", "precision": "int8",
         "params": 98_300, "macs": 1_400_000, "accuracies": [0.9806, 0.9778, 0.9833],
         "device": device, "data": "digits",
         "latency": {"1": timing(0.2, device=device), "32": timing(0.8, device=device, flagged=True)}}
    )  # fmt: skip
    return rows


def make_bench(folder: Path, *, device: str = DEVICE) -> None:
    """A finished comparison of models."""
    _base(folder, {"bench": {"what": "models"}})
    write_json(folder / "results.json", {"schema_version": 1, "rows": bench_rows(device)})
    write_json(folder / "result.json", {"schema_version": 1, "device_seconds": 30.0})


def make_version(
    root: Path,
    *,
    job: str = "digits-darts",
    space: str = "darts",
    seed: int = 0,
    small: bool = False,
) -> Path:
    """A whole version's folder with every stage, of few epochs and trials when small."""
    version = root / job / "V001"
    epochs = 8 if small else 30
    make_search(version / "search", space=space, seed=seed, epochs=epochs)
    make_train(version / "train", seed=seed, epochs=epochs + 10)
    make_tune(version / "tune", seed=seed, trials=8 if small else 24)
    make_prune(version / "prune")
    make_export(version / "export")
    make_bench(version / "bench")
    write_json(
        version / "version.json",
        {"schema_version": 1, "commands": {"run": {"overrides": ["experiment=demo", "seed=0"]}}},
    )
    return version
