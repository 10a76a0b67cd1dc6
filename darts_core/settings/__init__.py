"""Every setting there is, declared once: name, type, range, default, meaning. Loads no torch.

A stage's settings are one frozen dataclass. Hydra's schema is made from it (`schema`), the objects that
stages and engines take are of it (`from_plain`), and `--help` prints it.
"""

from darts_core.settings.arguments import bounded, ranges_of
from darts_core.settings.build import from_plain, schema, to_plain
from darts_core.settings.data import SEED_HIGH, Data
from darts_core.settings.field import (
    Bounds,
    Settings,
    bounds_of,
    default_of,
    kind_words,
    setting,
    type_of,
)
from darts_core.settings.search import Latency, Search, SearchConfig, SearchSettings, Space
from darts_core.settings.shrink import Shrink, ShrinkOptions
from darts_core.settings.slurm import SlurmQueue
from darts_core.settings.task import TaskChoice
from darts_core.settings.train import OPTIMIZERS, Train, TrainConfig
from darts_core.settings.trained import (
    Bench,
    BenchOptions,
    Export,
    ExportOptions,
    Prune,
    PruneOptions,
    Report,
)
from darts_core.settings.tune import Tune, TuneOptions

__all__ = [
    "OPTIMIZERS",
    "SEED_HIGH",
    "Bench",
    "BenchOptions",
    "Bounds",
    "Data",
    "Export",
    "ExportOptions",
    "Latency",
    "Prune",
    "PruneOptions",
    "Report",
    "Search",
    "SearchConfig",
    "SearchSettings",
    "Settings",
    "Shrink",
    "ShrinkOptions",
    "SlurmQueue",
    "Space",
    "TaskChoice",
    "Train",
    "TrainConfig",
    "Tune",
    "TuneOptions",
    "bounded",
    "bounds_of",
    "default_of",
    "from_plain",
    "kind_words",
    "ranges_of",
    "schema",
    "setting",
    "to_plain",
    "type_of",
]
