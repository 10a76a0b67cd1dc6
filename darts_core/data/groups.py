"""Splits of whole groups: no speaker, patient or machine stands in two of them; and of whole stretches."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from darts_core.errors import ConfigError, DataError, unknown_name

__all__ = ["divide_groups", "divide_stretches", "tell_groups"]

log = logging.getLogger("darts_core")
_NEEDED = 4


def divide_groups(
    groups: np.ndarray,
    names: tuple[str, ...],
    *,
    official_test: int,
    leave_out: Any,
    seed: int,
    alpha_fraction: float,
    val_fraction: float,
    test_fraction: float,
) -> dict[str, np.ndarray]:
    """The samples of each split, as sorted indices: each split holds whole groups.

    A split takes, in an order drawn by `seed`, as many groups as come nearest to its share of the samples,
    at least one. The test split does not depend on `seed`.

    Args:
        groups: of every sample, a number into `names`; the `official_test` ones last.
        names: of the groups.
        official_test: number of official test samples; 0 holds groups out.
        leave_out: name or number of the group that is the test split; None takes some.
        seed: divides the other groups.
        alpha_fraction: share of the training samples that trains alpha.
        val_fraction: share of the samples outside test that selects.
        test_fraction: share of all samples that is held out.

    Raises:
        ConfigError: there is no such group.
        DataError: there are too few groups.
    """
    count = len(groups) - official_test
    own = groups[:count]
    present = np.unique(own)
    needed = _NEEDED - (official_test > 0)
    if len(present) < needed:
        raise DataError(
            f"The data hold {len(present)} groups; data.split_by=group needs at least {needed}, one for each "
            "split."
        )
    parts: dict[str, np.ndarray] = {}
    if official_test:
        parts["test"] = np.arange(count, len(groups))
        if leave_out is not None:
            raise ConfigError(
                "data.leave_out is not for data with a test set of their own; remove it."
            )
    elif leave_out is not None:
        left = _number(leave_out, names, present)
        parts["test"] = np.flatnonzero(own == left)
        present = present[present != left]
    else:
        fixed = np.random.default_rng(20180624)
        taken = _some(own, fixed.permutation(present), test_fraction * count, spare=needed - 1)
        parts["test"], present = _of(own, taken), np.setdiff1d(present, taken)
    order = np.random.default_rng(seed).permutation(present)
    rest = int(np.isin(own, present).sum())
    taken = _some(own, order, val_fraction * rest, spare=2)
    parts["val"] = _of(own, taken)
    order = order[len(taken) :]
    taken = _some(own, order, alpha_fraction * (rest - len(parts["val"])), spare=1)
    parts["alpha"], parts["params"] = _of(own, taken), _of(own, order[len(taken) :])
    return {name: parts[name] for name in ("params", "alpha", "val", "test")}


def tell_groups(
    parts: Mapping[str, np.ndarray], groups: np.ndarray, names: tuple[str, ...]
) -> None:
    """A line in the log for the groups that test and that select."""
    for name in ("test", "val"):
        held = sorted({names[int(g)] for g in groups[parts[name]] if g >= 0}) if names else []
        more = ", ".join(held[:10]) + (f" and {len(held) - 10} more" if len(held) > 10 else "")
        if held:
            log.info("split %s: %d samples of %s", name, len(parts[name]), more)


def _of(groups: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(groups, wanted))


def _some(groups: np.ndarray, order: np.ndarray, wanted: float, *, spare: int) -> np.ndarray:
    """The first of `order` whose samples come nearest to `wanted`, at least one; `spare` are left."""
    known, counts = np.unique(groups, return_counts=True)
    sizes = counts[np.searchsorted(known, order)]
    reached = np.cumsum(sizes)[: len(order) - spare]
    return order[: int(np.argmin(np.abs(reached - wanted))) + 1]


def _number(wanted: Any, names: tuple[str, ...], present: np.ndarray) -> int:
    """The group called `wanted`, else the one of that number."""
    text = str(wanted)
    if text in names:
        found = names.index(text)
    elif text.isdecimal() and int(text) in present:
        found = int(text)
    else:
        raise ConfigError(unknown_name("group (data.leave_out)", text, names))
    if found not in present:
        raise DataError(f"The group {text!r} (data.leave_out) has no sample.")
    return found


def divide_stretches(
    count: int,
    *,
    official_test: int,
    seed: int,
    alpha_fraction: float,
    val_fraction: float,
    test_fraction: float,
) -> dict[str, np.ndarray]:
    """Splits of samples whose neighbours belong together: training, then val, then test.

    Windows of one text that stand side by side say much the same, so a random choice would test on what was
    almost seen. Within the training stretch, `seed` draws what trains alpha.
    """
    end = count - official_test if official_test else count - round(count * test_fraction)
    middle = end - round(end * val_fraction)
    order = np.random.default_rng(seed).permutation(middle)
    alpha = round(middle * alpha_fraction)
    parts = {
        "params": np.sort(order[alpha:]),
        "alpha": np.sort(order[:alpha]),
        "val": np.arange(middle, end),
        "test": np.arange(end, count),
    }
    for name, index in parts.items():
        if not len(index):
            raise DataError(
                f"The split {name!r} would be empty: {count} samples are too few for the fractions "
                "(data.alpha_fraction, data.val_fraction, data.test_fraction)."
            )
    return parts
