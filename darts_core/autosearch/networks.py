"""The network of a trial, kept with its weights so that it can be built again outside the job.

A trial keeps the network that a function marked with `@autosearch.network` returned, or that
`autosearch.searchable` made: its weights (`network.pt`), and how to build it (`network.json`): the user's
function or class, and the trial's settings. No code is kept.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.autosearch import closing, contract
from darts_core.autosearch.answers import answers_of

__all__ = ["MARK", "NETWORK", "WEIGHTS", "network", "remember", "remember_cut"]

NETWORK, WEIGHTS = "network.json", "network.pt"
MARK = "__autosearch_network__"


@dataclass
class Kept:
    """A network and how to build it again."""

    model: Any
    builder: Any
    arguments: list[Any]
    keywords: dict[str, Any]
    input_shape: Sequence[int] | None
    searchable: str | None = None  # the setting that names the architecture
    choices: dict[str, Any] | None = None  # label -> its options and the chosen one
    cut: dict[str, Any] | None = None  # what a sub-network has replaced, and its sizes

    def description(self) -> dict[str, Any]:
        """Plain values; `builder` is None for what has no name, such as an nn.Sequential made in place."""
        name = getattr(self.builder, "__qualname__", "")
        module = getattr(self.builder, "__module__", "") or ""
        if module == "__main__":
            module = _script_module(contract.current().record)
        named = (
            bool(module)
            and name.replace(".", "").isidentifier()
            and not module.startswith("torch.")
        )
        return {
            "schema_version": 1,
            "builder": f"{module}:{name}" if named else None,
            "arguments": contract.harmless(self.arguments),
            "keywords": contract.harmless(self.keywords),
            "input_shape": list(self.input_shape) if self.input_shape is not None else None,
            "searchable": self.searchable,
            "choices": self.choices,
            "cut": self.cut,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "text": str(self.model)[:20_000],
        }

    def save(self, trial: contract.Trial) -> None:
        """Keep the network in its trial's folder."""
        if trial.folder is None or trial.phase != "search":
            return
        import torch

        state = {name: value.detach().cpu() for name, value in self.model.state_dict().items()}
        torch.save(state, trial.folder / WEIGHTS)
        content = {**self.description(), "config": dict(trial.config)}
        # by which whoever builds it again tells whether that is this network
        content["answers"] = answers_of(self.model, self.input_shape)
        (trial.folder / NETWORK).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _script_module(record: Mapping[str, Any]) -> str:
    """The name under which a script is imported; "" for one that would train when it is."""
    boot, code = Path(record.get("boot_file", "")), Path(record.get("code_dir", ""))
    if (
        not boot.is_file()
        or not boot.is_relative_to(code)
        or "__main__" not in boot.read_text("utf-8")
    ):
        return ""
    return ".".join(boot.relative_to(code).with_suffix("").parts)


def network(function: Any = None, *, input_shape: Sequence[int] | None = None) -> Any:
    """Mark the function that builds the network of a trial: `@autosearch.network`.

    Args:
        function: returns the module; what it is called with must be plain values.
        input_shape: one input's shape without the batch, for an exported file.
    """
    if function is None:
        return functools.partial(network, input_shape=input_shape)

    @functools.wraps(function)
    def build(*arguments: Any, **keywords: Any) -> Any:
        model = function(*arguments, **keywords)
        remember(model, build, arguments, keywords, input_shape)
        return model

    setattr(build, MARK, True)
    return build


def remember(
    model: Any,
    builder: Any,
    arguments: Sequence[Any] = (),
    keywords: dict[str, Any] | None = None,
    input_shape: Sequence[int] | None = None,
    searchable: str | None = None,
    choices: dict[str, Any] | None = None,
) -> None:
    """Note a network that was built; the last one of a trial is kept, the outermost where they nest."""
    kept = Kept(
        model, builder, list(arguments), dict(keywords or {}), input_shape, searchable, choices
    )
    before = contract.current().networks[-1:]
    if before and kept.input_shape is None:
        kept.input_shape = before[0].input_shape
    if before and before[0].model is model:
        kept.cut = before[0].cut
    # those before it are let go: outside a trial, as in a notebook, they would fill the memory
    contract.current().networks[:] = [kept]
    closing.watch(contract.current())


def remember_cut(
    model: Any, given: Any, input_shape: Sequence[int], cut: dict[str, Any] | None
) -> None:
    """Note what a network was cut to; how it was built stays what is known of the `given` one."""
    known = contract.current().networks[-1:]
    if known and known[0].model is given:
        known[0].model, known[0].input_shape, known[0].cut = model, input_shape, cut
    else:
        remember(model, type(given), input_shape=input_shape)
        contract.current().networks[-1].cut = cut
