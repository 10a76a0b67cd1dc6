"""A network as the teacher of others; what it says of an input is asked once.

Its outputs are kept by the input's own bits, so that a mirrored image has outputs of its own and an input
that never comes back (a random crop) is never mistaken for another. Shapes: x [B, ...].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.copies import copy_of
from darts_core.distributed import Group
from darts_core.modes import in_evaluation
from darts_core.tasks import Classification, Task

__all__ = ["Teacher"]

_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
# what Python takes for a kept output beside its numbers: a key, a place, and theirs in a dictionary
_BESIDE = 200
# outputs lie in blocks of about so many bytes
_BLOCK = 2**18
# after so many batches of inputs that were all new, inputs do not come back: no more outputs are kept
_IN_VAIN = 5000


def _are_shares(output: Tensor, off: float = 1e-3) -> bool:
    """Whether each row [B, classes] is of numbers from 0 to 1 that sum to 1, or are so far off."""
    ones = output.sum(1)
    return bool((output >= 0).all() and torch.allclose(ones, torch.ones_like(ones), atol=off))


class Teacher:
    """A frozen copy of a network, and the outputs that it gave.

    An output that is looked up may differ in its last bits from one computed in another batch. What is kept
    therefore follows from the batches alone, and goes with the state: a resumed training looks up, and
    computes, what an uninterrupted one does.

    Args:
        model: the network as it is now.
        cache_mib: the outputs that are kept take at most so much memory; 0 keeps none. On a GPU none
            are kept, as looking them up would make each step wait for the host. None are added while the
            last 5,000 batches brought no input that was kept; the first that does ends that.
        group: the processes that share a batch: each asks its copy about its part, all keep all outputs.
    """

    def __init__(
        self, model: nn.Module, cache_mib: float = 64.0, group: Group | None = None
    ) -> None:
        self.model = in_evaluation(copy_of(model)).requires_grad_(False)
        self.cache_mib, self.group = cache_mib, group or Group.alone()
        self.asked = 0  # batches that the network itself answered
        self._kept = _Outputs()
        self._alike = False  # whether its answers were seen to be as the training's outputs
        self._in_vain = 0  # batches since one held an input that was kept

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The outputs for a batch, float32 (float64 stays)."""
        if self.cache_mib <= 0 or x.device.type != "cpu":
            return self._answer(x)
        keys = _fingerprints(x)
        rows = [self._kept.get(key) for key in keys]
        self._in_vain = self._in_vain + 1 if all(row is None for row in rows) else 0
        if all(row is not None for row in rows):
            return torch.stack([row for row in rows if row is not None])
        found = self._answer(x)
        for place, (key, row) in enumerate(zip(keys, rows, strict=True)):
            if row is not None:
                # the first answer stands: rounding may differ in another batch
                found[place] = row
            elif self._room(found[place]):
                self._kept.put(key, found[place])
        return found

    def other_outputs(self, task: Task, output: Tensor, taught: Tensor) -> str | None:
        """In what its answers, of evaluation mode, are others than a training's; None: in nothing.

        Numbers are looked at once, as that waits for the device.

        Args:
            task: what both are outputs for.
            output: of the network in training mode, [B, ...].
            taught: its answers for the same inputs.

        Returns:
            The end of "gives outputs ...".
        """
        if output.shape != taught.shape:
            return f"of shape {list(output.shape)} in training and {list(taught.shape)} in evaluation mode"
        if self._alike or not isinstance(task, Classification):
            return None
        # shares of half precision, as autocast leaves them, sum to 1 but roughly
        self._alike = not _are_shares(taught) or _are_shares(output.to(taught.dtype), off=0.02)
        return (
            None if self._alike else "before a softmax in training and behind it in evaluation mode"
        )

    def _answer(self, x: Tensor) -> Tensor:
        self.asked += 1
        # a network may write into its input, from which others learn next
        found = self.model(self.group.part(x).clone())
        return self.group.joined(found if found.dtype == torch.float64 else found.float())

    def _room(self, row: Tensor) -> bool:
        if self._in_vain > _IN_VAIN or not self._kept.takes(row):
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
        self._kept.cut(count)

    def state_dict(self) -> dict[str, Any]:
        """The outputs that are kept; with them a resumed training takes the same steps."""
        keys, kept = self._kept.tensors()
        return {"keys": keys, "kept": kept, "in_vain": self._in_vain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._kept = _Outputs()
        for key, row in zip(_texts(state["keys"].cpu()), state["kept"].cpu(), strict=True):
            self._kept.put(key, row)
        self._in_vain = int(state.get("in_vain", 0))


class _Outputs:
    """Outputs by the fingerprint of their example, in the order in which they came, in blocks."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._blocks: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> Tensor | None:
        """The output of an example, if it is kept."""
        place = self._places.get(key)
        return None if place is None else self._at(place)

    def takes(self, row: Tensor) -> bool:
        """Whether `row` is of the shape and type of the others."""
        if not self._blocks:
            return True
        return row.shape == self._blocks[0].shape[1:] and row.dtype == self._blocks[0].dtype

    def put(self, key: bytes, row: Tensor) -> None:
        """Keep an output; one that `takes` says yes to."""
        place = self._places.setdefault(key, len(self._places))
        if not self._blocks or place == len(self._blocks) * len(self._blocks[0]):
            size = max(1, _BLOCK // max(1, row.numel() * row.element_size()))
            self._blocks.append(row.new_empty((size, *row.shape)))
        self._at(place).copy_(row)

    def _at(self, place: int) -> Tensor:
        number, row = divmod(place, len(self._blocks[0]))
        return self._blocks[number][row]

    def cut(self, count: int) -> None:
        """Forget all but the first `count`."""
        for key in [*self._places][count:]:
            del self._places[key]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """(fingerprints [N, 2], outputs [N, ...]), copied."""
        if not self._places:
            return torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0)
        keys = torch.frombuffer(bytearray(b"".join(self._places)), dtype=torch.int64)
        parts = self._blocks[0].new_empty((len(self), *self._blocks[0].shape[1:]))
        size = len(self._blocks[0])
        for number, part in enumerate(parts.split(size)):
            part.copy_(self._blocks[number][: len(part)])
        return keys.reshape(-1, 2).clone(), parts


def _fingerprints(x: Tensor) -> list[bytes]:
    """128 bits of each example, from its own bits; two examples that share them are the same."""
    bits = x.detach().contiguous().view(_BITS[x.element_size()]).flatten(1).to(torch.int64)
    if x.element_size() == 8:
        # a value of double precision has its sign, and often all that it says, in its highest bits, of which
        # a product that wraps around keeps least: -x would be x
        bits = bits ^ ((bits >> 33) & (2**31 - 1))
    generator = torch.Generator().manual_seed(bits.shape[1])
    most = 2**62
    mixers = [
        torch.randint(-most, most, (bits.shape[1],), generator=generator) * 2 + 1 for _ in range(2)
    ]
    # integer products wrap around, as wanted; the shift mixes high bits into low ones
    mixed = [((bits ^ (bits << 31)) * mixer).sum(1) for mixer in mixers]
    return _texts(torch.stack(mixed, 1))


def _texts(keys_N2: Tensor) -> list[bytes]:
    """Pairs of 64-bit numbers as 16 bytes each, which take a third of the memory."""
    raw = keys_N2.contiguous().numpy().tobytes()
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]
