"""Exported models: written and verified by `export_model`, run by `load` and `predict`."""

from darts_core.export.choice import choose
from darts_core.export.chunk_size import tune_chunks
from darts_core.export.export import export_model
from darts_core.export.extras import obstacle
from darts_core.export.fold import fold_batch_norms
from darts_core.export.formats import FORMATS
from darts_core.export.manifest import DataMeta, read_manifest
from darts_core.export.predict import Numbers, Prediction, predict
from darts_core.export.runtime import LoadedModel, load

__all__ = [
    "FORMATS",
    "DataMeta",
    "LoadedModel",
    "Numbers",
    "Prediction",
    "choose",
    "export_model",
    "fold_batch_norms",
    "load",
    "obstacle",
    "predict",
    "read_manifest",
    "tune_chunks",
]
