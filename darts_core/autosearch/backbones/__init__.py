"""Backbones for user code: residual and dense networks built from short codes.

The grammar needs no torch; the modules are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from darts_core.autosearch.backbones.grammar import (
    PUBLISHED_RESNET50,
    STANDARD,
    check_code,
    mutate,
    named_code,
    sample,
)

if TYPE_CHECKING:
    from darts_core.autosearch.backbones.dense import DenseConv, DenseFC
    from darts_core.autosearch.backbones.resnet import (
        Backbone,
        ResNet18,
        ResNet34,
        ResNet50,
        ResNet101,
    )

__all__ = [
    "PUBLISHED_RESNET50",
    "STANDARD",
    "Backbone",
    "DenseConv",
    "DenseFC",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "check_code",
    "mutate",
    "named_code",
    "sample",
]

_RESNET = ("Backbone", "ResNet18", "ResNet34", "ResNet50", "ResNet101")
_DENSE = ("DenseConv", "DenseFC")


def __getattr__(name: str) -> Any:
    if name in _RESNET:
        from darts_core.autosearch.backbones import resnet

        return getattr(resnet, name)
    if name in _DENSE:
        from darts_core.autosearch.backbones import dense

        return getattr(dense, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
