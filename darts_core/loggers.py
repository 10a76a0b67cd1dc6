"""Loggers: who else is told of a stage's settings, metrics, pictures and files, beside `metrics.jsonl`.

A logger is chosen by `logger=csv`, several by `logger=[tensorboard,wandb]`. None may end a search: one that
fails is named in the log once and asked no more.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.reading import is_number

__all__ = ["Csv", "Logger", "Loggers", "MLflow", "TensorBoard", "WandB", "artifacts", "flat"]

log = logging.getLogger("darts_core")

_ARTIFACTS = (".yaml", ".json", ".html", ".png", ".pt", ".pt2", ".onnx")
_MOST_BYTES = 256 * 2**20
# what a stage goes on from
_STATES = re.compile(r"(checkpoint|teacher|policy|warm_up|fold\d+)\.pt")


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def artifacts(folder: Path) -> list[Path]:
    """The files of a stage that are worth keeping elsewhere: artifacts, pictures, models; no checkpoint."""
    found = [
        path for path in sorted(folder.iterdir()) if path.suffix in _ARTIFACTS and path.is_file()
    ]
    return [p for p in found if not _STATES.fullmatch(p.name) and p.stat().st_size <= _MOST_BYTES]


def _place(folder: Path) -> str:
    """A stage's folder by its job: `mine/V001/train`; of a trial or an element `mine/V001/0/search`."""
    folder = folder.absolute()
    version = next((p for p in folder.parents if (p / "version.json").is_file()), folder.parent)
    return folder.relative_to(version.parent.parent).as_posix()


def _begun(path: Path) -> str | None:
    """The id of the run that an earlier sitting of the stage began; None in the first one."""
    return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None


