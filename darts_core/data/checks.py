"""The checks that what a source read must pass before it is divided.

Shapes: N samples, C channels, H W height and width, T positions.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import replace

import numpy as np

from darts_core.data.arrays import column, group_numbers
from darts_core.data.encoded import EncodedImages
from darts_core.data.kinds import KINDS, kind_of, sample_words
from darts_core.data.source import MIN_SIZE, RawData
from darts_core.errors import DataError
from darts_core.reading import unusable

__all__ = [
    "check_channels_first",
    "check_classes",
    "check_raw",
    "meant_as_numbers",
    "tell_rounded",
    "told_apart",
]

log = logging.getLogger("darts_core")
# values that are looked at for their rounding, and how many of its steps they may lie apart at least
_LOOKED_AT, _STEPS = 2**22, 50
# channels, up to those of colour with transparency, that are no width
_FEW = 4


def check_raw(raw: RawData, *, classes: bool = True) -> RawData:
    """`raw`, its shapes, dtypes, finiteness and names checked; what targets must be besides is the task's.

    Args:
        raw: as a source read it.
        classes: whether whole numbers in one column may be classes.

    Raises:
        DataError: something does not fit; the sentence says what and where.
    """
    groups, group_names = _groups(raw)
    for name in (*raw.names, *group_names, *raw.vocabulary):
        if unusable(name):
            raise DataError(f"A class name of {raw.origin} holds {unusable(name)}.")
    raw = _columns(raw, classes)
    names = told_apart(raw.names, raw.origin)
    # of two speakers called Anna, leave_out=Anna would train on one
    group_names = told_apart(group_names, raw.origin)
    raw = replace(raw, names=names, groups=groups, group_names=group_names, rate=_rate(raw))
    _check_arrays(raw.inputs, raw.targets, raw, "training")
    for what, values in (("groups", raw.groups), ("mask", raw.mask)):
        if values is not None and values.ndim < 1:
            raise DataError(f"The {what} of {raw.origin} are one value; needed is one a sample.")
        if values is not None and len(values) != len(raw.targets):
            raise DataError(
                f"{raw.origin} holds {len(raw.targets):,} samples but {len(values):,} values of {what}; "
                "their numbers must agree."
            )
    plain = raw.mask is None or raw.mask.dtype == np.bool_
    if raw.mask is not None and not plain and not np.isin(raw.mask, (0, 1)).all():
        raise DataError(
            f"The mask of {raw.origin} has dtype {raw.mask.dtype} and values beside true and false; "
            "give booleans (True: counts)."
        )
    if raw.mask is not None and raw.mask.ndim > 1 and raw.mask.shape != raw.targets.shape:
        raise DataError(
            f"The mask of {raw.origin} has shape {raw.mask.shape}, the targets {raw.targets.shape}; they "
            "must agree, or the mask holds one value a sample (True: counts)."
        )
    if (raw.test_inputs is None) != (raw.test_targets is None):
        missing = "inputs" if raw.test_inputs is None else "targets"
        raise DataError(
            f"The test set of {raw.origin} has no {missing}; give both of them or neither."
        )
    if raw.test_inputs is None or raw.test_targets is None:
        return raw
    _check_arrays(raw.test_inputs, raw.test_targets, raw, "test")
    if raw.test_inputs.shape[1:] != raw.inputs.shape[1:]:
        resizes = " (data.image_size=... resizes both)" if raw.inputs.ndim == 4 else ""
        what = sample_words(raw.inputs.ndim - 1)
        raise DataError(
            f"The test {what} of {raw.origin} have shape {raw.test_inputs.shape[1:]}, the training "
            f"{what} {raw.inputs.shape[1:]}; they must agree{resizes}."
        )
    if (raw.inputs.dtype == np.uint8) != (
        raw.test_inputs.dtype == np.uint8
    ) and raw.inputs.ndim > 2:
        raise DataError(
            f"The training {sample_words(raw.inputs.ndim - 1)} of {raw.origin} have dtype "
            f"{raw.inputs.dtype}, the test ones {raw.test_inputs.dtype}: one of them is on another scale. "
            "Store both alike."
        )
    if raw.test_targets.shape[1:] != raw.targets.shape[1:]:
        raise DataError(
            f"The test targets of {raw.origin} have shape {raw.test_targets.shape[1:]}, the training "
            f"targets {raw.targets.shape[1:]}; they must agree."
        )
    return raw


def _columns(raw: RawData, classes: bool) -> RawData:
    """Class numbers in one column [N, 1] are [N]; a column with a name of its own holds labels or numbers."""
    targets = column(raw.targets) if classes and len(raw.names) != 1 else raw.targets
    if targets is not raw.targets:
        log.info("%s: its one column of whole numbers is taken for classes", raw.origin)
    test, mask = raw.test_targets, raw.mask
    if targets.ndim == 1:
        test = None if test is None else column(test)
        mask = None if mask is None else column(mask)
    return replace(raw, targets=targets, test_targets=test, mask=mask)


def _groups(raw: RawData) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The groups as numbers into names: a source of somebody's own may give names, or a column of a table."""
    found = raw.groups
    if found is not None and found.dtype == object and found.ndim == 1:
        if all(isinstance(one, str) for one in found):
            found = found.astype(str)
        elif all(isinstance(one, int | np.integer) for one in found):
            found = found.astype(np.int64)
    elif found is not None and found.dtype.kind in "bf" and np.isfinite(found).all():
        whole = found.astype(np.int64)
        found = whole if np.array_equal(whole, found) else found
    names = np.array(raw.group_names) if raw.group_names else None
    return group_numbers(found, names, raw.origin)


