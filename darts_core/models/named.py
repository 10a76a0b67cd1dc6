"""From a name to a network: `package.module:function`, `timm:NAME`, or what `register_model` knows.

A named network is saved as its name and the arguments that it was made with, and made again from them.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from darts_core.errors import ConfigError, DartsError, unknown_name
from darts_core.models.baselines import is_baseline
from darts_core.models.by_name import ByName, Rows
from darts_core.models.chosen import chosen, has_choices, keep_labels
from darts_core.models.trust import is_trusted, trust
from darts_core.modes import evaluating, in_evaluation
from darts_core.named_inputs import NamedInput, read_named, shapes_of
from darts_core.registry import Registry
from darts_core.sample_inputs import draw_inputs, is_unbuilt

__all__ = [
    "LEAVE_MODELS",
    "REGISTERED",
    "NamedModel",
    "fitted",
    "is_named",
    "named_model",
    "register_model",
    "saved_model",
]

log = logging.getLogger("darts_core")
Factory = Callable[..., nn.Module]
REGISTERED: Registry[Factory] = Registry("model")
# stages whose name, as `model=`, stands for what they left in the version
LEAVE_MODELS = ("searched", "train", "prune", "shrink")

_REGISTRABLE = re.compile(r"[A-Za-z]\w*")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_TIMM = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
# arguments of timm's factory that read files or download them
_TIMM_READS = (
    "cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
)  # fmt: skip
_PLAIN = (str, int, float, bool, type(None))
# no side of a sample is longer
_MOST = 1 << 20


def register_model(name: str, *, description: str) -> Callable[[Factory], Factory]:
    """A decorator for a function that makes a network; `model=NAME` then builds it.

    The function is called with those of `num_classes`, `in_channels`, `image_size` (height, width) and
    `in_features` (values of a sample) that it takes, and with `model_args`.

    Raises:
        ConfigError: the name is taken, also by a hand-designed network or a stage, or reads like a file or
            a function.
    """
    if not _REGISTRABLE.fullmatch(name):
        raise ConfigError(f"A model's name has letters, digits and _ only, not {name!r}.")
    if name in LEAVE_MODELS or is_baseline(name):
        of = "what a stage left" if name in LEAVE_MODELS else "a hand-designed network"
        raise ConfigError(f"model={name} is {of}; register your network under another name.")
    return REGISTERED.register(name, description=description)


@dataclass(frozen=True)
class NamedModel:
    """A network's name and the arguments that it is made with.

    Attributes:
        name: see `named_model`.
        arguments: of the function.
        inputs: of a network of several: it is called with them by name, and fed with one row of numbers.
        choices: of a network with choices in it: the option by label; none leaves them open.
        input_shape: of one sample, at which chosen widths are cut out and lazy layers built; (): unknown.
        rows: samples (1, F) or (F, 1) reach it as rows of F values.
    """

    name: str
    arguments: Mapping[str, Any]
    inputs: Sequence[NamedInput] = ()
    choices: Mapping[str, Any] = field(default_factory=dict)
    input_shape: Sequence[int] = ()
    rows: bool = False

    def make(self) -> nn.Module:
        """A fresh network; its parameters are drawn from torch's global generator.

        Raises:
            ConfigError: there is no such function, or it fails with these arguments.
        """
        factory = _factory(self.name)
        try:
            model = factory(**self.arguments)
        except DartsError:
            raise
        except Exception as error:  # of foreign code, of any kind
            raise ConfigError(
                f"model={self.name} fails with the arguments {dict(self.arguments)}: "
                f"{type(error).__name__}: {str(error)[:300]}"
            ) from error
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"model={self.name} gives a {type(model).__name__}; it must give a torch.nn.Module."
            )
        if self.rows:
            model = Rows(keep_labels(model))
        if self.choices:
            return chosen(model, self.choices, self.input_shape)
        model = ByName(model, self.inputs) if self.inputs else model
        # choices that are open run in a supernet only, which does this itself
        if self.input_shape and not has_choices(model) and is_unbuilt(model):
            with evaluating(model), torch.no_grad():
                model(draw_inputs(self.input_shape, 2, zeros=True))
        return model

    def described(self) -> dict[str, Any]:
        """What a saved file holds of it."""
        found: dict[str, Any] = {"name": self.name, "arguments": dict(self.arguments)}
        if self.rows:
            found["rows"] = True
        if self.choices:
            found |= {"choices": dict(self.choices), "input_shape": list(self.input_shape)}
        return {**found, "inputs": [o.described() for o in self.inputs]} if self.inputs else found


def is_named(text: str | None) -> bool:
    """Whether `text` names a network to be made, rather than a file."""
    if text is None:
        return False
    return text in REGISTERED or text.startswith("timm:") or bool(_FUNCTION.fullmatch(text))


def named_model(
    text: str,
    given: Mapping[str, Any],
    *,
    image_shape: Sequence[int],
    num_classes: int,
    in_channels: int | None = None,
    output_shape: Sequence[int] | None = None,
    inputs: Sequence[NamedInput] = (),
    choices: Mapping[str, Any] | None = None,
    check: bool = True,
) -> NamedModel:
    """The network that the user names, for inputs of a shape and so many outputs.

    Args:
        text: `package.module:function`, `timm:NAME`, or a registered name. Its module is trusted from
            now on: it is the user's own word.
        given: arguments, which come before those of the data.
        image_shape: (C, H, W), (C, T), or (T,) of tokens.
        num_classes: outputs.
        in_channels: None: the channels of the shape; of tokens: how many there are.
        output_shape: of one sample; None: (num_classes,).
        inputs: of a network of several, in the order of the row; the function is given `num_classes` alone.
        choices: made in a network that holds some; see `NamedModel`.
        check: run it once to see its output.

    Raises:
        ConfigError: there is no such thing, an argument is not plain, or its output has another shape.
    """
    _check_arguments(text, given)
    module, colon, _ = text.partition(":")
    if colon and module != "timm":
        trust(module)
    known = {
        "num_classes": num_classes,
        "in_channels": in_channels or image_shape[0],
        "in_chans": in_channels or image_shape[0],
        "in_features": math.prod(image_shape),
        "image_size": list(image_shape[1:]),
        "img_size": list(image_shape[1:]),
    }
    if inputs:
        if text.startswith("timm:"):
            raise ConfigError(f"model={text} takes images; the data have {shapes_of(inputs)}.")
        known = {"num_classes": num_classes}
    arguments = {**_taken(text, known), **given}
    found = NamedModel(text, arguments, tuple(inputs), choices or {}, tuple(image_shape))
    return fitted(found, image_shape, output_shape or (num_classes,)) if check else found


def saved_model(node: Mapping[str, Any], source: str) -> NamedModel:
    """The network that a saved file describes.

    Args:
        node: from `NamedModel.described`.
        source: the file, for errors.

    Raises:
        ConfigError: the description is damaged, or names a module that the user did not.
    """
    name, arguments = node.get("name"), node.get("arguments")
    if isinstance(name, str) and _REGISTRABLE.fullmatch(name) and name not in REGISTERED:
        raise ConfigError(
            f"{source} was made by the registered network {name!r}, which no module registers here; name the "
            "one that does: plugins=[...]."
        )
    if not isinstance(name, str) or not is_named(name) or not isinstance(arguments, Mapping):
        raise ConfigError(f"{source} describes no network that can be made again.")
    module, colon, _ = name.partition(":")
    if colon and module != "timm" and not is_trusted(module):
        raise ConfigError(
            f"{source} was made by {name}; a file alone does not make this program import code. Name the "
            f"module yourself: plugins=[{module}]."
        )
    _check_arguments(name, arguments)
    inputs = read_named(node.get("inputs") or (), source)
    choices, shape = node.get("choices") or {}, node.get("input_shape") or ()
    if not isinstance(choices, Mapping) or not all(
        isinstance(value, _PLAIN) for value in choices.values()
    ):
        raise ConfigError(f"{source}: the choices of {name} are no options by label.")
    if not isinstance(shape, (list, tuple)) or not all(
        type(size) is int and 1 <= size <= _MOST for size in shape
    ):
        raise ConfigError(f"{source}: its input_shape is no shape of a sample.")
    rows = node.get("rows") is True
    return NamedModel(name, dict(arguments), inputs, dict(choices), tuple(shape), rows)


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    for key, value in arguments.items():
        items = value if isinstance(value, (list, tuple)) else (value,)
        if not isinstance(key, str) or not all(isinstance(item, _PLAIN) for item in items):
            raise ConfigError(
                f"model_args.{key} of {name} is a {type(value).__name__}; numbers, texts, truth values "
                "and lists of them can be saved."
            )
    if name.startswith("timm:"):
        for key in _TIMM_READS:
            if arguments.get(key):
                raise ConfigError(
                    f"model_args.{key} would read or download weights; build timm:NAME without it and "
                    "give weights=FILE, a state dict."
                )


def _factory(name: str) -> Factory:
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"))
    module, colon, function = name.partition(":")
    if not colon:
        return REGISTERED[name]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model={name}: there is no module {error.name!r}; it must be importable from the current "
            "folder or be installed."
        ) from error
    except DartsError:
        raise
    # of foreign code, of any kind; a script without a main guard may even parse our command line and exit
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"model={name} fails while its module is imported: {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        names = [n for n, v in vars(sys.modules[module]).items() if callable(v) and n[0] != "_"]
        raise ConfigError(f"model={name}: {unknown_name('function', function, names)}")
    return found  # type: ignore[no-any-return]


def _timm(name: str) -> Factory:
    if not _TIMM.fullmatch(name):
        raise ConfigError(
            f"model=timm:{name}: give a name of timm's own, such as timm:resnet18; models from a hub or a "
            "local folder (hf-hub:, local-dir:) are not opened."
        )
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"model=timm:{name} needs timm ({error}); pip install 'darts-core[timm]'."
        ) from error
    if not timm.is_model(name):
        raise ConfigError(f"model=timm:{name}: {unknown_name('model', name, timm.list_models())}")

    def make(**arguments: Any) -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        return model

    return make


def _taken(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `known` that the function takes by name."""
    if name.startswith("timm:"):
        return {key: known[key] for key in ("num_classes", "in_chans")}
    parameters = inspect.signature(_factory(name)).parameters
    return {key: value for key, value in known.items() if key in parameters}


