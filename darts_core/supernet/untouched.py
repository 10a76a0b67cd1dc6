"""An input that several modules are given, kept from those that write into it, such as an in-place ReLU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils._pytree import tree_leaves, tree_map_only

from darts_core.copies import copy_of

__all__ = ["Untouched"]


class Untouched:
    """Gives copies to modules that write into what they are given; others get the tensors themselves.

    Which ones write is found by a pass through a copy of each module, without gradients and with random
    numbers of its own, the first time that it is called in training and in evaluation.
    """

    def __init__(self) -> None:
        self._writes: dict[tuple[int, bool], bool] = {}

    def run(self, number: int, module: nn.Module, *inputs: Any, **named: Any) -> Any:
        """`module(*inputs, **named)`, which leaves the tensors among these as they are.

        Args:
            number: of the module among those that share the inputs.
            module: which is called.
            inputs: what it is called with; tensors may stand in lists, tuples and dictionaries.
            named: as `inputs`, by name.
        """
        key = (number, module.training)
        # what torch.compile traces is no place to try something out; it leaves out copies that nobody needs
        compiling = torch.compiler.is_compiling()
        # nor is what counts a pass's products, which would count those of the copy, too
        if key not in self._writes and not compiling and not is_in_torch_dispatch_mode():
            self._writes[key] = _writes(module, inputs, named)
        if compiling or self._writes.get(key, True):
            inputs, named = tree_map_only(Tensor, torch.clone, (inputs, named))
        return module(*inputs, **named)


def _writes(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether the module writes into its inputs; where that cannot be seen, it may."""
    places = {t.device.index for t in _tensors((inputs, named)) if t.is_cuda}
    with torch.random.fork_rng(sorted(places)), torch.inference_mode(False), torch.no_grad():
        try:
            twin = copy_of(module)
            for part in twin.modules():  # a hook of the user's may collect what passes
                part._forward_hooks.clear()
                part._forward_pre_hooks.clear()
            own = tree_map_only(Tensor, lambda x: x.detach().clone(), (inputs, named))
            before = [(tensor, tensor._version) for tensor in _tensors(own)]
            twin(*own[0], **own[1])
        except Exception:  # whatever a foreign module raises; the pass that counts will tell
            return True
    return any(tensor._version != version for tensor, version in before)


def _tensors(held: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(held) if isinstance(leaf, Tensor)]