def told_apart(names: tuple[str, ...], origin: str) -> tuple[str, ...]:
    """`names` of classes, labels, columns, tokens or groups, where equal ones have their number beside them.

    Answers go by name: of two classes called crane one would get the other's.
    """
    twice = {name for name, count in Counter(names).items() if count > 1}
    if not twice:
        return names
    found = tuple(f"{name} ({i})" if name in twice else name for i, name in enumerate(names))
    log.warning(
        "%s has names that stand for several classes, columns or groups (%s); their numbers are added: %s",
        origin,
        ", ".join(sorted(twice)[:5]),
        ", ".join([new for new, old in zip(found, names, strict=True) if old in twice][:5]),
    )
    return found


def _rate(raw: RawData) -> float | None:
    # a number of numpy's would make a saved model unreadable
    rate = raw.rate.item() if isinstance(raw.rate, np.generic) else raw.rate
    if rate is not None and not (isinstance(rate, (int, float)) and 0 < rate < math.inf):
        raise DataError(
            f"The rate of {raw.origin} is {rate!r}; needed are samples a second, above 0, or none."
        )
    return rate


def _check_arrays(
    inputs: np.ndarray | EncodedImages, targets: np.ndarray, raw: RawData, part: str
) -> None:
    if inputs.ndim not in KINDS or inputs.dtype.kind not in "uifb":
        raise DataError(
            f"The {part} inputs of {raw.origin} have dtype {inputs.dtype} and shape {inputs.shape}; needed "
            f"are numbers of one of the shapes {', '.join(k.shape for k in KINDS.values())}."
        )
    kind = kind_of(inputs.ndim - 1)
    what = kind.samples
    if targets.ndim < 1 or targets.dtype.kind not in "uifb":
        numbered = (
            " Number the names of classes: class_names, labels = np.unique(labels, return_inverse=True), and "
            "save both."
        )
        raise DataError(
            f"The {part} labels of {raw.origin} have dtype {targets.dtype} and shape {targets.shape}; "
            f"needed are numbers, one or more a sample.{numbered * (targets.dtype.kind in 'US')}"
        )
    if 0 in targets.shape[1:]:
        raise DataError(
            f"The {part} targets of {raw.origin} have shape {targets.shape}: no values. Give one or more a "
            "sample (was a column lost when they were cut out?)."
        )
    if len(inputs) != len(targets):
        raise DataError(
            f"{raw.origin} holds {len(inputs):,} {part} {what} but {len(targets):,} labels; their "
            "numbers must agree (is a file truncated?)."
        )
    if len(inputs) == 0:
        raise DataError(f"{raw.origin} holds no {part} {what}; at least a few a class are needed.")
    if isinstance(inputs, EncodedImages):
        pass  # their files are bytes
    elif kind.name == "tokens":
        _check_tokens(inputs, raw, part)
    else:
        _check_finite(inputs, raw, part)
    if kind.name == "image":
        check_channels_first(inputs.shape, f"The {part} images of {raw.origin}")
    if kind.name == "image" and min(inputs.shape[2:]) < MIN_SIZE:
        height, width = inputs.shape[2:]
        raise DataError(
            f"The {part} images of {raw.origin} are {height}x{width}; at least {MIN_SIZE}x{MIN_SIZE} is "
            f"needed. data.image_size={MIN_SIZE} (or more) enlarges them."
        )
    if min(inputs.shape[1:]) < 1:
        raise DataError(f"The {part} {what} of {raw.origin} have shape {inputs.shape}: no values.")


