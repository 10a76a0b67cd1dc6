"""A network in search as the user's script knows it: its own parts, methods and attributes are there."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

from darts_core.supernet.module_supernet import ModuleSupernet

__all__ = ["SearchedModule"]


class SearchedModule(ModuleSupernet):
    """A `ModuleSupernet` that hands on what the network inside has and it has not.

    A script may give `model.backbone` a learning rate of its own, set `model.drop_path` at each epoch or call
    `model.loss(x, y)`: what works with the plain network of the other trials works here, and counts.
    """

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__(module, **options)
        # what is set up to here is the search's own, whatever names the network has
        self.__dict__["handing_on"] = True

    def __getattr__(self, name: str) -> Any:
        """An attribute of the network; its methods run with the choices mixed."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.__dict__.get("_modules", {}).get("module")
            # how to copy or pickle this one is no question to the network inside
            if inner is None or name.startswith("__"):
                raise
        found = getattr(inner, name)
        return self._mixing(found) if inspect.ismethod(found) else found

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, of the network where that has one of this name and the search has none."""
        if "handing_on" in self.__dict__ and not self._has(name) and hasattr(self.module, name):
            setattr(self.module, name, value)
        else:
            super().__setattr__(name, value)

    def __getitem__(self, index: Any) -> nn.Module:
        """A part of an nn.Sequential."""
        part: nn.Module = self.module[index]  # type: ignore[index]
        return part

    def _has(self, name: str) -> bool:
        own = (self.__dict__, self._parameters, self._buffers, self._modules)
        return any(name in held for held in own) or hasattr(type(self), name)

    def _mixing(self, method: Any) -> Any:
        @functools.wraps(method)
        def call(*arguments: Any, **keywords: Any) -> Any:
            if self.is_mixed():  # called from within a pass
                return method(*arguments, **keywords)
            with self.mixed(self.mixing_weights()):
                return method(*arguments, **keywords)

        return call
