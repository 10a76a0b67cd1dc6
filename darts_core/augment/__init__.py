"""Augmentation on the device: pad-crop, flip, cutout, and policies as data."""

from darts_core.augment.basic import Augment, crop_and_flip, cutout

__all__ = ["Augment", "crop_and_flip", "cutout"]