def check_channels_first(shape: tuple[int, ...], what: str) -> None:
    """Refuse images [N, H, W, C], which would be images of H channels as narrow as C, and could be enlarged.

    Args:
        shape: of the set.
        what: how the message calls it.

    Raises:
        DataError: channels stand last.
    """
    _, first, second, last = shape
    # no image of so many channels is so narrow
    if first >= MIN_SIZE and (last <= _FEW or (first == second and last < MIN_SIZE)):
        raise DataError(
            f"{what} have shape {shape}, in which channels seem to stand last; needed is [N, C, H, W]: "
            "x.transpose(0, 3, 1, 2), or of a .npz file data.layout=nhwc."
        )


def _check_tokens(inputs: np.ndarray, raw: RawData, part: str) -> None:
    if inputs.dtype.kind not in "ui":
        raise DataError(
            f"The {part} tokens of {raw.origin} have dtype {inputs.dtype}; token numbers are whole numbers "
            "(a series of one channel has shape [N, 1, T])."
        )
    low, high, most = int(inputs.min()), int(inputs.max()), len(raw.vocabulary)
    if low < 0 or high >= most:
        raise DataError(
            f"The {part} tokens of {raw.origin} hold {low if low < 0 else high}; allowed are 0..{most - 1} "
            f"for its {most} tokens (numbers that are no tokens: save them as floats)."
        )


def _check_finite(inputs: np.ndarray, raw: RawData, part: str) -> None:
    if inputs.dtype.kind != "f":
        return
    for start in range(0, len(inputs), 1000):
        block = inputs[start : start + 1000]
        # computed with in float32
        wrong = ~(np.abs(block) <= np.finfo(np.float32).max)
        if wrong.any():
            bad = np.flatnonzero(wrong.reshape(len(block), -1).any(1))[0]
            what = (
                "values that float32 cannot hold"
                if np.isfinite(block[bad]).all()
                else "NaN or infinity"
            )
            raise DataError(
                f"The {part} {kind_of(inputs.ndim - 1).samples} of {raw.origin} hold {what} "
                f"(first in number {start + int(bad)}, counted from 0); remove or replace what is missing."
            )


def tell_rounded(values: np.ndarray, what: str) -> None:
    """A warning where values far from zero, such as times in seconds, are all but alike in float32.

    Args:
        values: [N], or [N, C, ...] of C channels or columns.
        what: how the message calls them.
    """
    if values.dtype.kind not in "uif" or values.dtype.itemsize < 4 or not values.size:
        return
    some = values[:: values.size // _LOOKED_AT + 1].astype(np.float64)
    columns = some.swapaxes(0, 1) if some.ndim > 1 else some[None]
    for number, one in enumerate(columns):
        known = one[np.isfinite(one)]
        if not len(known):
            continue
        far, deviation = np.abs(known).max(), float(known.std())
        step = float(np.spacing(np.float32(far)))
        # what a constant varies by is its own rounding, which no offset makes a value
        if _STEPS * np.spacing(far) < deviation < _STEPS * step:
            log.warning(
                "%s (channel or column %d, counted from 0) lie so far from 0 that float32, in which networks "
                "compute, knows them in steps of %.3g, and their deviation is %.3g: subtract an offset, such "
                "as the first value, before they are saved",
                what, number, step, deviation,
            )  # fmt: skip
            return


def check_classes(targets: np.ndarray, names: tuple[str, ...], origin: str, part: str) -> None:
    """Class numbers are whole, within the names, and (in training) of every class.

    Raises:
        DataError: they are not.
    """
    if len(names) < 2:
        raise DataError(
            f"{origin} has one class only ({', '.join(names) or 'none'}); a classifier needs at least two."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(names):
        wrong = low if low < 0 else high
        raise DataError(
            f"The {part} labels of {origin} hold {wrong}; allowed are 0..{len(names) - 1} for its "
            f"{len(names)} classes. Correct the labels or the class names."
        )
    if part != "training":
        return
    counts = np.bincount(targets.astype(np.int64), minlength=len(names))
    if (counts > 0).sum() < 2:
        raise DataError(
            f"All training samples of {origin} belong to one class ({names[int(counts.argmax())]!r}); a "
            "classifier needs at least two."
        )
    if (counts == 0).any():
        missing = [names[i] for i in np.flatnonzero(counts == 0)[:5]]
        raise DataError(
            f"{origin} has no training sample of class {', '.join(map(repr, missing))}; number the labels "
            f"without gaps or remove the class{meant_as_numbers(names)}."
        )


def meant_as_numbers(names: tuple[str, ...]) -> str:
    """What to do where classes have numbers for names and may be no classes; to stand at a sentence's end."""
    unnamed = all(name == str(number) for number, name in enumerate(names))
    return " (numbers to be predicted, not classes: task=regression)" if unnamed else ""
