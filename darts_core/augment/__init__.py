"""Augmentation on the device: pad-crop, flip, cutout, and policies as data."""

from darts_core.augment.basic import Augment, crop_and_flip, cutout
from darts_core.augment.execute import PolicyTransform, load_policy, make_policy
from darts_core.augment.operations import AUGMENTATIONS, register_augmentation
from darts_core.augment.policy import (
    Operation,
    Policy,
    policy_from_dict,
    policy_from_yaml,
    policy_to_yaml,
)

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "Operation",
    "Policy",
    "PolicyTransform",
    "crop_and_flip",
    "cutout",
    "load_policy",
    "make_policy",
    "policy_from_dict",
    "policy_from_yaml",
    "policy_to_yaml",
    "register_augmentation",
]
