"""Objectives of a policy search: they get networks and batches, and know no data set.

Shapes: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.augment.execute import PolicyTransform
from darts_core.augment.policy import Policy
from darts_core.errors import ConfigError

__all__ = ["BilevelObjective", "DensityObjective"]

Batch = tuple[Tensor, Tensor]
Normalize = Callable[[Tensor], Tensor]


def _first(output: Any) -> Tensor:
    """The logits of a network that may also return those of an auxiliary head."""
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits


@contextmanager
def _draws_of(step: int, device: torch.device) -> Iterator[None]:
    """A block whose draws from torch's global generators follow from the step; theirs go on behind it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(step)
        yield


class BilevelObjective:
    """How much augmenting each training image lowers the validation loss after one training step.

    With params w, training loss of image i under the policy l_i, and step size xi, the validation
    loss after the step is L(w - xi mean_i grad l_i). Its derivative by anything in the policy is
    that of -xi mean_i <grad l_i, v> with v = grad L(w - xi mean grad l), and the product is the
    central difference (l_i(w + e v) - l_i(w - e v)) / 2e, e = 0.01 / |v|. So each image gets a
    number that can be differentiated through the augmented image alone. Then the network takes the
    training step: policy and network learn together.

    All passes of a step see the same draws of dropout: the difference of two that saw others would be
    noise, divided by a small number. Drop-path, which a training before may have left on, is off.

    Args:
        model: the network; trained in place with plain momentum SGD. Of a tuple of outputs the
            first one counts: an auxiliary head gets no gradient.
        train: step -> (uint8 images, labels); a function of the step, so that a search can be
            interrupted.
        val: the same, of images that the network is never trained on.
        normalize: uint8-scaled images (0..255, float) -> what the network expects.
        learning_rate: xi, and of the network's own steps.
        momentum: of the network's own steps.
        weight_decay: of the network's own steps.

    Source: Y. Li et al., DADA, 2020 (bilevel objective); H. Liu et al., DARTS, 2019, eq. 7-8
    (finite difference).
    """

    def __init__(
        self,
        model: nn.Module,
        train: Callable[[int], Batch],
        val: Callable[[int], Batch],
        normalize: Normalize,
        *,
        learning_rate: float = 0.025,
        momentum: float = 0.9,
        weight_decay: float = 3e-4,
    ) -> None:
        self.model, self.train, self.val, self.normalize = model, train, val, normalize
        self.learning_rate = learning_rate
        if hasattr(model, "drop_path_prob"):
            model.drop_path_prob = 0.0  # type: ignore[assignment]
        self.params = [p for p in model.parameters() if p.requires_grad]
        if not self.params:
            raise ConfigError("The network of a policy search has no parameters to train.")
        self.optimizer = torch.optim.SGD(
            self.params, lr=learning_rate, momentum=momentum, weight_decay=weight_decay
        )

    def __call__(self, augment: Callable[[Tensor], Tensor], step: int) -> Tensor:
        """The number of each training image, differentiable by the policy; lower is better."""
        images, labels = self.train(step)
        inputs = self.normalize(augment(images) * 255)
        self.model.train()
        with _draws_of(step, inputs.device):
            output = _first(self.model(inputs.detach()))
        gradients = self._gradients(nn.functional.cross_entropy(output, labels), self.params)
        with _draws_of(step, inputs.device):
            direction = self._validation_gradient(gradients, self.val(step))
        norm = torch.sqrt(torch.stack([d.double().square().sum() for d in direction]).sum())
        epsilon = 0.01 / float(norm.clamp(min=1e-12))
        with _draws_of(step, inputs.device):
            above = self._losses_at(inputs, labels, direction, epsilon)
        with _draws_of(step, inputs.device):
            below = self._losses_at(inputs, labels, direction, -epsilon)
        for parameter, gradient in zip(self.params, gradients, strict=True):
            parameter.grad = gradient
        return -self.learning_rate * (above - below) / (2 * epsilon)

    def after_step(self) -> None:
        """The network's own training step; the search calls it once the policy has moved."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _validation_gradient(self, gradients: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        images, labels = batch
        moved = [
            (p - self.learning_rate * g).detach().requires_grad_()
            for p, g in zip(self.params, gradients, strict=True)
        ]
        logits = self._functional(moved, self.normalize(images.to(torch.float32)))
        return self._gradients(nn.functional.cross_entropy(logits, labels), moved)

    def _gradients(self, loss: Tensor, by: Sequence[Tensor]) -> list[Tensor]:
        """Zeros for what the loss does not depend on: the params of an auxiliary head."""
        return list(torch.autograd.grad(loss, by, allow_unused=True, materialize_grads=True))

    def _losses_at(
        self, inputs: Tensor, labels: Tensor, direction: Sequence[Tensor], epsilon: float
    ) -> Tensor:
        moved = [(p + epsilon * d).detach() for p, d in zip(self.params, direction, strict=True)]
        logits = self._functional(moved, inputs)
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    def _functional(self, values: Sequence[Tensor], inputs: Tensor) -> Tensor:
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        # copies: the extra passes must not touch running statistics
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        content = {**buffers, **dict(zip(names, values, strict=True))}
        return _first(torch.func.functional_call(self.model, content, (inputs,)))

    def state_dict(self) -> dict[str, Any]:
        """Network and optimizer, for a resume."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class DensityObjective:
    """How well networks trained without a policy classify held-out images under one.

    A policy whose images such networks still recognise keeps to the training images' density.

    Args:
        folds: pairs of a trained network and a function that yields (uint8 images, labels) of
            images which that network was not trained on; several are the folds of
            cross-validation.
        normalize: uint8-scaled images (0..255, float) -> what the networks expect.
        draws: how often each image is augmented anew.
        seed: of the draws; the same for every policy, so that policies are compared on like terms.

    Source: S. Lim et al., Fast AutoAugment, 2019.
    """

    def __init__(
        self,
        folds: Sequence[tuple[nn.Module, Callable[[], Iterable[Batch]]]],
        normalize: Normalize,
        *,
        draws: int = 1,
        seed: int = 0,
    ) -> None:
        if not folds or draws < 1:
            raise ConfigError(
                f"A density objective needs at least one fold and one draw, not {len(folds)} and {draws}."
            )
        self.folds, self.normalize, self.draws, self.seed = list(folds), normalize, draws, seed

    @torch.no_grad()
    def __call__(self, policy: Policy) -> float:
        """Mean accuracy (0..1) over folds, images and draws; higher is better."""
        transform = PolicyTransform(policy)
        right, count = 0.0, 0
        for model, batches in self.folds:
            model.eval()
            generator: torch.Generator | None = None
            for _ in range(self.draws):
                for images, labels in batches():
                    if generator is None:
                        generator = torch.Generator(images.device).manual_seed(self.seed)
                    inputs = self.normalize(transform(images, generator).to(torch.float32))
                    right += float((model(inputs).argmax(1) == labels).sum())
                    count += len(labels)
        if count == 0:
            raise ConfigError("A density objective got no images; give it a filled split.")
        return right / count
