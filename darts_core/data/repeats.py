"""Samples that stand in several splits: what was trained on must not judge.

Shapes: N samples.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

__all__ = ["tell_repeats"]

log = logging.getLogger("darts_core")

_TRAINING = ("params", "alpha")
# few equal samples are usual (public data sets hold some), and change no result
_MOST = 0.01
# values of each sample by which most are told apart, so that only the others are looked at whole
_LOOKED_AT = 64
_AT_ONCE = 2**14
# samples of fewer values, such as rows of a table, may be alike by nature
_LEAST = 16


def tell_repeats(parts: Mapping[str, np.ndarray], inputs: np.ndarray, origin: str) -> None:
    """A warning where over one per cent of val or test have the inputs of a sample that is trained on.

    The targets do not count: one that was labelled twice, differently, is a repeat as well.

    Args:
        parts: the samples of each split.
        inputs: [N, ...], of all samples.
        origin: what the data are called.
    """
    rows = inputs.reshape(len(inputs), -1)
    if rows.shape[1] < _LEAST:
        return
    few = np.random.default_rng(0).permutation(rows.shape[1])[:_LOOKED_AT]
    trained = np.concatenate([parts[name] for name in _TRAINING])
    keys = _keys(rows, trained, few)
    for name in ("val", "test"):
        own = _keys(rows, parts[name], few)
        found = parts[name][np.isin(own, keys)]
        if len(found) <= _MOST * len(parts[name]):
            continue
        # equal there: alike as a whole, or of a plain ground
        near = trained[np.isin(keys, own)]
        known = {hash(rows[index].tobytes()) for index in near}
        count = sum(hash(rows[index].tobytes()) in known for index in found)
        if count > _MOST * len(parts[name]):
            log.warning(
                "%s: %d of the %d samples of split %s stand in the training splits, too, value for value: "
                "what it says may be better than the truth. Take repeats out, or give those of one original "
                "a group of their own and data.split_by=group",
                origin, count, len(parts[name]), name,
            )  # fmt: skip


def _keys(rows: np.ndarray, index: np.ndarray, few: np.ndarray) -> np.ndarray:
    """Some values of each sample as one number [len(index)]; samples that are alike have one number."""
    # some at a time: these values may take as much memory as the samples
    parts = np.array_split(index, len(index) // _AT_ONCE + 1)
    found = (hash(row.tobytes()) for some in parts for row in rows[np.ix_(some, few)])
    return np.fromiter(found, np.int64, len(index))
