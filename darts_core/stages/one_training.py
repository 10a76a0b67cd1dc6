"""The unit of a budget in trainings: what training the network once costs on this device."""

from __future__ import annotations

from pathlib import Path

from darts_core.runlog import read_json, write_json
from darts_core.stages.forecast import forecast
from darts_core.stages.inputs import find_device, find_network, load_bundle, recipe
from darts_core.stages.schema import TrainStage
from darts_core.stages.trial import SPLITS
from darts_core.train.precision import autocast_on

__all__ = ["one_training"]


def one_training(config: TrainStage, folder: Path) -> float:
    """Device-seconds of training the network once for `train.epochs`: a forecast from a few steps.

    It is what `tune.trainings` multiplies, so it is measured once and kept in `forecast.json` of
    `folder`: a study that goes on keeps its budget.
    """
    path = folder / "forecast.json"
    if path.is_file():
        return float(read_json(path)["training_seconds"])
    device = find_device(config.device)
    bundle = load_bundle(config, device).without_test()
    network = find_network(config, folder.parent, bundle)
    settings = recipe(config, folder)
    found = forecast(
        network.make,
        bundle,
        batch_size=settings.batch_size,
        steps=bundle.steps(SPLITS, settings.batch_size) * settings.epochs,
        device=device,
        what=f"one full training of {network.name}",
        autocast=autocast_on(settings.precision, device),
        channels_last=settings.channels_last,
        look=not settings.compile,
    )
    write_json(path, {"schema_version": 1, "training_seconds": found.seconds})
    return found.seconds