def _keep(path: Path, run: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(f"{run}\n", encoding="utf-8")
    temporary.replace(path)


class Logger:
    """One logger; each method does nothing unless it is overridden."""

    def start(self, folder: Path, params: Mapping[str, Any]) -> None:
        """A stage begins (or goes on) in `folder` under the settings `params`."""

    def metrics(self, epoch: int, values: Mapping[str, float]) -> None:
        """The numbers of an epoch."""

    def picture(self, name: str, image_HWC: Any, epoch: int) -> None:
        """A picture as an array [height, width, 3 or 4] of uint8."""

    def finish(self, result: Mapping[str, Any], files: Sequence[Path]) -> None:
        """The stage has finished with `result` and leaves `files`."""

    def close(self) -> None:
        """Nothing comes after this."""


class TensorBoard(Logger):
    """Its events are written by the run folder itself, whose writer the stages also use directly."""


class Csv(Logger):
    """`metrics.csv`: epoch, then the metrics in the order in which they appeared."""

    def __init__(self) -> None:
        self._path = Path()
        self._rows: list[dict[str, Any]] = []

    def start(self, folder: Path, params: Mapping[str, Any]) -> None:
        """Read what was written before an interruption."""
        self._path = folder / "metrics.csv"
        if self._path.is_file():
            with self._path.open(encoding="utf-8", newline="") as stream:
                self._rows = list(csv.DictReader(stream))

    def metrics(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write the table anew: an epoch that is repeated after a resume stands in it once."""
        kept = [
            row for row in self._rows if str(row["epoch"]).isdigit() and int(row["epoch"]) < epoch
        ]
        self._rows = [*kept, {"epoch": epoch, **values}]
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        temporary = self._path.with_name("metrics.csv.tmp")
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(self._rows)
        temporary.replace(self._path)


class WandB(Logger):
    """Weights & Biases; offline unless told otherwise, its files in the stage's folder.

    A stage that goes on goes on in its run where that is online: the id is kept in `wandb.run`. Offline each
    sitting is a run of its own, as `wandb sync` leaves of several with one id the last one alone.

    Args:
        project: the project's name.
        mode: offline, online or disabled.
    """

    def __init__(self, project: str = "darts-core", mode: str = "offline") -> None:
        self.project, self.mode = project, mode
        self._run: Any = None

    def start(self, folder: Path, params: Mapping[str, Any]) -> None:
        """Begin a run, or go on with the one that was begun here."""
        import wandb

        kept, online = folder / "wandb.run", self.mode == "online"
        begun = _begun(kept) if online else None
        self._run = wandb.init(
            project=self.project, mode=self.mode, dir=str(folder), config=flat(params), id=begun,
            resume=None if begun is None else "allow", reinit="create_new",
            name=_place(folder),
        )  # fmt: skip
        if online:
            _keep(kept, str(self._run.id))

    def metrics(self, epoch: int, values: Mapping[str, float]) -> None:
        """The numbers of an epoch, the epoch among them."""
        self._run.log({"epoch": epoch, **values})

    def picture(self, name: str, image_HWC: Any, epoch: int) -> None:
        """A picture."""
        import wandb

        self._run.log({name: wandb.Image(image_HWC), "epoch": epoch})

    def finish(self, result: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Result as the run's summary, files as one artifact."""
        import wandb

        self._run.summary.update(
            {k: v for k, v in flat(result).items() if isinstance(v, (int, float, str))}
        )
        kept = wandb.Artifact(f"run-{self._run.id}", type="stage")
        for path in files:
            kept.add_file(str(path))
        self._run.log_artifact(kept)

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()


class MLflow(Logger):
    """MLflow; without `tracking_uri` into `mlflow.db` and `mlartifacts/` of the stage's folder.

    The run's id is kept in `mlflow.run`: a stage that goes on goes on in its run.

    Args:
        experiment: the experiment's name.
        tracking_uri: a server or a store; null: the stage's folder.
    """

    def __init__(self, experiment: str = "darts-core", tracking_uri: str | None = None) -> None:
        self.experiment, self.tracking_uri = experiment, tracking_uri
        self._client: Any = None
        self._id = ""

    def start(self, folder: Path, params: Mapping[str, Any]) -> None:
        """Begin a run, or go on with the one that was begun here."""
        from mlflow.tracking import MlflowClient

        uri = self.tracking_uri or f"sqlite:///{folder / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(self.experiment)
        place = None if self.tracking_uri else (folder / "mlartifacts").absolute().as_uri()
        experiment = (
            known.experiment_id
            if known is not None
            else self._client.create_experiment(self.experiment, artifact_location=place)
        )
        kept = folder / "mlflow.run"
        begun = _begun(kept)
        if begun is not None and self._there(begun, experiment):
            self._id = begun
            return
        self._id = self._client.create_run(experiment, run_name=str(folder)).info.run_id
        # a store refuses to change what a run has been given, so it is given once
        for name, value in flat(params).items():
            self._client.log_param(self._id, name, str(value)[:500])
        _keep(kept, self._id)

    def _there(self, run: str, experiment: str) -> bool:
        """Whether the run is one of this experiment in this store, and was not deleted."""
        try:
            info = self._client.get_run(run).info
        except Exception:  # each kind of store has its own error for a run that it does not know
            return False
        return str(info.experiment_id) == str(experiment) and info.lifecycle_stage == "active"

    def metrics(self, epoch: int, values: Mapping[str, float]) -> None:
        """The numbers of an epoch."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=epoch)

    def picture(self, name: str, image_HWC: Any, epoch: int) -> None:
        """A picture."""
        file = f"{name.replace(' ', '_')}-{epoch:04d}.png"
        self._client.log_image(self._id, image_HWC, artifact_file=file)

    def finish(self, result: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Numbers of the result as metrics, files as artifacts."""
        for name, value in flat(result).items():
            if is_number(value):
                self._client.log_metric(self._id, f"result.{name}", value)
        for path in files:
            self._client.log_artifact(self._id, str(path))

    def close(self) -> None:
        """End the run."""
        if self._client is not None:
            self._client.set_terminated(self._id)


class Loggers:
    """The loggers of a stage, each behind a guard."""

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        self._left = list(loggers)
        self.tensorboard = any(isinstance(logger, TensorBoard) for logger in loggers)

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for logger in list(self._left):
            try:
                tell(logger)
            except Exception as error:
                self._left.remove(logger)
                log.warning(
                    "the logger %s failed and is left out from now on: %s: %s",
                    type(logger).__name__,
                    type(error).__name__,
                    error,
                )

    def start(self, folder: Path, params: Mapping[str, Any]) -> None:
        """See `Logger.start`."""
        self._each(lambda logger: logger.start(folder, params))

    def metrics(self, epoch: int, values: Mapping[str, Any]) -> None:
        """The numbers among `values`, which are an epoch's."""
        known = {k: float(v) for k, v in values.items() if is_number(v)}
        self._each(lambda logger: logger.metrics(epoch, known))

    def picture(self, name: str, image_HWC: Any, epoch: int) -> None:
        """See `Logger.picture`."""
        self._each(lambda logger: logger.picture(name, image_HWC, epoch))

    @property
    def wants_pictures(self) -> bool:
        """Whether anybody but TensorBoard is left to be shown one."""
        return any(type(logger).picture is not Logger.picture for logger in self._left)

    def finish(self, folder: Path, result: Mapping[str, Any]) -> None:
        """See `Logger.finish`."""
        self._each(lambda logger: logger.finish(result, artifacts(folder)))

    def close(self) -> None:
        """See `Logger.close`."""
        self._each(lambda logger: logger.close())
        self._left = []
