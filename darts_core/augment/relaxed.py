"""A policy with parameters that have gradients: what a gradient-based policy search moves.

A sub-policy is one operation or an unordered pair of them. Each image draws one from learned
weights; each operation is then applied with a learned probability and magnitude, which all
sub-policies share.
* Whether it is applied is a relaxed Bernoulli draw b in (0, 1): the image becomes
  (1 - b) image + b op(image), so a gradient reaches the probability. Low temperatures push b to
  0 or 1.
* The magnitude gets its gradient through the operation, or straight through one that has none.
* Which sub-policy was drawn is discrete; its weights follow the score function, with the mean loss
  of the other images of the batch as baseline, which leaves the gradient unbiased.

Shapes: B batch, C channels, H W height and width, O operations, S sub-policies, G one group.

Source: Y. Li et al., DADA: Differentiable Automatic Data Augmentation, 2020; R. Hataya et al.,
Faster AutoAugment, 2020 (relaxed Bernoulli and straight-through estimator). Sharing one probability
and magnitude an operation is ours: a short search then sees enough images for each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from darts_core.augment import geometry, intensity  # noqa: F401  registers the operations
from darts_core.augment.operations import AUGMENTATIONS, MAX_MAGNITUDE, AugmentationOp
from darts_core.augment.policy import Operation, Policy
from darts_core.errors import ConfigError

__all__ = ["RelaxedPolicy"]

_EPS = 1e-6


class RelaxedPolicy(nn.Module):
    """See the head of this file.

    `choice_S`, `probability_O` and `magnitude_O` are logits: a softmax gives the weights of the
    sub-policies, a sigmoid the probabilities, and 10 times a sigmoid the magnitudes.

    Args:
        operations: registered names.
        length: operations a sub-policy, 1 or 2.
        ranges: operation -> (low, high) in place of the operation's own.
        temperature: of the relaxed Bernoulli draw.
        generator: source of all draws, on the host.

    Raises:
        ConfigError: an unknown operation, too few of them, or a number out of range.
    """

    def __init__(
        self,
        operations: Sequence[str],
        *,
        length: int = 2,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        temperature: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if length not in (1, 2) or len(operations) < length:
            raise ConfigError(
                f"A relaxed policy of length {length} over {len(operations)} operations is not "
                "possible; choose length 1 or 2 and at least as many operations."
            )
        if not 0.01 <= temperature <= 10:
            raise ConfigError(f"temperature={temperature} is not allowed; choose 0.01..10.")
        self.ops: tuple[AugmentationOp, ...] = tuple(AUGMENTATIONS[name] for name in operations)
        self.ranges = dict(ranges or {})
        self.temperature = temperature
        self.generator = generator or torch.Generator().manual_seed(0)
        self.sub_policies = list(itertools.combinations(range(len(self.ops)), length))
        self.choice_S = nn.Parameter(torch.zeros(len(self.sub_policies)))
        self.probability_O = nn.Parameter(torch.zeros(len(self.ops)))
        self.magnitude_O = nn.Parameter(torch.zeros(len(self.ops)))
        self.log_weight_B: Tensor | None = None

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Augmented images, differentiable in probabilities and magnitudes.

        Remembers in `log_weight_B` the log weight of the sub-policy that each image drew.

        Shapes: uint8, or float in 0..1, [B, C, H, W] -> float [B, C, H, W] in 0..1.
        """
        images = images_BCHW
        if not images.is_floating_point():
            images = images.to(torch.float32) / 255
        batch = images.shape[0]
        weights_S = torch.softmax(self.choice_S, 0)
        drawn_B = torch.multinomial(
            weights_S.detach().cpu().double(), batch, replacement=True, generator=self.generator
        )
        self.log_weight_B = torch.log_softmax(self.choice_S, 0)[drawn_B.to(self.choice_S.device)]
        ops_BL = torch.tensor(self.sub_policies)[drawn_B]
        if ops_BL.shape[1] == 2:
            swap_B = torch.rand(batch, generator=self.generator) < 0.5
            ops_BL = torch.where(swap_B[:, None], ops_BL.flip(1), ops_BL)
        for op_B in ops_BL.unbind(1):
            images = self._step(images, op_B)
        return images

    def _step(self, images: Tensor, op_B: Tensor) -> Tensor:
        noise_B = torch.rand(len(op_B), generator=self.generator).clamp(_EPS, 1 - _EPS)
        sign_B = (torch.rand(len(op_B), generator=self.generator) < 0.5).to(torch.float32) * 2 - 1
        device, dtype = images.device, images.dtype
        logistic_B = torch.logit(noise_B.double()).to(device=device, dtype=dtype)
        sign_B = sign_B.to(device=device, dtype=dtype)
        order, parts = [], []
        for number in op_B.unique().tolist():
            index_G = (op_B == number).nonzero().flatten().to(device)
            order.append(index_G)
            part = images.index_select(0, index_G)
            changed = self._changed(number, part, sign_B[index_G])
            logit = self.probability_O[number].to(dtype) + logistic_B[index_G]
            applied_G = torch.sigmoid(logit / self.temperature).view(-1, 1, 1, 1)
            parts.append(part + applied_G * (changed - part))
        back = torch.cat(order).argsort()
        return torch.cat(parts).index_select(0, back)

    def _changed(self, number: int, images: Tensor, sign_G: Tensor) -> Tensor:
        op = self.ops[number]
        if op.colour and images.shape[1] == 1:
            return images
        low, high = self.ranges.get(op.name, (op.low, op.high))
        share = torch.sigmoid(self.magnitude_O[number]).to(images.dtype)
        sign = sign_G if op.signed else torch.ones_like(sign_G)
        value_G = low + (high - low) * share * sign
        if op.differentiable:
            return op.function(images, value_G).clamp(0.0, 1.0)
        changed = op.function(images.detach(), value_G.detach()).clamp(0.0, 1.0)
        if low != high:
            changed = changed + (share - share.detach())
        return changed + (images - images.detach())

    def loss(self, loss_B: Tensor) -> Tensor:
        """The scalar to differentiate: its gradient also moves the weights of the sub-policies.

        Args:
            loss_B: one loss for each image of the last `forward`, or their mean. With one number for
                the whole batch the weights of the sub-policies get no gradient.
        """
        if loss_B.ndim == 0 or len(loss_B) < 2 or self.log_weight_B is None:
            return loss_B.mean()
        detached_B = loss_B.detach().to(self.log_weight_B)
        others_B = (detached_B.sum() - detached_B) / (len(detached_B) - 1)
        score = ((detached_B - others_B) * self.log_weight_B).mean()
        return loss_B.mean() + score - score.detach()

    def probabilities(self) -> dict[str, float]:
        """Operation -> learned probability of applying it."""
        values = torch.sigmoid(self.probability_O.detach()).tolist()
        return {op.name: value for op, value in zip(self.ops, values, strict=True)}

    def magnitudes(self) -> dict[str, float]:
        """Operation -> learned magnitude, 0..10."""
        values = torch.sigmoid(self.magnitude_O.detach()).tolist()
        return {op.name: MAX_MAGNITUDE * v for op, v in zip(self.ops, values, strict=True)}

    def weights(self) -> list[float]:
        """The learned weight of each sub-policy; they sum to 1."""
        weights: list[float] = torch.softmax(self.choice_S.detach().double(), 0).tolist()
        return weights

    def discretize(self, keep: int = 25) -> Policy:
        """The policy of the `keep` sub-policies with the largest weights."""
        weights, chance, magnitude = self.weights(), self.probabilities(), self.magnitudes()
        ranked = sorted(range(len(weights)), key=lambda s: -weights[s])[: max(1, keep)]

        def step(number: int) -> Operation:
            name = self.ops[number].name
            return Operation(name, _rounded(chance[name]), _rounded(magnitude[name]))

        return Policy(
            tuple(tuple(step(o) for o in self.sub_policies[s]) for s in ranked),
            ranges=self.ranges,
            name="found",
        )


def _rounded(value: float) -> float:
    return math.floor(value * 1000 + 0.5) / 1000