def fitted(
    found: NamedModel, image_shape: Sequence[int], output_shape: Sequence[int]
) -> NamedModel:
    """`found`, if it runs on such samples and gives outputs of this shape; or as one that takes rows.

    Samples of one channel (1, F) or one position (F, 1) reach a network over plain values, such as an MLP on
    a table's columns, as [B, F].

    Raises:
        ConfigError: it fits neither way.
    """
    reason = _misfit(found, image_shape, output_shape)
    if reason is None:
        return found
    if len(image_shape) == 2 and 1 in image_shape and not found.inputs:
        by_rows = replace(found, rows=True)
        if _misfit(by_rows, image_shape, output_shape) is None:
            log.info("model=%s takes rows of %d values", found.name, math.prod(image_shape))
            return by_rows
    raise reason


def _misfit(
    found: NamedModel, image_shape: Sequence[int], output_shape: Sequence[int]
) -> DartsError | None:
    """Why the network does not fit such samples and outputs; None if it does."""
    try:
        # chosen widths are cut out of it by running it
        with torch.random.fork_rng(devices=[]):
            model = in_evaluation(found.make())
        with torch.no_grad():
            output = model(draw_inputs(image_shape, 2, zeros=True))
    except DartsError as error:
        return error
    except Exception as error:  # of foreign code, of any kind
        taken = shapes_of(found.inputs) or f"[2, {', '.join(map(str, image_shape))}]"
        why = f"{type(error).__name__}: {str(error)[:300]}"
        return ConfigError(f"model={found.name} does not run on inputs {taken}: {why}")
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    wanted = (2, *output_shape)
    if shape == wanted:
        return None
    return ConfigError(
        f"model={found.name} gives {shape} for two samples; outputs {list(wanted)} are needed. Let "
        "the function take num_classes, or set it in model_args."
    )
