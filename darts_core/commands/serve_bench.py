"""`darts-core serve-bench`: exported artifacts, or a network as it is, each timed in a fresh process."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.commands.arguments import add_plugins
from darts_core.commands.given_model import EAGER, SETTINGS_HELP, GivenModel, given_model
from darts_core.commands.json_alone import json_alone
from darts_core.device import require_device
from darts_core.errors import ConfigError, ExportError
from darts_core.report.escape import plain_text
from darts_core.sample_inputs import draw_inputs
from darts_core.store.procs import OWN_FIRST

__all__ = ["configure", "run", "time_artifact"]

_MOST_SECONDS = 3600


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "words", nargs="*", metavar="DIR",
        help="folder that export wrote; or a model.pt of ours, or its folder; " + SETTINGS_HELP,
    )  # fmt: skip
    add_plugins(parser)
    parser.add_argument("--runtime", action="append", help="only this artifact (repeatable)")
    parser.add_argument(
        "--prefer", metavar="speed|exact", help="only the artifact that load(prefer=...) takes"
    )
    parser.add_argument("--batch", type=int, action="append", help="batch size (repeatable)")
    parser.add_argument("--device", help="cpu or cuda; default: where the artifact was written for")
    parser.add_argument("--seconds", type=float, default=2.0, help="longest time of one timing")
    parser.add_argument("--trust", action="store_true", help="also load native code (AOTInductor)")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="first measure in which pieces large batches are fastest; keep undisturbed times, by "
        "which `--prefer speed` chooses",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object an artifact")


def run(args: argparse.Namespace) -> int:
    """Print load time and latency of each artifact; an artifact that fails is named, the rest go on."""
    if any(size < 1 for size in args.batch or ()) or not 0 < args.seconds <= _MOST_SECONDS:
        raise ConfigError(
            f"--batch must be at least 1 and --seconds above 0, at most {_MOST_SECONDS}."
        )
    with json_alone(args.json) as say:
        return _time_each(args, say)


def _time_each(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    given = _given(args)
    wanted = _exported(given, args) if given.exported else _eager(given, args)
    failed, measured = 0, {}
    for name in wanted:
        row = _in_fresh_process(given, args, name)
        failed += "error" in row
        measured[name] = row.get("rows", {})
        say(json.dumps(row) if args.json else _line(row))
        for text in row.get("warnings", ()):
            print(f"{plain_text(name)}: {plain_text(text)}", file=sys.stderr)
    if failed and failed == len(wanted):
        raise ExportError(f"No artifact of {given.place} could be loaded and timed.")
    if args.tune:
        _keep(Path(given.place), measured, args.device)
    return 0


def _given(args: argparse.Namespace) -> GivenModel:
    folders = [word for word in args.words if "=" not in word or Path(word).exists()]
    if len(folders) > 1:
        raise ConfigError(f"One model is timed at a time, not {' and '.join(folders)}.")
    words = [word for word in args.words if word not in folders]
    given, strange = given_model(
        words, folders[0] if folders else None, args.plugins, runtimes=args.runtime or ()
    )
    if strange:
        raise ConfigError(f"{strange[0]!r} is no setting that `serve-bench` reads.")
    return given


def _eager(given: GivenModel, args: argparse.Namespace) -> list[str]:
    """A network that is not exported runs one way; what makes it is tried here, for a sentence in time."""
    for option in ("tune", "prefer"):
        if getattr(args, option):
            raise ConfigError(f"--{option} is for exported files; {given.place} is not exported.")
    if args.device:  # without the card's number: to make it the current one is to hold memory there
        require_device(args.device.partition(":")[0])
    # not on the device: what this process held on a GPU would count as other work beside the timing
    given.loaded("cpu")
    return [EAGER]


def _exported(given: GivenModel, args: argparse.Namespace) -> list[str]:
    """The artifacts that are to be timed, without those that need trust."""
    from darts_core.errors import unknown_name
    from darts_core.export import read_manifest

    folder = Path(given.place)
    artifacts = read_manifest(folder)["artifacts"]
    wanted = args.runtime or list(artifacts)
    for name in wanted:
        if name not in artifacts:
            raise ConfigError(unknown_name("artifact", name, artifacts))
    if args.prefer is not None:
        wanted = [_preferred(folder, args)]
    if args.tune:
        from darts_core.export import tune_chunks

        for name, chunk in tune_chunks(folder).items():
            print(
                f"{plain_text(name)}: large batches {f'in pieces of {chunk}' if chunk else 'as a whole'}"
            )
    native = [n for n in wanted if not args.trust and _is_native(folder, artifacts[n])]
    for name in native:
        print(f"{plain_text(name)}: native code, left out; add --trust if you made it yourself")
    return [name for name in wanted if name not in native]


def _preferred(folder: Path, args: argparse.Namespace) -> str:
    from darts_core.export import choose, read_manifest

    if args.runtime:
        raise ConfigError("Give --runtime or --prefer, not both.")
    device = require_device(args.device) if args.device else None
    return choose(read_manifest(folder), args.prefer, device=device, trust=args.trust)


def _keep(folder: Path, measured: Mapping[str, Mapping[str, Any]], device: str | None) -> None:
    """Put the rows that nothing disturbed into the manifest, in the place of older ones.

    Times on another device than `load` takes for an artifact by itself are not kept, as it chooses by them.
    """
    import torch

    from darts_core.export import read_manifest
    from darts_core.export.choice import home_of
    from darts_core.runlog import write_json

    manifest = read_manifest(folder)
    for name, rows in measured.items():
        calm = {batch: row for batch, row in rows.items() if not row["flagged"]}
        artifact = manifest["artifacts"][name]
        home, asked = home_of(artifact), torch.device(device or "cpu")
        here = (asked.type, asked.index or 0) == (home.type, home.index or 0)
        if calm and device and not here:
            told = f"times on {device} are not kept, as it runs on {home}: leave --device out"
            print(f"{plain_text(name)}: {told}", file=sys.stderr)
            continue
        artifact["latency"] = {**(artifact.get("latency") or {}), **calm}
    write_json(folder / "manifest.json", manifest)


def _is_native(folder: Path, artifact: Mapping[str, Any]) -> bool:
    """Whether loading it asks for trust; a file that is missing or changed is told by loading it."""
    from darts_core.export.contents import needs_trust
    from darts_core.export.manifest import check_files

    try:
        return artifact["kind"] == "aoti" or needs_trust(check_files(folder, artifact))
    except ExportError:
        return False


def _in_fresh_process(given: GivenModel, args: argparse.Namespace, name: str) -> dict[str, Any]:
    """What `time_artifact` finds in a Python process of its own."""
    question = {
        "place": given.place,
        "settings": given.settings,
        "plugins": given.plugins,
        "runtime": name,
        "batches": args.batch,
        "device": args.device,
        "seconds": args.seconds,
        "trust": args.trust,
    }
    code = f"{OWN_FIRST}; from darts_core.commands.serve_bench import child; child(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(question)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    why = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return {"runtime": name, "error": why}


class _Told(logging.Handler):
    """Keeps the texts of warnings, such as of a runtime that runs elsewhere than it was to."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of `record`."""
        self.texts.append(record.getMessage())


