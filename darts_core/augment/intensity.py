"""Operations on pixel values through kornia; all but `color` work on grey images too.

Shapes: B batch, C channels, H W height and width; images are float in 0..1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from darts_core.augment.operations import register_augmentation

__all__ = [
    "auto_contrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "identity",
    "invert",
    "posterize",
    "sharpness",
    "solarize",
]


@register_augmentation("identity", description="the image as it is")
def identity(images_BCHW: Tensor, value_B: Tensor) -> Tensor:
    """The images unchanged."""
    return images_BCHW


@register_augmentation("auto_contrast", description="darkest pixel to 0, lightest to 1, a channel")
def auto_contrast(images_BCHW: Tensor, value_B: Tensor) -> Tensor:
    """Each channel of each image stretched to 0..1; a channel of one value stays as it is."""
    from kornia import enhance

    flat = images_BCHW.amax((2, 3), keepdim=True) == images_BCHW.amin((2, 3), keepdim=True)
    return torch.where(flat, images_BCHW, enhance.normalize_min_max(images_BCHW))


@register_augmentation("equalize", description="flat histogram, a channel", differentiable=False)
def equalize(images_BCHW: Tensor, value_B: Tensor) -> Tensor:
    """Each channel of each image with its 256-level histogram flattened."""
    from kornia import enhance

    return enhance.equalize(images_BCHW)


@register_augmentation("invert", description="the negative")
def invert(images_BCHW: Tensor, value_B: Tensor) -> Tensor:
    """One minus the images."""
    return 1.0 - images_BCHW


@register_augmentation(
    "posterize",
    description="fewer grey levels: 8 bits down to 4",
    low=8.0,
    high=4.0,
    differentiable=False,
)
def posterize(images_BCHW: Tensor, bits_B: Tensor) -> Tensor:
    """Only the highest `bits` (rounded) of each 8-bit value kept."""
    from kornia import enhance

    # of more bits than there are kornia makes black images
    return enhance.posterize(images_BCHW, bits_B.round().clamp(0, 8).to(torch.int32))


@register_augmentation(
    "solarize",
    description="pixels above a threshold inverted",
    low=1.0,
    high=0.0,
    differentiable=False,
)
def solarize(images_BCHW: Tensor, threshold_B: Tensor) -> Tensor:
    """Pixels at or above the threshold inverted."""
    threshold_B111 = threshold_B.view(-1, 1, 1, 1)
    # at 1 nothing is inverted, not even white
    above = (images_BCHW >= threshold_B111) & (threshold_B111 < 1.0)
    return torch.where(above, 1.0 - images_BCHW, images_BCHW)


@register_augmentation(
    "brightness", description="blend with black, factor 0.1 to 1.9", low=0.1, high=1.9
)
def brightness(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """The images times the factor, clipped to 0..1."""
    from kornia import enhance

    return enhance.adjust_brightness_accumulative(images_BCHW, factor_B)


@register_augmentation(
    "contrast", description="blend with the mean grey, factor 0.1 to 1.9", low=0.1, high=1.9
)
def contrast(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """The distance of each pixel from the image's mean grey times the factor, clipped."""
    from kornia import enhance

    return enhance.adjust_contrast_with_mean_subtraction(images_BCHW, factor_B)


@register_augmentation(
    "color",
    description="blend with the grey image, factor 0.1 to 1.9",
    low=0.1,
    high=1.9,
    colour=True,
)
def color(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """The distance of each pixel from its own grey times the factor, clipped.

    Grey is the luminance of three channels, the mean of another number of them.
    """
    from kornia import enhance

    if images_BCHW.shape[1] != 3:
        grey_B1HW = images_BCHW.mean(1, keepdim=True)
        factor_B111 = factor_B.view(-1, 1, 1, 1)
        return (grey_B1HW + (images_BCHW - grey_B1HW) * factor_B111).clamp(0.0, 1.0)
    return enhance.adjust_saturation_with_gray_subtraction(images_BCHW, factor_B)


@register_augmentation(
    "sharpness", description="blend with a blurred image, factor 0.1 to 1.9", low=0.1, high=1.9
)
def sharpness(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """The distance of each pixel from the blurred image times the factor, clipped."""
    from kornia import enhance

    return enhance.sharpness(images_BCHW, factor_B)
