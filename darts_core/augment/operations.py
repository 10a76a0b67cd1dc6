"""The table of augmentation operations: a name, a range of values, a function on a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from darts_core.registry import Registry

__all__ = [
    "AUGMENTATIONS",
    "BYTES_ALONE",
    "MAX_MAGNITUDE",
    "AugmentationOp",
    "register_augmentation",
]

# magnitudes run from 0 to this, as in the published policies
MAX_MAGNITUDE = 10.0
# why other images are refused
BYTES_ALONE = (
    "An augmentation policy is for images of bytes (uint8, 0..255); these hold other numbers, which it would "
    "round and clip."
)

Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AugmentationOp:
    """One operation.

    `function(images_BCHW, value_B)` takes float images in 0..1 and one value an image, and returns
    images of the same shape. A magnitude m stands for the value low + (high - low) * m / 10;
    `signed` puts it on either side of low at random (for low = 0: a random sign). `colour` marks an
    operation that has no meaning on one channel; `differentiable` is False where a gradient search
    must pass gradients straight through, to the images and to the magnitude.
    """

    name: str
    function: Function
    low: float
    high: float
    signed: bool
    colour: bool
    differentiable: bool = True


AUGMENTATIONS: Registry[AugmentationOp] = Registry("augmentation operation")


def register_augmentation(
    name: str,
    *,
    description: str,
    low: float = 0.0,
    high: float = 0.0,
    signed: bool = False,
    colour: bool = False,
    differentiable: bool = True,
) -> Callable[[Function], Function]:
    """A decorator that makes a function usable in policies; see `AugmentationOp`.

    A file with such a function, imported through `plugins=[...]`, is all that a new operation
    needs. The function must be batched: its values differ from image to image. One without a range
    (low = high) ignores its value.
    """

    def store(function: Function) -> Function:
        operation = AugmentationOp(name, function, low, high, signed, colour, differentiable)
        AUGMENTATIONS.register(name, description=description)(operation)
        return function

    return store
