"""What the targets of a data set may be taken for, and how they become a tensor that a loss takes.

Shapes: N samples, L labels, D numbers, T positions.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from darts_core.data.checks import check_classes, tell_rounded, told_apart
from darts_core.data.source import RawData
from darts_core.errors import DataError
from darts_core.tasks import IGNORED, Task, task_for
from darts_core.tasks.base import check_targets

__all__ = ["MOST_NAMES", "Targets", "read_targets", "target_kinds"]

MOST_NAMES = 100_000
# floats of so many different values may be meant as classes
_MOST_CLASSES = 100
_MASK = " What does not count is told by an array mask: y >= 0."
log = logging.getLogger("darts_core")


class Targets:
    """The targets of a data set as its task takes them.

    Attributes:
        task: given, or the one that the targets call for; not yet fitted.
        values: of all samples, official test ones last.
        names: of classes, labels, columns or tokens.
        strata: class of every sample by which splits are stratified; one class where there are none.
        strata_names: of these.
    """

    def __init__(self, task: Task, values: np.ndarray, names: tuple[str, ...], kind: str) -> None:
        self.task, self.values, self.names = task, values, names
        classes = kind == "class"
        self.strata = values if classes else np.zeros(len(values), np.int64)
        self.strata_names = names if classes else ("all",)


def target_kinds(raw: RawData) -> tuple[str, ...]:
    """What the targets can be taken for, the likeliest first."""
    targets, inputs = raw.targets, raw.inputs
    whole = targets.dtype.kind in "uib"
    if targets.ndim == 1:
        return ("class", "number") if whole else ("number",)
    if targets.ndim > 2:
        return ("number",)
    if whole and inputs.ndim == 2 and targets.shape == inputs.shape:
        return ("token", "labels", "number")
    known = targets[np.isfinite(targets)] if not whole else targets
    if bool(((known == 0) | (known == 1)).all()):
        return ("labels", "number")
    return ("number",)


def read_targets(raw: RawData, task: Task | None) -> Targets:
    """The targets for `task`; None takes the task that they call for.

    Raises:
        DataError: the targets are not what the task needs.
    """
    raw = _without_hidden(raw)
    kinds = target_kinds(raw)
    if task is None:
        task = task_for(kinds[0])
        _tell_classes(raw, kinds[0])
    kind = check_targets(task, kinds, raw.origin)
    if kind in ("class", "token"):
        _check_whole(raw)
    names = raw.names or _names(kind, raw)
    parts = [("training", raw.targets)]
    if raw.test_targets is not None:
        parts.append(("test", raw.test_targets))
    if kind in ("class", "token"):
        for part, values in parts:
            _check_numbers(kind, values, names, raw, part)
        if kind == "token" and not raw.ordered:  # windows of a text are cut right
            _tell_seen(raw)
    elif len(names) != (raw.targets.shape[1] if raw.targets.ndim == 2 else 1):
        raise DataError(
            f"{raw.origin} names {len(names)} targets ({', '.join(names[:5])}) for targets of shape "
            f"{raw.targets.shape}; give one name a column, or none."
        )
    converted = [task.converted(values) for _, values in parts]
    if converted[0].dtype == np.float32:
        tell_rounded(raw.targets, f"{raw.origin}: its targets")
    if raw.mask is not None:
        converted[0] = _masked(converted[0], raw.mask)
    return Targets(task, np.concatenate(converted), names, kind)


def _tell_classes(raw: RawData, kind: str) -> None:
    """A warning where targets look like classes in another form, of which another task is made."""
    if raw.mask is not None or kind not in ("labels", "number"):
        return
    if kind == "labels":
        count = raw.targets.shape[1]
        if count > 1 and bool((raw.targets.sum(1) == 1).all()):
            log.warning(
                "%s: every sample has exactly one of its %d labels; they are learned as labels of which any "
                "number may be present. For one class a sample save class numbers: y.argmax(1)",
                raw.origin,
                count,
            )
        return
    columns, floats = raw.targets.size // max(len(raw.targets), 1), raw.targets.dtype.kind == "f"
    if floats != (columns == 1):
        return
    known = raw.targets[np.isfinite(raw.targets)] if floats else raw.targets
    # looked at first: to sort counts of many columns takes seconds
    if not known.size or known.min() != 0 or not 0 < known.max() < _MOST_CLASSES:
        return
    values = np.unique(known)
    # as class numbers they would be taken: from 0 up without a gap
    if not bool((values == np.arange(len(values))).all()):
        return
    if floats:
        log.warning(
            "%s: its targets are the numbers 0 to %d, saved as floats, and are learned as numbers. For "
            "classes save whole numbers: y.astype(int)",
            raw.origin,
            len(values) - 1,
        )
    else:
        log.warning(
            "%s: its targets are whole numbers from 0 to %d in %d columns, and are learned as numbers. "
            "Classes are learned one a sample: y of shape [N]",
            raw.origin,
            len(values) - 1,
            columns,
        )


def _tell_seen(raw: RawData) -> None:
    """A warning where the tokens to be predicted stand in the inputs, at their place or one behind it."""
    inputs, targets = raw.inputs, raw.targets
    assert isinstance(inputs, np.ndarray)
    counted = np.ones(targets.shape, bool) if raw.mask is None else raw.mask.astype(bool)
    for what, seen, some in (
        ("its inputs themselves", inputs == targets, counted),
        ("the tokens before its inputs", inputs[:, :-1] == targets[:, 1:], counted[:, 1:]),
    ):
        if some.any() and bool(seen[some].all()):
            log.warning(
                "%s: its targets are %s, which a network need only repeat; of rows t save x = t[:, :-1], "
                "y = t[:, 1:]",
                raw.origin, what,
            )  # fmt: skip
            return


def _without_hidden(raw: RawData) -> RawData:
    """`raw` with 0 for what its mask hides of several targets a sample: -1 where unknown is no number."""
    if raw.mask is None or raw.targets.ndim < 2 or raw.mask.shape != raw.targets.shape:
        return raw
    return replace(raw, targets=np.where(raw.mask, raw.targets, 0).astype(raw.targets.dtype))


def _names(kind: str, raw: RawData) -> tuple[str, ...]:
    """Names where the source gives none: class numbers, tokens as the vocabulary calls them, or columns."""
    if kind in ("class", "token"):
        lowest, highest = int(raw.targets.min()), int(raw.targets.max())
        if kind == "token" and raw.test_targets is not None:  # a rare one may stand there alone
            highest = max(highest, int(raw.test_targets.max()))
        if lowest < 0 or highest > MOST_NAMES:
            raise DataError(
                f"{raw.origin}: the labels hold {lowest if lowest < 0 else highest}; "
                "labels are class numbers 0, 1, 2, ... up to "
                f"{MOST_NAMES} (numbers to be predicted: task=regression).{_MASK * (lowest < 0)}"
            )
        if kind == "token" and highest < len(raw.vocabulary):
            return told_apart(raw.vocabulary[: highest + 1], raw.origin)
        return tuple(str(i) for i in range(highest + 1))
    if raw.targets.ndim == 1:
        return ("value",)
    return tuple(
        f"{'label' if kind == 'labels' else 'value'}{i}" for i in range(raw.targets.shape[1])
    )


def _check_whole(raw: RawData) -> None:
    """Test targets are class or token numbers where the training targets are."""
    values = raw.test_targets
    if values is None or values.dtype.kind != "f":
        return
    if bool((np.isfinite(values) & (values == np.floor(values))).all()):
        return
    raise DataError(
        f"The test targets of {raw.origin} hold numbers that are not whole, or NaN or infinity; the training "
        "targets are class or token numbers."
    )


def _check_numbers(
    kind: str, values: np.ndarray, names: tuple[str, ...], raw: RawData, part: str
) -> None:
    if kind == "class":
        counted = values if raw.mask is None or part != "training" else values[raw.mask]
        check_classes(counted, names, raw.origin, part)
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= len(names):
        raise DataError(
            f"The {part} targets of {raw.origin} hold {low if low < 0 else high}; allowed are "
            f"0..{len(names) - 1} for its {len(names)} tokens."
        )


def _masked(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`values` with what does not count marked as the losses know it."""
    if not bool(mask.any()):
        raise DataError("The mask leaves no target that counts (True: counts).")
    if values.dtype.kind == "f":
        return np.where(mask.reshape(values.shape), values, np.nan).astype(values.dtype)
    return np.where(mask, values, IGNORED)
