"""Pad-crop, mirror and cutout, drawn per image and executed for the whole batch on its device.

Shapes: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from darts_core.errors import ConfigError

__all__ = ["Augment", "crop_and_flip", "cutout"]

Transform = Callable[[Tensor, torch.Generator], Tensor]


def crop_and_flip(
    images_BCHW: Tensor, generator: torch.Generator, *, padding: int, flip: bool
) -> Tensor:
    """Each image shifted by up to `padding` pixels each way (black comes in) and perhaps mirrored.

    The same as padding with zeros, cropping at random and mirroring left-right with probability
    1/2, but as one gather.

    Shapes: [B, C, H, W] of any dtype -> the same.
    """
    batch, channels, height, width = images_BCHW.shape
    device = images_BCHW.device
    rows_BH = torch.arange(height, device=device).expand(batch, height)
    columns_BW = torch.arange(width, device=device).expand(batch, width)
    if flip:
        mirrored_B1 = torch.rand((batch, 1), generator=generator, device=device) < 0.5
        columns_BW = torch.where(mirrored_B1, columns_BW.flip(1), columns_BW)
    if padding:
        shift_2B1 = torch.randint(
            0, 2 * padding + 1, (2, batch, 1), generator=generator, device=device
        )
        # positions in the padded image
        rows_BH, columns_BW = rows_BH + shift_2B1[0], columns_BW + shift_2B1[1]
        images_BCHW = torch.nn.functional.pad(images_BCHW, (padding,) * 4)
    image_B111 = torch.arange(batch, device=device).view(-1, 1, 1, 1)
    channel_1C11 = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return images_BCHW[
        image_B111, channel_1C11, rows_BH[:, None, :, None], columns_BW[:, None, None, :]
    ]


def cutout(images_BCHW: Tensor, generator: torch.Generator, *, size: int) -> Tensor:
    """Each image with one square of zeros; its centre is uniform, so it may lie partly outside.

    Shapes: [B, C, H, W] of any dtype -> the same.

    Args:
        images_BCHW: normalised images, so that zero is the mean of the data set.
        generator: on the device of the images.
        size: side of the square in pixels.

    Source: T. DeVries, G. Taylor, Improved Regularization of Convolutional Neural Networks with
    Cutout, 2017.
    """
    batch, _, height, width = images_BCHW.shape
    device = images_BCHW.device
    places_2B = torch.rand((2, batch), generator=generator, device=device)
    inside = []
    for place_B, length in zip(places_2B, (height, width), strict=True):
        low_B1 = (place_B * length).long()[:, None] - size // 2
        position_L = torch.arange(length, device=device)
        inside.append((position_L >= low_B1) & (position_L < low_B1 + size))
    hole_BHW = inside[0][:, :, None] & inside[1][:, None, :]
    return images_BCHW.masked_fill(hole_BHW[:, None], 0)


@dataclass(frozen=True)
class Augment:
    """Pad-crop and flip, then a policy, then cutout; a `BatchTransform` of `darts_core.data`.

    `DataBundle.batches` calls `on_pixels` before normalising and `on_normalized` after it; calling
    the object applies both to one tensor. All random numbers come from the generator, which lies on
    the device of the images.

    Args:
        crop_padding: largest shift in pixels; 0 is off.
        flip: mirror left-right with probability 1/2.
        cutout: side of the zero square in pixels; 0 is off.
        policy: another transform `(uint8 images, generator) -> uint8 images`, such as a
            `PolicyTransform`; or the name of a preset or a policy file; None is off.

    Raises:
        ConfigError: a number is out of range, or there is no such policy.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    policy: Transform | str | None = None

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not 0 <= value <= 1024:
                raise ConfigError(
                    f"{name}={value} is not allowed; choose 0 (off) to 1024 whole pixels."
                )
        if isinstance(self.policy, str):
            from darts_core.augment.execute import load_policy

            object.__setattr__(self, "policy", load_policy(self.policy))

    @classmethod
    def of(
        cls,
        image_shape: Sequence[int],
        *,
        crop_padding: int | None = None,
        flip: bool | None = None,
        cutout: int = 0,
        policy: Transform | str | None = None,
    ) -> Augment | None:
        """The transform for images of one shape, None when it would do nothing.

        Args:
            image_shape: (C, H, W).
            crop_padding: None: 4 for colour images of 32x32 pixels, as everyone does on CIFAR
                (arXiv:1512.03385, section 4.2), else 0.
            flip: None: true for these, else false: a mirrored digit is another sign.
            cutout: see `Augment`.
            policy: see `Augment`.
        """
        usual = tuple(image_shape) == (3, 32, 32)
        padding = (4 if usual else 0) if crop_padding is None else crop_padding
        mirror = usual if flip is None else flip
        if not (padding or mirror or cutout or policy):
            return None
        return cls(crop_padding=padding, flip=mirror, cutout=cutout, policy=policy)

    @property
    def capturable(self) -> bool:
        """Whether nothing is decided on the host; a policy groups its images there."""
        return self.policy is None

    def on_pixels(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Crop, flip and policy on uint8 images [B, C, H, W]."""
        if self.crop_padding or self.flip:
            images_BCHW = crop_and_flip(
                images_BCHW, generator, padding=self.crop_padding, flip=self.flip
            )
        if callable(self.policy):
            images_BCHW = self.policy(images_BCHW, generator)
        return images_BCHW

    def on_normalized(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Cutout on normalised images [B, C, H, W], where zero is the mean."""
        return cutout(images_BCHW, generator, size=self.cutout) if self.cutout else images_BCHW

    def __call__(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Everything, on uint8 or float images [B, C, H, W] (a policy needs uint8)."""
        return self.on_normalized(self.on_pixels(images_BCHW, generator), generator)
