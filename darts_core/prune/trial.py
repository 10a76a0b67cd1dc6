"""Whether a network can be cut in a way, tried on a copy: double precision, parameters away from 0.

Parameters at 0 (a residual branch's last scale, often) would hide what a cut changes. What is not below 0
stays so: it may be a variance.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from darts_core.errors import PruneError
from darts_core.modes import in_evaluation
from darts_core.prune.groups import copied
from darts_core.prune.modes import given_in_training, runs_in_training
from darts_core.prune.slices import Plan, running

__all__ = ["TOLERANCE", "Trial", "one_tensor"]

TOLERANCE = 1e-9
# of networks that compute a part in single precision, whatever they are given: norms do so, often
_ROUNDED = 1e-4
# in training mode, where norms over a few values enlarge what rounding left
_TRAINED = 100.0
# of the outputs' size: a number that is smaller, such as the mean behind a norm, may be rounding alone
_SMALL = 1e-4


def _doubled(tensor: Tensor) -> Tensor:
    """In double precision; of `Module.double()` complex numbers stay single ones, which meet no others."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


class _Rounds(TorchDispatchMode):
    """Notes whether numbers in double precision are made single ones, as by `x.float()`."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if isinstance(given, Tensor) and given.dtype is torch.float32:
            self.found |= any(isinstance(a, Tensor) and a.dtype is torch.float64 for a in args)
        return given


def one_tensor(output: Any, model: nn.Module) -> Tensor:
    """`output`, which `model` gave in evaluation mode.

    Raises:
        PruneError: it is no tensor.
    """
    if not isinstance(output, Tensor):
        raise PruneError(
            f"In evaluation mode {type(model).__name__} gives a {type(output).__name__}; put it into a "
            "module whose forward returns the one tensor that is meant."
        )
    return output


class Trial:
    """A copy of a network with an input, on which cuts are tried.

    Args:
        model: the network.
        example: [B, ...]; its numbers are used where they are token numbers, or where random ones in their
            place give NaN; its shape alone elsewhere.

    Attributes:
        trains: whether it runs in training mode.

    Raises:
        PruneError: the network cannot be copied, does not run on the example, or gives something else
            than one tensor, or numbers that are not finite.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = in_evaluation(copied(model).cpu()._apply(_doubled))
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                if tensor.is_floating_point():
                    noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                    outwards = torch.where(tensor < 0, -noise.abs(), noise.abs())
                    tensor.add_(outwards * (0.3 if name.endswith("_var") else 0.05))
        drawn = torch.randn(example.shape, generator=generator, dtype=torch.float64)
        self.x = drawn if example.is_floating_point() else example.cpu()
        try:
            self.whole = self.run()
        except PruneError:
            raise
        except Exception as error:  # whatever a foreign network raises
            raise PruneError(
                f"{type(model).__name__} does not run on example_inputs of shape "
                f"{list(example.shape)} ({type(error).__name__}: {str(error)[:200]}); give one batch as the "
                "network takes it."
            ) from error
        if example.is_floating_point() and not bool(torch.isfinite(self.whole).all()):
            # it may take the logarithm of its inputs, or a root, which random ones have none of
            self.x = example.detach().cpu().double()
            self.whole = self.run()
        if not bool(torch.isfinite(self.whole).all()):
            raise PruneError(
                f"{type(model).__name__} gives NaN or infinite outputs, for example_inputs as for random "
                "ones: its parameters are not those of a finished training, or it takes no such inputs."
            )
        self._tolerance = _ROUNDED if self._rounds() else TOLERANCE
        self.trains = runs_in_training(self.model, self.x)
        self._trained = given_in_training(self.model, self.x, seed=0) if self.trains else None
        # another draw gives something else: no two passes could be compared
        if self._trained is not None and not self.trained_alike(seed=1):
            self._trained = None

    def _rounds(self) -> bool:
        """Whether it computes a part in single precision, as far as its run can be watched."""
        rounds = _Rounds()
        # torch lets nobody watch some operations, flex_attention among them: that is no fault of the network
        with contextlib.suppress(Exception), rounds:
            self.run()
        return rounds.found

    @torch.no_grad()
    def run(self, model: nn.Module | None = None) -> Tensor:
        """The output.

        Raises:
            PruneError: it is no tensor.
        """
        # a network may write into its input: x -= mean
        found = (model or self.model)(self.x.clone())
        return one_tensor(found, self.model)

    def cut(self, found: Plan) -> Tensor | None:
        """The output of a sub-network; None where it has another shape or does not run.

        It is to run in training mode as well where the whole network does: other parts may read it there.
        """
        try:
            with running(self.model, found):
                output = self.run()
                runs = not self.trains or runs_in_training(self.model, self.x)
        except Exception:  # whatever a foreign network raises
            return None
        return output if runs and output.shape == self.whole.shape else None

    def trained_alike(self, seed: int = 0) -> bool:
        """Whether it gives in training mode what it gave there at first, up to rounding.

        True as well where that is not known: it does not run there, or draws random numbers of its own.
        """
        if self._trained is None:
            return True
        found = given_in_training(self.model, self.x, seed=seed)
        if found is None or len(found) != len(self._trained):
            return False
        least = _SMALL * float(self.whole.abs().max())
        return all(
            one.shape == like.shape
            and (
                one.numel() == 0
                or self.same(_doubled(one * 1.0), _doubled(like * 1.0), _TRAINED, least)
            )
            for one, like in zip(found, self._trained, strict=True)
        )

    def same(
        self,
        found: Tensor | None,
        like: Tensor | None = None,
        slack: float = 1.0,
        least: float = 0.0,
    ) -> bool:
        """Whether an output is that of the whole network (or `like`), up to rounding times `slack`.

        Args:
            found: the output.
            like: what it should be.
            slack: how much more than rounding may differ.
            least: the size that is assumed of a smaller `like`.
        """
        if found is None:
            return False
        like = self.whole if like is None else like
        scale = max(float(like.abs().max()), least, 1e-30)
        return float((found - like).abs().max()) <= slack * self._tolerance * scale
