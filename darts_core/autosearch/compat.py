"""The names of the published service, inside a trial process only.

`import autosearch`, `autonet.client`, `hp_search` resolve to our contract there, unless the user's own
code folder holds a module of that name. TensorFlow backbones and builders of the service end in a
sentence that names our module. Standard library only, see contract.py.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from darts_core.autosearch.contract import TRIAL_VARIABLE, current
from darts_core.errors import ConfigError

__all__ = ["install"]

_CODE = re.compile(r"[12]+(-[12]+)+")


def _refuse(old: str, ours: str) -> Callable[..., Any]:
    def refused(*_args: Any, **_kwargs: Any) -> Any:
        raise ConfigError(
            f"{old} built TensorFlow tensors and is not available here; use {ours}, a PyTorch module, "
            "instead (docs/migration.md shows the changed lines)."
        )

    return refused


def _trial_code() -> str | None:
    """The one setting of the trial that is a backbone code."""
    found = [v for v in current().config.values() if isinstance(v, str) and _CODE.fullmatch(v)]
    return found[0] if found else None


def _resnet50(code: str | None = None, **options: Any) -> Any:
    """Our ResNet50; without a code, the trial's setting that is one, else the standard network."""
    from darts_core.autosearch.backbones.resnet import ResNet50

    if "inputs" in options or "mode" in options or "data_format" in options:
        _refuse("ResNet50(inputs=...)", "darts_core.autosearch.ResNet50(code=...)")()
    if "include_top" in options:
        options["outputs"] = "stages" if options.pop("include_top") else "last"
    code = code or _trial_code()
    return ResNet50(code, **options) if code else ResNet50(**options)


def _contract() -> dict[str, Any]:
    trial = current()
    return {
        "config": trial.config,
        "trial_id": trial.trial_id,
        "output_dir": trial.output_dir,
        "checkpoint_dir": trial.checkpoint_dir,
        "seed": trial.seed,
        "device": trial.device,
        "phase": trial.phase,
        "reporter": trial.reporter,
        "report": trial.report,
    }


def _autonet_client() -> dict[str, Any]:
    trial = current()
    names = {"report": trial.report, "nas_code": trial.trial_id}
    for size in (18, 34, 50, 101):
        ours = f"darts_core.autosearch.ResNet{size}(code=...)"
        for old in (f"resnet{size}", f"ResNet{size}"):
            names[old] = _refuse(f"autonet.client.{old}", ours)
    names["dense_fc"] = _refuse(
        "autonet.client.dense_fc", "darts_core.autosearch.DenseFC(code=...)"
    )
    names["dense_conv"] = _refuse(
        "autonet.client.dense_conv", "darts_core.autosearch.DenseConv(code=...)"
    )
    return names


def _backbones() -> dict[str, Any]:
    return {"ResNet50": _resnet50, "resnet50": _resnet50}


def _builder() -> dict[str, Any]:
    return {
        "ImageClassificationTensorflowBuilder": _refuse(
            "ImageClassificationTensorflowBuilder", "darts_core.augment.Augment(policy=...)"
        )
    }


def _metrics() -> dict[str, Any]:
    reporter = current().reporter
    return {"METRICS": reporter, "metric": reporter}


_MODULES: dict[str, Callable[[], dict[str, Any]]] = {
    "autosearch": _contract,
    "autosearch.client": _contract,
    "autosearch.client.nas": dict,
    "autosearch.client.nas.backbone": dict,
    "autosearch.client.nas.backbone.resnet": _backbones,
    "autosearch.client.augment": dict,
    "autosearch.client.augment.offline_search": dict,
    "autosearch.client.augment.offline_search.preprocessor_builder": _builder,
    "autonet": lambda: {"report": current().report, "nas_code": current().trial_id},
    "autonet.client": _autonet_client,
    "autonet.client.hp_search": _metrics,
    "autonet.hp_search": _metrics,
    "hp_search": _metrics,
}


def _own_module(name: str) -> bool:
    """Whether the user's code folder holds a module of that name itself."""
    record = current().record
    folders = {record.get("code_dir"), str(Path(record.get("boot_file", ".")).parent)}
    return any(
        (Path(folder) / f"{name}.py").exists() or (Path(folder) / name).is_dir()
        for folder in folders
        if folder
    )


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _MODULES or _own_module(fullname.partition(".")[0]):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_MODULES[module.__name__]())
        # `import autonet` alone must be enough for autonet.client.report(...)
        for name in _MODULES:
            if name.rpartition(".")[0] == module.__name__:
                importlib.import_module(name)


_finder = _Finder()


def install() -> None:
    """Make the old names importable; does nothing outside a trial process."""
    if os.environ.get(TRIAL_VARIABLE) and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
