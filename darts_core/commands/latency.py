"""`darts-core latency`: build, show or check the table of operation times of this device."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from darts_core.commands.arguments import add_plugins
from darts_core.commands.keyvalue import parse
from darts_core.errors import ConfigError
from darts_core.report.escape import plain_text
from darts_core.sample_inputs import draw_inputs

__all__ = ["configure", "run"]

_KNOWN: dict[str, type] = {
    "space": str,
    "device": str,
    "runtime": str,
    "precision": str,
    "channels": int,
    "layers": int,
    "size": int,
    "in_channels": int,
    "shape": str,
    "classes": int,
    "batch": int,
    "seconds": float,
    "count": int,
    "out": str,
    "table": str,
    "results": str,
    "model": str,
    "weights": str,
}
_NAMES_A_TABLE = ("table", "out", "device", "runtime", "precision")
# known, and of no use to all that is done
_NOT_READ = {
    "build": ("count", "results", "shape"),
    "show": tuple(key for key in _KNOWN if key not in _NAMES_A_TABLE),
    "check": ("shape",),
    "prepare": ("batch", "seconds", "results", "shape"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "what",
        choices=("build", "show", "check", "prepare", "time"),
        help="build: time every operation; show: print the table; check: predict and time random "
        "networks; prepare: write check's networks beforehand, which needs no quiet "
        "machine; time: time one model=",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help=f"any of {', '.join(_KNOWN)}; size: height and width of images, else positions; shape: "
        "of a sample of model=, e.g. 12,20,36 or 1,3200; "
        "model_args.NAME=VALUE of a named model=",
    )
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    """Do what `what` says; prints the table's path or content."""
    from darts_core.commands.logs import configure_logging
    from darts_core.spaces import ChoiceSpace
    from darts_core.stages.cost import table_path
    from darts_core.stages.inputs import find_device
    from darts_core.stages.targets import import_plugins

    configure_logging()
    from darts_core.commands.latency_time import split_arguments, time_model

    words, arguments = split_arguments(args.settings)
    given = parse(words, _KNOWN)
    for key, value in given.items():
        if isinstance(value, (int, float)) and value <= 0:
            raise ConfigError(f"{key}={value} must be above 0.")
    import_plugins(args.plugins)
    device = find_device(given.get("device", "auto"))
    if args.what == "time":
        time_model(given, arguments, device)
        return 0
    if arguments or "model" in given or "weights" in given:
        raise ConfigError(
            f"model= is timed by `darts-core latency time`; {args.what} goes by space=."
        )
    _check_read(args.what, given)
    path = Path(given["table"]).expanduser() if "table" in given else None
    precision = given.get("precision", "fp32")
    path = path or table_path(given.get("out", "runs"), device, given.get("runtime"), precision)
    if args.what == "show":
        _show(path)
        return 0
    space, target, shape = _target(given)
    if args.what == "prepare":
        _prepare(given, space, shape, path)
        return 0
    if isinstance(space, ChoiceSpace):
        _choices(given, args.what, space, shape, device, path, precision)
        return 0
    from darts_core.latency.rows import ROUND_SECONDS
    from darts_core.stages.cost import make_table

    table = make_table(
        space,
        target,
        (shape[0], shape[1], shape[2]),
        path=path,
        device=device,
        runtime=given.get("runtime"),
        precision=precision,
        batch_sizes=(given["batch"],) if "batch" in given else None,
        seconds=given.get("seconds", ROUND_SECONDS),
    )
    print(f"{path}: {len(table.rows)} rows of {table.runtime} on {table.device}")
    if args.what == "check":
        from darts_core.latency import latency_model

        def model_at(batch: int) -> Any:
            return latency_model(table, space, target, shape, batch=batch)

        _check(given, table, space, model_at, shape, device, path)
    return 0


def _check_read(what: str, given: dict[str, Any]) -> None:
    """Refuse what is known but not read.

    Raises:
        ConfigError: `shape=`, which sizes a model that is timed; of `show`, what does not name a table; what
            another of build, check and prepare reads.
    """
    for key in given:
        if key not in _NOT_READ[what]:
            continue
        if key == "shape" and what != "show":
            raise ConfigError(
                f"shape= is for `latency time`; the networks of `latency {what}` have size= and in_channels=."
            )
        about = ", which prints all rows of one table" if what == "show" else ""
        reads = [name for name in _KNOWN if name not in (*_NOT_READ[what], "model", "weights")]
        raise ConfigError(
            f"{key}= is not read by `latency {what}`{about}; it reads {', '.join(reads)}."
        )


def _choices(
    given: dict[str, Any],
    what: str,
    space: Any,
    shape: tuple[int, ...],
    device: Any,
    path: Path,
    precision: str,
) -> None:
    """Build the rows of a space of choices, and check them."""
    from darts_core.latency import default_batch_sizes
    from darts_core.latency.rows import ROUND_SECONDS
    from darts_core.stages.cost import make_choice_model, open_choice_table

    table = open_choice_table(path, device, given.get("runtime"), precision)
    sizes = (given["batch"],) if "batch" in given else default_batch_sizes(device)
    sample = draw_inputs(shape, 2)
    models = {
        batch: make_choice_model(
            space, _maker(given, shape), sample, table,
            path=path, batch=batch, device=device, seconds=given.get("seconds", ROUND_SECONDS),
        )
        for batch in sizes
    }  # fmt: skip
    print(f"{path}: {len(table.rows)} rows of {table.runtime} on {table.device}")
    if what == "check":
        _check(given, table, space, models.__getitem__, shape, device, path)


