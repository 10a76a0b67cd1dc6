"""One run that Hydra starts: an element of a multirun, or a trial of a sweep."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from darts_core.commands.compose import typed
from darts_core.commands.logs import configure_logging
from darts_core.commands.overrides import key_of
from darts_core.metric import metric_of
from darts_core.report.elements import OVERRIDES
from darts_core.runlog import write_yaml
from darts_core.stages.schema import PLACES
from darts_core.study import current_trial

__all__ = ["element"]

log = logging.getLogger("darts_core")


def element(node: Any) -> float | dict[str, Any] | None:
    """Run the stage named by the configuration's name, in its folder of the version.

    Returns:
        The objective for sweepers: the task's metric on val where the stage has one; for a trial
        of our own sweeper all that the stage returns.
    """
    from hydra.core.hydra_config import HydraConfig

    from darts_core.stages.pipeline import run_command

    about = HydraConfig.get()
    config = typed(str(about.job.config_name), node)
    version = Path(config.out) / str(config.job) / str(config.version)
    configure_logging(version)
    trial = current_trial()
    if trial is None:
        own = version / str(about.job.num)
        words = list(about.overrides.task)
        write_yaml(own / OVERRIDES, words)
        shown = [word for word in words if key_of(word) not in PLACES]
        log.info("element %s: %s", about.job.num, " ".join(shown))
        try:
            result = run_command(config, own)
        except Exception as error:  # said once more at the end, of which element nothing is known
            log.error("element %s failed: %s", about.job.num, error)
            raise
        value = result.get(f"val_{metric_of(result).name}")
        return None if value is None else float(value)
    # tune's own trials share the version's files
    folder = version if config.STAGE == "tune" else trial.folder
    return {k: v for k, v in run_command(config, folder).items() if v is not None}
