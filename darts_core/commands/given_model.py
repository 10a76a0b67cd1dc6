"""The network that `predict` and `serve-bench` are given: an export, a saved one, or one that is named.

A named one (`model=package.module:function`, `timm:NAME`) is made as `export` makes it, by the same settings:
`model_args`, `weights`, and `data`, which says what its inputs are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from darts_core.commands.overrides import key_of
from darts_core.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from darts_core.export import LoadedModel

__all__ = ["EAGER", "SETTINGS_HELP", "GivenModel", "given_model"]

EAGER = "eager"
SETTINGS_HELP = (
    "instead of a folder: model=package.module:function or timm:NAME with data=NAME and, where wanted, "
    "model_args.KEY=VALUE weights=FILE and further settings of `export`"
)
# of `export`'s settings, those that say where something goes and how it is written
_NOT_READ = ("job", "version", "out", "export", "logger")


@dataclass(frozen=True)
class GivenModel:
    """What was given: an export folder or a saved model in `place`, else a named one by `settings`.

    Attributes:
        place: the text of `model=` or `--model`.
        settings: key=value words of a named one.
        plugins: modules that were named.
    """

    place: str
    settings: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()

    @property
    def exported(self) -> bool:
        """Whether it is a folder of exported files, rather than a network that runs eagerly."""
        from darts_core.export.saved import saved_file
        from darts_core.models.named import is_named

        return not is_named(self.place) and saved_file(self.place) is None

    def loaded(self, device: str | None = None) -> LoadedModel:
        """The network of a file or a name, ready to be called; for what is not `exported`.

        Raises:
            ConfigError: there is no such network, or it does not fit the data.
            ExportError: the file does not say what its inputs are.
        """
        from darts_core.export.saved import as_loaded, open_saved
        from darts_core.models.named import is_named
        from darts_core.stages.targets import import_plugins

        import_plugins(self.plugins)
        if not is_named(self.place):
            return open_saved(Path(self.place), device)
        from darts_core.commands.compose import compose, session
        from darts_core.stages.inputs import find_device, load_bundle, open_model

        words = [f"model={self.place}", *self.settings, f"plugins=[{','.join(self.plugins)}]"]
        with session() as place:
            config = compose("export", words, place)
        where = find_device(device or config.device)
        bundle = load_bundle(config, where).without_test()
        model, meta, _ = open_model(config, Path(), (), bundle, where)
        return as_loaded(model, meta, self.place, where)


def given_model(
    words: Sequence[str], model: str | None, plugins: Sequence[str], *, runtimes: Sequence[str] = ()
) -> tuple[GivenModel, list[str]]:
    """(the network that the words and options name, the words that are no settings).

    Args:
        words: files, and `key=value` words of `export`; a word that is a file is no setting.
        model: what an option named.
        plugins: of the option.
        runtimes: that were asked for.

    Raises:
        ConfigError: there is no model, or settings that do not go with it.
    """
    from darts_core.models.named import is_named
    from darts_core.stages.targets import import_plugins

    settings = [word for word in words if "=" in word and _is_setting(word)]
    others = [word for word in words if word not in settings]
    given: Mapping[str, str] = {key_of(word): word.partition("=")[2] for word in settings}
    if model is not None and "model" in given:
        raise ConfigError("Give model= or --model, not both.")
    # no shell reads the ~ of --model=~/best, and not all that of model=~/best
    place = os.path.expanduser(given.get("model", model or ""))
    if not place:
        raise ConfigError(
            "Give --model DIR, the folder that export wrote, or a model.pt; or model=package.module:function "
            "with data=NAME."
        )
    more = [word for word in settings if key_of(word) not in ("model", "plugins")]
    named = (*plugins, *given.get("plugins", "").strip("[]").replace(" ", "").split(","))
    found = GivenModel(place, tuple(more), tuple(name for name in named if name))
    import_plugins(found.plugins)  # they may register the model's name
    if not is_named(place):
        if more:
            raise ConfigError(
                f"{more[0]} goes with a named model, such as model=package.module:function; what "
                f"{place} needs stands in its files."
            )
    elif "data" not in given:
        raise ConfigError(
            f"model={place} needs data=NAME too, as in `export`: the data say its inputs' shape and "
            "normalisation and what its outputs are called."
        )
    if not found.exported and any(name != EAGER for name in runtimes):
        raise ExportError(
            f"{place} is not exported: it runs eagerly, not as {runtimes[0]!r}; write it with `darts-core "
            f"export model={place}` and name the folder that it says."
        )
    return found, others


def _is_setting(word: str) -> bool:
    from darts_core.stages.schema import ExportStage

    known = {item.name for item in fields(ExportStage)} - {*_NOT_READ}
    return key_of(word).partition(".")[0] in known and not Path(word).exists()
