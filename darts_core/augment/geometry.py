"""Geometric operations through kornia; what comes in from outside is mid-grey, as in AutoAugment.

Shapes: B batch, C channels, H W height and width; images are float in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from darts_core.augment.operations import register_augmentation

__all__ = ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]

_FILL = 0.5


def _on_grey(images_BCHW: Tensor, warp: Callable[[Tensor], Tensor]) -> Tensor:
    # kornia fills with zeros
    return warp(images_BCHW - _FILL) + _FILL


@register_augmentation(
    "rotate", description="rotation by up to 30 degrees", low=0.0, high=30.0, signed=True
)
def rotate(images_BCHW: Tensor, degrees_B: Tensor) -> Tensor:
    """Images turned counter-clockwise about their centre."""
    from kornia.geometry import transform

    return _on_grey(images_BCHW, lambda x: transform.rotate(x, degrees_B))


def _shear(images_BCHW: Tensor, x_B: Tensor, y_B: Tensor) -> Tensor:
    from kornia.geometry import transform

    amounts_B2 = torch.stack([x_B, y_B], dim=1)
    return _on_grey(images_BCHW, lambda x: transform.shear(x, amounts_B2))


@register_augmentation(
    "shear_x", description="horizontal shear by up to 0.3", low=0.0, high=0.3, signed=True
)
def shear_x(images_BCHW: Tensor, amount_B: Tensor) -> Tensor:
    """Each row moved sideways by `amount` times its distance from the top."""
    return _shear(images_BCHW, amount_B, torch.zeros_like(amount_B))


@register_augmentation(
    "shear_y", description="vertical shear by up to 0.3", low=0.0, high=0.3, signed=True
)
def shear_y(images_BCHW: Tensor, amount_B: Tensor) -> Tensor:
    """Columns moved up or down by `amount` times their distance from the left."""
    return _shear(images_BCHW, torch.zeros_like(amount_B), amount_B)


def _translate(images_BCHW: Tensor, x_B: Tensor, y_B: Tensor) -> Tensor:
    from kornia.geometry import transform

    height, width = images_BCHW.shape[-2:]
    pixels_B2 = torch.stack([x_B * width, y_B * height], dim=1)
    return _on_grey(images_BCHW, lambda x: transform.translate(x, pixels_B2))


@register_augmentation(
    "translate_x",
    description="horizontal shift by up to 150/331 of the width",
    low=0.0,
    high=150 / 331,
    signed=True,
)
def translate_x(images_BCHW: Tensor, share_B: Tensor) -> Tensor:
    """Images moved right by a share of their width."""
    return _translate(images_BCHW, share_B, torch.zeros_like(share_B))


@register_augmentation(
    "translate_y",
    description="vertical shift by up to 150/331 of the height",
    low=0.0,
    high=150 / 331,
    signed=True,
)
def translate_y(images_BCHW: Tensor, share_B: Tensor) -> Tensor:
    """Images moved down by a share of their height."""
    return _translate(images_BCHW, torch.zeros_like(share_B), share_B)