def _target(given: dict[str, Any]) -> tuple[Any, Any, tuple[int, ...]]:
    """(space, supernet of the network to be built, shape of a sample)."""
    from darts_core.spaces import get_space
    from darts_core.supernet import create_supernet

    space = get_space(given.get("space", "darts"))
    channels, size = given.get("in_channels", 3), given.get("size", 32)
    shapes = {"image": (channels, size, size), "series": (channels, size), "tokens": (size,)}
    shape: tuple[int, ...] = shapes[space.reads]
    target = create_supernet(
        space,
        channels=given.get("channels", 16),
        layers=given.get("layers", 8),
        num_classes=given.get("classes", 10),
        in_channels=channels,
        input_shape=shape,
    )
    return space, target, shape


def _show(path: Path) -> None:
    from darts_core.latency import LatencyTable

    table = LatencyTable.load(path)
    about = plain_text(f"{table.device}, {table.runtime}, {table.dtype}")
    print(f"{about}, {table.threads or 'no'} CPU threads")
    for name, fit in table.fits.items():
        print(
            f"{plain_text(name)}: network = {fit['overhead_ms']:.3f} ms + {fit['slope']:.3f} x sum of rows"
        )
    width = max((len(key) for key in table.rows), default=0)
    for key, value in sorted(table.rows.items()):
        print(f"{plain_text(key):{width}}  {value:.4f} ms")


def _maker(given: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """A function from an architecture to its plain network."""
    from darts_core.supernet import build
    from darts_core.supernet.build import height_of

    return lambda found: build(
        found,
        channels=given.get("channels", 16),
        layers=given.get("layers", 8),
        num_classes=given.get("classes", 10),
        in_channels=given.get("in_channels", 3),
        image_size=height_of(shape),
    )


def _folder(given: dict[str, Any], space: Any, path: Path) -> Path:
    """Where `check` keeps its networks and times: of one table, space and size."""
    size = "-".join(
        str(given.get(key, "")) for key in ("channels", "layers", "size", "in_channels")
    )
    size += f"-{given['classes']}" if "classes" in given else ""
    return path.with_name(f"{path.stem}-{space.name}-{size}-check")


def _prepare(given: dict[str, Any], space: Any, shape: tuple[int, ...], path: Path) -> None:
    from darts_core.latency.check import write_networks
    from darts_core.stages.progress import progress_bar

    folder = _folder(given, space, path)
    with progress_bar("networks") as progress:
        write_networks(
            space, _maker(given, shape), shape, folder, count=given.get("count", 60),
            progress=progress,
        )  # fmt: skip
    print(folder)


def _check(
    given: dict[str, Any],
    table: Any,
    space: Any,
    model_at: Callable[[int], Any],
    shape: tuple[int, ...],
    device: Any,
    path: Path,
) -> None:
    """Rank correlation with end-to-end times; the fit is stored in the table."""
    import torch

    from darts_core.bench.results import command_line, write_results
    from darts_core.latency import default_batch_sizes
    from darts_core.latency.check import check_predictions, draw_scatter
    from darts_core.runlog import write_json
    from darts_core.stages.progress import progress_bar

    sizes = (given["batch"],) if "batch" in given else default_batch_sizes(device)
    records = []
    for batch in sizes:
        with progress_bar(f"networks at batch {batch}") as progress:
            record = check_predictions(
                model_at(batch),
                _maker(given, shape),
                shape,
                batch=batch,
                count=given.get("count", 60),
                device=device,
                runtime=table.runtime,
                dtype=getattr(torch, table.dtype),
                folder=_folder(given, space, path),
                progress=progress,
            )
        table.fits[record["fit_key"]] = record["fit"]
        table.save(path)
        # appended: a table's own name may hold dots
        stem = f"{path.stem}-{space.name}-batch{batch}"
        picture = path.with_name(f"{stem}.png")
        write_json(path.with_name(f"{stem}.json"), record)
        draw_scatter(record, picture)
        records.append({"space": space.name, **record})
        left = f", {record['flagged']} left out for foreign load" if record["flagged"] else ""
        print(
            f"batch {batch}: Spearman {record['correlation']:.3f} on {record['n']} held networks "
            f"(all {record['correlation_all']:.3f}, test-retest {record['test_retest']:.3f}{left}); "
            f"{picture}"
        )
    if "results" in given:
        found = write_results(
            f"latency-{space.name}",
            records,
            device=table.device,
            folder=given["results"],
            command=command_line(without=("table", "results", "out")),
            notes={"network": {k: given.get(k) for k in ("channels", "layers", "size")},
                   "threads": table.threads, "runtime": table.runtime, "rows": table.rows},
        )  # fmt: skip
        print(found)
