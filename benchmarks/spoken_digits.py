"""Spoken digits of a speaker who was left out: a searched network against a DS-CNN of equal measured latency.

    python -m benchmarks.spoken_digits --data spoken_digits.npz --choose
    python -m benchmarks.spoken_digits --data spoken_digits.npz

The data are the Free Spoken Digit Dataset's: `x` [N, 1, T] at 4 kHz, `y`, `group` (the speaker). Both
networks read 32 log-mel bands every 8 ms. Each speaker in turn is the test split, another whole speaker val.
A pair is: `darts-core search` in the space `conv1d_frames` under a number of MACs, `darts-core train` of
what it found; the width at which the DS-CNN, timed in turn with it in ONNX Runtime (one sample a call), takes
as long or longer; `darts-core train` of that, with the same settings. Settings were tried with --choose, on
seeds that judge nothing. A pair that is finished lies in a file of `--work`; a run that is stopped goes on;
other data or settings are refused there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.resumable import same_settings
from darts_core import cli
from darts_core.bench.results import write_results
from darts_core.latency.deployed import in_runtime
from darts_core.latency.turns import in_turn
from darts_core.models.sequences import dscnn
from darts_core.runlog import processor_name, read_json, read_yaml, write_json
from darts_core.train import load_model

BANDS, HOP, WINDOW, FFT = 32, 32, 128, 256
RATE = 4000
JUDGES, CHOOSING = (0, 1, 2), (100, 101)
SEARCH = {"channels": 32, "epochs": 4, "batch_size": 64, "finalists": 4, "finalist_epochs": 6}
TRAIN = {
    "channels": 32, "epochs": 20, "batch_size": 64, "learning_rate": 0.1, "weight_decay": 5e-4,
    "drop_path": 0, "time_shift": 8,
}  # fmt: skip
MMACS = 1.0
# in which the found network and all widths are sampled
ROUNDS = 15


def log_mel(x_NT: np.ndarray) -> np.ndarray:
    """Decibels in bands evenly spread on the mel scale: [N, T] -> [N, bands, frames].

    Relative to the recording's loudest band and frame, and not below 40: loudness and noise are the
    speaker's microphone's.
    """
    window = np.hanning(WINDOW)
    padded = np.pad(x_NT.astype(np.float64) / 32768, ((0, 0), (WINDOW // 2, WINDOW // 2)))
    starts = np.arange(0, x_NT.shape[1], HOP)
    frames_NFW = np.stack([padded[:, at : at + WINDOW] for at in starts], 1)
    power_NFK = np.abs(np.fft.rfft(frames_NFW * window, FFT)) ** 2

    def mel(hertz: np.ndarray) -> np.ndarray:
        return np.asarray(2595 * np.log10(1 + hertz / 700))

    corners = np.linspace(mel(np.array(40.0)), mel(np.array(RATE / 2)), BANDS + 2)
    bins_K = mel(np.fft.rfftfreq(FFT, 1 / RATE))
    rising = (bins_K - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins_K) / np.diff(corners)[1:, None]
    filters_BK = np.maximum(np.minimum(rising, falling), 0)
    bands_NBF = (power_NFK @ filters_BK.T).transpose(0, 2, 1)
    loudest_N11 = bands_NBF.max((1, 2), keepdims=True)
    return (10 * np.log10(bands_NBF / loudest_N11 + 1e-4)).astype(np.float32)


def features(source: Path, work: Path) -> Path:
    """The log-mel features as a file that `data=npz` reads."""
    path = work / "log_mel.npz"
    if not path.exists():
        raw = np.load(source)
        x = log_mel(raw["x"][:, 0])
        np.savez(
            path, x=x, y=raw["y"], group=raw["group"], groups=raw["groups"], classes=raw["classes"]
        )
    return path


def run(command: str, job: str, out: Path, *words: str) -> Path:
    """A stage's folder once it is finished."""
    common = (f"out={out}", f"job={job}", "version=V001", "device=cpu", "logger=none")
    if not (out / job / "V001" / command / "result.json").exists() and cli.main(
        [command, *words, *common]
    ):
        raise SystemExit(f"{command} of {job} failed")
    return out / job / "V001" / command


def settings(node: str, values: dict[str, Any]) -> list[str]:
    """As words of the command line."""
    return [f"{node}.{key}={value}" for key, value in values.items()]


def times_of(networks: dict[Any, nn.Module], shape: tuple[int, ...]) -> dict[Any, float]:
    """Median milliseconds of one sample of each in ONNX Runtime on one thread, sampled in turn."""
    x = torch.zeros(1, *shape)
    calls = [in_runtime(network.eval(), x, "onnx", threads=1) for network in networks.values()]
    rounds = zip(*in_turn(*calls, rounds=ROUNDS, seconds=0.01), strict=True)
    return {key: statistics.median(times) for key, times in zip(networks, rounds, strict=True)}


