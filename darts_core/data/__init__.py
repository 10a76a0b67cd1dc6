"""Data sets: one file a source, and the DataBundle that all of them become."""

from darts_core.data.batches import BatchTransform
from darts_core.data.bundle import DataBundle
from darts_core.data.load import load_data
from darts_core.data.make import make_bundle
from darts_core.data.pool import Split
from darts_core.data.source import SOURCES, RawData, register_source

__all__ = [
    "SOURCES",
    "BatchTransform",
    "DataBundle",
    "RawData",
    "Split",
    "load_data",
    "make_bundle",
    "register_source",
]
