"""Stratified, disjoint splits that depend on a seed only."""

from __future__ import annotations

import numpy as np

from darts_core.data.checks import meant_as_numbers
from darts_core.errors import ConfigError, DataError

__all__ = ["SPLITS", "check_fraction", "check_limit", "cut", "divide", "stratified_pick"]

SPLITS = ("params", "alpha", "val", "test")


def _quota(counts: np.ndarray, total: int) -> np.ndarray:
    """How many to take of each class: proportional, summing to `total`, by largest remainder."""
    ideal = counts * (total / counts.sum())
    quota = np.floor(ideal).astype(np.int64)
    # a class too small for its share to reach one would vanish from the split
    quota[(quota == 0) & (counts > 1)] = 1
    order = np.argsort(quota - ideal, kind="stable")
    short = total - int(quota.sum())
    step = 1 if short > 0 else -1
    candidates = order if short > 0 else order[::-1]
    while short != 0:
        moved = False
        for c in candidates:
            allowed = quota[c] < counts[c] if step > 0 else quota[c] > 1
            if short != 0 and allowed:
                quota[c] += step
                short -= step
                moved = True
        if not moved:
            break
    return quota


def stratified_pick(
    labels: np.ndarray, index: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`(picked, rest)`: `count` members of `index`, classes in proportion, and the others.

    Args:
        labels: class of every image.
        index: the images to choose from; both results are sorted parts of it.
        count: how many to pick; a class with two or more images keeps at least one on each side
            where that is possible.
        rng: decides which images of a class are picked.
    """
    own = labels[index]
    _, inverse, counts = np.unique(own, return_inverse=True, return_counts=True)
    quota = _quota(counts, count)
    # random rank of every image within its class
    order = np.lexsort((rng.random(len(index)), inverse))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(index), np.int64)
    rank[order] = np.arange(len(index)) - np.repeat(starts, counts)
    chosen = rank < quota[inverse]
    return np.sort(index[chosen]), np.sort(index[~chosen])


def cut(labels: np.ndarray, index: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` members of `index` and no more, classes in proportion; sorted.

    Where classes outnumber `count`, whose each keeps one in `stratified_pick`, `rng` draws those that stay.
    """
    picked, _ = stratified_pick(labels, index, count, rng)
    if len(picked) > count:
        picked = np.sort(rng.choice(picked, count, replace=False))
    return picked


def check_fraction(name: str, value: float) -> float:
    """`value`, when it is a share between 0 and 1.

    Raises:
        ConfigError: it is not.
    """
    if not 0.0 < value < 1.0:
        raise ConfigError(f"data.{name}={value} is not allowed; choose a number between 0 and 1.")
    return float(value)


def check_limit(name: str, value: int | None, size: int) -> None:
    """Refuse a limit that is not within 1..size.

    Raises:
        ConfigError: it is not.
    """
    if value is not None and not 1 <= value <= size:
        raise ConfigError(f"data.{name}={value} is not allowed; choose 1..{size} or null for all.")


def _check_present(
    parts: dict[str, np.ndarray], labels: np.ndarray, names: tuple[str, ...]
) -> None:
    for split, index in parts.items():
        if len(index) == 0:
            raise DataError(
                f"The split {split!r} would be empty; use more samples or change data.limit and the "
                "fractions (data.alpha_fraction, data.val_fraction, data.test_fraction)."
            )
    for split in ("params", "alpha"):
        counts = np.bincount(labels[parts[split]], minlength=len(names))
        if (counts == 0).any():
            gone = int(np.flatnonzero(counts == 0)[0])
            count = int((labels == gone).sum())
            hint = meant_as_numbers(names) if count < len(SPLITS) else ""
            raise DataError(
                f"The split {split!r} has no sample of class {names[gone]!r} ({count} in all): give that "
                "class more samples, or raise data.limit. Every class needs at least one sample in each "
                f"split{hint}."
            )


def divide(
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    official_test: int,
    seed: int,
    alpha_fraction: float,
    val_fraction: float,
    test_fraction: float,
    limit: int | None,
    test_limit: int | None,
) -> dict[str, np.ndarray]:
    """The images of each split, as sorted indices into `labels`.

    The test split does not depend on `seed`: an image on which a run of one seed was judged was
    never trained on by a run of another.

    Args:
        labels: classes of all images, the `official_test` ones last.
        class_names: for error messages.
        official_test: number of official test images; 0 holds out `test_fraction` of all images.
        seed: divides the remaining images into params, alpha and val; not negative.
        alpha_fraction: share of the training images (params and alpha) that trains alpha.
        val_fraction: share of the non-test images that forms val.
        test_fraction: see `official_test`.
        limit: keep only so many non-test images (params, alpha and val together).
        test_limit: keep only so many test images.

    Raises:
        ConfigError: a fraction or a limit is out of range.
        DataError: a split would be empty or lack a class.
    """
    fixed, rng = np.random.default_rng(20180624), np.random.default_rng(seed)
    everything = np.arange(len(labels))
    if official_test:
        rest, test = np.split(everything, [len(labels) - official_test])
    else:
        count = round(len(labels) * check_fraction("test_fraction", test_fraction))
        test, rest = stratified_pick(labels, everything, count, fixed)
    for name, value, size in (("limit", limit, len(rest)), ("test_limit", test_limit, len(test))):
        check_limit(name, value, size)
    if limit is not None:
        rest = cut(labels, rest, limit, rng)
    if test_limit is not None:
        test = cut(labels, test, test_limit, fixed)
    val_count = round(len(rest) * check_fraction("val_fraction", val_fraction))
    val, rest = stratified_pick(labels, rest, val_count, rng)
    if not len(rest):
        raise DataError(
            f"data.val_fraction={val_fraction} leaves nothing to train on; choose a smaller one, or use "
            "more samples."
        )
    alpha_count = round(len(rest) * check_fraction("alpha_fraction", alpha_fraction))
    alpha, params = stratified_pick(labels, rest, alpha_count, rng)
    parts = {"params": params, "alpha": alpha, "val": val, "test": test}
    _check_present(parts, labels, class_names)
    return parts
