"""`darts-core latency time`: the time of one network, by name or from a file, in one runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from darts_core.commands.overrides import parse as parse_override
from darts_core.errors import ConfigError, unknown_name
from darts_core.report.escape import plain_text

__all__ = ["split_arguments", "time_model"]

_PREFIX = "model_args."
_MOST = 100_000
_READ = (
    "model",
    "weights",
    "device",
    "runtime",
    "batch",
    "seconds",
    "size",
    "in_channels",
    "shape",
    "classes",
)
_OF_A_FILE = ("weights", "size", "in_channels", "shape", "classes")


def split_arguments(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The other words, and what `model_args.NAME=VALUE` say.

    Raises:
        ConfigError: such a word has no value, or several.
    """
    others, found = [], {}
    for word in words:
        if not word.startswith(_PREFIX):
            others.append(word)
            continue
        name, sign, _ = word.removeprefix(_PREFIX).partition("=")
        # as the commands that take overrides read it: 1e-3 is a number, a date is a text
        given = parse_override(word) if sign and name else None
        if given is None or given.is_sweep_override():
            raise ConfigError(
                f"{word!r} is not a setting; write {_PREFIX}NAME=VALUE, and a list as [a,b]."
            )
        found[name] = given.value()
    return others, found


def time_model(given: Mapping[str, Any], arguments: Mapping[str, Any], device: Any) -> None:
    """Print the times of `model=` at `batch=`, or at 1 and the throughput batch.

    Raises:
        ConfigError: there is no such model, or a setting that it does not read is given.
    """
    from darts_core.latency import measure_model

    for key in given:
        if key not in _READ:
            raise ConfigError(unknown_name("setting of `latency time`", key, _READ))
    if "model" not in given:
        raise ConfigError(
            "`latency time` needs model=: package.module:function, timm:NAME, a registered name, or a "
            "model.pt or the folder of one."
        )
    model, shape = _model(given, arguments)
    seconds = given.get("seconds", 1.0)
    rows = measure_model(
        model, shape, device=device, runtime=given.get("runtime", "eager"),
        batch_sizes=(given["batch"],) if "batch" in given else None,
        max_seconds=seconds, warmup_seconds=seconds / 2,
    )  # fmt: skip
    for batch, row in rows.items():
        beside = f"; beside other work: {plain_text(row.flag_reason)}" if row.flagged else ""
        print(
            f"{plain_text(given['model'])}: {row.median_ms:.4f} ms at batch {batch} "
            f"({row.q05_ms:.4f} to {row.q95_ms:.4f}, n={row.n}), {row.runtime} on "
            f"{plain_text(row.device)}{beside}"
        )


def _shape(given: Mapping[str, Any]) -> tuple[int, ...]:
    """Of one sample: as `shape=` says, else square images.

    Raises:
        ConfigError: it is no shape, or stands beside `size=` or `in_channels=`.
    """
    if "shape" not in given:
        size = given.get("size", 32)
        return given.get("in_channels", 3), size, size
    if "size" in given or "in_channels" in given:
        raise ConfigError("Give shape=, or size= and in_channels= of square images, not both.")
    sides = given["shape"].strip("()[] ").split(",")
    if not all(side.strip().isdecimal() and 0 < int(side) <= _MOST for side in sides):
        raise ConfigError(
            f"shape={given['shape'][:80]} is no shape of a sample; write whole numbers, such as 12,20,36 for "
            f"(channels, height, width) or 1,3200 for (channels, positions), each up to {_MOST:,}."
        )
    return tuple(int(side) for side in sides)


def _named(text: str, arguments: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> Any:
    """What makes the network of a name.

    Of tokens it is told that there are as many as it predicts, and may answer once or at each position.
    """
    from darts_core.models.named import named_model

    sizes: dict[str, Any] = {"image_shape": shape, "num_classes": classes}
    if len(shape) == 1:
        sizes["in_channels"] = max(classes, 2)  # token numbers 0 and 1 are drawn
        with suppress(ConfigError):
            return named_model(text, arguments, output_shape=(*shape, classes), **sizes)
    return named_model(text, arguments, **sizes)


def _model(given: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[Any, tuple[int, ...]]:
    """(network, image shape)."""
    from darts_core.models.by_name import inner
    from darts_core.models.named import is_named
    from darts_core.models.weights import load_weights
    from darts_core.stages.given import find_model
    from darts_core.train import load_model

    text = given["model"]
    if is_named(text):
        shape = _shape(given)
        model = _named(text, arguments, shape, given.get("classes", 10)).make()
        if "weights" in given:
            load_weights(inner(model), given["weights"])
        return model, shape
    for key in (*_OF_A_FILE, *(["model_args"] if arguments else [])):
        if key in given or key == "model_args":
            raise ConfigError(f"{key}= goes with a named model; a saved one brings its own.")
    path = find_model(text, Path(), ())
    model, meta = load_model(path)
    if not meta.get("image_shape"):
        raise ConfigError(
            f"{path} does not say what shape its samples have; train or export it with its data, or give the "
            "network by name (model=package.module:function weights=FILE shape=...)."
        )
    return model, tuple(meta["image_shape"])
