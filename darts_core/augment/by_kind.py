"""Which augmentation settings go with which kind of inputs, and the transform that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from darts_core.augment.basic import Augment
from darts_core.augment.operations import BYTES_ALONE
from darts_core.augment.series import SeriesAugment
from darts_core.errors import ConfigError

__all__ = ["AugmentSettings", "augment_for"]

_OF_IMAGES: Mapping[str, Any] = {"crop_padding": None, "flip": None, "cutout": 0}
_OF_SERIES: Mapping[str, Any] = {"time_shift": 0, "scaling": 0.0, "jitter": 0.0}
_KINDS = {1: "token rows", 2: "series", 3: "images"}


class AugmentSettings(Protocol):
    """The settings of `train` and of `search` that say how inputs are augmented."""

    @property
    def crop_padding(self) -> int | None: ...  # noqa: D102
    @property
    def flip(self) -> bool | None: ...  # noqa: D102
    @property
    def cutout(self) -> int: ...  # noqa: D102
    @property
    def time_shift(self) -> int: ...  # noqa: D102
    @property
    def scaling(self) -> float: ...  # noqa: D102
    @property
    def jitter(self) -> float: ...  # noqa: D102


def augment_for(
    shape: Sequence[int],
    settings: AugmentSettings,
    policy: Any = None,
    *,
    node: str = "train",
    unit: int = 255,
    mirrors: bool = True,
) -> Augment | SeriesAugment | None:
    """The transform of inputs of `shape`: those of images (a policy too) or of series; of tokens None.

    Args:
        shape: (C, H, W), (C, T) or (T,).
        settings: of `train` or `search`.
        policy: see `Augment`; images of bytes alone have one.
        node: what the settings are called before the dot, for messages.
        unit: what stored values are divided by: 255 of bytes, else 1.
        mirrors: whether images may be mirrored where `flip` is left open; see `Task.mirrors`.

    Raises:
        ConfigError: a setting is given that is for another kind of inputs.
    """
    both: Mapping[str, Any] = {**_OF_IMAGES, **_OF_SERIES}
    foreign = {3: _OF_SERIES, 2: _OF_IMAGES, 1: both}[len(shape)]
    for name, usual in foreign.items():
        value = getattr(settings, name)
        if value != usual and value:
            raise ConfigError(
                f"{node}.{name}={value} is not for {_KINDS[len(shape)]} of shape {tuple(shape)}; "
                "leave it out."
            )
    if len(shape) != 3 and policy is not None:
        raise ConfigError(f"An augmentation policy is for images, not for {_KINDS[len(shape)]}.")
    if policy is not None and unit != 255:
        raise ConfigError(f"{BYTES_ALONE} Leave augment= out (augment=none).")
    if len(shape) == 3:
        return Augment.of(
            shape,
            crop_padding=settings.crop_padding,
            flip=False if settings.flip is None and not mirrors else settings.flip,
            cutout=settings.cutout,
            policy=policy,
        )
    if len(shape) == 2:
        return SeriesAugment.of(
            shape,
            time_shift=settings.time_shift,
            scaling=settings.scaling,
            jitter=settings.jitter,
        )
    return None
