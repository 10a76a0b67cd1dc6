"""`make_bundle`: arrays in memory -> DataBundle: checked, divided, placed on the device.

Shapes: N samples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

import numpy as np
import torch

from darts_core.data.bundle import DataBundle
from darts_core.data.checks import check_raw, tell_rounded
from darts_core.data.encoded import EncodedImages
from darts_core.data.groups import divide_groups, divide_stretches, tell_groups
from darts_core.data.pool import Pool
from darts_core.data.repeats import tell_repeats
from darts_core.data.source import RawData
from darts_core.data.splits import check_fraction, check_limit, cut, divide
from darts_core.data.statistics import channel_statistics, tell_other_scale
from darts_core.data.targets import MOST_NAMES, Targets, read_targets
from darts_core.device import require_device
from darts_core.errors import ConfigError, DataError, unknown_name
from darts_core.memory import free_bytes
from darts_core.named_inputs import NamedInput
from darts_core.settings.field import check_value, type_of_hint
from darts_core.tasks import IGNORED, Task

__all__ = ["check_task", "check_types", "make_bundle"]

log = logging.getLogger("darts_core")

# share of the free device memory that inputs may take; the rest is for the network
_RESIDENT_SHARE = 0.5
_SPLIT_BY = ("group",)
_TEST_FRACTION = 0.2


def make_bundle(
    name: str,
    raw: RawData,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    limit: int | None = None,
    test_limit: int | None = None,
    alpha_fraction: float = 0.5,
    val_fraction: float = 0.15,
    test_fraction: float = _TEST_FRACTION,
    resident: bool | None = None,
    split_by: str | None = None,
    leave_out: Any = None,
    task: Task | None = None,
) -> DataBundle:
    """A DataBundle of arrays in memory; see `load_data` for the arguments and errors."""
    fractions = {
        "alpha_fraction": alpha_fraction,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
    }
    check_types(make_bundle, seed=seed, limit=limit, test_limit=test_limit, **fractions)
    check_task(task)
    classes = task is None or "class" in task.takes
    raw = _without_masked_rows(check_raw(_with_vocabulary(raw), classes=classes))
    targets = read_targets(raw, task)
    if isinstance(raw.inputs, np.ndarray) and raw.inputs.ndim > 2 and not raw.named:
        tell_rounded(raw.inputs, f"{raw.origin}: its inputs")
    parts = _divided(raw, targets, seed, fractions, (limit, test_limit), split_by, leave_out)
    inputs, values = _joined(raw), targets.values
    named = _fitted(raw, inputs, parts["params"])
    # named inputs are normalised a channel by what takes the row apart
    mean, std = (
        ((0.0,), (1.0,)) if named else channel_statistics(inputs, parts["params"], raw.origin)
    )
    official = raw.test_inputs is not None and not named
    if official and isinstance(inputs, np.ndarray) and inputs.ndim > 2:
        tell_other_scale(inputs, parts["test"], (mean, std), raw.origin)
    known = targets.task.fitted(values[parts["params"]], targets.names)
    _check_counted(parts, values, raw)
    used = np.concatenate(list(parts.values()))
    if len(used) < len(values):  # what a limit cuts away needs no memory
        inputs = inputs.subset(used) if isinstance(inputs, EncodedImages) else inputs[used]
        values = values[used]
        ends = np.cumsum([len(index) for index in parts.values()])
        starts = [0, *ends[:-1]]
        parts = {n: np.arange(a, b) for n, a, b in zip(parts, starts, ends, strict=True)}
    if isinstance(inputs, np.ndarray) and not raw.ordered:
        tell_repeats(parts, inputs, raw.origin)
    target = _device(device)
    place = target if _fits(inputs, target, resident, name) else torch.device("cpu")
    pool = Pool(
        inputs if isinstance(inputs, EncodedImages) else _tensor(inputs, place),
        _tensor(values, place),
    )
    index = {n: torch.from_numpy(i.astype(np.int64)).to(place) for n, i in parts.items()}
    return DataBundle(
        name,
        targets.names,
        mean,
        std,
        target,
        pool,
        index,
        known,
        streamed=resident is False or place != target or isinstance(inputs, EncodedImages),
        vocabulary=raw.vocabulary,
        rate=raw.rate,
        named=named,
    )


def check_types(function: Callable[..., Any], **given: Any) -> None:
    """Refuse values of other types than `function` states: a caller in Python may give anything.

    Raises:
        ConfigError: a value is of another type.
    """
    hints = get_type_hints(function)
    for name, value in given.items():
        kind, optional = type_of_hint(hints[name])
        # callers give numbers of numpy, too
        plain = value.item() if isinstance(value, np.generic) else value
        check_value(f"data.{name}", plain, kind, optional, None)


def check_task(task: Any) -> None:
    """Refuse a task's name, or its class, in its place: callers in Python may give what is typed.

    Raises:
        ConfigError: it is neither a task nor None.
    """
    if task is not None and not isinstance(task, Task):
        name = task if isinstance(task, str) else getattr(task, "name", None) or "NAME"
        raise ConfigError(
            f"task={task!r} is no task; give make_task({name!r}), which darts_core.tasks has."
        )


def _with_vocabulary(raw: RawData) -> RawData:
    """Token numbers without names are named by themselves."""
    if raw.vocabulary or raw.inputs.ndim != 2 or raw.inputs.dtype.kind not in "ui":
        return raw
    arrays = [part for part in (raw.inputs, raw.test_inputs) if isinstance(part, np.ndarray)]
    highest = max(int(part.max(initial=0)) for part in arrays)
    if highest > MOST_NAMES:
        raise DataError(
            f"{raw.origin} holds the token number {highest}; at most {MOST_NAMES:,} tokens are taken "
            "(numbers that are no tokens: save them as floats)."
        )
    return replace(raw, vocabulary=tuple(str(i) for i in range(highest + 1)))


def _without_masked_rows(raw: RawData) -> RawData:
    """A mask of one value a sample leaves samples out; others mark single targets."""
    if raw.mask is None or raw.mask.ndim != 1:
        return raw
    kept = raw.mask.astype(bool)
    if not kept.any():
        raise DataError(f"The mask of {raw.origin} leaves no sample (True: counts).")
    groups = None if raw.groups is None else raw.groups[kept]
    inputs = raw.inputs
    few = inputs.subset(np.flatnonzero(kept)) if isinstance(inputs, EncodedImages) else inputs[kept]
    return replace(raw, inputs=few, targets=raw.targets[kept], groups=groups, mask=None)


def _fitted(
    raw: RawData, inputs: np.ndarray | EncodedImages, index: np.ndarray
) -> tuple[NamedInput, ...]:
    """The named inputs with the statistics of the samples at `index`."""
    found, start = [], 0
    for one in raw.named:
        assert isinstance(inputs, np.ndarray)
        found.append(one.fitted(inputs[index, 0, start : start + one.size]))
        start += one.size
    return tuple(found)


def _tensor(values: np.ndarray, place: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(place)


def _joined(raw: RawData) -> np.ndarray | EncodedImages:
    """All inputs, official test ones last, in a dtype that torch computes with."""
    inputs = raw.inputs
    if isinstance(inputs, EncodedImages):
        assert raw.test_inputs is None or isinstance(raw.test_inputs, EncodedImages)
        return inputs.joined(raw.test_inputs)
    assert not isinstance(raw.test_inputs, EncodedImages)
    if raw.test_inputs is not None:
        inputs = np.concatenate([inputs, raw.test_inputs])
    if inputs.ndim == 2:
        return inputs.astype(np.int32)
    kept = (np.uint8, np.int8, np.int16, np.float16, np.float32)
    return inputs if inputs.dtype in kept else inputs.astype(np.float32)


def _divided(
    raw: RawData,
    targets: Targets,
    seed: int,
    fractions: dict[str, float],
    limits: tuple[int | None, int | None],
    split_by: str | None,
    leave_out: Any,
) -> dict[str, np.ndarray]:
    """The samples of each split, by group, by stretch, or drawn class by class."""
    if seed < 0:
        raise ConfigError(f"seed={seed} is not allowed; choose a whole number from 0 up.")
    official = 0 if raw.test_inputs is None else len(raw.test_inputs)
    if official and fractions["test_fraction"] != _TEST_FRACTION:
        log.warning(
            "data.test_fraction=%g is not used: %s has a test set of its own (data.test_limit takes some)",
            fractions["test_fraction"],
            raw.origin,
        )
    if split_by is not None and split_by not in _SPLIT_BY:
        raise ConfigError(unknown_name("data.split_by", split_by, _SPLIT_BY))
    grouped = split_by is not None or leave_out is not None
    if grouped and raw.groups is None:
        raise ConfigError(
            f"data.split_by=group and data.leave_out need groups; {raw.origin} names none (in a .npz file: "
            "an array 'group' with one number or name a sample)."
        )
    if raw.groups is not None and not grouped:
        log.warning(
            "%s names groups, which may stand in several splits; data.split_by=group keeps each in one",
            raw.origin,
        )
    if not grouped and not raw.ordered:
        return divide(
            targets.strata, targets.strata_names, official_test=official, seed=seed,
            limit=limits[0], test_limit=limits[1], **fractions,
        )  # fmt: skip
    for key, value in fractions.items():
        check_fraction(key, value)
    if raw.groups is not None and grouped:
        groups = np.concatenate([raw.groups, np.full(official, -1)])
        parts = divide_groups(
            groups,
            raw.group_names,
            official_test=official,
            leave_out=leave_out,
            seed=seed,
            **fractions,
        )
        parts = _limited(parts, targets.strata, limits, seed)
        tell_groups(parts, groups, raw.group_names)
        _tell_absent(parts, targets, raw.origin)
        return parts
    parts = divide_stretches(len(targets.values), official_test=official, seed=seed, **fractions)
    return _limited(parts, targets.strata, limits, seed)


def _check_counted(parts: dict[str, np.ndarray], values: np.ndarray, raw: RawData) -> None:
    """Refuse a split without a target that counts: its R2 would be 0, and its errors, too, as of the best."""
    floats = values.dtype.kind == "f"
    if not floats and raw.mask is None:
        return
    for name, index in parts.items():
        some = values[index]
        if not (~np.isnan(some) if floats else some != IGNORED).any():
            own = name == "test" and raw.test_targets is not None
            raise DataError(
                f"No target counts in the split {name!r} of {raw.origin}: all are NaN or masked. "
                + (
                    "Leave that test set out, and a part of the others is held out."
                    if own
                    else "Leave out samples that have none, or divide by another data.seed."
                )
            )


def _tell_absent(parts: dict[str, np.ndarray], targets: Targets, origin: str) -> None:
    """A warning for classes that the training groups lack: whole groups cannot be drawn class by class."""
    for split in ("params", "alpha"):
        counts = np.bincount(targets.strata[parts[split]], minlength=len(targets.strata_names))
        absent = [targets.strata_names[i] for i in np.flatnonzero(counts == 0)]
        if absent:
            log.warning(
                "%s: the groups of split %s hold no sample of class %s; another seed draws other groups",
                origin,
                split,
                ", ".join(absent[:5]),
            )


def _limited(
    parts: dict[str, np.ndarray],
    strata: np.ndarray,
    limits: tuple[int | None, int | None],
    seed: int,
) -> dict[str, np.ndarray]:
    """Each split cut in proportion, so that together they hold as many as the limits say."""
    sizes = {name: len(index) for name, index in parts.items() if name != "test"}
    limit, rest = limits[0], sum(sizes.values())
    check_limit("limit", limit, rest)
    check_limit("test_limit", limits[1], len(parts["test"]))
    counts = {**sizes, "test": limits[1] or len(parts["test"])}
    if limit is not None:
        if limit < len(sizes):
            raise DataError(
                f"data.limit={limit} leaves a split empty; choose {len(sizes)} or more, one for each of "
                f"{', '.join(sizes)}."
            )
        counts |= {name: max(1, round(size * limit / rest)) for name, size in sizes.items()}
        # rounded each for itself they may hold some more or fewer
        largest = max(sizes, key=lambda name: sizes[name])
        counts[largest] += limit - sum(counts[name] for name in sizes)
    return {
        name: cut(strata, index, counts[name], _drawn(name, seed))
        if counts[name] < len(index)
        else index
        for name, index in parts.items()
    }


def _drawn(split: str, seed: int) -> np.random.Generator:
    """What draws the samples of a split that stay: those of test are the same for every seed."""
    return np.random.default_rng(20180624 if split == "test" else seed)


def _device(device: str | torch.device) -> torch.device:
    """The device with its number: what tensors on it say."""
    target = require_device(device)
    if target.type == "cuda" and target.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return target


def _fits(
    inputs: np.ndarray | EncodedImages, device: torch.device, resident: bool | None, name: str
) -> bool:
    if isinstance(inputs, EncodedImages):
        if resident:
            raise ConfigError(
                "data.resident=true keeps all images on the device, data.stream=true none; give one of them."
            )
        return False
    if device.type != "cuda":
        return True
    if resident is None:
        free = free_bytes(device)
        resident = free is None or inputs.nbytes <= _RESIDENT_SHARE * free
    log.info(
        "%s: %.0f MiB of inputs %s",
        name,
        inputs.nbytes / 2**20,
        f"are resident on {device}" if resident else "are streamed from host memory",
    )
    return resident
