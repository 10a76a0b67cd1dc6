"""Executing a policy on a batch: drawn per image, grouped by operation, run on the images' device.

What each image gets is drawn on the host, where it costs microseconds and no waiting for the
device; the numbers travel to the device in one copy a step of the sub-policies. It cannot be part
of a captured step (the groups differ from batch to batch): it runs before, and feeds its input.

Shapes: B batch, C channels, H W height and width, G images of one group.
"""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darts_core.augment import geometry, intensity  # noqa: F401  registers the operations
from darts_core.augment.operations import (
    AUGMENTATIONS,
    BYTES_ALONE,
    MAX_MAGNITUDE,
    AugmentationOp,
)
from darts_core.augment.policy import Policy, policy_from_dict, policy_from_yaml
from darts_core.errors import ConfigError

__all__ = ["PolicyTransform", "load_policy", "make_policy"]

log = logging.getLogger("darts_core")


def _host_rng(generator: torch.Generator) -> np.random.Generator:
    """A host generator that follows from the state of `generator`, which moves on."""
    state = generator.get_state()
    torch.rand(1, generator=generator, device=generator.device)
    content = np.asarray(state).tobytes()
    return np.random.default_rng([zlib.crc32(content), zlib.adler32(content)])


class PolicyTransform:
    """A policy as a `BatchTransform` on uint8 images: `transform(images_BCHW, generator)`.

    Operations that have no meaning on one channel are skipped there, and the log says so once.
    """

    def __init__(self, policy: Policy) -> None:
        """Make the tables of `policy`.

        Raises:
            ConfigError: the policy names an unknown operation.
        """
        policy.check_names()
        self.policy = policy
        self._reported = False
        names = policy.operations
        self._ops: list[AugmentationOp] = [AUGMENTATIONS[name] for name in names]
        self._limits = [policy.ranges.get(op.name, (op.low, op.high)) for op in self._ops]
        mirrored = [op.signed or op.name in policy.mirrored for op in self._ops]
        self._either_side = np.array(mirrored, bool)
        length = max((len(sub) for sub in policy.sub_policies), default=0)
        shape = (len(policy.sub_policies), length)
        # a sub-policy shorter than the longest ends in steps of probability zero
        self._op_SL = np.zeros(shape, np.int64)
        self._probability_SL = np.zeros(shape)
        self._low_SL, self._high_SL = np.zeros(shape), np.zeros(shape)
        for s, sub in enumerate(policy.sub_policies):
            for step, op in enumerate(sub):
                self._op_SL[s, step] = names.index(op.name)
                self._probability_SL[s, step] = op.probability
                self._low_SL[s, step], self._high_SL[s, step] = op.magnitude, op.highest

    def __repr__(self) -> str:
        return f"PolicyTransform({self.policy.name or self.policy.operations})"

    def __call__(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """The batch with the policy applied, image by image.

        Shapes: uint8 [B, C, H, W] -> the same.

        Raises:
            ConfigError: the images are of another dtype.
        """
        if not self.policy.sub_policies:
            return images_BCHW
        if images_BCHW.dtype != torch.uint8:
            raise ConfigError(f"{BYTES_ALONE} Leave policy= out.")
        rng = _host_rng(generator)
        batch, channels = images_BCHW.shape[:2]
        images = images_BCHW.to(torch.float32).div_(255)
        for _ in range(self.policy.rounds):
            chosen_B = rng.integers(0, len(self.policy.sub_policies), batch)
            for step in range(self._op_SL.shape[1]):
                images = self._step(images, chosen_B, step, rng, channels)
        return images.mul(255).round_().clamp_(0, 255).to(torch.uint8)

    def _step(
        self,
        images: Tensor,
        chosen_B: np.ndarray,
        step: int,
        rng: np.random.Generator,
        channels: int,
    ) -> Tensor:
        op_B = self._op_SL[chosen_B, step]
        active_B = rng.random(len(op_B)) < self._probability_SL[chosen_B, step]
        value_B = self._values(op_B, chosen_B, step, rng)
        usable = [n for n in np.unique(op_B[active_B]) if self._usable(self._ops[n], channels)]
        groups = [np.flatnonzero(active_B & (op_B == n)) for n in usable]
        if not groups:
            return images
        order = np.concatenate(groups)
        # one copy for all groups: positions are exact in float32 up to 16 million images
        packed = torch.from_numpy(np.stack([order, value_B[order]]).astype(np.float32))
        packed = _to_device(packed, images.device)
        sizes = [len(group) for group in groups]
        changed = []
        order_tensor = packed[0].long()
        for n, index_G, value_G in zip(
            usable, order_tensor.split(sizes), packed[1].split(sizes), strict=True
        ):
            changed.append(self._ops[n].function(images.index_select(0, index_G), value_G))
        return images.index_copy(0, order_tensor, torch.cat(changed).clamp(0.0, 1.0))

    def _values(
        self, op_B: np.ndarray, chosen_B: np.ndarray, step: int, rng: np.random.Generator
    ) -> np.ndarray:
        """The value of each image's operation: its magnitude drawn, scaled and signed."""
        share_B = rng.random(len(op_B))
        if self.policy.levels is not None:
            count = self.policy.levels
            share_B = np.minimum(np.floor(share_B * count), count - 1) / (count - 1)
        low_B, high_B = self._low_SL[chosen_B, step], self._high_SL[chosen_B, step]
        magnitude_B = (low_B + (high_B - low_B) * share_B) / MAX_MAGNITUDE
        limits = np.array(self._limits)
        value_B = limits[op_B, 0] + (limits[op_B, 1] - limits[op_B, 0]) * magnitude_B
        either_side_B = self._either_side[op_B] & (rng.random(len(op_B)) < 0.5)
        return np.where(either_side_B, 2 * limits[op_B, 0] - value_B, value_B)

    def _usable(self, op: AugmentationOp, channels: int) -> bool:
        if not op.colour or channels > 1:
            return True
        if not self._reported:
            self._reported = True
            skipped = ", ".join(o.name for o in self._ops if o.colour)
            log.warning("the images have one channel: the augmentation skips %s", skipped)
        return False


def _to_device(host: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        # pinned, so that the host does not wait for the kernels before it
        return host.pin_memory().to(device, non_blocking=True)
    return host.to(device)


def make_policy(**content: Any) -> PolicyTransform | None:
    """The transform that the YAML keys of a policy describe; None when it changes nothing.

    The `_target_` of the files in `conf/augment`.
    """
    policy = policy_from_dict(content)
    return PolicyTransform(policy) if policy.sub_policies else None


def load_policy(
    path: str | Path | None, name: str = "", description: str = ""
) -> PolicyTransform | None:
    """The transform of a policy file or preset; None for a policy that changes nothing.

    Args:
        path: see `policy_from_yaml`.
        name: ignored; it lets a YAML file of `conf/augment` be passed whole.
        description: ignored likewise.

    Raises:
        ConfigError: no path is given, or there is no policy at it.
    """
    del name, description
    if path is None:
        raise ConfigError("augment=found needs augment.path=FILE, the policy that a search wrote.")
    policy = policy_from_yaml(path)
    return PolicyTransform(policy) if policy.sub_policies else None
