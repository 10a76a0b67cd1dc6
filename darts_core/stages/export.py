"""Stage `export`: a trained network as files that run without us, each verified against the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darts_core.export import export_model
from darts_core.report.reduced import read_reduced
from darts_core.runlog import RunFolder, read_mapping
from darts_core.settings import to_plain
from darts_core.stages.inputs import find_device, load_bundle, open_model
from darts_core.stages.logging import make_loggers
from darts_core.stages.schema import ExportStage
from darts_core.stages.timing import stopwatch
from darts_core.train import of_model
from darts_core.train.judged import as_judged, found_of_point

__all__ = ["export"]


def export(config: ExportStage, folder: Path) -> dict[str, Any]:
    """Write the model of `model=` into `folder` in the forms of `export.formats`.

    One that cannot express the network, or fails verification, is left out where another is written: a
    pipeline that trained for hours would end for good, as other formats are other settings. What is not
    installed here is an error: the command goes on once it is.

    Returns:
        formats (name -> file, relative error, latency), warnings (what is left out and why), test_<metric>
        carried over, device_seconds.

    Raises:
        ExportError: a format is unknown, or none can express the model and passes verification.
        NotInstalledError: what a format needs is not installed.
    """
    run = RunFolder.create(folder, config.described(), loggers=make_loggers(config))
    if run.finished:
        return run.result()
    device = find_device(config.device)
    bundle = load_bundle(config, device).without_test()
    # a network that was reduced before it was tuned is the trained one
    reduced_first = read_reduced(folder.parent) is not None
    stages = ("train",) if reduced_first else ("prune", "shrink", "train")
    model, meta, path = open_model(config, folder.parent, stages, bundle, device)
    source = str(path if path is not None else config.model)
    bundle = of_model(bundle, meta, source)
    settings, options = config.export, config.export.options
    metric = bundle.task.metric
    known = {} if path is None else _known(path.parent, metric.name)
    if path is not None and not as_judged(model, bundle, path.parent, to_plain(config.data)):
        known = {}  # the manifest would state what this network is not
    tested = known.get(f"test_{metric.name}")
    with stopwatch(device) as watch:
        manifest = export_model(
            model,
            folder,
            meta,
            formats=settings.formats,
            bundle=bundle,
            device=device,
            accuracy=tested,
            extra={"source": source},
            allow_accuracy_loss=options.allow_accuracy_loss,
            time_artifacts=options.time_artifacts,
            batch_sizes=options.batch_sizes,
            channels_last=options.channels_last,
            max_seconds=options.max_seconds,
            leave_out=True,
        )
    left_out = [
        {"name": name, "message": why} for name, why in manifest.get("left_out", {}).items()
    ]
    run.finish(
        formats=manifest["artifacts"],
        **{f"test_{metric.name}": tested, f"val_{metric.name}": known.get(f"val_{metric.name}")},
        metric=metric.to_dict(),
        params=manifest["params"],
        model=source,
        device_seconds=watch.seconds,
        **({"warnings": left_out} if left_out else {}),
    )
    return run.result()


def _known(folder: Path, metric: str) -> dict[str, Any]:
    """What is known of the network in `folder`: of a point of a front its own, else its stage's result."""
    result = folder / "result.json"
    return found_of_point(folder, metric) or (read_mapping(result) if result.is_file() else {})