def as_slow(found: nn.Module, shape: tuple[int, ...], classes: int) -> tuple[int, dict[str, float]]:
    """The narrowest DS-CNN that takes at least as long, and the times of both."""
    widths = [*range(16, 64, 8), *range(64, 129, 16), *range(160, 385, 32)]
    networks: dict[Any, nn.Module] = {w: dscnn(classes, shape[0], w) for w in widths}
    times = times_of({"found": found, **networks}, shape)
    slower = [w for w in widths if times[w] >= times["found"]]
    width = slower[0] if slower else widths[-1]
    return width, {"found_ms": times["found"], "dscnn_ms": times[width]}


def pair(speaker: str, seed: int, data: Path, work: Path) -> dict[str, Any]:
    """Both networks on one left-out speaker."""
    name, out = f"{speaker}-{seed}", work / "runs"
    words = [
        "data=npz", f"data.path={data}", f"data.leave_out={speaker}", f"data.seed={seed}",
        f"seed={seed}", "data.val_fraction=0.2",
    ]  # fmt: skip
    searched = run(
        "search", name, out, *words, "space=conv1d_frames", "latency.cost=macs",
        f"latency.budget={MMACS}", *settings("search", SEARCH),
    )  # fmt: skip
    ours = run("train", name, out, *words, *settings("train", TRAIN))
    network = load_model(ours / "model.pt")[0]
    inputs = np.load(data)
    shape = tuple(inputs["x"].shape[1:])
    width, times = as_slow(network, shape, len(inputs["classes"]))
    recipe = {**TRAIN, "channels": width}
    theirs = run(
        "train", f"{name}-dscnn", out, *words, "architecture=dscnn", *settings("train", recipe)
    )
    mine, rival = read_json(ours / "result.json"), read_json(theirs / "result.json")
    return {
        "speaker": speaker, "seed": seed, "found": mine["test_accuracy"],
        "dscnn": rival["test_accuracy"],
        "gain_points": 100 * (mine["test_accuracy"] - rival["test_accuracy"]),
        "found_val": mine["val_accuracy"], "dscnn_val": rival["val_accuracy"],
        "found_params": mine["params"], "dscnn_params": rival["params"],
        "found_macs": mine["macs"], "dscnn_macs": rival["macs"], "dscnn_width": width, **times,
        "search_seconds": read_json(searched / "result.json").get("device_seconds"),
        "train_seconds": [mine["device_seconds"], rival["device_seconds"]],
        "architecture": read_yaml(ours / "architecture.yaml"),
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean gain in points; its standard error over the pairs, and over the speakers' own means."""

    def error(values: list[float]) -> float | None:
        return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None

    gains: dict[str, list[float]] = {}
    for row in rows:
        gains.setdefault(row["speaker"], []).append(row["gain_points"])
    each = {speaker: statistics.mean(values) for speaker, values in gains.items()}
    return {
        "pairs": len(rows),
        "found": statistics.mean(row["found"] for row in rows),
        "dscnn": statistics.mean(row["dscnn"] for row in rows),
        "mean_gain_points": statistics.mean(row["gain_points"] for row in rows),
        "standard_error_over_pairs": error([row["gain_points"] for row in rows]),
        "standard_error_over_speakers": error(list(each.values())),
        "gain_by_speaker": each,
    }


def main() -> None:
    """Judge every speaker left out, or try the settings on other seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("spoken-digits"))
    parser.add_argument(
        "--choose", action="store_true", help="on seeds that judge nothing; no file"
    )
    parser.add_argument("--limit", type=float, default=1e9, help="seconds; no pair begins after it")
    parser.add_argument("--out", default="benchmarks/results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    named = {"data": given.data.name, "search": SEARCH, "train": TRAIN, "mmacs": MMACS}
    same_settings(given.work, named)
    data = features(given.data, given.work)
    speakers = [str(name) for name in np.load(data)["groups"]]
    rows = []
    started = time.monotonic()
    for seed in CHOOSING if given.choose else JUDGES:
        for speaker in speakers[:2] if given.choose else speakers:
            path = given.work / f"{speaker}-{seed}.json"
            if not path.exists():
                if time.monotonic() - started > given.limit:
                    continue
                write_json(path, pair(speaker, seed, data, given.work.resolve()))
            row = read_json(path)
            print({key: row[key] for key in row if key != "architecture"}, flush=True)
            rows.append(row)
    found = summary(rows)
    print(found)
    if given.choose:
        return
    print(
        write_results(
            "spoken-digits",
            rows,
            device=f"{processor_name()}, one of {os.cpu_count()} cores",
            folder=given.out,
            command="python -m benchmarks.spoken_digits --data spoken_digits.npz",
            notes={**found, "search": SEARCH, "train": TRAIN, "mmacs": MMACS, "of_pairs": 18},
        )
    )


if __name__ == "__main__":
    main()
