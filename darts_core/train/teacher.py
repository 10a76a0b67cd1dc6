"""A network as the teacher of others; what it says of an input is asked once.

Its outputs are kept by the input's own bits, so that a mirrored image has outputs of its own and an input
that never comes back (a random crop) is never mistaken for another. Shapes: x [B, ...].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.distributed import Group

__all__ = ["Teacher"]

_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
# what Python takes for a kept output beside its numbers: a tensor, a key, their places in list and dictionary
_BESIDE = 800
# after so many batches of inputs that were all new, inputs do not come back: no more outputs are kept
_IN_VAIN = 5000


class Teacher:
    """A frozen copy of a network, and the outputs that it gave.

    An output that is looked up may differ in its last bits from one computed in another batch. What is kept
    therefore follows from the batches alone, and goes with the state: a resumed training looks up, and
    computes, what an uninterrupted one does.

    Args:
        model: the network as it is now.
        cache_mib: the outputs that are kept take at most so much memory; 0 keeps none. On a GPU none
            are kept, as looking them up would make each step wait for the host. None are added while the
            last 200 batches brought no input that was kept; the first that does ends that.
        group: the processes that share a batch: each asks its copy about its part, all keep all outputs.
    """

    def __init__(
        self, model: nn.Module, cache_mib: float = 64.0, group: Group | None = None
    ) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.cache_mib, self.group = cache_mib, group or Group.alone()
        self.asked = 0  # batches that the network itself answered
        self._rows: dict[tuple[int, int], int] = {}
        self._keys: list[tuple[int, int]] = []
        self._kept: list[Tensor] = []
        self._in_vain = 0  # batches since one held an input that was kept

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The outputs for a batch, float32 (float64 stays)."""
        if self.cache_mib <= 0 or x.device.type != "cpu":
            return self._answer(x)
        keys = _fingerprints(x)
        rows = [self._rows.get(key) for key in keys]
        self._in_vain = self._in_vain + 1 if all(row is None for row in rows) else 0
        if all(row is not None for row in rows):
            return torch.stack([self._kept[row] for row in rows if row is not None])
        found = self._answer(x)
        for place, (key, row) in enumerate(zip(keys, rows, strict=True)):
            if row is not None:
                # the first answer stands: rounding may differ in another batch
                found[place] = self._kept[row]
            elif self._room(found[place]):
                self._rows[key] = len(self._kept)
                self._keys.append(key)
                self._kept.append(found[place].clone())
        return found

    def _answer(self, x: Tensor) -> Tensor:
        self.asked += 1
        found = self.model(self.group.part(x))
        return self.group.joined(found if found.dtype == torch.float64 else found.float())

    def _room(self, row: Tensor) -> bool:
        if self._in_vain > _IN_VAIN:
            return False
        each = row.numel() * row.element_size() + _BESIDE
        return (len(self._kept) + 1) * each <= self.cache_mib * 2**20

    @property
    def mark(self) -> tuple[int, int]:
        """Where its memory stands, for `back_to`."""
        return len(self._kept), self._in_vain

    def back_to(self, mark: Sequence[int]) -> None:
        """Forget what was kept since it stood at `mark`."""
        count, self._in_vain = (int(value) for value in mark)
        del self._keys[count:], self._kept[count:]
        self._rows = {key: place for place, key in enumerate(self._keys)}

    def state_dict(self) -> dict[str, Any]:
        """The outputs that are kept; with them a resumed training takes the same steps."""
        kept = torch.stack(self._kept) if self._kept else torch.zeros(0)
        keys = torch.tensor(self._keys, dtype=torch.int64).reshape(-1, 2)
        return {"keys": keys, "kept": kept, "in_vain": self._in_vain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._keys = [(int(a), int(b)) for a, b in state["keys"].tolist()]
        self._rows = {key: place for place, key in enumerate(self._keys)}
        self._kept = list(state["kept"])
        self._in_vain = int(state.get("in_vain", 0))


def _fingerprints(x: Tensor) -> list[tuple[int, int]]:
    """128 bits of each example, from its own bits; two examples that share them are the same."""
    bits = x.detach().contiguous().view(_BITS[x.element_size()]).flatten(1).to(torch.int64)
    generator = torch.Generator().manual_seed(bits.shape[1])
    most = 2**62
    mixers = [
        torch.randint(-most, most, (bits.shape[1],), generator=generator) * 2 + 1 for _ in range(2)
    ]
    # integer products wrap around, as wanted; the shift mixes high bits into low ones
    mixed = [((bits ^ (bits << 31)) * mixer).sum(1) for mixer in mixers]
    return list(zip(*(part.tolist() for part in mixed), strict=True))