def child(question: str) -> None:
    """The body of the fresh process: prints one JSON object."""
    told, log = _Told(), logging.getLogger("darts_core")
    log.addHandler(told)
    try:
        row = time_artifact(**json.loads(question))
    finally:
        log.removeHandler(told)
    print(json.dumps({**row, **({"warnings": told.texts} if told.texts else {})}))


def time_artifact(
    place: str,
    runtime: str,
    batches: list[int] | None,
    device: str | None,
    seconds: float,
    trust: bool,
    settings: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Seconds to load one artifact, or to make a network, and its latency at each batch size.

    Returns:
        runtime, load_seconds, rows (batch -> the timing's fields).
    """
    import torch

    from darts_core.export import load
    from darts_core.latency import default_batch_sizes, measure

    started = time.perf_counter()
    given = GivenModel(place, tuple(settings), tuple(plugins))
    if given.exported:
        loaded = load(place, runtime, device=device, trust=trust)
    else:
        loaded = given.loaded(device)
    load_seconds = time.perf_counter() - started
    home = torch.device(getattr(loaded, "device", device or "cpu"))
    rows = {}
    for batch in batches or default_batch_sizes(home):
        x_BCHW = draw_inputs(loaded.input_shape, batch, device=home)
        with torch.inference_mode():
            rows[str(batch)] = measure(
                lambda x=x_BCHW: loaded(x),  # type: ignore[misc]
                device=home,
                runtime=runtime,
                batch=batch,
                max_seconds=seconds,
                warmup_seconds=seconds / 2,
            ).to_dict()
    return {"runtime": runtime, "load_seconds": round(load_seconds, 3), "rows": rows}


def _line(row: dict[str, Any]) -> str:
    name = plain_text(row["runtime"])
    if "error" in row:
        return f"{name}: failed: {plain_text(row['error'])}"
    times = "; ".join(
        f"batch {batch}: {t['median_ms']:.3f} ms ({t['q05_ms']:.3f}-{t['q95_ms']:.3f})"
        + (" under foreign load" if t["flagged"] else "")
        for batch, t in row["rows"].items()
    )
    return f"{name}: loaded in {row['load_seconds']:.2f} s; {times}"
