"""`autosearch.load`: the winner of a job with its weights, in a process that has only the user's code.

Nothing in the folder decides what runs: only modules in the folder of the user's code are imported, and of
these only what is marked with `@autosearch.network`, or is a module class, is called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from darts_core.autosearch import contract
from darts_core.autosearch.answers import answers_of, differ
from darts_core.autosearch.networks import MARK, NETWORK, WEIGHTS
from darts_core.errors import ConfigError, ResumeError, first_line, is_memory_shortage
from darts_core.modes import in_evaluation
from darts_core.reading import is_number

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load"]


@contextmanager
def _settings(config: dict[str, Any]) -> Iterator[None]:
    """`autosearch.config` as the trial saw it."""
    before, trial = contract.current(), contract.Trial()
    trial.config.update(config)
    contract.use(trial)
    try:
        yield
    finally:
        contract.use(before)


def load(
    folder: str | Path, build: Callable[[], nn.Module] | None = None, *, code: str | Path = "."
) -> nn.Module:
    """The winner that `jobs best --export` wrote, with its weights, in eval mode on the CPU.

    Args:
        folder: what was exported.
        build: returns the network, where the trial could not name a function or class that does; it
            sees the winner's settings in `autosearch.config`.
        code: the folder of your code, from which the function or class is imported.

    Raises:
        ConfigError: the folder holds no network, its builder is not in `code`, the weights are none, or of
            another network, or what was built computes something else than the trial's network did.
    """
    from darts_core.reading import read_mapping
    from darts_core.train.save import fit_to

    folder = Path(folder)
    if not (folder / NETWORK).is_file() or not (folder / WEIGHTS).is_file():
        raise ConfigError(
            f"{folder} holds no {NETWORK} and {WEIGHTS}: the trial kept no network; build it in a function "
            "marked with @autosearch.network, or with autosearch.searchable."
        )
    content = read_mapping(folder / NETWORK, ConfigError)
    config = content.get("config")
    with _settings(config if isinstance(config, dict) else {}):
        model = build() if build is not None else _built(content, Path(code))
    state = _weights(folder / WEIGHTS)
    try:
        cut = content.get("cut") or {}
        model = fit_to(model, state, cut.get("replaced"), cut.get("sizes")) if cut else model
        model.load_state_dict(state)
    except (ResumeError, RuntimeError, TypeError, AttributeError, ValueError, KeyError) as error:
        remedy = "Let build() return the network as your script trained it."
        if build is None:
            remedy = (
                "Give load() a function that does as your script: load(folder, build=make_model)."
            )
        raise ConfigError(
            f"The weights in {folder / WEIGHTS} do not fit the network that was built "
            f"({first_line(error)[:200].rstrip('.:')}): it was made with other arguments, was changed by "
            f"your script afterwards, or its code is another one since. {remedy}"
        ) from None
    _refuse_other_answers(model, content)
    return in_evaluation(model)


def _refuse_other_answers(model: nn.Module, content: Mapping[str, Any]) -> None:
    """Raise where what was built takes the trial's weights and computes something else than its network."""
    then = content.get("answers")
    if not isinstance(then, list) or not all(map(is_number, then)):
        return  # of a network that gives no comparable ones, or of an older program
    now = answers_of(model, content.get("input_shape"))
    if now is not None and differ(now, then):
        raise ConfigError(
            "The network that was built takes the trial's weights and computes something else than the "
            "trial's: it was made with other arguments there, holds numbers that are no part of its "
            "weights, or its code has changed since. Give load() a function that builds it as your script "
            "does: load(folder, build=make_model)."
        )


def _weights(path: Path) -> Any:
    """The state dict in a file; a packed one, which could unfold to gigabytes, is not opened."""
    import torch

    from darts_core.reading import check_stored, why

    try:
        check_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for what is no archive of tensors
        if is_memory_shortage(error):
            raise
        raise ConfigError(
            f"{path} holds no plain weights ({type(error).__name__}: {why(error)}); export it again."
        ) from None


def _built(content: dict[str, Any], code: Path) -> nn.Module:
    """The network that the description's function or class makes."""
    from torch import nn

    name = str(content.get("builder") or "")
    module, _, path = name.partition(":")
    if not module or not path:
        raise ConfigError(
            "The network was made in place, so nothing names it; give load() a function that builds it: "
            "load(folder, build=make_model)."
        )
    found: Any = _imported(module, code)
    for part in path.split("."):
        found = getattr(found, part, None)
    is_class = isinstance(found, type) and issubclass(found, nn.Module)
    if not is_class and not getattr(found, MARK, False):
        raise ConfigError(
            f"{name} is no function marked with @autosearch.network and no module class; it is not called."
        )
    shape, setting = content.get("input_shape"), content.get("searchable")
    arguments, keywords = content.get("arguments") or [], content.get("keywords") or {}
    try:
        model = found(*arguments, **keywords)
    # an object, such as a config, is kept as its text, at which the user's code may stumble anyhow
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise ConfigError(
            f"{name} cannot be called again ({type(error).__name__}: {first_line(error)[:200]}); give load() "
            "a function that builds the network: load(folder, build=make_model)."
        ) from error
    if setting is None:
        return model  # type: ignore[no-any-return]
    from darts_core.autosearch.module_search import searchable

    return searchable(model, shape or (), setting=str(setting))


def _imported(module: str, code: Path) -> Any:
    """A module that lies in the folder of the user's code."""
    root = code.expanduser().resolve()
    place = root.joinpath(*module.split("."))
    files = (place / "__init__.py", place.with_suffix(".py"))
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        raise ConfigError(
            f"There is no module {module!r} in {root}; name the folder of your code: load(folder, code=...)."
        )
    added = str(root)
    sys.path.insert(0, added)
    try:
        found = importlib.import_module(module)
    finally:
        sys.path.remove(added)
    _refuse_another(found, file)
    return found


def _refuse_another(module: ModuleType, file: Path) -> None:
    """Raise where the module, or its package, had been imported from elsewhere: an import gives that one,
    such as today's code in the place of the copy that a version was made with.
    """
    known = Path(module.__file__ or "")
    with suppress(OSError):
        if known.resolve() == file.resolve() or known.read_bytes() == file.read_bytes():
            return
    raise ConfigError(
        f"The module {module.__name__!r} is imported from {known} already, and {file} is another one; load "
        "this winner in a process of its own, or give load() a function that builds the network."
    )
